//! `varve bench compare`: two saved reports side by side, and which of the differences mean something.
//!
//! Runs vary by themselves, from one second to the next. Of each number that is known second by second, the middle four fifths of
//! the seconds are taken as what the run does by itself. A difference is larger than the spread if these ranges of the two
//! runs have nothing in common. That is no test of significance; a difference that fails it is not worth a word.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::report::{Report, Second, Side};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

/// Whole seconds that a run has at least for a spread to be told.
const SECONDS_MIN: usize = 5;

/// Two runs compared.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Comparison {
    /// Settings that differ, with both values.
    settings: Vec<(String, String, String)>,
    lines: Vec<Line>,
}

/// One number of both runs.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Line {
    what: String,
    a: f64,
    b: f64,
    /// `b / a`; none if that is no number.
    ratio: Option<f64>,
    verdict: Verdict,
}

/// What a difference means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// More than either run varies by itself.
    Larger,
    /// Within what the runs do by themselves.
    Within,
    /// The runs are too short to tell, or the number is none that each second has.
    Unknown,
}

impl Verdict {
    fn in_words(self) -> &'static str {
        match self {
            Self::Larger => "larger than the spread",
            Self::Within => "within the spread",
            Self::Unknown => "cannot tell",
        }
    }
}

/// Compares two files.
pub(super) fn run(context: &Context, a: &Path, b: &Path) -> Outcome {
    let (report_a, report_b) = (read(a)?, read(b)?);
    if report_a.benchmark != report_b.benchmark {
        return Err(Failure::usage(anyhow!(
            "{} is a run of `{}` and {} one of `{}`: they measure different things",
            a.display(),
            report_a.benchmark,
            b.display(),
            report_b.benchmark
        )));
    }
    output::print(context.output, &compare(&report_a, &report_b), Comparison::text)
}

fn read(path: &Path) -> Outcome<Report> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(Failure::usage)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no report that `varve bench --save` wrote", path.display()))
        .map_err(Failure::usage)
}

fn compare(a: &Report, b: &Report) -> Comparison {
    let mut names: Vec<&String> = a.settings.iter().chain(&b.settings).map(|setting| &setting.name).collect();
    names.dedup();
    let value = |report: &Report, name: &str| {
        let found = report.settings.iter().find(|setting| setting.name == name);
        found.map_or_else(|| "-".to_owned(), |setting| setting.value.clone())
    };
    let mut settings: Vec<(String, String, String)> =
        names.into_iter().map(|name| (name.clone(), value(a, name), value(b, name))).collect();
    settings.retain(|(_, a, b)| a != b);
    settings.sort();
    settings.dedup();
    let pairs = a.sides.iter().filter_map(|side| {
        let other = b.sides.iter().find(|other| other.name == side.name)?;
        Some((side, other))
    });
    Comparison { settings, lines: pairs.flat_map(|(a, b)| lines(a, b)).collect() }
}

fn lines(a: &Side, b: &Side) -> Vec<Line> {
    let rate = |second: &Second| Some(second.records_per_second);
    let bytes = |second: &Second| Some(second.megabytes_per_second);
    let line = |what: &str, (value_a, value_b): (f64, f64), verdict| Line {
        what: format!("{}: {what}", a.name),
        a: value_a,
        b: value_b,
        ratio: (value_a > 0.0).then(|| value_b / value_a),
        verdict,
    };
    let mut lines = vec![
        line("records/s", (a.records_per_second, b.records_per_second), verdict(a, b, rate)),
        line("MB/s", (a.megabytes_per_second, b.megabytes_per_second), verdict(a, b, bytes)),
    ];
    for (place, ((name, of_a), (_, of_b))) in
        a.latency_ms.named().into_iter().zip(b.latency_ms.named()).enumerate()
    {
        let of_second = |second: &Second| Some(second.latency_ms?.named()[place].1);
        // A second has too few records for the rarest ones: its 99.9 is its maximum, which says nothing of the run's.
        let verdict =
            if matches!(name, "p50" | "p90" | "p99") { verdict(a, b, of_second) } else { Verdict::Unknown };
        lines.push(line(&format!("{name} ms"), (of_a, of_b), verdict));
    }
    lines
}

