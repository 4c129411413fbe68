//! A report as one page of HTML: its table, and drawings of throughput and latency over time. Nothing is fetched from anywhere.

use super::report::{Report, Second, Side};

/// The drawing in units of SVG; the plot lies within these margins.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

const COLOURS: [&str; 3] = ["#1b6ca8", "#e08e0b", "#b3261e"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:right}td:first-child,th:first-child{text-align:left}\
    svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}";

/// A curve: its name, and a value per second, none where there is none.
struct Curve {
    name: &'static str,
    values: Vec<Option<f64>>,
}

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&format!("varve bench {} on {}", report.benchmark, report.topic));
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
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{notes}{sides}{raw}\
         <h2>Settings</h2>\n<table>{settings}<tr><td>version</td><td>{}</td></tr></table>\n</body></html>\n",
        escape(&report.version)
    )
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
        drawing(&rates),
        escape(&side.latency_is),
        drawing(&times)
    )
}

/// Curves over the seconds of a run, from zero to the largest value of all.
fn drawing(curves: &[Curve]) -> String {
    let most = curves.iter().flat_map(|curve| curve.values.iter().flatten()).copied().fold(0.0, f64::max);
    let count = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(0);
    let base = HEIGHT - BOTTOM;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let y = base - part * (base - TOP);
        svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            short(most * part)
        );
    }
    svg += &format!("<text x=\"{LEFT}\" y=\"{}\">0 s</text>", HEIGHT - 6.0);
    svg += &format!("<text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">{count} s</text>", HEIGHT - 6.0);
    for ((curve, colour), place) in curves.iter().zip(COLOURS).zip(0_u32..) {
        let points = path(&curve.values, most);
        svg += &format!("<path d=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
        svg += &format!(
            "<text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            LEFT + 60.0 + 90.0 * f64::from(place),
            HEIGHT - 6.0,
            curve.name
        );
    }
    svg + "</svg>"
}

/// The curve as the `d` of a path: each second is as wide as it lasted, and where there is no value there is no line.
fn path(values: &[Option<f64>], most: f64) -> String {
    let (base, width) = (HEIGHT - BOTTOM, (WIDTH - LEFT) / values.len().max(1) as f64);
    let mut path = String::new();
    let mut pen_is_down = false;
    for (place, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let y = base - value / most.max(f64::MIN_POSITIVE) * (base - TOP);
            let x = LEFT + width * place as f64;
            let begin = if pen_is_down { 'L' } else { 'M' };
            path += &format!("{begin}{x:.1} {y:.1}H{:.1}", x + width);
        }
        pen_is_down = value.is_some();
    }
    path
}

/// A number for an axis.
fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{:.1}M", number / 1e6),
        _ if number >= 1e4 => format!("{:.0}k", number / 1e3),
        _ if number >= 10.0 || number == 0.0 => format!("{number:.0}"),
        _ => format!("{number:.2}"),
    }
}

/// Text that stands for itself in HTML, also between quotation marks.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, side};
    use super::*;

    #[test]
    fn text_stands_for_itself() {
        assert_eq!(escape("<a href=\"x\">&'é"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;é");
    }

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

    #[test]
    fn a_curve_fills_the_plot_and_has_gaps() {
        let (left, right, base) = (LEFT, WIDTH, HEIGHT - BOTTOM);
        let middle = LEFT + (WIDTH - LEFT) / 2.0;
        assert_eq!(
            path(&[Some(4.0), Some(0.0)], 4.0),
            format!("M{left:.1} {TOP:.1}H{middle:.1}L{middle:.1} {base:.1}H{right:.1}")
        );
        assert_eq!(path(&[Some(1.0), None, Some(1.0)], 1.0).matches('M').count(), 2);
        assert_eq!(path(&[Some(0.0)], 0.0), format!("M{left:.1} {base:.1}H{right:.1}"));
        assert_eq!(path(&[], 0.0), "");
    }
}
