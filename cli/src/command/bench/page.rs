//! A report as one page of HTML: its table, and drawings of throughput and latency over time.

use super::report::{Report, Second, Side};
use crate::measure::drawing::{self, Axis, Curve, drawing, escape};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("varve bench {} on {}", report.benchmark, report.topic);
    let settings: String = report
        .settings
        .iter()
        .map(|setting| {
            format!("<tr><td>{}</td><td>{}</td></tr>", escape(&setting.name), escape(&setting.value))
        })
        .collect();
    let notes: String = report.notes.iter().map(|note| format!("<p>Note: {}</p>\n", escape(note))).collect();
    let raw = report.raw.as_ref();
    let raw =
        raw.map_or_else(String::new, |raw| format!("<h2>Limits</h2>\n<pre>{}</pre>\n", escape(&raw.text())));
    let sides: String = report.sides.iter().map(section).collect();
    let version = escape(&report.version);
    let settings =
        format!("<h2>Settings</h2>\n<table>{settings}<tr><td>version</td><td>{version}</td></tr></table>\n");
    drawing::page(&title, &[notes, sides, raw, settings].concat())
}

fn section(side: &Side) -> String {
    let error = side.first_error.as_ref();
    let error = error.map_or_else(String::new, |error| format!("<p>First error: {}</p>\n", escape(error)));
    let latencies: String =
        side.latency_ms.named().iter().map(|(_, ms)| format!("<td>{ms:.2}</td>")).collect();
    let names: String =
        side.latency_ms.named().iter().map(|(name, _)| format!("<th>{name} ms</th>")).collect();
    let curve = |name, value: &dyn Fn(&Second) -> Option<f64>| Curve {
        name,
        values: side.over_time.iter().map(value).collect(),
    };
    let axis = Axis { from: "0 s".to_owned(), to: format!("{} s", side.over_time.len()), marks: Vec::new() };
    let rates = [curve("records/s", &|second| Some(second.records_per_second))];
    let times = [
        curve("p50 ms", &|second| Some(second.latency_ms?.p50)),
        curve("p99 ms", &|second| Some(second.latency_ms?.p99)),
        curve("max ms", &|second| Some(second.latency_ms?.max)),
    ];
    format!(
        "<h2>{}</h2>\n<table><tr><th>records</th><th>records/s</th><th>MB/s</th>{names}<th>errors</th></tr>\n\
         <tr><td>{}</td><td>{:.0}</td><td>{:.2}</td>{latencies}<td>{}</td></tr></table>\n{error}\
         <p>Records per second, second by second:</p>\n{}\n<p>Latency is {}:</p>\n{}\n",
        escape(&side.name),
        side.records,
        side.records_per_second,
        side.megabytes_per_second,
        side.errors,
        drawing(&rates, &axis),
        escape(&side.latency_is),
        drawing(&times, &axis)
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, side};
    use super::*;

    #[test]
    fn a_page_is_whole_and_fetches_nothing() {
        let mut side = side(&[100.0, 0.0, 300.0], 2.5);
        side.first_error = Some("<script>alert(1)</script>".to_owned());
        let page = page(&report(vec![side]));
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "`{outside}` fetches something");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
