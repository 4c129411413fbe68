//! The disk of one replica: what is on it, and the FIFO of jobs that are not.
//!
//! A crash takes the jobs; any number of the oldest of them may have reached the disk without anybody being told.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use varve_consensus::Input;
use varve_protocol::id::{GroupId, Op};
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::superblock::Superblock;

/// Something to be made durable.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// A prepare behind the log's end.
    Append(Prepare),
    /// Nothing behind this op.
    Truncate(Op),
    /// The superblock.
    Save(Superblock),
}

/// What survives a crash, and the jobs that may not.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) log: Vec<Prepare>,
    pub(super) superblock: Superblock,
    pub(super) jobs: VecDeque<Job>,
}

impl Disk {
    /// A disk formatted for a new group.
    pub(super) fn new(group: GroupId) -> Self {
        let superblock = Superblock::new(group);
        Self { log: Vec::new(), superblock, jobs: VecDeque::new() }
    }

    /// Does the oldest job. Returns what the core is told of it, which is nothing for a cut.
    ///
    /// # Panics
    /// If the job does not fit the log: the core has asked for nonsense.
    pub(super) fn perform(&mut self) -> Option<Input> {
        match self.jobs.pop_front()? {
            Job::Append(prepare) => {
                let id = prepare.id();
                assert!(prepare.header().parent() == self.head(), "a prepare is written behind its parent");
                self.log.push(prepare);
                Some(Input::Durable(id))
            }
            Job::Truncate(keep) => {
                self.log.truncate(place(keep.next()));
                None
            }
            Job::Save(superblock) => {
                self.superblock = superblock;
                Some(Input::SuperblockDurable(superblock))
            }
        }
    }

    /// The log's end.
    pub(super) fn head(&self) -> PrepareId {
        self.log.last().map_or(PrepareId::ROOT, Prepare::id)
    }

    /// Whether this prepare is on the disk.
    pub(super) fn holds(&self, id: PrepareId) -> bool {
        id == PrepareId::ROOT || self.log.get(place(id.op)).is_some_and(|own| own.id() == id)
    }

    /// The log as it will be when all jobs are done: what the driver serves from.
    pub(super) fn written(&self) -> Vec<Prepare> {
        let mut log = self.log.clone();
        for job in &self.jobs {
            match job {
                Job::Append(prepare) => log.push(prepare.clone()),
                Job::Truncate(keep) => log.truncate(place(keep.next())),
                Job::Save(_) => {}
            }
        }
        log
    }

    /// Hashes all of it.
    pub(super) fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self { log, superblock, jobs } = self;
        (log.len(), jobs.len()).hash(state);
        log.last().map(Prepare::id).hash(state);
        hash_superblock(*superblock, state);
        for job in jobs {
            match job {
                Job::Append(prepare) => (0_u8, prepare.id()).hash(state),
                Job::Truncate(keep) => (1_u8, keep).hash(state),
                Job::Save(superblock) => {
                    2_u8.hash(state);
                    hash_superblock(*superblock, state);
                }
            }
        }
    }
}

fn hash_superblock<H: Hasher>(superblock: Superblock, state: &mut H) {
    (superblock.view, superblock.log_view, superblock.commit).hash(state);
}

/// Where an op stands in a log that starts at op 1. Op 0 has no place: it is given one that no log reaches.
pub(super) fn place(op: Op) -> usize {
    usize::try_from(op.as_raw()).unwrap_or(usize::MAX).wrapping_sub(1)
}
