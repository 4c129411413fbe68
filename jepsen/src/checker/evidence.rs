//! What anybody was told of the log: which value stands where.

use std::collections::{BTreeMap, BTreeSet};

use super::Anomaly;
use crate::history::{Action, History, Read, SendOutcome, Turn};

/// How a value was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub(super) partition: u32,
    pub(super) outcome: SendOutcome,
    pub(super) turn: Option<Turn>,
}

/// Everything that anybody was told.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// By partition and offset: the values that somebody was told are there.
    pub(super) values: BTreeMap<u32, BTreeMap<u64, BTreeSet<u64>>>,
    /// By value: where somebody was told it is, as partition and offset.
    places: BTreeMap<u64, BTreeSet<(u32, u64)>>,
    /// By value: how it was sent.
    pub(super) sent: BTreeMap<u64, Sent>,
}

impl Evidence {
    pub(super) fn collect(history: &History) -> Self {
        let mut evidence = Self::default();
        for operation in &history.operations {
            let partition = operation.partition;
            match &operation.action {
                Action::Send { values, outcome, turn } => {
                    for (index, value) in (0..).zip(values) {
                        let outcome = match *outcome {
                            SendOutcome::Acknowledged(first) => {
                                evidence.place(partition, first + index, *value);
                                SendOutcome::Acknowledged(first + index)
                            }
                            SendOutcome::Refused | SendOutcome::Unknown => *outcome,
                        };
                        evidence.sent.insert(*value, Sent { partition, outcome, turn: *turn });
                    }
                }
                Action::Poll(Read { records, .. }) | Action::Drain(Read { records, .. }) => {
                    for (offset, value) in records {
                        evidence.place(partition, *offset, *value);
                    }
                }
                Action::Assign { .. } | Action::End { .. } => {}
            }
        }
        evidence
    }

    fn place(&mut self, partition: u32, offset: u64, value: u64) {
        self.values.entry(partition).or_default().entry(offset).or_default().insert(value);
        self.places.entry(value).or_default().insert((partition, offset));
    }

    /// Offsets with several values, and values at several offsets.
    pub(super) fn contradictions(&self) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        for (partition, offsets) in &self.values {
            for (offset, values) in offsets.iter().filter(|(_, values)| values.len() > 1) {
                let values = values.iter().copied().collect();
                anomalies.push(Anomaly::InconsistentOffset {
                    partition: *partition,
                    offset: *offset,
                    values,
                });
            }
        }
        for (value, places) in self.places.iter().filter(|(_, places)| places.len() > 1) {
            anomalies.push(Anomaly::Duplicate { value: *value, places: places.iter().copied().collect() });
        }
        anomalies
    }

    /// Whether anything is known to stand in a partition at one of the offsets from `start` up to, not including, `end`.
    pub(super) fn anything_between(&self, partition: u32, start: u64, end: u64) -> bool {
        start < end
            && self.values.get(&partition).is_some_and(|offsets| offsets.range(start..end).next().is_some())
    }
}
