//! What comes later stands later: for each consumer what it polls, for each producer what it sends.

use std::collections::BTreeMap;

use super::Anomaly;
use super::evidence::Evidence;
use crate::history::{Action, History, Operation, Read, SendOutcome, Turn};

/// How far a process has got in a partition.
#[derive(Default)]
struct Progress {
    /// The offset a consumer should be given next; none if it never said where it starts.
    next_poll: Option<u64>,
    high_watermark: Option<u64>,
    /// The last offset a producer got.
    last_send: Option<u64>,
}

pub(super) fn check(history: &History, evidence: &Evidence) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let mut progress: BTreeMap<(u64, u32), Progress> = BTreeMap::new();
    for operation in &history.operations {
        let progress = progress.entry((operation.process, operation.partition)).or_default();
        match &operation.action {
            Action::Assign { offset } => progress.next_poll = Some(*offset),
            Action::Poll(read) => {
                check_poll(operation, read, evidence, progress, &mut anomalies);
                check_high_watermark(operation, read, progress, &mut anomalies);
            }
            Action::Drain(read) => {
                let mut from_start = Progress { next_poll: Some(0), ..Progress::default() };
                check_poll(operation, read, evidence, &mut from_start, &mut anomalies);
                check_high_watermark(operation, read, progress, &mut anomalies);
            }
            Action::Send { values, outcome: SendOutcome::Acknowledged(first), .. } => {
                check_send(operation, *first, progress, &mut anomalies);
                let last = first + (values.len() as u64).saturating_sub(1);
                progress.last_send = Some(progress.last_send.map_or(last, |before| before.max(last)));
            }
            Action::Send { outcome: SendOutcome::Refused | SendOutcome::Unknown, .. }
            | Action::End { .. } => {}
        }
    }
    anomalies.extend(reordered(evidence));
    anomalies
}

/// What a producer sent earlier stands earlier, however much of it was on its way at once.
fn reordered(evidence: &Evidence) -> Vec<Anomaly> {
    let mut turns: BTreeMap<(u32, Turn), u64> = BTreeMap::new();
    for (partition, offsets) in &evidence.values {
        for (offset, value) in offsets.iter().flat_map(|(at, values)| values.iter().map(move |v| (*at, v))) {
            if let Some(turn) = evidence.sent.get(value).and_then(|sent| sent.turn) {
                turns.entry((*partition, turn)).or_insert(offset);
            }
        }
    }
    let mut anomalies = Vec::new();
    for ((&(partition, turn), &from), (&(next_partition, next), &to)) in
        turns.iter().zip(turns.iter().skip(1))
    {
        if partition == next_partition && turn.producer == next.producer && to < from {
            let Turn { producer, sequence } = turn;
            anomalies.push(Anomaly::Reordered { partition, producer, sequence, from, to });
        }
    }
    anomalies
}

fn check_poll(
    operation: &Operation,
    read: &Read,
    evidence: &Evidence,
    progress: &mut Progress,
    anomalies: &mut Vec<Anomaly>,
) {
    let &Operation { line, process, partition, .. } = operation;
    for (to, _) in read.records.iter().copied() {
        if let Some(next) = progress.next_poll {
            let from = next.saturating_sub(1);
            if to < next {
                anomalies.push(Anomaly::NonMonotonicPoll { partition, process, line, from, to });
            } else if evidence.anything_between(partition, next, to) {
                anomalies.push(Anomaly::PollSkip { partition, process, line, from, to });
            }
        }
        progress.next_poll = Some(to + 1);
    }
}

fn check_high_watermark(
    operation: &Operation,
    read: &Read,
    progress: &mut Progress,
    anomalies: &mut Vec<Anomaly>,
) {
    let &Operation { line, process, partition, .. } = operation;
    if let (Some(from), Some(to)) = (progress.high_watermark, read.high_watermark)
        && to < from
    {
        anomalies.push(Anomaly::HighWatermarkWentBack { partition, process, line, from, to });
    }
    progress.high_watermark = progress.high_watermark.max(read.high_watermark);
}

fn check_send(operation: &Operation, to: u64, progress: &Progress, anomalies: &mut Vec<Anomaly>) {
    let &Operation { line, process, partition, .. } = operation;
    if let Some(from) = progress.last_send.filter(|from| to <= *from) {
        anomalies.push(Anomaly::NonMonotonicSend { partition, process, line, from, to });
    }
}
