//! What a run came to, as `results.json` and as lines on the terminal.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::cluster::Death;
use crate::findings::Finding;
use crate::nemesis::{Planned, Tally};
use crate::recorder::{Ended, Event, Sample};

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Pass,
    /// Promises were broken.
    Anomalies,
    /// Too little happened for anything to be wrong.
    ProvesNothing,
}

impl Verdict {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Anomalies => 1,
            Self::ProvesNothing => 2,
        }
    }
}

/// How often something ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Count {
    pub(crate) ok: usize,
    pub(crate) fail: usize,
    pub(crate) info: usize,
}

/// How a run was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) workload: &'static str,
    pub(crate) nemesis: String,
    pub(crate) network: &'static str,
    pub(crate) nodes: u8,
    pub(crate) time_limit_s: f64,
    pub(crate) seed: u64,
    /// What repeats it.
    pub(crate) command: String,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) verdict: Verdict,
    pub(crate) asked: Asked,
    /// By function.
    pub(crate) operations: BTreeMap<&'static str, Count>,
    pub(crate) faults: Tally,
    /// Kinds that are not possible here, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) view_changes: u64,
    pub(crate) deaths: Vec<Death>,
    /// From the end of all faults until the cluster was well.
    pub(crate) well_after_ms: Option<u64>,
    pub(crate) proves_nothing: Option<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) checker: Value,
    pub(crate) plan: Vec<Planned>,
    pub(crate) events: Vec<Event>,
}

/// Operations acknowledged below which a run proves nothing.
const ACKNOWLEDGED_MIN: usize = 20;

impl Results {
    /// Puts in the verdict what follows from the rest.
    pub(crate) fn decide(mut self, wants_faults: bool) -> Self {
        let reason = self.proves_nothing.take();
        let injected: usize = self.faults.injected.values().sum();
        self.proves_nothing = if reason.is_some() {
            reason
        } else if self.acknowledged() < ACKNOWLEDGED_MIN {
            Some(format!("only {} operations were acknowledged", self.acknowledged()))
        } else if wants_faults && injected == 0 {
            Some("no fault was injected".to_owned())
        } else {
            None
        };
        self.verdict = match (self.findings.is_empty(), &self.proves_nothing) {
            (false, _) => Verdict::Anomalies,
            (true, Some(_)) => Verdict::ProvesNothing,
            (true, None) => Verdict::Pass,
        };
        self
    }

    /// Changes that were acknowledged to clients.
    pub(crate) fn acknowledged(&self) -> usize {
        let is_read = |f: &str| matches!(f, "poll" | "assign" | "end" | "drain" | "list");
        self.operations.iter().filter(|(f, _)| !is_read(f)).map(|(_, count)| count.ok).sum()
    }

    pub(crate) fn injected(&self) -> usize {
        self.faults.injected.values().sum()
    }
}

/// Counts operations by function.
pub(crate) fn count(samples: &[Sample]) -> BTreeMap<&'static str, Count> {
    let mut counts: BTreeMap<&'static str, Count> = BTreeMap::new();
    for sample in samples {
        let count = counts.entry(sample.f).or_default();
        match sample.ended {
            Ended::Ok => count.ok += 1,
            Ended::Fail => count.fail += 1,
            Ended::Info => count.info += 1,
        }
    }
    counts
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Count { ok, fail, info }) in &self.operations {
            writeln!(f, "{name}: {ok} ok, {fail} failed, {info} unknown")?;
        }
        let list = |tally: &BTreeMap<&str, usize>| -> String {
            tally.iter().map(|(kind, count)| format!(", {count} {kind}")).collect()
        };
        writeln!(f, "faults: {}{}", self.injected(), list(&self.faults.injected))?;
        if !self.faults.skipped.is_empty() {
            let skipped: usize = self.faults.skipped.values().sum();
            writeln!(f, "faults skipped: {skipped}{}", list(&self.faults.skipped))?;
        }
        for why in &self.left_out {
            writeln!(f, "left out: {why}")?;
        }
        write!(f, "view changes seen: {}; ", self.view_changes)?;
        match self.well_after_ms {
            Some(ms) => {
                writeln!(f, "well again after {:.1} s", std::time::Duration::from_millis(ms).as_secs_f64())?
            }
            None => writeln!(f, "not well again")?,
        }
        for finding in self.findings.iter().take(20) {
            writeln!(f, "{}", finding.text)?;
        }
        match self.verdict {
            Verdict::Pass => writeln!(f, "pass"),
            Verdict::Anomalies => writeln!(f, "ANOMALIES: {}", self.findings.len()),
            Verdict::ProvesNothing => {
                writeln!(f, "proves nothing: {}", self.proves_nothing.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(ok: usize, injected: usize) -> Results {
        let mut faults = Tally::default();
        faults.injected.insert("kill", injected);
        Results {
            verdict: Verdict::Pass,
            asked: Asked {
                workload: "append",
                nemesis: "kill".to_owned(),
                network: "loopback",
                nodes: 3,
                time_limit_s: 1.0,
                seed: 1,
                command: String::new(),
            },
            operations: [
                ("send", Count { ok, fail: 0, info: 0 }),
                ("poll", Count { ok: 999, fail: 0, info: 0 }),
            ]
            .into(),
            faults,
            left_out: Vec::new(),
            view_changes: 0,
            deaths: Vec::new(),
            well_after_ms: Some(1),
            proves_nothing: None,
            findings: Vec::new(),
            checker: Value::Null,
            plan: Vec::new(),
            events: Vec::new(),
        }
    }

    #[test]
    fn a_run_in_which_nothing_happened_proves_nothing() {
        assert_eq!(results(100, 1).decide(true).verdict, Verdict::Pass);
        assert_eq!(results(100, 0).decide(false).verdict, Verdict::Pass);
        assert_eq!(results(100, 0).decide(true).verdict, Verdict::ProvesNothing);
        assert_eq!(results(3, 5).decide(true).verdict, Verdict::ProvesNothing);
        let mut unread = results(100, 1);
        unread.proves_nothing = Some("nothing was read back".to_owned());
        assert_eq!(unread.decide(true).verdict, Verdict::ProvesNothing);
    }

    #[test]
    fn an_anomaly_outweighs_everything() {
        let mut bad = results(0, 0);
        bad.findings.push(Finding::new("hole", "hole: partition 0"));
        let bad = bad.decide(true);
        assert_eq!((bad.verdict, bad.verdict.exit_code()), (Verdict::Anomalies, 1));
    }
}
