//! What was promised and what is there: the offsets of acknowledged records, and the records that a reader finds.
//!
//! A record that was acknowledged must be found once, at the offset that it was acknowledged with, whole, and in the order of
//! sending. One whose fate the client does not know may be there, once, or not. Anything else counts as what it is: lost,
//! doubled, reordered, damaged or misplaced. Pure arithmetic.

use serde::Serialize;

/// No offset.
const NONE: u64 = u64::MAX;

/// Offsets of the records of one partition, by their number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Offsets(Vec<u64>);

impl Offsets {
    /// Notes where a record is.
    pub(super) fn set(&mut self, record: u64, offset: u64) {
        let place = usize::try_from(record).expect("records are counted in memory");
        if self.0.len() <= place {
            self.0.resize(place + 1, NONE);
        }
        self.0[place] = offset;
    }

    /// Where a record is, if that is known.
    fn get(&self, record: u64) -> Option<u64> {
        let offset = self.0.get(usize::try_from(record).ok()?)?;
        (*offset != NONE).then_some(*offset)
    }

    /// Every record that is known to be somewhere, and where.
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..).zip(&self.0).filter(|(_, offset)| **offset != NONE).map(|(record, offset)| (record, *offset))
    }
}

/// What one reader has found in one partition so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reading {
    /// The offset behind the last one read.
    next: u64,
    found: Offsets,
    /// The highest record number found, and one.
    records_end: u64,
    verdict: Findings,
}

/// What is wrong, and how much was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Findings {
    /// Records of this drill that were read.
    pub(super) read: u64,
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There once more.
    pub(super) doubled: u64,
    /// Behind one that was sent later.
    pub(super) reordered: u64,
    /// There with another content than was sent.
    pub(super) damaged: u64,
    /// At another offset than it was acknowledged with.
    pub(super) misplaced: u64,
    /// Offsets that were skipped.
    pub(super) holes: u64,
}

impl Findings {
    /// Everything that must not be.
    pub(super) fn wrong(&self) -> u64 {
        let Self { read: _, lost, doubled, reordered, damaged, misplaced, holes } = self;
        lost + doubled + reordered + damaged + misplaced + holes
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            reordered: self.reordered + other.reordered,
            damaged: self.damaged + other.damaged,
            misplaced: self.misplaced + other.misplaced,
            holes: self.holes + other.holes,
        }
    }
}

/// What lies at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// A record of this drill, as it was sent.
    Ours(u64),
    /// A record of this drill with another content.
    Damaged,
    /// A record of somebody else.
    Foreign,
}

impl Reading {
    /// Begins at an offset.
    pub(super) fn from(offset: u64) -> Self {
        Self { next: offset, ..Self::default() }
    }

    /// The offset behind the last one read.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes what lies at the next offset.
    pub(super) fn take(&mut self, offset: u64, found: Found) {
        if offset != self.next {
            self.verdict.holes += 1;
        }
        self.next = offset + 1;
        let record = match found {
            Found::Foreign => return,
            Found::Damaged => {
                self.verdict.damaged += 1;
                return;
            }
            Found::Ours(record) => record,
        };
        self.verdict.read += 1;
        if self.found.get(record).is_some() {
            self.verdict.doubled += 1;
            return;
        }
        if record < self.records_end {
            self.verdict.reordered += 1;
        }
        self.records_end = self.records_end.max(record + 1);
        self.found.set(record, offset);
    }

    /// Holds it against what was acknowledged.
    pub(super) fn findings(&self, acknowledged: &Offsets) -> Findings {
        let mut findings = self.verdict;
        for (record, offset) in acknowledged.iter() {
            match self.found.get(record) {
                None => findings.lost += 1,
                Some(found) if found != offset => findings.misplaced += 1,
                Some(_) => {}
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records 0, 1, 2 ... were acknowledged with these offsets.
    fn acknowledged(offsets: &[u64]) -> Offsets {
        let mut acknowledged = Offsets::default();
        for (record, offset) in (0..).zip(offsets).filter(|(_, offset)| **offset != NONE) {
            acknowledged.set(record, *offset);
        }
        acknowledged
    }

    /// These were read, from offset 10 on.
    fn read(records: &[u64]) -> Reading {
        let mut reading = Reading::from(10);
        for (offset, record) in (10..).zip(records) {
            reading.take(offset, Found::Ours(*record));
        }
        reading
    }

    #[test]
    fn what_is_as_promised_is_nothing_to_say_of() {
        let findings = read(&[0, 1, 2]).findings(&acknowledged(&[10, 11, 12]));
        assert_eq!(findings, Findings { read: 3, ..Findings::default() });
        // The fate of 1 is not known: it may be there or not.
        assert_eq!(read(&[0, 1, 2]).findings(&acknowledged(&[10, NONE, 12])).wrong(), 0);
        assert_eq!(read(&[0, 2]).findings(&acknowledged(&[10, NONE, 11])).wrong(), 0);
        // Others append, too.
        let mut reading = Reading::from(10);
        reading.take(10, Found::Foreign);
        reading.take(11, Found::Ours(0));
        assert_eq!(reading.findings(&acknowledged(&[11])).wrong(), 0);
    }

    #[test]
    fn every_promise_that_is_broken_is_seen() {
        let expect = |findings: Findings| Findings { read: findings.read, ..findings };
        let all = acknowledged(&[10, 11, 12]);
        let seen = |records: &[u64]| read(records).findings(&all);
        assert_eq!(seen(&[0, 1]), expect(Findings { read: 2, lost: 1, ..Findings::default() }));
        assert_eq!(seen(&[0, 1, 2, 1]), expect(Findings { read: 4, doubled: 1, ..Findings::default() }));
        let reordered = Findings { read: 3, reordered: 1, misplaced: 2, ..Findings::default() };
        assert_eq!(seen(&[0, 2, 1]), reordered);
        let nothing = Reading::from(10).findings(&all);
        assert_eq!(nothing, Findings { lost: 3, ..Findings::default() });
    }

    #[test]
    fn damage_and_holes_are_seen() {
        let mut reading = read(&[0]);
        reading.take(11, Found::Damaged);
        reading.take(13, Found::Ours(2));
        let findings = reading.findings(&acknowledged(&[10, 11, 13]));
        assert_eq!((findings.damaged, findings.holes, findings.lost), (1, 1, 1));
        assert_eq!(findings.wrong(), 3);
        assert_eq!(findings.plus(findings).wrong(), 6);
    }

    #[test]
    fn a_record_without_known_fate_is_there_once_at_most() {
        assert_eq!(read(&[0, 1, 1]).findings(&acknowledged(&[10, NONE])).doubled, 1);
    }
}
