//! The newest prepares of a group in memory, so that consumers at the end of the log, backups that miss a little and
//! the metadata state machine need not read the disk.
//!
//! Invariants: the prepares are a gapless run of the log that ends at its head, and all that are not applied yet are in
//! it. Applied ones leave from the old end when the bytes are over budget.

use std::collections::VecDeque;

use varve_protocol::id::{Offset, Op};
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};

/// A bounded run of newest prepares.
#[derive(Debug, Default)]
pub struct Tail {
    prepares: VecDeque<Prepare>,
    bytes: usize,
    applied: Op,
}

impl Tail {
    /// An empty tail of a log that is applied up to `applied`.
    #[must_use]
    pub fn new(applied: Op) -> Self {
        Self { prepares: VecDeque::new(), bytes: 0, applied }
    }

    /// Bytes of all prepares held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the prepare behind the last.
    pub fn push(&mut self, prepare: Prepare) {
        if let Some(last) = self.prepares.back() {
            assert!(prepare.header().parent() == last.id(), "the tail is a chain");
        }
        self.bytes += prepare.header().total_size();
        self.prepares.push_back(prepare);
    }

    /// Drops everything behind `keep`.
    pub fn truncate(&mut self, keep: Op) {
        assert!(keep >= self.applied, "an applied op is never cut");
        while self.prepares.back().is_some_and(|last| last.op() > keep) {
            let last = self.prepares.pop_back().expect("there is a last prepare");
            self.bytes -= last.header().total_size();
        }
    }

    /// Notes that everything up to `op` is applied.
    pub fn set_applied(&mut self, op: Op) {
        assert!(op > self.applied, "ops are applied in order");
        self.applied = op;
    }

    /// Drops applied prepares from the old end until at most `bytes_max` bytes are held.
    pub fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            match self.prepares.front() {
                Some(first) if first.op() <= self.applied => {
                    self.bytes -= first.header().total_size();
                    self.prepares.pop_front();
                }
                Some(_) | None => break,
            }
        }
    }

    /// The prepare at `op`, if it is held.
    #[must_use]
    pub fn get(&self, op: Op) -> Option<&Prepare> {
        let first = self.prepares.front()?.op();
        let place = usize::try_from(op.as_raw().checked_sub(first.as_raw())?).ok()?;
        self.prepares.get(place)
    }

    /// The prepare of this name, if it is held.
    #[must_use]
    pub fn find(&self, id: PrepareId) -> Option<&Prepare> {
        self.get(id.op).filter(|prepare| prepare.id() == id)
    }

    /// Whole prepares from the one that holds `offset` on, applied ones only, at least one and then up to `bytes_max`
    /// bytes; `None` if the offset is older than what is held.
    #[must_use]
    pub fn read(&self, offset: Offset, bytes_max: usize) -> Option<Vec<Prepare>> {
        let start = self.prepares.partition_point(|prepare| prepare.header().next_offset() <= offset);
        let first = self.prepares.get(start)?;
        if first.header().base_offset() > offset {
            return None;
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for prepare in self.prepares.range(start..) {
            bytes += prepare.header().total_size();
            let is_hidden = prepare.op() > self.applied && !Mutant::ReadsAboveCommit.is_on();
            if is_hidden || (bytes > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(prepare.clone());
        }
        Some(found)
    }
}
