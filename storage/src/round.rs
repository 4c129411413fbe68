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
}

impl Round {
    /// Whether the job writes to a log whose group has a superblock that is not saved yet.
    pub(crate) fn must_end_before(&self, job: &Job) -> bool {
        match job {
            Job::Append { group, .. }
            | Job::Write { group, .. }
            | Job::Truncate { group, .. }
            | Job::TakeSnapshot { group, .. } => {
                self.newest_saves.contains_key(group) && !Mutant::SuperblockOvertaken.is_on()
            }
            Job::SaveSuperblock(_)
            | Job::SaveFounders(_)
            | Job::Sync { .. }
            | Job::Read { .. }
            | Job::Mend { .. }
            | Job::GiveUpHoles { .. }
            | Job::LetGo { .. }
            | Job::ReadSnapshot { .. }
            | Job::Survey { .. }
            | Job::DeleteGroup { .. } => false,
        }
    }
}
