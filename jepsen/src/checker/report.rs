//! The verdict, and how much it rests on: a history in which nothing happened proves nothing.

use std::fmt;

use serde::Serialize;

use super::Anomaly;
use crate::history::{Action, History, SendOutcome};

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) sends_acknowledged: usize,
    pub(crate) sends_refused: usize,
    pub(crate) sends_unknown: usize,
    pub(crate) reads: usize,
    pub(crate) records_read: usize,
    pub(crate) drains: usize,
    pub(crate) ends: usize,
    pub(crate) anomalies: Vec<Anomaly>,
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Nothing wrong was found.
    Pass,
    /// Promises were broken.
    Violation,
    /// Nothing was acknowledged, or nothing was read.
    ProvesNothing,
}

impl Report {
    pub(super) fn new(history: &History, mut anomalies: Vec<Anomaly>) -> Self {
        anomalies.sort();
        anomalies.dedup();
        let mut report = Self {
            verdict: Verdict::Violation,
            sends_acknowledged: 0,
            sends_refused: 0,
            sends_unknown: 0,
            reads: 0,
            records_read: 0,
            drains: 0,
            ends: 0,
            anomalies,
        };
        for operation in &history.operations {
            match &operation.action {
                Action::Send { outcome: SendOutcome::Acknowledged(_), .. } => report.sends_acknowledged += 1,
                Action::Send { outcome: SendOutcome::Refused, .. } => report.sends_refused += 1,
                Action::Send { outcome: SendOutcome::Unknown, .. } => report.sends_unknown += 1,
                Action::Poll(read) | Action::Drain(read) => {
                    report.reads += 1;
                    report.records_read += read.records.len();
                    report.drains += usize::from(matches!(operation.action, Action::Drain(_)));
                }
                Action::Assign { .. } => {}
                Action::End { .. } => report.ends += 1,
            }
        }
        if report.anomalies.is_empty() {
            let empty = report.sends_acknowledged == 0 || report.records_read == 0;
            report.verdict = if empty { Verdict::ProvesNothing } else { Verdict::Pass };
        }
        report
    }

    /// What scripts go by.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Pass => 0,
            Verdict::Violation => 1,
            Verdict::ProvesNothing => 2,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for anomaly in &self.anomalies {
            writeln!(f, "{anomaly}")?;
        }
        writeln!(
            f,
            "sends: {} acknowledged, {} refused, {} unknown; reads: {} with {} records; drains: {}",
            self.sends_acknowledged,
            self.sends_refused,
            self.sends_unknown,
            self.reads,
            self.records_read,
            self.drains
        )?;
        match self.verdict {
            Verdict::Pass if self.drains == 0 => {
                writeln!(f, "pass, but nothing was drained: lost writes may be hidden")
            }
            Verdict::Pass => writeln!(f, "pass"),
            Verdict::Violation => writeln!(f, "violation: {} anomalies", self.anomalies.len()),
            Verdict::ProvesNothing => {
                writeln!(f, "nothing was acknowledged and read: this history proves nothing")
            }
        }
    }
}
