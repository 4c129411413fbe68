//! What can be wrong. One line each; line numbers point into the history.

use std::fmt;

use serde::Serialize;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "anomaly", rename_all = "snake_case")]
pub(crate) enum Anomaly {
    /// One offset with several values.
    InconsistentOffset { partition: u32, offset: u64, values: Vec<u64> },
    /// One value at several offsets: partition and offset of each.
    Duplicate { value: u64, places: Vec<(u32, u64)> },
    /// A value that was acknowledged or read is missing from a read that went past it.
    LostWrite { partition: u32, offset: u64, value: u64, missed_by_line: usize },
    /// A value that was acknowledged was not there yet when everything was read at the end.
    Unseen { partition: u32, offset: u64, value: u64 },
    /// A drain jumped over an offset of which nothing is known.
    Hole { partition: u32, offset: u64, line: usize },
    /// A value was read although its send had been refused.
    AbortedRead { partition: u32, offset: u64, value: u64, line: usize },
    /// A value was read that nobody sent.
    Invented { partition: u32, offset: u64, value: u64, line: usize },
    /// A consumer was not given what stands between two offsets it read.
    PollSkip { partition: u32, process: u64, line: usize, from: u64, to: u64 },
    /// A consumer was given an offset again, or an earlier one.
    NonMonotonicPoll { partition: u32, process: u64, line: usize, from: u64, to: u64 },
    /// A producer's later send got a smaller offset.
    NonMonotonicSend { partition: u32, process: u64, line: usize, from: u64, to: u64 },
    /// What a producer sent next stands before what it sent first.
    Reordered { partition: u32, producer: u64, sequence: u64, from: u64, to: u64 },
    /// A send that began when another one had been acknowledged got a smaller offset than that one.
    OvertakenSend { partition: u32, line: usize, offset: u64, earlier: u64 },
    /// Somebody who asked for the end of a partition was not told of what had been acknowledged, or told, before.
    StaleEnd { partition: u32, line: usize, told: u64, known: u64 },
    /// What a consumer was told to be committed went back.
    HighWatermarkWentBack { partition: u32, process: u64, line: usize, from: u64, to: u64 },
    /// A record was read at or above the high watermark told with it.
    DirtyEnd { partition: u32, offset: u64, high_watermark: u64, line: usize },
}

impl Anomaly {
    /// Its name, as in reports and in the names of the example histories.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::InconsistentOffset { .. } => "inconsistent_offset",
            Self::Duplicate { .. } => "duplicate",
            Self::LostWrite { .. } => "lost_write",
            Self::Unseen { .. } => "unseen",
            Self::Hole { .. } => "hole",
            Self::AbortedRead { .. } => "aborted_read",
            Self::Invented { .. } => "invented",
            Self::PollSkip { .. } => "poll_skip",
            Self::NonMonotonicPoll { .. } => "non_monotonic_poll",
            Self::NonMonotonicSend { .. } => "non_monotonic_send",
            Self::Reordered { .. } => "reordered",
            Self::OvertakenSend { .. } => "overtaken_send",
            Self::StaleEnd { .. } => "stale_end",
            Self::HighWatermarkWentBack { .. } => "high_watermark_went_back",
            Self::DirtyEnd { .. } => "dirty_end",
        }
    }

    /// The partition, the offsets and the values that it is about.
    pub(crate) fn subjects(&self) -> (Option<u32>, Vec<u64>, Vec<u64>) {
        match self {
            Self::Duplicate { value, places } => {
                (None, places.iter().map(|(_, offset)| *offset).collect(), vec![*value])
            }
            Self::InconsistentOffset { partition, offset, values } => {
                (Some(*partition), vec![*offset], values.clone())
            }
            Self::LostWrite { partition, offset, value, .. }
            | Self::Unseen { partition, offset, value }
            | Self::AbortedRead { partition, offset, value, .. }
            | Self::Invented { partition, offset, value, .. } => {
                (Some(*partition), vec![*offset], vec![*value])
            }
            Self::Hole { partition, offset, .. } => (Some(*partition), vec![*offset, offset + 1], Vec::new()),
            Self::DirtyEnd { partition, offset, high_watermark, .. } => {
                (Some(*partition), vec![*offset, *high_watermark], Vec::new())
            }
            Self::OvertakenSend { partition, offset, earlier, .. } => {
                (Some(*partition), vec![*offset, *earlier], Vec::new())
            }
            Self::StaleEnd { partition, told, known, .. } => {
                (Some(*partition), vec![*told, known.saturating_sub(1)], Vec::new())
            }
            Self::PollSkip { partition, from, to, .. } => {
                (Some(*partition), vec![*from, from + 1, *to], Vec::new())
            }
            Self::NonMonotonicPoll { partition, from, to, .. }
            | Self::NonMonotonicSend { partition, from, to, .. }
            | Self::Reordered { partition, from, to, .. }
            | Self::HighWatermarkWentBack { partition, from, to, .. } => {
                (Some(*partition), vec![*from, *to], Vec::new())
            }
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::InconsistentOffset { partition, offset, values } => {
                write!(f, "partition {partition} offset {offset} holds each of {values:?}")
            }
            Self::Duplicate { value, places } => {
                let places: Vec<String> =
                    places.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
                write!(f, "value {value} stands at each of {} (partition:offset)", places.join(", "))
            }
            Self::LostWrite { partition, offset, value, missed_by_line } => {
                write!(
                    f,
                    "partition {partition} offset {offset} value {value}; line {missed_by_line} read past it"
                )
            }
            Self::Unseen { partition, offset, value } => {
                write!(
                    f,
                    "partition {partition} offset {offset} value {value} was acknowledged; no drain got that far"
                )
            }
            Self::Hole { partition, offset, line } => {
                write!(f, "partition {partition} offset {offset}; line {line} jumped over it")
            }
            Self::AbortedRead { partition, offset, value, line } => {
                write!(
                    f,
                    "partition {partition} offset {offset} value {value} was refused, and read in line {line}"
                )
            }
            Self::Invented { partition, offset, value, line } => {
                write!(
                    f,
                    "partition {partition} offset {offset} value {value} in line {line}; nobody sent it there"
                )
            }
            Self::DirtyEnd { partition, offset, high_watermark, line } => {
                write!(
                    f,
                    "partition {partition} offset {offset} in line {line}, where {high_watermark} was the end"
                )
            }
            Self::Reordered { partition, producer, sequence, from, to } => {
                write!(
                    f,
                    "partition {partition} producer {producer} sent its number {sequence} to {from}, and the next to {to}"
                )
            }
            Self::OvertakenSend { partition, line, offset, earlier } => {
                write!(
                    f,
                    "partition {partition} line {line} got {offset}, but {earlier} was acknowledged before it began"
                )
            }
            Self::StaleEnd { partition, line, told, known } => {
                write!(f, "partition {partition} line {line} was told {told}, when {known} was known before")
            }
            Self::PollSkip { partition, process, line, from, to }
            | Self::NonMonotonicPoll { partition, process, line, from, to }
            | Self::NonMonotonicSend { partition, process, line, from, to }
            | Self::HighWatermarkWentBack { partition, process, line, from, to } => {
                write!(f, "partition {partition} process {process} line {line} went from {from} to {to}")
            }
        }
    }
}
