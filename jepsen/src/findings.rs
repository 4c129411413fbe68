//! What is wrong with a run, each with the history that explains it.

use std::fs;
use std::io::{BufReader, Cursor};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::checker;
use crate::cluster::Death;
use crate::history::History;
use crate::registry::{self, RegistryHistory};
use crate::workload::Judge;

/// Anomalies that are explained; the others are only told.
const EXPLAINED_MAX: usize = 6;

/// Lines of an explanation that are shown.
const LINES_MAX: usize = 60;

/// Records of a read that are shown, if they are not what it is about.
const RECORDS_MAX: usize = 8;

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) text: String,
    /// The smallest history that shows it: numbered lines.
    pub(crate) history: Vec<String>,
}

impl Finding {
    pub(crate) fn new(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), history: Vec::new() }
    }
}

/// What a checker found out.
pub(crate) struct Judgement {
    /// The checker's own report, as it stands in results.
    pub(crate) report: Value,
    pub(crate) findings: Vec<Finding>,
    /// Nothing was done that could have been wrong, or nothing was read.
    pub(crate) proves_nothing: Option<String>,
}

/// Judges a history.
pub(crate) fn judge(path: &Path, judge: Judge) -> anyhow::Result<Judgement> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match judge {
        Judge::Log => judge_log(&text),
        Judge::Registry => judge_registry(&text),
    }
}

fn judge_log(text: &str) -> anyhow::Result<Judgement> {
    let history = History::read(BufReader::new(Cursor::new(text)))?;
    let report = checker::check(&history);
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (number, anomaly) in report.anomalies.iter().enumerate() {
        let mut finding = Finding::new(anomaly.name(), anomaly.to_string());
        if number < EXPLAINED_MAX {
            let (_, offsets, values) = anomaly.subjects();
            let shown = checker::explain(&history, anomaly);
            finding.history =
                show(&lines, &shown, |offset, value| offsets.contains(&offset) || values.contains(&value));
        }
        findings.push(finding);
    }
    let proves_nothing = match report.verdict {
        checker::Verdict::ProvesNothing => Some("nothing was acknowledged and read".to_owned()),
        checker::Verdict::Pass if report.drains == 0 => Some("nothing was read back at the end".to_owned()),
        checker::Verdict::Pass | checker::Verdict::Violation => None,
    };
    Ok(Judgement { report: serde_json::to_value(&report)?, findings, proves_nothing })
}

fn judge_registry(text: &str) -> anyhow::Result<Judgement> {
    let history = RegistryHistory::read(BufReader::new(Cursor::new(text)))?;
    let report = registry::check(&history);
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (number, anomaly) in report.anomalies.iter().enumerate() {
        let mut finding = Finding::new(anomaly.name(), anomaly.to_string());
        if number < EXPLAINED_MAX {
            finding.history = show(&lines, &registry::explain(&history, anomaly), |_, _| false);
        }
        findings.push(finding);
    }
    let nothing = "nothing was changed, or nothing could be decided";
    let proves_nothing = report.proves_nothing().then(|| nothing.to_owned());
    Ok(Judgement { report: serde_json::to_value(&report)?, findings, proves_nothing })
}

/// Lines by their numbers, the long ones cut down to what they are about.
fn show(lines: &[&str], numbers: &[usize], is_subject: impl Fn(u64, u64) -> bool) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for number in numbers.iter().take(LINES_MAX) {
        let Some(line) = number.checked_sub(1).and_then(|place| lines.get(place)) else { continue };
        shown.push(format!("{number}: {}", shorten(line, &is_subject)));
    }
    if let Some(more) = numbers.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        shown.push(format!("... and {more} lines more"));
    }
    shown
}

fn shorten(line: &str, is_subject: impl Fn(u64, u64) -> bool) -> String {
    let Ok(mut parsed) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let Some(records) = parsed.pointer_mut("/value/records").and_then(Value::as_array_mut) else {
        return line.to_owned();
    };
    if records.len() <= RECORDS_MAX {
        return line.to_owned();
    }
    let total = records.len();
    records.retain(|record| {
        let number = |place: usize| record.get(place).and_then(Value::as_u64).unwrap_or(u64::MAX);
        is_subject(number(0), number(1))
    });
    let left_out = total - records.len();
    format!("{parsed} ({left_out} records left out)")
}

/// What is wrong with the processes: those that died by themselves, and those whose logs tell of a broken assertion.
pub(crate) fn of_processes(deaths: &[Death], store: &Path, nodes: impl Iterator<Item = u8>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for death in deaths {
        findings.push(of_death(death));
    }
    for node in nodes {
        let log = fs::read_to_string(store.join(format!("node-{node}.log"))).unwrap_or_default();
        for (number, line) in (1..).zip(log.lines()).filter(|(_, line)| line.contains("panicked at")) {
            let mut finding =
                Finding::new("panicked", format!("panicked: node {node}, line {number} of its log: {line}"));
            finding.history = log.lines().skip(number - 1).take(12).map(str::to_owned).collect();
            findings.push(finding);
        }
    }
    findings
}

/// A node that died by itself.
pub(crate) fn of_death(Death { node, at_ms, how, last_words }: &Death) -> Finding {
    let text = format!("died_by_itself: node {node} {how} after {at_ms} ms; its last words: {last_words}");
    Finding::new("died_by_itself", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reads_are_cut_down_to_what_they_are_about() {
        let records: Vec<(u64, u64)> = (0..100).map(|at| (at, at + 1000)).collect();
        let line = serde_json::json!({"f": "drain", "value": {"records": records}}).to_string();
        let short = shorten(&line, |offset, _| offset == 7);
        assert_eq!(short, r#"{"f":"drain","value":{"records":[[7,1007]]}} (99 records left out)"#);
        let other = r#"{"f":"send","value":{"values":[1]}}"#;
        assert_eq!(shorten(other, |_, _| true), other);
    }

    #[test]
    fn deaths_and_panics_are_findings() {
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("node-1.log"), "fine\nthread 'x' panicked at a.rs:1:2:\nmust hold\n")
            .unwrap();
        let death = Death {
            node: 2,
            at_ms: 5,
            how: "ended with code 1".to_owned(),
            last_words: "error: no space".to_owned(),
        };
        let findings = of_processes(&[death], store.path(), 1..=2);
        let names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
        assert_eq!(names, ["died_by_itself", "panicked"]);
        assert_eq!(findings[1].history, ["thread 'x' panicked at a.rs:1:2:", "must hold"]);
    }
}
