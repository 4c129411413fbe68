//! A log that has lost its end, or is given up, and is cut to what is left of it.
//!
//! The superblock of the group says so before, durably: behind the cut nothing of it can be seen any more. Then the files
//! behind the end are removed, the newest one first, and the last one that stays is made the one that is appended to: its slot
//! says that nothing from the end on is durable, and it is cut there. A crash in between leaves the end lost as before.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::base::is_of_log;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::gap::{Gap, Hole};
use crate::identity::Owner;
use crate::log::{GROUPS_DIR, Log, group_dir};
use crate::reader::Chain;
use crate::recovery::write_block;
use crate::segment::{RoundSlot, Segment, parse_file_name};
use crate::writer::Writer;

/// What is left of a log without its end.
pub(crate) struct Torn {
    pub(crate) owner: Owner,
    /// What the log builds on.
    pub(crate) base: Chain,
    /// The last sound prepare.
    pub(crate) chain: Chain,
    /// The last one is appended to again.
    pub(crate) segments: Vec<Segment>,
    pub(crate) gaps: VecDeque<Gap>,
    /// Files that hold nothing of what is left, oldest first.
    pub(crate) later: Vec<PathBuf>,
}

impl Torn {
    /// The first hole in what is left.
    pub(crate) fn hole(&self) -> Option<Hole> {
        let head = self.chain.head;
        self.gaps.front().map(|gap| Hole { after: gap.chain.head, last: gap.last, head })
    }

    /// Makes a log of it, durably.
    pub(crate) fn cut<D: Disk>(mut self, disk: &D) -> Result<Log<D::File>, StorageError> {
        let group = self.chain.group;
        let dir = group_dir(group);
        tracing::warn!(%group, head = %self.chain.head, "the end of the log is lost; it is cut to what is left");
        for path in self.later.iter().rev() {
            disk.remove(path).or_failed_to("remove", path)?;
            disk.sync_dir(&dir).or_failed_to("sync directory", &dir)?;
        }
        let Some(active) = self.segments.pop() else {
            let log = Log::create(disk, &self.owner, self.chain)?;
            let groups_dir = Path::new(GROUPS_DIR);
            disk.sync_dir(groups_dir).or_failed_to("sync directory", groups_dir)?;
            return Ok(log);
        };
        let file = disk.open(&active.path, OpenMode::Existing).or_failed_to("open", &active.path)?;
        let slot =
            RoundSlot { round: 0, op: self.chain.head.op.next(), position: active.end, is_sealed: false };
        write_block(&file, &active, slot)?;
        file.set_size(active.end).or_failed_to("cut", &active.path)?;
        file.sync().or_failed_to("sync", &active.path)?;
        let writer = Writer::open(disk, &active)?;
        let Self { owner, base, chain, segments: sealed, gaps, .. } = self;
        let (recent, fresh) = Default::default();
        Ok(Log { owner, base, chain, sealed, active, writer, recent, fresh, gaps })
    }
}

impl<F: DiskFile> Log<F> {
    /// Gives up all of it: nothing is left. What it builds on goes last, so that a crash in between leaves an end that is lost.
    pub(crate) fn give_up<D: Disk<File = F>>(self, disk: &D) -> Result<Torn, StorageError> {
        let Chain { cluster, group, .. } = self.chain;
        let dir = group_dir(group);
        let mut names = disk.list(&dir).or_failed_to("list", &dir)?;
        names.retain(|name| is_of_log(name));
        // The order of segments, behind all else.
        names.sort_by_key(|name| parse_file_name(name).map(|(_, first_op)| first_op));
        let chain = Chain::root(cluster, group);
        let later = names.iter().map(|name| dir.join(name)).collect();
        let (segments, gaps) = Default::default();
        Ok(Torn { owner: self.owner, base: chain, chain, segments, gaps, later })
    }
}
