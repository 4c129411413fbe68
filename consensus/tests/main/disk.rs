//! A disk with a queue: what a crash leaves and what it takes.

use std::collections::VecDeque;

use varve_consensus::Input;
use varve_protocol::id::Op;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;

use crate::journal::Journal;

#[derive(Clone, Debug)]
pub(crate) enum Job {
    Append(Prepare),
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
}

impl Disk {
    pub(crate) fn perform(&mut self) -> Option<Input> {
        Some(match self.jobs.pop_front()? {
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
                self.log.truncate(keep);
                return self.perform();
            }
            Job::LetGo(first) => {
                self.log.let_go(first);
                return self.perform();
            }
            Job::Save(superblock) => {
                self.superblock = superblock;
                Input::SuperblockDurable(superblock)
            }
        })
    }

    pub(crate) fn holds(&self, id: PrepareId) -> bool {
        self.log.holds(id)
    }
}
