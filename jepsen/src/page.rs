//! A run as one page of HTML: its verdict, what was wrong with the history that shows it, and drawings over time. Nothing is
//! fetched from anywhere.

mod plot;

use std::fmt::Write as _;
use std::time::Duration;

use self::plot::{Band, faults_drawing, latency_drawing, rate_drawing};
use crate::recorder::{Event, Phase, Sample};
use crate::results::{Count, Results, Verdict};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}\
    td.n,th.n{text-align:right}svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}\
    pre{background:#f6f6f4;padding:.6em;overflow-x:auto;font-size:12.5px}.good{color:#1a7f37}.bad{color:#b3261e}\
    .doubt{color:#8a6100}details{margin:.4em 0}";

/// The page.
pub(crate) fn page(results: &Results, samples: &[Sample]) -> String {
    let asked = &results.asked;
    let title = escape(&format!("{} under {} on {} nodes", asked.workload, asked.nemesis, asked.nodes));
    let (class, verdict) = match results.verdict {
        Verdict::Pass => ("good", "Nothing wrong was found.".to_owned()),
        Verdict::Anomalies => ("bad", format!("{} anomalies.", results.findings.len())),
        Verdict::ProvesNothing => {
            ("doubt", format!("Proves nothing: {}.", results.proves_nothing.as_deref().unwrap_or_default()))
        }
    };
    let end = samples.iter().map(|sample| sample.end).max().unwrap_or_default();
    let end = results.events.iter().map(|event| Duration::from_millis(event.at_ms)).fold(end, Duration::max);
    let bands = bands(&results.events, end);
    let well =
        results.well_after_ms.map_or("not well again".to_owned(), |ms| format!("well again after {ms} ms"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style>\
         </head>\n<body><h1>{title}</h1>\n<p class=\"{class}\"><strong>{}</strong> Operations acknowledged: {}; faults: {}; \
         view changes seen: {}; {well}.</p>\n{}{}\n<h2>Operations per second</h2>\n{}\n<h2>Latency of each operation</h2>\n{}\n\
         <h2>Faults</h2>\n{}\n{}{}<h2>How to repeat it</h2>\n<pre>{}</pre>\n</body></html>\n",
        escape(&verdict),
        results.acknowledged(),
        results.injected(),
        results.view_changes,
        findings(results),
        operations(results),
        rate_drawing(samples, &bands, end),
        latency_drawing(samples, &bands, end),
        faults_drawing(&bands, &results.events, end),
        tally(results),
        events(&results.events),
        escape(&asked.command)
    )
}

fn findings(results: &Results) -> String {
    let mut text = String::new();
    if results.findings.is_empty() {
        return text;
    }
    text.push_str("<h2>What is wrong</h2>\n");
    for finding in &results.findings {
        let _ = writeln!(text, "<p class=\"bad\">{}</p>", escape(&finding.text));
        if !finding.history.is_empty() {
            let _ = writeln!(text, "<pre>{}</pre>", escape(&finding.history.join("\n")));
        }
    }
    text
}

fn operations(results: &Results) -> String {
    let head = "<th></th><th class=\"n\">ok</th><th class=\"n\">failed</th><th class=\"n\">unknown</th>";
    let row = |(f, count): (&&str, &Count)| {
        let Count { ok, fail, info } = count;
        format!(
            "<tr><td>{f}</td><td class=\"n\">{ok}</td><td class=\"n\">{fail}</td><td class=\"n\">{info}</td></tr>\n"
        )
    };
    let rows: String = results.operations.iter().map(row).collect();
    format!("<table><tr>{head}</tr>\n{rows}</table>\n")
}

fn tally(results: &Results) -> String {
    let mut kinds: Vec<&str> =
        results.faults.injected.keys().chain(results.faults.skipped.keys()).copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let count = |from: &std::collections::BTreeMap<&'static str, usize>, kind: &str| {
        from.get(kind).copied().unwrap_or(0)
    };
    let row = |kind: &str| {
        let (injected, skipped) =
            (count(&results.faults.injected, kind), count(&results.faults.skipped, kind));
        format!("<tr><td>{kind}</td><td class=\"n\">{injected}</td><td class=\"n\">{skipped}</td></tr>\n")
    };
    let rows: String = kinds.into_iter().map(row).collect();
    let left_out: String =
        results.left_out.iter().map(|why| format!("<p>Left out: {}</p>\n", escape(why))).collect();
    format!(
        "<table><tr><th></th><th class=\"n\">injected</th><th class=\"n\">skipped</th></tr>\n{rows}</table>\n{left_out}"
    )
}

fn events(events: &[Event]) -> String {
    let row = |event: &Event| {
        let phase = match event.phase {
            Phase::Begin => "begins",
            Phase::End => "ends",
            Phase::Skipped => "skipped",
            Phase::Note => "",
        };
        let seconds = Duration::from_millis(event.at_ms).as_secs_f64();
        format!(
            "<tr><td class=\"n\">{seconds:.2} s</td><td>{}</td><td>{phase}</td><td>{}</td></tr>\n",
            escape(&event.kind),
            escape(&event.detail)
        )
    };
    let rows: String = events.iter().map(row).collect();
    format!("<details><summary>All {} events</summary><table>\n{rows}</table></details>\n", events.len())
}

/// From when to when each fault lasted.
fn bands(events: &[Event], end: Duration) -> Vec<Band> {
    let begins = events.iter().filter(|event| event.phase == Phase::Begin);
    begins
        .map(|begin| {
            let ends = events.iter().find(|event| event.phase == Phase::End && event.fault == begin.fault);
            Band {
                kind: begin.kind.clone(),
                detail: begin.detail.clone(),
                from: Duration::from_millis(begin.at_ms),
                to: ends.map_or(end, |event| Duration::from_millis(event.at_ms)),
            }
        })
        .collect()
}

/// Text as it may stand in HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
