//! How a round becomes durable.
//!
//! | what was written                        | how                                                             |
//! |-----------------------------------------|-----------------------------------------------------------------|
//! | little to each of several logs          | the journal, with one sync                                      |
//! | much to a log, or to that one only      | a sync of its file                                              |
//! | much to many logs                       | a sync of the file system                                       |
//! | much of the journal is of one log        | a sync of its file, of one log in a round                       |
//! | the journal is full                     | a checkpoint: what is in it is synced where it is, and it begins anew |
//! | there is no room for the journal        | as if there were none                                           |

use std::path::Path;

use varve_protocol::id::GroupId;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::Prepare;
use varve_protocol::superblock::Superblock;

use super::{Hosted, Store};
use crate::disk::Disk;
use crate::error::{IoContext, StorageError};
use crate::job::Job;
use crate::log::{GROUPS_DIR, Log};
use crate::opening::sync_all;
use crate::reserve::ReservedFile;
use crate::round::Round;
use crate::superblocks::{Change, Kept};
use crate::writer::Room;

/// So many files of a round are made durable by one sync of the file system. Syncs of single files, one after the other, cost a round
/// over 100 files 138 ms where one for all costs 9, and from 16 threads 12; from four files on it wins by a factor of two
/// (`benches/syncs.rs`). Below that the file system's other users are not waited for.
const SYNC_ALL_FILES_MIN: usize = 4;

/// At a checkpoint so many files are synced one by one: more slowly than by a sync of the file system that has nothing else to do, but
/// nothing else is waited for.
const CHECKPOINT_FILES_MAX: usize = 16;

/// So many logs share a frame of the journal. A frame costs as much as the sync of one file.
const JOURNAL_LOGS_MIN: usize = 2;

/// Logs that were written to, by how much.
#[derive(Default)]
struct Split {
    small: Vec<GroupId>,
    large: Vec<GroupId>,
    /// What was appended to the small ones.
    prepares: Vec<Prepare>,
}

impl Split {
    fn bytes(&self) -> usize {
        self.prepares.iter().map(|prepare| prepare.header().total_size()).sum()
    }
}

impl<D: Disk> Store<D> {
    /// Makes durable what the round has written to logs.
    pub(super) fn sync_logs(&mut self, round: &mut Round) {
        if !round.created.is_empty() {
            let dir = Path::new(GROUPS_DIR);
            if let Err(error) = self.disk.sync_dir(dir).or_failed_to("sync directory", dir) {
                let created = std::mem::take(&mut round.created);
                self.fail_all(created, &error, round);
            }
        }
        let dirty: Vec<GroupId> =
            round.written.iter().copied().filter(|group| self.is_dirty(*group)).collect();
        let large = if Mutant::LogNotSynced.is_on() { dirty } else { self.save_small(dirty, round) };
        if large.len() < SYNC_ALL_FILES_MIN || Mutant::LogNotSynced.is_on() {
            for group in large {
                if let Some(Err(error)) = self.open_log(group).map(Log::sync) {
                    self.fail(group, error, round);
                }
            }
        } else {
            self.sync_files(&large, round);
        }
    }

    fn open_log(&mut self, group: GroupId) -> Option<&mut Log<ReservedFile<D>>> {
        match self.groups.get_mut(&group) {
            Some(Hosted::Open(log)) => Some(log),
            Some(Hosted::Empty | Hosted::Closed(_)) | None => None,
        }
    }

    fn is_dirty(&mut self, group: GroupId) -> bool {
        self.open_log(group).is_some_and(|log| log.is_dirty())
    }

    /// Makes durable, by means of the journal, what was appended to logs to which little was; returns the others.
    fn save_small(&mut self, mut dirty: Vec<GroupId>, round: &mut Round) -> Vec<GroupId> {
        let mut split = self.split(&dirty);
        if !self.is_for_journal(&split) {
            return dirty;
        }
        if !self.journal.has_room_for(split.bytes()) {
            if let Err(error) = self.checkpoint(round) {
                self.fail_all(dirty, &error, round);
                return Vec::new();
            }
            // Some of them had something in the journal.
            dirty.retain(|group| self.is_dirty(*group));
            split = self.split(&dirty);
            if !self.is_for_journal(&split) {
                return dirty;
            }
        }
        let Split { small, large, prepares } = split;
        let disk = self.disk.clone();
        match disk.sparing(true, || self.journal.append(&prepares)) {
            Ok(Room::Enough) => {
                for group in &small {
                    if let Some(log) = self.open_log(*group) {
                        log.note_in_journal();
                    }
                }
                self.sync_one_of(&small, round);
                large
            }
            // It may be in the journal or not; it will be where it belongs.
            Ok(Room::Lacking(_)) => dirty,
            Err(error) => {
                self.fail_all(small, &error, round);
                large
            }
        }
    }

