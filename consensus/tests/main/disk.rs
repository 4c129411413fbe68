//! A disk with a queue: what a crash leaves and what it takes.

use std::collections::VecDeque;

use varve_consensus::Input;
use varve_protocol::durability::Durability;
use varve_protocol::id::Op;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;

use crate::journal::Journal;

#[derive(Clone, Debug)]
pub(crate) enum Job {
    Append(Prepare),
    Sync,
    Truncate(Op),
    LetGo(Op),
    Take(Snapshot),
    Save(Superblock),
}

/// What survives a crash, and the jobs that may not.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) log: Journal,
    pub(crate) superblock: Superblock,
    pub(crate) jobs: VecDeque<Job>,
    /// Written and not synced: in a group that acknowledges from memory.
    pub(crate) unsynced: Vec<Prepare>,
    pub(crate) durability: Durability,
    /// Whether something that was acknowledged from memory may be lost and not made good yet.
    pub(crate) in_doubt: bool,
}

impl Disk {
    pub(crate) fn perform(&mut self) -> Option<Input> {
        Some(match self.jobs.pop_front()? {
            Job::Append(prepare) if self.durability == Durability::QuorumMemory => {
                self.unsynced.push(prepare);
                return self.perform();
            }
            Job::Sync => {
                self.sync();
                Input::Durable(self.log.last())
            }
            Job::Append(prepare) => {
                let id = prepare.id();
                self.log.push(prepare);
                Input::Durable(id)
            }
            Job::Take(snapshot) => {
                let id = snapshot.id();
                self.log.take(snapshot);
                Input::Durable(id)
            }
            Job::Truncate(keep) => {
                self.sync();
                self.log.truncate(keep);
                return self.perform();
            }
            Job::LetGo(first) => {
                // Whole segments go, which are synced.
                self.log.let_go(first.min(self.log.head().next()));
                return self.perform();
            }
            Job::Save(superblock) => {
                self.superblock = superblock;
                self.in_doubt &= superblock.is_torn || superblock.is_unsynced;
                Input::SuperblockDurable(superblock)
            }
        })
    }

    fn sync(&mut self) {
        self.unsynced.drain(..).for_each(|prepare| self.log.push(prepare));
    }

    /// The power fails.
    pub(crate) fn crash(&mut self) {
        self.jobs.clear();
        self.unsynced.clear();
        self.in_doubt |= self.superblock.is_unsynced;
    }

    /// Whether an acknowledgement of `id` is covered: by what is synced, or as the group wants it.
    pub(crate) fn may_acknowledge(&self, id: PrepareId) -> bool {
        self.holds(id) || (self.superblock.is_unsynced && self.remembers(id))
    }

    /// Whether it holds `id`, or may have held it and has not made that good.
    pub(crate) fn may_hold(&self, id: PrepareId) -> bool {
        self.superblock.is_torn || self.in_doubt || self.holds(id) || self.remembers(id)
    }

    /// Whether it is handed over, in a group that acknowledges from memory.
    fn remembers(&self, id: PrepareId) -> bool {
        let waits = |job: &Job| matches!(job, Job::Append(prepare) if prepare.id() == id);
        self.durability == Durability::QuorumMemory
            && (self.unsynced.iter().any(|prepare| prepare.id() == id) || self.jobs.iter().any(waits))
    }

    pub(crate) fn holds(&self, id: PrepareId) -> bool {
        self.log.holds(id)
    }
}
