//! The superblocks of all groups of a node: two copies of one append-only file, `superblocks-a` and `superblocks-b`.
//!
//! A save appends its entries to copy a and syncs it, then to copy b and syncs that, and is done then: one pair of syncs
//! for all groups of a round. The newest entry of a group is its superblock. When entries are many and mostly old, both
//! copies are rewritten, one after the other, under a new generation number.
//! The entries are described in `entry`; how two copies are read as one, in `merge`.
//!
//! Error: after a failed write or sync nothing is saved any more until the store is opened again; unless it was only that the
//! disk is full, which leaves both copies as they were, or one of them rewritten, and then both are rewritten when there is room.

mod entry;
mod merge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::GroupId;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::superblock::Superblock;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{IoContext, StorageError};
use crate::file;
use crate::identity::Identity;
use entry::{Content, ENTRY_SIZE, Entry};

/// The names of the two copies, in the order in which they are written.
pub(crate) const COPY_NAMES: [&str; 2] = ["superblocks-a", "superblocks-b"];

/// A file is rewritten when it has at least this many entries (1 MiB), and ...
const ENTRIES_REWRITTEN_MIN: u64 = (1 << 20) / ENTRY_SIZE as u64;
/// ... at least this many times those that are needed.
const ENTRIES_PER_LIVE_MAX: u64 = 4;

/// What is kept of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) superblock: Superblock,
    /// Whether the group's log has files: one that nobody ever appended to has none, and whoever loses them is told so.
    pub(crate) has_log: bool,
}

/// A change of the set of superblocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Save(Kept),
    Delete(GroupId),
}

/// All superblocks of a node.
pub(crate) struct Superblocks<F> {
    identity: Identity,
    files: [F; 2],
    generation: u64,
    /// Entries in each file.
    entries: u64,
    live: BTreeMap<GroupId, Kept>,
    /// One copy may have been rewritten and the other not.
    is_half_rewritten: bool,
    failure: Option<StorageError>,
}

impl<F: DiskFile> Superblocks<F> {
    /// Makes both copies, without groups, durably.
    pub(crate) fn format<D: Disk<File = F>>(disk: &D, identity: Identity) -> Result<(), StorageError> {
        rewrite(disk, identity, 1, &BTreeMap::new())?;
        Ok(())
    }

