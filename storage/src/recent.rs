//! Where the newest prepares of a log end, in memory: what is cut is among them, and to cut it nothing need be read that may have
//! rotted meanwhile.

use std::collections::VecDeque;

use varve_protocol::id::{Offset, Op};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::prepare::PrepareId;

use crate::reader::Chain;

/// As many as can be uncommitted, and the committed one before them.
const COUNT_MAX: u64 = PREPARES_IN_FLIGHT_MAX + 1;

/// The ends of the newest prepares, each in the segment that it is in.
#[derive(Clone, Default, Debug)]
pub(crate) struct Recent(VecDeque<(u64, PrepareId, Offset)>);

impl Recent {
    /// Notes that the log, as `chain` says, ends at a position.
    pub(crate) fn note(&mut self, position: u64, chain: &Chain) {
        if self.0.len() as u64 == COUNT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((position, chain.head, chain.next_offset));
    }

    /// Where a prepare ends, its name, and the offset behind it.
    pub(crate) fn find(&self, op: Op) -> Option<(u64, PrepareId, Offset)> {
        self.0.iter().copied().find(|(_, id, _)| id.op == op)
    }

    /// Forgets those behind an op.
    pub(crate) fn truncate(&mut self, keep: Op) {
        self.0.retain(|(_, id, _)| id.op <= keep);
    }
}
