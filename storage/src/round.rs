//! One round of writes: what has been done, and what is left for its end.

use std::collections::{BTreeMap, BTreeSet};

use varve_protocol::id::GroupId;
use varve_protocol::mutant::Mutant;
use varve_protocol::superblock::Superblock;

use crate::error::StorageError;
use crate::job::{Completion, Job};

/// What a round has done so far, and what is left to do when all jobs are written.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) completions: Vec<Completion>,
    /// Groups whose logs wait for a sync.
    pub(crate) written: BTreeSet<GroupId>,
    /// Groups whose logs got their first file.
    pub(crate) created: BTreeSet<GroupId>,
    pub(crate) deleted: BTreeSet<GroupId>,
    /// All superblocks to answer; the newest one of a group is saved.
    pub(crate) saves: Vec<Superblock>,
    pub(crate) newest_saves: BTreeMap<GroupId, Superblock>,
    pub(crate) failed: BTreeMap<GroupId, StorageError>,
    /// What waits since the disk was full is tried again.
    pub(crate) resumes: bool,
}

impl Round {
    /// Whether there is anything to be saved.
    pub(crate) fn has_saves(&self) -> bool {
        !(self.saves.is_empty() && self.created.is_empty() && self.deleted.is_empty())
    }

    /// Takes out what was to be saved and could not be: nobody is told of it, nor of what depends on it.
    pub(crate) fn take_saves(&mut self, newest_saves: BTreeMap<GroupId, Superblock>) -> Self {
        let created = std::mem::take(&mut self.created);
        self.written.retain(|group| !created.contains(group));
        let (saves, deleted) = (std::mem::take(&mut self.saves), std::mem::take(&mut self.deleted));
        Self { saves, newest_saves, created, deleted, ..Self::default() }
    }

    /// Puts in front what an earlier round could not save.
    pub(crate) fn take_up(&mut self, earlier: Self) {
        self.saves.splice(..0, earlier.saves);
        for (group, superblock) in earlier.newest_saves {
            self.newest_saves.entry(group).or_insert(superblock);
        }
        self.written.extend(earlier.created.iter().copied());
        self.created.extend(earlier.created);
        self.deleted.extend(earlier.deleted);
    }

    /// Whether the job writes to a log, or gives it up, whose group has a superblock that is not saved yet.
    pub(crate) fn must_end_before(&self, job: &Job) -> bool {
        match job {
            Job::Append { group, .. }
            | Job::Write { group, .. }
            | Job::Truncate { group, .. }
            | Job::TakeSnapshot { group, .. }
            | Job::GiveUpLog { group } => {
                self.newest_saves.contains_key(group) && !Mutant::SuperblockOvertaken.is_on()
            }
            Job::SaveSuperblock(_)
            | Job::SaveFounders(_)
            | Job::Sync { .. }
            | Job::Read { .. }
            | Job::Mend { .. }
            | Job::GiveUpHoles { .. }
            | Job::LetGo { .. }
            | Job::LetGoWith { .. }
            | Job::ReadSnapshot { .. }
            | Job::SaveResumePoint { .. }
            | Job::Survey { .. }
            | Job::Scrub { .. }
            | Job::ScrubShared
            | Job::Patch { .. }
            | Job::DeleteGroup { .. }
            | Job::Resume => false,
        }
    }
}