    /// Whether the journal saves syncs, and takes that.
    fn is_for_journal(&self, split: &Split) -> bool {
        let is_worth_it = split.small.len() >= JOURNAL_LOGS_MIN && split.large.len() < SYNC_ALL_FILES_MIN;
        is_worth_it && self.journal.may_take(split.bytes())
    }

    fn split(&mut self, dirty: &[GroupId]) -> Split {
        let mut split = Split::default();
        for group in dirty {
            match self.open_log(*group).and_then(|log| log.fresh.for_journal()) {
                Some(fresh) => {
                    split.prepares.extend_from_slice(fresh);
                    split.small.push(*group);
                }
                None => split.large.push(*group),
            }
        }
        split
    }

    /// Syncs one of the logs that have much in the journal, where it is.
    fn sync_one_of(&mut self, groups: &[GroupId], round: &mut Round) {
        for group in groups {
            let bytes = self.open_log(*group).map_or(0, |log| log.fresh.in_journal());
            if !self.journal.is_much(bytes) {
                continue;
            }
            Mark::JournalRelieved.hit();
            if let Some(Err(error)) = self.open_log(*group).map(Log::sync) {
                self.fail(*group, error, round);
            }
            return;
        }
    }

    fn note_synced(&mut self, group: GroupId) {
        if let Some(log) = self.open_log(group) {
            log.note_synced();
        }
    }

    /// Syncs the file system, for these logs. Should that fail, nobody knows what of any log that was written to is on the disk.
    fn sync_files(&mut self, groups: &[GroupId], round: &mut Round) {
        match sync_all(&self.disk) {
            Ok(()) => groups.iter().for_each(|group| self.note_synced(*group)),
            Err(error) => {
                let held = self.written_in_journal();
                self.fail_all(groups.iter().copied().chain(held), &error, round);
                self.journal.note_failure(error);
            }
        }
    }

    /// The logs whose files are not synced, because the journal has what was written to them.
    fn written_in_journal(&mut self) -> Vec<GroupId> {
        let mut held: Vec<GroupId> = self.journal.groups().iter().copied().collect();
        held.retain(|group| self.open_log(*group).is_some_and(|log| log.writer.is_dirty()));
        held
    }

    fn fail_all(
        &mut self,
        groups: impl IntoIterator<Item = GroupId>,
        error: &StorageError,
        round: &mut Round,
    ) {
        for group in groups {
            self.fail(group, error.clone(), round);
        }
    }

    /// Has all that the journal holds durable where it is, and begins it anew. A log that was closed may lack it for good: its
    /// superblock says that it has lost its end. Where a sync fails, what the journal holds stays there.
    pub(super) fn checkpoint(&mut self, round: &mut Round) -> Result<(), StorageError> {
        self.journal.check()?;
        let groups: Vec<GroupId> = self.journal.groups().iter().copied().collect();
        let written = self.written_in_journal();
        if written.len() > CHECKPOINT_FILES_MAX {
            self.sync_files(&written, round);
        } else {
            for group in written {
                if let Some(Err(error)) = self.open_log(group).map(Log::sync) {
                    self.journal.note_failure(error.clone());
                    self.fail(group, error, round);
                }
            }
        }
        self.journal.check()?;
        let closed = |group: &GroupId| matches!(self.groups.get(group), Some(Hosted::Closed(_)));
        let torn: Vec<Change> = groups
            .iter()
            .filter(|group| closed(group))
            .filter_map(|group| self.superblocks.live().get(group))
            .map(|kept| Superblock { is_torn: true, ..kept.superblock })
            .map(|superblock| Change::Save(Kept { superblock, has_log: true }))
            .collect();
        if !torn.is_empty() {
            self.superblocks.save(&self.disk, &torn)?;
        }
        Mark::JournalCheckpoint.hit();
        self.journal.renew()
    }

    /// Sees to it that what a job takes from a log does not come back from the journal.
    pub(super) fn prepare_journal(&mut self, job: &Job, round: &mut Round) -> Result<(), StorageError> {
        if job.takes_from_log() && self.journal.holds(job.group()) && !Mutant::JournalNotRenewed.is_on() {
            self.checkpoint(round)?;
        }
        Ok(())
    }
}
