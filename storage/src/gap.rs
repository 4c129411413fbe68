//! Holes in a log: prepares that are missing between others, and are put back where they belong.
//!
//! ```text
//!   op        4      5      6      7      8
//!           sound  ------ rotten ------  sound, and its parent is op 7 with that checksum
//!             '-- after      last --'
//! ```
//! What stands behind a hole names its last prepare by checksum, that one its parent, and so on to the one before the hole:
//! whoever fetches from the newest to the oldest knows each by name before it asks. What was fetched is put back from the
//! oldest on, so that every piece continues the log. It is synced and read again before it counts.
//!
//! A hole ends where the next sound prepare begins, and what is missing fills it to the byte; or, if the rest of the file or
//! the next files are gone, at the end of the file, which becomes as long as it takes.

use std::collections::{BTreeMap, VecDeque};

use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::log::Log;
use crate::reader::{Chain, Cursor};
use crate::segment::Segment;
use crate::torn::Torn;

/// What is missing, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The prepare before the first missing one.
    pub after: PrepareId,
    /// The last missing one.
    pub last: PrepareId,
    /// The end of the log: how much is committed follows from it.
    pub head: PrepareId,
}

/// A hole and its place on the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    /// The end of what is sound before it.
    pub(crate) chain: Chain,
    pub(crate) last: PrepareId,
    /// The segment it is in, counted from the oldest.
    pub(crate) segment: usize,
    /// Where the first missing prepare begins.
    pub(crate) position: u64,
    /// Where the last one ends; none: at the end of the file.
    pub(crate) end: Option<u64>,
}

impl<F: DiskFile> Log<F> {
    /// The first hole.
    pub(crate) fn hole(&self) -> Option<Hole> {
        let head = self.chain.head;
        self.gaps.front().map(|gap| Hole { after: gap.chain.head, last: gap.last, head })
    }

    /// Puts prepares back, the first ones that are missing, durably; gives back those for which there is no room.
    ///
    /// # Errors
    /// `Damaged` if they are not what is missing here.
    pub(crate) fn mend<'a, D: Disk<File = F>>(
        &mut self,
        disk: &D,
        prepares: &'a [Prepare],
    ) -> Result<&'a [Prepare], StorageError> {
        let mut written: BTreeMap<usize, Vec<(u64, PrepareHeader)>> = BTreeMap::new();
        let mut rest = prepares;
        while let Some((prepare, later)) = rest.split_first() {
            let (segment, position) = match self.put_back(disk, prepare) {
                Err(error) if error.is_disk_full() => break,
                placed => placed?,
            };
            written.entry(segment).or_default().push((position, *prepare.header()));
            rest = later;
        }
        for (segment, places) in written {
            self.verify(disk, segment, &places)?;
        }
        Ok(rest)
    }

    fn segment(&mut self, index: usize) -> &mut Segment {
        match self.sealed.get_mut(index) {
            Some(segment) => segment,
            None => &mut self.active,
        }
    }

    /// Writes the next missing prepare; returns the segment and the position.
    fn put_back<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        prepare: &Prepare,
    ) -> Result<(usize, u64), StorageError> {
        let header = prepare.header();
        let Some(gap) = self.gaps.front().copied() else {
            return Err(self.active.damaged(self.active.end, header.op()));
        };
        let size = self.segment(gap.segment).seal.stored_size(header) as u64;
        let end = gap.position + size;
        let is_last = header.op() == gap.last.op;
        let fits = match gap.end {
            Some(limit) if is_last => end == limit,
            Some(limit) => end < limit,
            None => true,
        };
        let is_named = !is_last || prepare.id() == gap.last;
        let segment = self.segment(gap.segment);
        if !(gap.chain.accepts(header) && fits && is_named) {
            return Err(segment.damaged(gap.position, gap.chain.head.op.next()));
        }
        let path = &segment.path;
        let file = disk.open(path, OpenMode::Existing).or_failed_to("open", path)?;
        file.write_at(&segment.seal.store(prepare), gap.position).or_failed_to("write to", path)?;
        if is_last && gap.end.is_none() {
            file.set_size(end).or_failed_to("cut", path)?;
        }
        segment.index.insert(header, gap.position);
        segment.newest = segment.newest.max(header.timestamp());
        segment.end = segment.end.max(end);
        if is_last {
            self.gaps.pop_front();
        } else if let Some(gap) = self.gaps.front_mut() {
            gap.chain.push(header);
            gap.position = end;
        }
        Ok((gap.segment, gap.position))
    }

    /// Syncs what was written, and reads it again.
    fn verify<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        segment: usize,
        places: &[(u64, PrepareHeader)],
    ) -> Result<(), StorageError> {
        let segment = self.segment(segment);
        let path = &segment.path;
        let file = disk.open(path, OpenMode::Existing).or_failed_to("open", path)?;
        file.sync().or_failed_to("sync", path)?;
        for (position, header) in places {
            let size = segment.seal.stored_size(header);
            let mut cursor = Cursor::new(&file, &segment.seal, *position, position + size as u64, size);
            let read = cursor.prepare(header).or_failed_to("read", path)?;
            if read.is_none_or(|read| read.id() != header.id()) {
                return Err(segment.damaged(*position, header.op()));
            }
        }
        Ok(())
    }

    /// Gives up the first hole, and all that is behind it.
    pub(crate) fn give_up_holes(self) -> Option<Torn> {
        let gap = *self.gaps.front()?;
        let mut segments = self.sealed;
        segments.push(self.active);
        let later = segments.split_off(gap.segment + 1).into_iter().map(|segment| segment.path).collect();
        let last = segments.last_mut().expect("a hole is in some segment");
        last.end = gap.position;
        last.index.truncate(gap.position);
        Some(Torn {
            owner: self.owner,
            base: self.base,
            chain: gap.chain,
            segments,
            gaps: VecDeque::new(),
            later,
        })
    }
}
