//! A drill's report as one page of HTML: its tables, and drawings of the rounds and of the latencies around the event.

use super::profile::place_of_event;
use super::report::{Report, Round};
use crate::measure::drawing::{self, Axis, Curve, drawing, escape};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let verdict = if report.passed { "passed" } else { "FAILED" };
    let title = format!("varve drill {} on {}: {verdict}", report.drill, report.topic);
    let failures: String =
        report.failures.iter().map(|failure| format!("<p><b>{}</b></p>\n", escape(failure))).collect();
    let text = format!("<pre>{}</pre>\n", escape(&report.text()));
    let version = format!("<p>varve {}</p>\n", escape(&report.version));
    drawing::page(&title, &[failures, rounds(report), profile(report), text, version].concat())
}

fn rounds(report: &Report) -> String {
    let curve = |name, value: &dyn Fn(&Round) -> Option<f64>| Curve {
        name,
        values: report.rounds.iter().map(value).collect(),
    };
    let curves = [
        curve("missed", &|round| round.detection_ms),
        curve("first ack", &|round| round.first_ack_ms),
        curve("unavailable", &|round| Some(round.unavailable_ms)),
    ];
    let axis =
        Axis { from: "round 1".to_owned(), to: format!("round {}", report.rounds.len()), marks: Vec::new() };
    format!("<p>Milliseconds after the event, round by round:</p>\n{}\n", drawing(&curves, &axis))
}

fn profile(report: &Report) -> String {
    let profile = &report.profile;
    let curves = [
        Curve { name: "mean ms", values: profile.mean_ms.clone() },
        Curve { name: "max ms", values: profile.max_ms.clone() },
    ];
    let end_ms = profile.from_ms + profile.step_ms * profile.mean_ms.len() as f64;
    let axis = Axis {
        from: format!("{:.0} s", profile.from_ms / 1e3),
        to: format!("{:.0} s after the event", end_ms / 1e3),
        marks: vec![place_of_event()],
    };
    format!(
        "<p>How long an acknowledgement took, by when its record was due, all rounds on top of each other:</p>\n{}\n",
        drawing(&curves, &axis)
    )
}
