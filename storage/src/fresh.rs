//! What was appended to a log and is not durable yet, while it is little: a journal can make it durable ([`crate::journal`]).

use varve_protocol::prepare::Prepare;

/// Bytes of prepares that are kept here. What is more is better synced where it is than written twice.
const BYTES_MAX: usize = 64 << 10;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Fresh {
    /// In order; empty if they are too large.
    prepares: Vec<Prepare>,
    bytes: usize,
    /// Bytes of what was written before, is not synced, and is in the journal.
    in_journal: usize,
}

impl Fresh {
    pub(crate) fn note(&mut self, prepare: &Prepare) {
        self.bytes += prepare.header().total_size();
        if self.bytes <= BYTES_MAX {
            self.prepares.push(prepare.clone());
        } else {
            self.prepares = Vec::new();
        }
    }

    /// What a journal may make durable; none if it is too large, or nothing.
    pub(crate) fn for_journal(&self) -> Option<&[Prepare]> {
        (!self.prepares.is_empty()).then_some(&self.prepares)
    }

    /// The journal is what has made durable what was written before.
    pub(crate) fn is_journal_used(&self) -> bool {
        self.in_journal > 0
    }

    /// Bytes of this log that are in the journal.
    pub(crate) fn in_journal(&self) -> usize {
        self.in_journal
    }

    /// Nothing is left to be made durable, and the journal is what made it so.
    pub(crate) fn is_in_journal(&self) -> bool {
        self.in_journal > 0 && self.bytes == 0
    }

    pub(crate) fn note_in_journal(&mut self) {
        *self = Self { in_journal: self.in_journal + self.bytes, ..Self::default() };
    }
}
