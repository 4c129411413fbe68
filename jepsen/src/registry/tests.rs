//! The histories in `histories/registry-bad` and `histories/registry-good`: each bad one must be found out for what it is named
//! after, each good one, however odd it looks, must pass.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

fn reports(folder: &str) -> Vec<(String, RegistryReport)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories").join(folder);
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().next().is_some_and(is_of_registry), "{name}: the first line tells what it is");
        let history = RegistryHistory::read(text.as_bytes());
        reports.push((name.clone(), check(&history.unwrap_or_else(|error| panic!("{name}: {error}")))));
    }
    reports
}

#[test]
fn bad_histories_are_found_out() {
    let mut found = BTreeSet::new();
    for (name, report) in reports("registry-bad") {
        let (expected, _) = name.split_once('-').unwrap_or((&name, ""));
        let actual: Vec<&str> = report.anomalies.iter().map(RegistryAnomaly::name).collect();
        assert_eq!(actual, [expected], "{name}: {report}");
        assert_eq!(report.exit_code(), 1, "{name}");
        found.extend(actual.into_iter().map(str::to_owned));
    }
    let all = ["not_linearizable", "lists_differ"].map(str::to_owned);
    assert_eq!(found, all.into(), "every anomaly has a history that shows it");
}

#[test]
fn odd_histories_pass() {
    let reports = reports("registry-good");
    assert!(reports.len() >= 5, "the histories are there");
    for (name, report) in reports {
        assert_eq!(report.exit_code(), 0, "{name}: {report}");
        assert!(report.undecided.is_empty(), "{name}: {report}");
    }
}

#[test]
fn an_empty_history_proves_nothing() {
    assert_eq!(check(&RegistryHistory::default()).exit_code(), 2);
}
