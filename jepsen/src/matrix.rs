//! Many tests, one after the other, and a table of what came of them.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::results::Verdict;
use crate::run::{Options, run, say};

/// A test that is done, or that could not be.
struct Row {
    workload: &'static str,
    nemesis: String,
    seed: u64,
    verdict: String,
    code: u8,
    /// Acknowledged operations, faults, view changes, anomalies.
    numbers: [u64; 4],
}

/// Runs all tests; the worst of their exit codes is its own, an anomaly being the worst.
pub(crate) async fn run_all(tests: Vec<Options>) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for (number, options) in (1..).zip(&tests) {
        let (workload, nemesis) = (options.workload.name(), options.nemesis.name.clone());
        say(&format!("\n{number} of {}: {workload} under {nemesis}", tests.len()));
        let row =
            Row { workload, nemesis, seed: options.seed, verdict: String::new(), code: 2, numbers: [0; 4] };
        rows.push(match run(options).await {
            Ok(done) => {
                let results = &done.results;
                say(&format!("{results}{}", done.folder.join("report.html").display()));
                let verdict = match results.verdict {
                    Verdict::Pass => "pass",
                    Verdict::Anomalies => "ANOMALIES",
                    Verdict::ProvesNothing => "proves nothing",
                };
                let numbers = [results.acknowledged(), results.injected(), 0, results.findings.len()];
                let mut numbers = numbers.map(|number| number as u64);
                numbers[2] = results.view_changes;
                Row { verdict: verdict.to_owned(), code: results.verdict.exit_code(), numbers, ..row }
            }
            Err(error) => {
                say(&format!("error: {error:#}"));
                Row { verdict: format!("harness: {error:#}"), ..row }
            }
        });
    }
    io::stdout().lock().write_all(table(&rows).as_bytes())?;
    let codes = || rows.iter().map(|row| row.code);
    Ok(if codes().any(|code| code == 1) { 1 } else { codes().max().unwrap_or(2) })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}{:<24}{:>8}{:>14}{:>8}{:>14}{:>11}  {}\n",
        "WORKLOAD", "NEMESIS", "SEED", "ACKNOWLEDGED", "FAULTS", "VIEW CHANGES", "ANOMALIES", "VERDICT"
    );
    let mut sums = [0; 4];
    for Row { workload, nemesis, seed, verdict, numbers, .. } in rows {
        let [acknowledged, faults, views, anomalies] = numbers;
        let _ = writeln!(
            text,
            "{workload:<14}{nemesis:<24}{seed:>8}{acknowledged:>14}{faults:>8}{views:>14}{anomalies:>11}  {verdict}"
        );
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number;
        }
    }
    let [acknowledged, faults, views, anomalies] = sums;
    let _ = writeln!(
        text,
        "{:<14}{:<24}{:>8}{acknowledged:>14}{faults:>8}{views:>14}{anomalies:>11}",
        "all",
        "",
        rows.len()
    );
    text
}
