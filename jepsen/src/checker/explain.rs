//! The smallest history that shows an anomaly.

use super::{Anomaly, check};
use crate::history::{Action, History, Operation};
use crate::minimise::minimise;

/// The lines, of invocations and completions, of the least that shows the anomaly.
pub(crate) fn explain(history: &History, anomaly: &Anomaly) -> Vec<usize> {
    let shows = |part: &[Operation]| {
        let part = History { operations: part.to_vec() };
        check(&part).anomalies.contains(anomaly)
    };
    let about: Vec<Operation> =
        history.operations.iter().filter(|operation| is_about(operation, anomaly)).cloned().collect();
    let from = if shows(&about) { about } else { history.operations.clone() };
    let part = minimise(from, shows);
    let mut lines: Vec<usize> =
        part.iter().flat_map(|operation| [operation.invoked, operation.line]).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Whether an operation is likely to have to do with it: it names one of its values or offsets, or is in one of its lines.
fn is_about(operation: &Operation, anomaly: &Anomaly) -> bool {
    let (partition, offsets, values) = anomaly.subjects();
    if partition.is_some_and(|partition| operation.partition != partition) {
        return false;
    }
    let touches = |records: &[(u64, u64)]| {
        records.iter().any(|(offset, value)| offsets.contains(offset) || values.contains(value))
    };
    match &operation.action {
        Action::Send { values: sent, outcome, .. } => {
            let first = match outcome {
                crate::history::SendOutcome::Acknowledged(first) => Some(*first),
                crate::history::SendOutcome::Refused | crate::history::SendOutcome::Unknown => None,
            };
            let at = first.map(|first| first..first + sent.len() as u64);
            sent.iter().any(|value| values.contains(value))
                || at.is_some_and(|at| offsets.iter().any(|offset| at.contains(offset)))
        }
        Action::Assign { .. } | Action::End { .. } => true,
        Action::Poll(read) | Action::Drain(read) => touches(&read.records),
    }
}