    /// Reads both copies, and makes durable or rewrites what an earlier process left.
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, identity: Identity) -> Result<Self, StorageError> {
        let paths = COPY_NAMES.map(PathBuf::from);
        let bytes = [read_copy(disk, &paths[0])?, read_copy(disk, &paths[1])?];
        let merged = merge::merge(bytes.each_ref().map(|bytes| &bytes[..]), identity)?;
        let live = live_of(&merged.entries);
        if !merged.are_equal {
            Mark::SuperblocksDiffered.hit();
            tracing::warn!(entries = merged.entries.len(), "superblock copies differ; rewriting both");
            return Self::rewritten(disk, identity, merged.generation + 1, live);
        }
        let files = [open_existing(disk, &paths[0])?, open_existing(disk, &paths[1])?];
        for (file, path) in files.iter().zip(&paths) {
            file.sync().or_failed_to("sync", path)?;
        }
        let entries = merged.entries.len() as u64;
        let generation = merged.generation;
        Ok(Self { identity, files, generation, entries, live, is_half_rewritten: false, failure: None })
    }

    fn rewritten<D: Disk<File = F>>(
        disk: &D,
        identity: Identity,
        generation: u64,
        live: BTreeMap<GroupId, Kept>,
    ) -> Result<Self, StorageError> {
        let files = rewrite(disk, identity, generation, &live)?;
        let entries = live.len() as u64 + 1;
        Ok(Self { identity, files, generation, entries, live, is_half_rewritten: false, failure: None })
    }

    /// What is kept of all groups, in the order of their ids.
    pub(crate) fn live(&self) -> &BTreeMap<GroupId, Kept> {
        &self.live
    }

    /// Makes changes durable, all with the same two syncs; none of them if the disk is full.
    pub(crate) fn save<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        changes: &[Change],
    ) -> Result<(), StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.try_save(disk, changes);
        self.failure = result.as_ref().err().filter(|error| !error.is_disk_full()).cloned();
        result
    }

    fn try_save<D: Disk<File = F>>(&mut self, disk: &D, changes: &[Change]) -> Result<(), StorageError> {
        let needed = self.live.len() as u64 + 1;
        let is_mostly_old =
            self.entries >= ENTRIES_REWRITTEN_MIN && self.entries > ENTRIES_PER_LIVE_MAX * needed;
        if is_mostly_old || self.is_half_rewritten {
            self.generation += 1;
            self.is_half_rewritten = true;
            *self = Self::rewritten(disk, self.identity, self.generation, self.live.clone())?;
        }
        let contents = changes.iter().map(|change| Content::Change(*change));
        let bytes = encode_round(self.generation, self.entries, contents);
        for (file, name) in self.files.iter().zip(COPY_NAMES) {
            let path = Path::new(name);
            let position = self.entries * ENTRY_SIZE as u64;
            let written =
                file.write_at(std::slice::from_ref(&bytes), position).or_failed_to("append to", path);
            if written.as_ref().is_err_and(StorageError::is_disk_full) {
                self.undo(position)?;
            }
            written?;
            if !Mutant::SuperblockNotSynced.is_on() {
                file.sync().or_failed_to("sync", path)?;
            }
        }
        self.entries += changes.len() as u64;
        for change in changes {
            apply(&mut self.live, *change);
        }
        Ok(())
    }

    /// Looks whether both copies say on the disk what is kept. Should one not, or both, they are written anew: what is kept is known.
    /// Says whether they did; where there is no room now, the next save does that.
    pub(crate) fn look<D: Disk<File = F>>(&mut self, disk: &D) -> Result<bool, StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.is_half_rewritten || self.are_sound(disk) {
            return Ok(true);
        }
        Mark::SuperblocksMended.hit();
        tracing::warn!("the superblocks had rotted on the disk; writing both copies anew");
        self.generation += 1;
        self.is_half_rewritten = true;
        match Self::rewritten(disk, self.identity, self.generation, self.live.clone()) {
            Ok(anew) => *self = anew,
            Err(error) if error.is_disk_full() => {}
            Err(error) => {
                self.failure = Some(error.clone());
                return Err(error);
            }
        }
        Ok(false)
    }

    fn are_sound<D: Disk<File = F>>(&self, disk: &D) -> bool {
        for file in &self.files {
            file.drop_cached(0, self.entries * ENTRY_SIZE as u64);
        }
        let [a, b] = COPY_NAMES.map(|name| read_copy(disk, Path::new(name)));
        let (Ok(a), Ok(b)) = (a, b) else { return false };
        let merged = merge::merge([&a, &b], self.identity);
        merged.is_ok_and(|merged| merged.are_equal && live_of(&merged.entries) == self.live)
    }

    /// Takes back what was written of entries for which there is no room: nothing of them may be taken for newer than the
    /// entries that will be there instead. Copy b first: what copy a does not have, it must not have in pieces, or it is taken for
    /// rot that no copy can mend.
    fn undo(&self, position: u64) -> Result<(), StorageError> {
        for (file, name) in self.files.iter().zip(COPY_NAMES).rev() {
            let path = Path::new(name);
            let size = file.size().or_failed_to("read the size of", path)?;
            if size > position {
                file.set_size(position).or_failed_to("cut", path)?;
                file.sync().or_failed_to("sync", path)?;
            }
        }
        Ok(())
    }
}

/// What is kept according to all entries.
fn live_of(entries: &[Entry]) -> BTreeMap<GroupId, Kept> {
    let mut live = BTreeMap::new();
    for entry in entries {
        match entry.content {
            Content::Start(_) => {}
            Content::Change(change) => apply(&mut live, change),
        }
    }
    live
}

fn apply(live: &mut BTreeMap<GroupId, Kept>, change: Change) {
    match change {
        Change::Save(kept) => live.insert(kept.superblock.group, kept),
        Change::Delete(group) => live.remove(&group),
    };
}

fn encode_round(generation: u64, first: u64, contents: impl Iterator<Item = Content>) -> Bytes {
    let mut bytes = Vec::new();
    for (place, content) in (0_u32..).zip(contents) {
        let sequence = first + u64::from(place);
        bytes.extend_from_slice(&Entry { generation, sequence, place_in_round: place, content }.encode());
    }
    Bytes::from(bytes)
}

/// Writes both copies anew, copy a first; returns them open.
fn rewrite<D: Disk>(
    disk: &D,
    identity: Identity,
    generation: u64,
    live: &BTreeMap<GroupId, Kept>,
) -> Result<[D::File; 2], StorageError> {
    let saves = live.values().map(|kept| Content::Change(Change::Save(*kept)));
    let bytes = encode_round(generation, 0, std::iter::once(Content::Start(identity)).chain(saves));
    let [a, b] = COPY_NAMES.map(Path::new);
    Ok([file::create_whole(disk, a, bytes.clone())?, file::create_whole(disk, b, bytes)?])
}

/// The bytes of a copy; none if it is gone.
fn read_copy<D: Disk>(disk: &D, path: &Path) -> Result<Vec<u8>, StorageError> {
    let file = match disk.open(path, OpenMode::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("open", path, error)),
    };
    let size = file.size().or_failed_to("read the size of", path)?;
    let mut bytes = vec![0; usize::try_from(size).expect("a file of superblocks fits the memory")];
    let read = file.read_at(&mut bytes, 0).or_failed_to("read", path)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn open_existing<D: Disk>(disk: &D, path: &Path) -> Result<D::File, StorageError> {
    disk.open(path, OpenMode::Existing).or_failed_to("open", path)
}
