//! What a log builds on that does not begin with op 1: a snapshot beside the segments, in a file of its own, whole or not there.
//!
//! | name                     | what it is                                                                       |
//! |--------------------------|----------------------------------------------------------------------------------|
//! | `<op, 20 digits>.snapshot` | the log begins behind that op; the newest one counts                           |
//! | `<op, 20 digits>.transfer` | the same, from another replica; it takes the place of all that is there        |
//!
//! **Letting go** (rule: the replacement first): the snapshot is made and synced, then the segments before it go, then the
//! snapshot before it. A crash in between leaves files that lie before the newest snapshot; they go when the log is opened.
//!
//! **Taking another replica's**: the transfer is made and synced; then everything else goes, the first segment is made, and the
//! transfer gets the name of a snapshot. As long as it has its own name, whoever opens the log does that again from the start.
//!
//! A snapshot that is rotten takes the log with it: what the prepares behind it meant cannot be told any more. The replica
//! fetches both from its peers, like one that has lost the end of its log.

use std::path::{Path, PathBuf};

use varve_protocol::id::{GroupId, Op};
use varve_protocol::limits::FRAME_BODY_BYTES_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::prepare::{Prepare, PrepareHeader};
use varve_protocol::snapshot::Snapshot;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::Owner;
use crate::index_file;
use crate::log::{Log, group_dir};
use crate::reader::Chain;
use crate::resume;
use crate::sealed_file;
use crate::segment::{Segment, parse_file_name};

const SNAPSHOT_SUFFIX: &str = ".snapshot";
const TRANSFER_SUFFIX: &str = ".transfer";

/// Makes a snapshot of prepares that are let go, one after the other.
pub trait Summary {
    /// Takes the next one: its header, and the whole of it unless its body is records.
    fn push(&mut self, header: &PrepareHeader, prepare: Option<&Prepare>);

    /// The state up to the last one; `None` if there was none.
    fn finish(&self) -> Option<Snapshot>;
}

/// Begins a summary with what the log builds on; `None` if that cannot be read.
pub type Summarize = fn(Option<&Snapshot>) -> Option<Box<dyn Summary>>;

/// What a log builds on.
pub(crate) enum Base {
    /// Nothing: it begins with op 1.
    Root,
    Snapshot(Snapshot),
    /// Nobody can tell any more.
    Lost,
}

pub(crate) fn snapshot_path(group: GroupId, op: Op) -> PathBuf {
    path(group, op, SNAPSHOT_SUFFIX)
}

fn path(group: GroupId, op: Op, suffix: &str) -> PathBuf {
    group_dir(group).join(format!("{:020}{suffix}", op.as_raw()))
}

fn ops_with(names: &[String], suffix: &str) -> Vec<Op> {
    let op = |name: &String| name.strip_suffix(suffix)?.parse().ok().map(Op::new);
    let mut ops: Vec<Op> = names.iter().filter_map(op).collect();
    ops.sort();
    ops
}

/// Finds what the log of a group builds on, and ends what a crash has interrupted.
pub(crate) fn open<D: Disk>(disk: &D, owner: &Owner, group: GroupId) -> Result<Base, StorageError> {
    let dir = group_dir(group);
    let names = file::list_whole(disk, &dir)?;
    for op in ops_with(&names, TRANSFER_SUFFIX).into_iter().rev() {
        let path = path(group, op, TRANSFER_SUFFIX);
        match read(disk, &path, owner, group)? {
            Some(snapshot) => {
                Mark::TransferEnded.hit();
                replace(disk, owner, group, &snapshot)?;
                return Ok(Base::Snapshot(snapshot));
            }
            None => disk.remove(&path).or_failed_to("remove", &path)?,
        }
    }
    let mut ops = ops_with(&names, SNAPSHOT_SUFFIX);
    let Some(newest) = ops.pop() else { return Ok(Base::Root) };
    let Some(snapshot) = read(disk, &snapshot_path(group, newest), owner, group)? else {
        tracing::error!(%group, op = %newest, "the snapshot that the log builds on is damaged; both are fetched anew");
        return Ok(Base::Lost);
    };
    remove_before(disk, group, newest)?;
    Ok(Base::Snapshot(snapshot))
}

