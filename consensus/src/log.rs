//! The part of the log that the core keeps in memory: headers from a few hundred below the commit up to the head, and the
//! bodies of uncommitted prepares that passed through this process.
//!
//! ```text
//!   ... on disk only ... | base |  headers  | commit |  headers, bodies if known  | head
//!                               '------------- entries -------------------------------'
//! ```
//!
//! Invariants: entries are a hash chain that starts at `base`; nothing at or below `base` is ever cut.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use varve_protocol::id::{Offset, Op, Timestamp};
use varve_protocol::limits::HEADERS_PER_MESSAGE_MAX;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};

use crate::replica::fingerprint::hash_header;

#[derive(Clone, Debug)]
struct Entry {
    header: PrepareHeader,
    /// Present while uncommitted, unless it was read from disk as a header.
    prepare: Option<Prepare>,
}

/// The newest part of a replica's log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: PrepareId,
    entries: VecDeque<Entry>,
}

impl Log {
    /// A log whose next prepare follows `base`.
    pub(crate) fn new(base: PrepareId) -> Self {
        Self { base, entries: VecDeque::new() }
    }

    /// A log whose first remembered prepare is this one, without its body; it is never cut.
    pub(crate) fn starting_with(header: PrepareHeader) -> Self {
        let mut log = Self::new(header.parent());
        log.append_header(header);
        log
    }

    /// The newest prepare, or [`PrepareId::ROOT`].
    pub(crate) fn head(&self) -> PrepareId {
        self.entries.back().map_or(self.base, |entry| entry.header.id())
    }

    /// The prepare just before the first one that is remembered.
    pub(crate) fn base(&self) -> PrepareId {
        self.base
    }

    /// The name of the prepare at `op`, if it is remembered.
    pub(crate) fn id(&self, op: Op) -> Option<PrepareId> {
        if op == self.base.op { Some(self.base) } else { self.header(op).map(PrepareHeader::id) }
    }

    /// The header at `op`, if it is remembered.
    pub(crate) fn header(&self, op: Op) -> Option<&PrepareHeader> {
        self.entry(op).map(|entry| &entry.header)
    }

    /// The whole prepare at `op`, if it is remembered with its body.
    pub(crate) fn prepare(&self, op: Op) -> Option<&Prepare> {
        self.entry(op).and_then(|entry| entry.prepare.as_ref())
    }

    /// The headers of those ops in `first..=last` that are remembered, ascending.
    pub(crate) fn headers(&self, first: Op, last: Op) -> impl DoubleEndedIterator<Item = &PrepareHeader> {
        let skip = usize::try_from(first.since(self.base.op.next())).unwrap_or(usize::MAX);
        let count = usize::try_from(last.next().since(first)).unwrap_or(usize::MAX);
        let start = skip.min(self.entries.len());
        let end = skip.saturating_add(count).min(self.entries.len());
        self.entries.range(start..end).map(|entry| &entry.header)
    }

    /// The offset that the next record gets.
    pub(crate) fn next_offset(&self) -> Offset {
        self.entries.back().map_or(Offset::ZERO, |entry| entry.header.next_offset())
    }

    /// The newest timestamp.
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.entries.back().map_or(Timestamp::ZERO, |entry| entry.header.timestamp())
    }

    /// Adds a prepare of which only the header is at hand.
    pub(crate) fn append_header(&mut self, header: PrepareHeader) {
        self.push(Entry { header, prepare: None });
    }

    /// Adds a prepare.
    pub(crate) fn append(&mut self, prepare: Prepare) {
        self.push(Entry { header: *prepare.header(), prepare: Some(prepare) });
    }

    fn push(&mut self, entry: Entry) {
        assert!(entry.header.parent() == self.head(), "a prepare is appended to its parent only");
        self.entries.push_back(entry);
    }

    /// Removes everything above `keep`.
    pub(crate) fn truncate(&mut self, keep: Op) {
        assert!(keep >= self.base.op, "the log is not cut below what is remembered");
        let count = usize::try_from(keep.since(self.base.op)).expect("a window fits memory");
        self.entries.truncate(count);
    }

    /// Lets go of the bodies up to `commit`, and of headers far below both it and what is durable.
    pub(crate) fn forget(&mut self, previous_commit: Op, commit: Op, durable: Op) {
        for op in previous_commit.next().as_raw()..=commit.as_raw() {
            if let Some(index) = self.index(Op::new(op)) {
                self.entries[index].prepare = None;
            }
        }
        while let Some(entry) = self.entries.front()
            && commit.min(durable).since(entry.header.op()) >= HEADERS_PER_MESSAGE_MAX as u64
        {
            self.base = entry.header.id();
            self.entries.pop_front();
        }
    }

    /// Hashes which prepares are remembered, and which of them with their bodies.
    pub(crate) fn fingerprint<H: Hasher>(&self, state: &mut H) {
        (self.base, self.entries.len()).hash(state);
        for Entry { header, prepare } in &self.entries {
            hash_header(header, state);
            prepare.is_some().hash(state);
        }
    }

    fn index(&self, op: Op) -> Option<usize> {
        if op <= self.base.op {
            return None;
        }
        let index = usize::try_from(op.since(self.base.op) - 1).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    fn entry(&self, op: Op) -> Option<&Entry> {
        self.index(op).map(|index| &self.entries[index])
    }
}
