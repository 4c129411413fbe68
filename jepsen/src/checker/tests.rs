//! The histories in `histories/`: each bad one must be found out for exactly what it is named after, each good one, however
//! odd it looks, must pass.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::report::Verdict;
use super::*;

/// The reports on all histories in a folder, with their names.
fn reports(folder: &str) -> Vec<(String, Report)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories").join(folder);
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let history = History::read(fs::read(&path).unwrap().as_slice());
        let history = history.unwrap_or_else(|error| panic!("{name}: {error}"));
        reports.push((name, check(&history)));
    }
    reports
}

#[test]
fn bad_histories_are_found_out() {
    let mut found = BTreeSet::new();
    for (name, report) in reports("bad") {
        // `lost_write-seen_before+poll_skip`: anomalies, and after a hyphen the case.
        let (expected, _) = name.split_once('-').unwrap_or((&name, ""));
        let expected: BTreeSet<&str> = expected.split('+').collect();
        let actual: BTreeSet<&str> = report.anomalies.iter().map(Anomaly::name).collect();
        assert_eq!(actual, expected, "{name}: {report}");
        assert_eq!(report.exit_code(), 1, "{name}");
        found.extend(actual);
    }
    let all: BTreeSet<&str> = [
        "inconsistent_offset",
        "duplicate",
        "lost_write",
        "unseen",
        "hole",
        "aborted_read",
        "invented",
        "poll_skip",
        "non_monotonic_poll",
        "non_monotonic_send",
        "reordered",
        "overtaken_send",
        "stale_end",
        "high_watermark_went_back",
        "dirty_end",
    ]
    .into();
    assert_eq!(found, all, "every anomaly has a history that shows it");
}

#[test]
fn explanations_show_the_same_and_nothing_can_be_spared() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories/bad");
    for (name, report) in reports("bad") {
        let text = fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
        let history = History::read(text.as_bytes()).unwrap();
        for anomaly in &report.anomalies {
            let lines = explain(&history, anomaly);
            let of = |lines: &[usize]| History {
                operations: history
                    .operations
                    .iter()
                    .filter(|one| lines.contains(&one.line))
                    .cloned()
                    .collect(),
            };
            assert!(check(&of(&lines)).anomalies.contains(anomaly), "{name}: {lines:?}");
            for operation in of(&lines).operations {
                let fewer: Vec<usize> =
                    lines.iter().copied().filter(|line| *line != operation.line).collect();
                assert!(
                    !check(&of(&fewer)).anomalies.contains(anomaly),
                    "{name}: {lines:?} without {operation:?}"
                );
            }
        }
    }
}

#[test]
fn odd_histories_pass() {
    let reports = reports("good");
    assert!(reports.len() >= 5, "the histories are there");
    for (name, report) in reports {
        assert_eq!(report.verdict, Verdict::Pass, "{name}: {report}");
    }
}

#[test]
fn an_empty_history_proves_nothing() {
    let report = check(&History::default());
    assert_eq!((report.verdict, report.exit_code()), (Verdict::ProvesNothing, 2));
}