/// Reads a snapshot; `None` if it is not sound, or not of this group.
pub(crate) fn read<D: Disk>(
    disk: &D,
    path: &Path,
    owner: &Owner,
    group: GroupId,
) -> Result<Option<Snapshot>, StorageError> {
    let file = disk.open(path, OpenMode::Existing).or_failed_to("open", path)?;
    let size = usize::try_from(file.size().or_failed_to("read the size of", path)?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(FRAME_BODY_BYTES_MAX + sealed_file::OVERHEAD)];
    let read = file.read_at(&mut bytes, 0).or_failed_to("read", path)?;
    bytes.truncate(read);
    let snapshot = Snapshot::decode(&sealed_file::open(owner, group, path, bytes)?);
    Ok(snapshot.filter(|snapshot| {
        let header = &snapshot.header;
        let is_named = path.file_stem().is_some_and(|stem| *stem == *format!("{:020}", header.op().as_raw()));
        header.cluster() == owner.identity.cluster && header.group() == group && is_named
    }))
}

/// Removes what lies before the newest snapshot.
fn remove_before<D: Disk>(disk: &D, group: GroupId, newest: Op) -> Result<(), StorageError> {
    let dir = group_dir(group);
    let names = disk.list(&dir).or_failed_to("list", &dir)?;
    let segments =
        names.iter().filter(|name| parse_file_name(name).is_some_and(|(_, first)| first <= newest));
    let mut old: Vec<PathBuf> = segments.map(|name| dir.join(name)).collect();
    index_file::remove(disk, old.iter());
    let older = ops_with(&names, SNAPSHOT_SUFFIX).into_iter().filter(|op| *op < newest);
    old.extend(older.map(|op| snapshot_path(group, op)));
    remove_all(disk, group, &old)
}

/// Puts a transferred snapshot in the place of everything that is there; returns the empty log behind it.
fn replace<D: Disk>(
    disk: &D,
    owner: &Owner,
    group: GroupId,
    snapshot: &Snapshot,
) -> Result<Log<D::File>, StorageError> {
    let dir = group_dir(group);
    let names = disk.list(&dir).or_failed_to("list", &dir)?;
    let old: Vec<PathBuf> = names.iter().filter(|name| is_of_log(name)).map(|name| dir.join(name)).collect();
    remove_all(disk, group, &old)?;
    let log = Log::create(disk, owner, Chain::behind(snapshot))?;
    let (from, to) = (path(group, snapshot.op(), TRANSFER_SUFFIX), snapshot_path(group, snapshot.op()));
    disk.rename(&from, &to).or_failed_to("rename to", &to)?;
    disk.sync_dir(&dir).or_failed_to("sync directory", &dir)?;
    Ok(log)
}

/// Whether a file of this name is a part of a log, or says something of one.
pub(crate) fn is_of_log(name: &str) -> bool {
    let is_derived = index_file::segment_name(name).is_some() || resume::is_name(name);
    parse_file_name(name).is_some() || name.ends_with(SNAPSHOT_SUFFIX) || is_derived
}

pub(crate) fn remove_all<D: Disk>(disk: &D, group: GroupId, paths: &[PathBuf]) -> Result<(), StorageError> {
    for path in paths {
        file::remove_if_there(disk, path)?;
    }
    if !paths.is_empty() {
        let dir = group_dir(group);
        disk.sync_dir(&dir).or_failed_to("sync directory", &dir)?;
    }
    Ok(())
}

impl<F: DiskFile> Log<F> {
    /// What this log builds on.
    ///
    /// # Errors
    /// `Damaged` if it cannot be read any more.
    pub(crate) fn snapshot<D: Disk<File = F>>(&self, disk: &D) -> Result<Option<Snapshot>, StorageError> {
        let (group, op) = (self.chain.group, self.base.head.op);
        if op == Op::ZERO {
            return Ok(None);
        }
        let path = snapshot_path(group, op);
        let snapshot = match read(disk, &path, &self.owner, group) {
            // It is gone, or the disk cannot read it.
            Err(error @ StorageError::Io { .. }) => {
                tracing::error!(%group, %error, "the snapshot that the log builds on cannot be read");
                None
            }
            read => read?,
        };
        let snapshot = snapshot.filter(|snapshot| snapshot.id() == self.base.head);
        snapshot.map(Some).ok_or(StorageError::Damaged { path, position: 0, op })
    }

