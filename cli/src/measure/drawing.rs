//! Pages and drawings of reports: HTML and SVG as text. Nothing is fetched from anywhere.

/// The drawing in units of SVG; the plot lies within these margins.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

const COLOURS: [&str; 3] = ["#1b6ca8", "#e08e0b", "#b3261e"];

/// How pages look.
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:right}td:first-child,th:first-child{text-align:left}\
    pre{overflow-x:auto;font-size:12px}svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}";

/// A curve: its name, and a value per step, none where there is none.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<Option<f64>>,
}

/// A whole page that fetches nothing: its title, and the HTML below.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// What lies from left to right below curves.
pub(crate) struct Axis {
    /// What stands at its beginning.
    pub(crate) from: String,
    /// What stands at its end.
    pub(crate) to: String,
    /// Places of note, as parts of the whole.
    pub(crate) marks: Vec<f64>,
}

/// Curves over a run, from zero to the largest value of all.
pub(crate) fn drawing(curves: &[Curve], axis: &Axis) -> String {
    let most = curves.iter().flat_map(|curve| curve.values.iter().flatten()).copied().fold(0.0, f64::max);
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
    for mark in &axis.marks {
        let x = LEFT + mark * (WIDTH - LEFT);
        svg += &format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{base}\" stroke=\"#b3261e\" stroke-dasharray=\"4\"/>"
        );
    }
    let below = HEIGHT - 6.0;
    svg += &format!("<text x=\"{LEFT}\" y=\"{below}\">{}</text>", escape(&axis.from));
    svg += &format!("<text x=\"{WIDTH}\" y=\"{below}\" text-anchor=\"end\">{}</text>", escape(&axis.to));
    for ((curve, colour), place) in curves.iter().zip(COLOURS).zip(0_u32..) {
        let points = path(&curve.values, most);
        svg += &format!("<path d=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
        svg += &format!(
            "<text x=\"{}\" y=\"{below}\" style=\"fill:{colour}\">{}</text>",
            LEFT + 60.0 + 90.0 * f64::from(place),
            curve.name
        );
    }
    svg + "</svg>"
}

/// The curve as the `d` of a path: all steps are as wide as each other, and where there is no value there is no line.
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
pub(crate) fn escape(text: &str) -> String {
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
    use super::*;

    #[test]
    fn text_stands_for_itself() {
        assert_eq!(escape("<a href=\"x\">&'é"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;é");
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
