//! What was over before something else began comes before it: the offsets of sends, and the ends that are told.
//!
//! Lines are in the order of their times, so an operation that was completed in an earlier line than another was invoked in was
//! over before that one began.

use std::collections::BTreeMap;

use super::Anomaly;
use crate::history::{Action, History, SendOutcome};

/// What is known of a partition as lines go by: after which line, the largest that anybody had been told by then.
#[derive(Default)]
struct Known(Vec<(usize, u64)>);

impl Known {
    fn learn(&mut self, line: usize, value: u64) {
        let before = self.0.last().map(|(_, value)| *value);
        self.0.push((line, before.map_or(value, |before| before.max(value))));
    }

    fn before(&self, line: usize) -> Option<u64> {
        let count = self.0.partition_point(|(known, _)| *known < line);
        count.checked_sub(1).map(|last| self.0[last].1)
    }
}

pub(super) fn check(history: &History) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    // The largest offset acknowledged, and the largest end told or implied.
    let mut partitions: BTreeMap<u32, (Known, Known)> = BTreeMap::new();
    // Operations are in the order of their completion.
    for operation in &history.operations {
        let (partition, line) = (operation.partition, operation.line);
        let (offsets, ends) = partitions.entry(partition).or_default();
        match &operation.action {
            Action::Send { values, outcome: SendOutcome::Acknowledged(offset), .. } => {
                if let Some(earlier) = offsets.before(operation.invoked).filter(|earlier| earlier >= offset) {
                    anomalies.push(Anomaly::OvertakenSend { partition, line, offset: *offset, earlier });
                }
                let end = offset + values.len() as u64;
                offsets.learn(line, end.saturating_sub(1));
                ends.learn(line, end);
            }
            Action::End { end } => {
                if let Some(known) = ends.before(operation.invoked).filter(|known| known > end) {
                    anomalies.push(Anomaly::StaleEnd { partition, line, told: *end, known });
                }
                ends.learn(line, *end);
            }
            Action::Send { outcome: SendOutcome::Refused | SendOutcome::Unknown, .. }
            | Action::Assign { .. }
            | Action::Poll(_)
            | Action::Drain(_) => {}
        }
    }
    anomalies
}