    /// Lets go of the segments that lie wholly before `first`, and keeps a snapshot of what they meant. Says whether there
    /// were any.
    ///
    /// # Errors
    /// `Damaged` if they cannot be read: nothing is let go then.
    pub(crate) fn let_go<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        first: Op,
        summarize: Summarize,
    ) -> Result<bool, StorageError> {
        assert!(self.gaps.is_empty(), "a log with holes lets go of nothing");
        let next = self.sealed.iter().skip(1).chain([&self.active]);
        let lies_before = |(_, next): &(&Segment, &Segment)| next.header.first_op() <= first;
        let count = self.sealed.iter().zip(next).take_while(lies_before).count();
        if count == 0 {
            return Ok(false);
        }
        let group = self.chain.group;
        let snapshot = self.summarize(disk, count, summarize)?;
        self.write_base(disk, &snapshot)?;
        let dir = group_dir(group);
        // Nothing that was let go of is kept for long: what nothing was written over goes now, and of a log in which nothing is
        // written any more nothing is put by.
        while let Some(spare) = disk.take_spare(&dir) {
            file::remove_if_there(disk, &spare)?;
        }
        let is_in_use = self.chain.head.op > self.active.header.first_op();
        let key = self.owner.keys.newest();
        let mut gone: Vec<PathBuf> = Vec::new();
        for segment in self.sealed.drain(..count) {
            // What was not sealed, or with a key that may be taken away, is not kept at all.
            let is_kept = is_in_use && segment.header.key == key;
            let removed = if is_kept { disk.put_by(&segment.path) } else { disk.discard(&segment.path) };
            match removed {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.or_failed_to("remove", &segment.path)?,
            }
            gone.push(segment.path);
        }
        disk.sync_dir(&dir).or_failed_to("sync directory", &dir)?;
        index_file::remove(disk, gone.iter());
        if self.base.head.op > Op::ZERO {
            remove_all(disk, group, &[snapshot_path(group, self.base.head.op)])?;
        }
        Mark::SegmentsLetGo.hit();
        self.base = Chain::behind(&snapshot);
        resume::remove_before(disk, group, self.base.head.op.next())?;
        Ok(true)
    }

    /// Keeps a snapshot that the log builds on, or is to build on, durably.
    pub(crate) fn write_base<D: Disk<File = F>>(
        &self,
        disk: &D,
        base: &Snapshot,
    ) -> Result<(), StorageError> {
        let group = self.chain.group;
        let path = snapshot_path(group, base.op());
        file::create_whole(disk, &path, sealed_file::seal(&self.owner, group, &path, base.encode()))?;
        Ok(())
    }

    /// What the first `count` segments, and what they build on, have brought about.
    fn summarize<D: Disk<File = F>>(
        &self,
        disk: &D,
        count: usize,
        summarize: Summarize,
    ) -> Result<Snapshot, StorageError> {
        let before = self.snapshot(disk)?;
        let unreadable = || self.sealed[0].damaged(0, self.base.head.op.next());
        let mut summary = summarize(before.as_ref()).ok_or_else(unreadable)?;
        for segment in &self.sealed[..count] {
            self.walk(disk, segment, segment.start(), &mut *summary)?;
        }
        summary.finish().ok_or_else(unreadable)
    }

    /// Takes the place of another log, of which nothing is left.
    pub(crate) fn take<D: Disk<File = F>>(
        disk: &D,
        owner: &Owner,
        snapshot: &Snapshot,
    ) -> Result<Self, StorageError> {
        let group = snapshot.header.group();
        let path = path(group, snapshot.op(), TRANSFER_SUFFIX);
        file::create_whole(disk, &path, sealed_file::seal(owner, group, &path, snapshot.encode()))?;
        replace(disk, owner, group, snapshot)
    }
}
