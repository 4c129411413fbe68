//! Where the log starts, as its own entries say.
//!
//! The newest committed entry counts; one that was sealed by a primary that knew less may start earlier than the one before it,
//! and moves nothing.

use varve_protocol::id::Op;
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareKind};

/// The entries of a log that move its start: what the newest committed one says, and those above the commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LogStarts {
    committed: LogStart,
    pending: Vec<(Op, LogStart)>,
}

impl Default for LogStarts {
    fn default() -> Self {
        Self::new(LogStart::FIRST)
    }
}

impl LogStarts {
    /// A log of which nothing below `start` is there.
    pub(crate) fn new(start: LogStart) -> Self {
        Self { committed: start, pending: Vec::new() }
    }

    /// Takes note of the next prepare of the log.
    ///
    /// # Panics
    /// If it is of that kind and cannot be read: its checksum is right, so another release sealed it.
    pub(crate) fn note(&mut self, prepare: &Prepare) {
        if prepare.header().kind() == PrepareKind::LogStart {
            let start = LogStart::decode(prepare.body()).expect("a log start can be read");
            assert!(start.op <= prepare.op(), "an entry lets go of nothing but what is before it");
            self.pending.push((prepare.op(), start));
        }
    }

    /// The log was cut behind `keep`.
    pub(crate) fn truncate(&mut self, keep: Op) {
        self.pending.retain(|(op, _)| *op <= keep);
    }

    /// The entries up to `commit` are committed.
    pub(crate) fn commit(&mut self, commit: Op) {
        let count = self.pending.partition_point(|(op, _)| *op <= commit);
        for (_, start) in self.pending.drain(..count) {
            self.committed = self.committed.max(start);
        }
    }

    /// Where the log starts.
    pub(crate) fn committed(&self) -> LogStart {
        self.committed
    }

    /// Whether an entry waits for its commit.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}
