//! What should be there is there, and nothing else: lost, unseen, aborted and invented values, holes, dirty ends.

use std::collections::{BTreeMap, BTreeSet};

use super::Anomaly;
use super::evidence::{Evidence, Sent};
use crate::history::{Action, History, Operation, Read, SendOutcome};

/// The reads of one partition, all taken together.
#[derive(Default)]
struct Reads<'a> {
    /// Values that any read saw.
    seen: BTreeSet<u64>,
    /// The largest offset that any read saw, and the line of that read.
    farthest: Option<(u64, usize)>,
    drains: Vec<(usize, &'a Read)>,
}

pub(super) fn check(history: &History, evidence: &Evidence) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let mut partitions: BTreeMap<u32, Reads<'_>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for operation in &history.operations {
        if let Action::Poll(read) | Action::Drain(read) = &operation.action {
            check_read(operation, read, evidence, &mut told, &mut anomalies);
            let reads = partitions.entry(operation.partition).or_default();
            reads.seen.extend(read.records.iter().map(|(_, value)| *value));
            let farthest = read.records.iter().map(|(offset, _)| (*offset, operation.line)).max();
            reads.farthest = reads.farthest.max(farthest);
            if matches!(operation.action, Action::Drain(_)) {
                reads.drains.push((operation.line, read));
            }
        }
    }
    for (partition, reads) in &partitions {
        check_missing(*partition, reads, evidence, &mut anomalies);
    }
    anomalies
}

/// What one read should not have shown. A value that nobody may see is told of once, however many have seen it.
fn check_read(
    operation: &Operation,
    read: &Read,
    evidence: &Evidence,
    told: &mut BTreeSet<(u32, u64)>,
    anomalies: &mut Vec<Anomaly>,
) {
    let (partition, line) = (operation.partition, operation.line);
    for (offset, value) in read.records.iter().copied() {
        match evidence.sent.get(&value) {
            Some(Sent { outcome: SendOutcome::Refused, .. }) if told.insert((partition, value)) => {
                anomalies.push(Anomaly::AbortedRead { partition, offset, value, line });
            }
            Some(sent) if sent.partition == partition => {}
            Some(_) | None if !told.insert((partition, value)) => {}
            Some(_) | None => anomalies.push(Anomaly::Invented { partition, offset, value, line }),
        }
        if let Some(high_watermark) = read.high_watermark.filter(|high_watermark| offset >= *high_watermark) {
            anomalies.push(Anomaly::DirtyEnd { partition, offset, high_watermark, line });
        }
    }
}

/// What the reads of a partition should have shown.
fn check_missing(partition: u32, reads: &Reads<'_>, evidence: &Evidence, anomalies: &mut Vec<Anomaly>) {
    let Some(known) = evidence.values.get(&partition) else { return };
    let drains: Vec<(usize, BTreeMap<u64, u64>)> =
        reads.drains.iter().map(|(line, read)| (*line, read.records.iter().copied().collect())).collect();
    let drained = !drains.is_empty();
    for (offset, value) in
        known.iter().flat_map(|(offset, values)| values.iter().map(move |value| (*offset, *value)))
    {
        let passed =
            |drain: &BTreeMap<u64, u64>| drain.last_key_value().is_some_and(|(last, _)| *last >= offset);
        let missed = drains.iter().find(|(_, drain)| passed(drain) && drain.get(&offset) != Some(&value));
        let overtaken =
            reads.farthest.filter(|(farthest, _)| *farthest >= offset && !reads.seen.contains(&value));
        if let Some(missed_by_line) = missed.map(|(line, _)| *line).or(overtaken.map(|(_, line)| line)) {
            anomalies.push(Anomaly::LostWrite { partition, offset, value, missed_by_line });
        } else if drained && !reads.seen.contains(&value) {
            anomalies.push(Anomaly::Unseen { partition, offset, value });
        }
    }
    for (line, drain) in &drains {
        let mut next = 0;
        for offset in drain.keys() {
            let hole = (next..*offset).find(|between| !known.contains_key(between));
            anomalies.extend(hole.map(|offset| Anomaly::Hole { partition, offset, line: *line }));
            next = offset + 1;
        }
    }
}
