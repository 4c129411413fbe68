//! How a round becomes durable.
//!
//! | what was written                        | how                                                             |
//! |-----------------------------------------|-----------------------------------------------------------------|
//! | little to each of several logs          | the journal, with one sync                                      |
//! | much to a log, or to that one only      | a sync of its file                                              |
//! | much to many logs                       | a sync of the file system                                       |
//! | the journal is full                     | a checkpoint: a sync of the file system, and the journal begins anew |
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

/// So many logs share a frame of the journal. A frame costs as much as the sync of one file.
const JOURNAL_LOGS_MIN: usize = 2;

impl<D: Disk> Store<D> {
    /// Makes durable what the round has written to logs.
    pub(super) fn sync_logs(&mut self, round: &mut Round) {
        if !round.created.is_empty() {
            let dir = Path::new(GROUPS_DIR);
            if let Err(error) = self.disk.sync_dir(dir).or_failed_to("sync directory", dir) {
                for group in std::mem::take(&mut round.created) {
                    self.fail(group, error.clone(), round);
                }
            }
        }
        let dirty: Vec<GroupId> =
            round.written.iter().copied().filter(|group| self.is_dirty(*group)).collect();
        let large = if Mutant::LogNotSynced.is_on() { dirty } else { self.save_small(dirty, round) };
        if large.len() < SYNC_ALL_FILES_MIN || Mutant::LogNotSynced.is_on() {
            for group in large {
                if let Some(Hosted::Open(log)) = self.groups.get_mut(&group)
                    && let Err(error) = log.sync()
                {
                    self.fail(group, error, round);
                }
            }
        } else if let Err(error) = self.sync_files(&large) {
            self.fail_all(large, &error, round);
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
    fn save_small(&mut self, dirty: Vec<GroupId>, round: &mut Round) -> Vec<GroupId> {
        let (mut small, mut large, mut prepares) = (Vec::new(), Vec::new(), Vec::<Prepare>::new());
        for group in &dirty {
            match self.open_log(*group).and_then(|log| log.fresh.for_journal()) {
                Some(fresh) => {
                    prepares.extend_from_slice(fresh);
                    small.push(*group);
                }
                None => large.push(*group),
            }
        }
        let bytes: usize = prepares.iter().map(|prepare| prepare.header().total_size()).sum();
        let is_worth_it = small.len() >= JOURNAL_LOGS_MIN && large.len() < SYNC_ALL_FILES_MIN;
        if !is_worth_it || !self.journal.may_take(bytes) {
            return dirty;
        }
        if !self.journal.has_room_for(bytes) {
            if let Err(error) = self.checkpoint() {
                self.fail_all(dirty, &error, round);
                return Vec::new();
            }
            // That was a sync of the file system.
            for group in dirty {
                self.note_synced(group);
            }
            return Vec::new();
        }
        let disk = self.disk.clone();
        match disk.sparing(true, || self.journal.append(&prepares)) {
            Ok(Room::Enough) => {
                for group in small {
                    if let Some(log) = self.open_log(group) {
                        log.note_in_journal();
                    }
                }
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

    fn note_synced(&mut self, group: GroupId) {
        if let Some(log) = self.open_log(group) {
            log.note_synced();
        }
    }

    /// Syncs the file system, for these logs. Should that fail, what is in the journal must stay there, for nobody knows what of it
    /// is in the files.
    fn sync_files(&mut self, groups: &[GroupId]) -> Result<(), StorageError> {
        sync_all(&self.disk).inspect_err(|error| self.journal.note_failure(error.clone()))?;
        for group in groups {
            self.note_synced(*group);
        }
        Ok(())
    }

    fn fail_all(&mut self, groups: Vec<GroupId>, error: &StorageError, round: &mut Round) {
        for group in groups {
            self.fail(group, error.clone(), round);
        }
    }

    /// Has all that the journal holds durable where it is, and begins it anew. A log that was closed may lack it for good: its
    /// superblock says that it has lost its end.
    fn checkpoint(&mut self) -> Result<(), StorageError> {
        self.journal.check()?;
        let groups: Vec<GroupId> = self.journal.groups().iter().copied().collect();
        self.sync_files(&groups)?;
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
    pub(super) fn prepare_journal(&mut self, job: &Job) -> Result<(), StorageError> {
        let takes = match job {
            Job::Truncate { .. } | Job::TakeSnapshot { .. } | Job::GiveUpHoles { .. } => true,
            Job::Append { .. }
            | Job::Write { .. }
            | Job::Sync { .. }
            | Job::SaveSuperblock(_)
            | Job::Read { .. }
            | Job::SaveFounders(_)
            | Job::Mend { .. }
            | Job::LetGo { .. }
            | Job::LetGoWith { .. }
            | Job::ReadSnapshot { .. }
            | Job::SaveResumePoint { .. }
            | Job::Survey { .. }
            | Job::Scrub { .. }
            | Job::Patch { .. }
            | Job::DeleteGroup { .. }
            | Job::Resume => false,
        };
        if takes && self.journal.holds(job.group()) && !Mutant::JournalNotRenewed.is_on() {
            self.checkpoint()?;
        }
        Ok(())
    }
}