fn verdict(a: &Side, b: &Side, number: impl Fn(&Second) -> Option<f64>) -> Verdict {
    match (spread(a, &number), spread(b, &number)) {
        (Some((low_a, high_a)), Some((low_b, high_b))) if high_a < low_b || high_b < low_a => Verdict::Larger,
        (Some(_), Some(_)) => Verdict::Within,
        (None, _) | (_, None) => Verdict::Unknown,
    }
}

/// The middle four fifths of what whole seconds say.
fn spread(side: &Side, number: &impl Fn(&Second) -> Option<f64>) -> Option<(f64, f64)> {
    let whole = side.over_time.iter().filter(|second| second.seconds >= 1.0);
    let mut values: Vec<f64> = whole.filter_map(number).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 10;
    let last = values.len().checked_sub(1 + cut)?;
    (values.len() >= SECONDS_MIN).then(|| (values[cut], values[last]))
}

impl Comparison {
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, a, b) in &self.settings {
            text += &format!("{name} differs: {a} in A, {b} in B\n");
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let rows = self.lines.iter().map(|line| {
            let ratio = line.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            let verdict = line.verdict.in_words().to_owned();
            vec![line.what.clone(), format!("{:.2}", line.a), format!("{:.2}", line.b), ratio, verdict]
        });
        text += &table(&["", "A", "B", "B / A", "DIFFERENCE"], &[1, 2, 3], rows);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, side};
    use super::*;

    fn verdict_on_rates(a: &[f64], b: &[f64]) -> (Option<f64>, Verdict) {
        let comparison = compare(&report(vec![side(a, 1.0)]), &report(vec![side(b, 1.0)]));
        let line = comparison.lines.iter().find(|line| line.what == "produced: records/s").unwrap();
        (line.ratio, line.verdict)
    }

    #[test]
    fn a_difference_counts_if_the_runs_do_not_overlap() {
        let steady = [100.0, 101.0, 99.0, 100.0, 100.0];
        assert_eq!(verdict_on_rates(&steady, &steady.map(|rate| rate * 2.0)), (Some(2.0), Verdict::Larger));
        assert_eq!(verdict_on_rates(&steady.map(|rate| rate * 2.0), &steady), (Some(0.5), Verdict::Larger));
        let wild = [20.0, 300.0, 90.0, 400.0, 190.0];
        assert_eq!(verdict_on_rates(&steady, &wild), (Some(2.0), Verdict::Within));
    }

    #[test]
    fn one_odd_second_of_ten_changes_nothing() {
        let mut stalled = [200.0; 10];
        stalled[4] = 0.0;
        assert_eq!(verdict_on_rates(&[100.0; 10], &stalled).1, Verdict::Larger);
    }

    #[test]
    fn short_runs_are_not_judged() {
        assert_eq!(verdict_on_rates(&[1.0; 4], &[9.0; 10]).1, Verdict::Unknown);
        assert_eq!(verdict_on_rates(&[0.0; 5], &[9.0; 10]), (None, Verdict::Larger));
    }

    #[test]
    fn latencies_and_settings_are_compared() {
        let a = report(vec![side(&[1.0; 5], 2.0)]);
        let mut b = report(vec![side(&[1.0; 5], 3.0)]);
        b.settings[0].value = "2".to_owned();
        let comparison = compare(&a, &b);
        assert_eq!(comparison.settings, [("seed".to_owned(), "1".to_owned(), "2".to_owned())]);
        let verdict = |what: &str| comparison.lines.iter().find(|line| line.what == what).unwrap().verdict;
        assert_eq!(verdict("produced: p50 ms"), Verdict::Larger);
        assert_eq!(verdict("produced: max ms"), Verdict::Unknown);
        let text = comparison.text();
        assert!(text.contains("seed differs: 1 in A, 2 in B") && text.contains("1.500"), "{text}");
    }
}
