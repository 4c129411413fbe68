//! A disk with a queue: what a crash leaves and what it takes.

use std::collections::VecDeque;

use varve_consensus::Input;
use varve_protocol::id::Op;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::superblock::Superblock;

#[derive(Clone, Debug)]
pub(crate) enum Job {
    Append(Prepare),
    Truncate(Op),
    Save(Superblock),
}

/// What survives a crash, and the jobs that may not.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) log: Vec<Prepare>,
    pub(crate) superblock: Superblock,
    pub(crate) jobs: VecDeque<Job>,
}

impl Disk {
    pub(crate) fn perform(&mut self) -> Option<Input> {
        Some(match self.jobs.pop_front()? {
            Job::Append(prepare) => {
                let id = prepare.id();
                assert_eq!(id.op, Op::new(self.log.len() as u64 + 1), "appends go behind the end");
                self.log.push(prepare);
                Input::Durable(id)
            }
            Job::Truncate(keep) => {
                self.log.truncate(usize::try_from(keep.as_raw()).unwrap());
                return self.perform();
            }
            Job::Save(superblock) => {
                self.superblock = superblock;
                Input::SuperblockDurable(superblock)
            }
        })
    }

    pub(crate) fn holds(&self, id: PrepareId) -> bool {
        id == PrepareId::ROOT || self.log.get(index(id.op)).is_some_and(|own| own.id() == id)
    }
}

/// Where an op stands in a log that starts at op 1.
pub(crate) fn index(op: Op) -> usize {
    usize::try_from(op.as_raw()).unwrap().wrapping_sub(1)
}
