//! The sparse index of one segment, in memory: about one entry per 64 KiB, from the scan of the segment or from its index file
//! ([`crate::index_file`]).
//! Looking something up gives the nearest entry at or before it; the reader walks headers from there.

use varve_protocol::id::{Offset, Op, Timestamp};
use varve_protocol::prepare::PrepareHeader;

use crate::job::ReadFrom;

const INTERVAL_BYTES: u64 = 64 << 10;

/// Where one prepare begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) op: Op,
    pub(crate) base_offset: Offset,
    pub(crate) position: u64,
    pub(crate) timestamp: Timestamp,
}

impl IndexEntry {
    fn new(header: &PrepareHeader, position: u64) -> Self {
        let (op, base_offset, timestamp) = (header.op(), header.base_offset(), header.timestamp());
        Self { op, base_offset, position, timestamp }
    }
}

/// Entries in the order of the file; the first one is the first prepare.
#[derive(PartialEq, Eq, Default, Debug)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// An index that was kept.
    pub(crate) fn of(entries: Vec<IndexEntry>) -> Self {
        Self { entries }
    }

    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Notes a prepare behind all the ones before; most are not kept.
    pub(crate) fn push(&mut self, header: &PrepareHeader, position: u64) {
        if self.entries.last().is_some_and(|last| position < last.position + INTERVAL_BYTES) {
            return;
        }
        self.entries.push(IndexEntry::new(header, position));
    }

    /// Notes a prepare behind all the ones before in any case: it can be found without reading what is before it.
    pub(crate) fn mark(&mut self, header: &PrepareHeader, position: u64) {
        self.entries.push(IndexEntry::new(header, position));
    }

    /// Notes a prepare between others.
    pub(crate) fn insert(&mut self, header: &PrepareHeader, position: u64) {
        let place = self.entries.partition_point(|entry| entry.op < header.op());
        let is_near =
            place.checked_sub(1).is_some_and(|last| position < self.entries[last].position + INTERVAL_BYTES);
        if !is_near {
            self.entries.insert(place, IndexEntry::new(header, position));
        }
    }

    /// Notes a place in any case: it can be found without reading what is before it.
    pub(crate) fn note(&mut self, entry: IndexEntry) {
        let place = self.entries.partition_point(|one| one.op < entry.op);
        if self.entries.get(place).is_none_or(|there| there.op != entry.op) {
            self.entries.insert(place, entry);
        }
    }

    /// The nearest entry at or before; none if the segment begins later or is empty.
    pub(crate) fn find(&self, from: ReadFrom) -> Option<IndexEntry> {
        let count = match from {
            ReadFrom::Op(op) => self.entries.partition_point(|entry| entry.op <= op),
            ReadFrom::Offset(offset) => self.entries.partition_point(|entry| entry.base_offset <= offset),
            ReadFrom::Time(time) => self.entries.partition_point(|entry| entry.timestamp < time),
        };
        self.entries[..count].last().copied()
    }

    /// Forgets the prepares from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.entries.retain(|entry| entry.position < end);
    }
}
