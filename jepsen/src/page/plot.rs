//! Drawings over the time of a run, as SVG: operations per second, the latency of each, and which fault lasted when.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::escape;
use crate::recorder::{Ended, Event, Phase, Sample};

/// In units of SVG; plots lie within these margins.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 120.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 24.0;

/// Height of one kind of fault.
const LANE: f64 = 18.0;

/// Points that are drawn at most: more of them cannot be told apart.
const POINTS_MAX: usize = 8_000;

/// The lowest latency drawn, in seconds, and how many powers of ten are above it.
const LATENCY_MIN: f64 = 1e-4;
const LATENCY_DECADES: f64 = 6.0;

/// A fault while it lasted.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) kind: String,
    pub(super) detail: String,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// Where a moment is drawn.
#[derive(Clone, Copy)]
struct Axis {
    end: f64,
}

impl Axis {
    fn new(end: Duration) -> Self {
        Self { end: end.as_secs_f64().max(1.0) }
    }

    fn x(self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() / self.end * (WIDTH - LEFT)
    }

    fn open(self, height: f64) -> String {
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 3_600.0];
        let step = step.into_iter().find(|step| self.end / step <= 14.0).unwrap_or(7_200.0);
        let mut at = 0.0;
        while at <= self.end {
            let x = self.x(Duration::from_secs_f64(at));
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
                height - 6.0
            );
            at += step;
        }
        svg
    }
}

/// The faults behind a plot.
fn shade(svg: &mut String, axis: Axis, bands: &[Band]) {
    for band in bands {
        let (x, width) = extent(axis, band);
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\" opacity=\".18\">{}</rect>",
            HEIGHT - TOP - BOTTOM,
            colour(&band.kind),
            tip(band)
        );
    }
}

fn extent(axis: Axis, band: &Band) -> (f64, f64) {
    let x = axis.x(band.from);
    (x, (axis.x(band.to) - x).max(1.0))
}

fn tip(band: &Band) -> String {
    let seconds = band.to.saturating_sub(band.from).as_secs_f64();
    format!("<title>{}: {} ({seconds:.1} s)</title>", escape(&band.kind), escape(&band.detail))
}

/// One colour for each kind, whatever others there are.
fn colour(kind: &str) -> String {
    let hue = kind.bytes().fold(7_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 360);
    format!("hsl({hue},70%,45%)")
}

fn colour_of(ended: Ended) -> &'static str {
    match ended {
        Ended::Ok => "#1b6ca8",
        Ended::Fail => "#b3261e",
        Ended::Info => "#e08e0b",
    }
}

const OUTCOMES: [(Ended, &str); 3] = [(Ended::Ok, "ok"), (Ended::Fail, "failed"), (Ended::Info, "unknown")];

fn legend(svg: &mut String) {
    for ((ended, name), place) in OUTCOMES.into_iter().zip(0_u8..) {
        let x = LEFT + 10.0 + f64::from(place) * 80.0;
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"6\" width=\"9\" height=\"9\" fill=\"{}\"/><text x=\"{}\" y=\"15\">{name}</text>",
            colour_of(ended),
            x + 13.0
        );
    }
}

/// How many operations ended in each second, and how.
pub(super) fn rate_drawing(samples: &[Sample], bands: &[Band], end: Duration) -> String {
    let axis = Axis::new(end);
    let mut seconds: BTreeMap<(Ended, u64), f64> = BTreeMap::new();
    for sample in samples {
        *seconds.entry((sample.ended, sample.end.as_secs())).or_default() += 1.0;
    }
    let most = seconds.values().copied().fold(1.0, f64::max);
    let y = |count: f64| TOP + (1.0 - count / most) * (HEIGHT - TOP - BOTTOM);
    let mut svg = axis.open(HEIGHT);
    shade(&mut svg, axis, bands);
    for (count, name) in [(0.0, "0".to_owned()), (most, format!("{most:.0}"))] {
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 6.0,
            y(count) + 4.0
        );
    }
    for (ended, _) in OUTCOMES {
        let points: Vec<String> = (0..end.as_secs())
            .map(|second| {
                let count = seconds.get(&(ended, second)).copied().unwrap_or(0.0);
                format!(
                    "{:.1},{:.1}",
                    axis.x(Duration::from_secs(second) + Duration::from_millis(500)),
                    y(count)
                )
            })
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
            points.join(" "),
            colour_of(ended)
        );
    }
    legend(&mut svg);
    svg + "</svg>"
}

/// When each operation ended and how long it had taken, on a logarithmic scale. Polls wait for
/// records and assignments ask nobody, so they are left out.
pub(super) fn latency_drawing(samples: &[Sample], bands: &[Band], end: Duration) -> String {
    let axis = Axis::new(end);
    let y = |seconds: f64| {
        let height = (seconds.max(LATENCY_MIN) / LATENCY_MIN).log10() / LATENCY_DECADES;
        TOP + (1.0 - height.min(1.0)) * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = axis.open(HEIGHT);
    shade(&mut svg, axis, bands);
    for (seconds, name) in [
        (1e-4, "0.1 ms"),
        (1e-3, "1 ms"),
        (1e-2, "10 ms"),
        (0.1, "100 ms"),
        (1.0, "1 s"),
        (10.0, "10 s"),
        (100.0, "100 s"),
    ] {
        let at = y(seconds);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let shown: Vec<&Sample> =
        samples.iter().filter(|sample| !matches!(sample.f, "poll" | "drain" | "assign")).collect();
    let every = shown.len().div_ceil(POINTS_MAX).max(1);
    // What went wrong is rare, and drawn in full and on top.
    let fine = shown.iter().filter(|sample| sample.ended == Ended::Ok).step_by(every);
    let wrong = shown.iter().filter(|sample| sample.ended != Ended::Ok).take(POINTS_MAX);
    for sample in fine.chain(wrong) {
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.4\" fill=\"{}\"/>",
            axis.x(sample.end),
            y(sample.end.saturating_sub(sample.start).as_secs_f64()),
            colour_of(sample.ended)
        );
    }
    legend(&mut svg);
    svg + "</svg>"
}

/// A lane for each kind of fault, and one for what happened to the cluster.
pub(super) fn faults_drawing(bands: &[Band], events: &[Event], end: Duration) -> String {
    let axis = Axis::new(end);
    let mut kinds: Vec<&str> = bands.iter().map(|band| band.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let notes: Vec<&Event> =
        events.iter().filter(|event| event.phase == Phase::Note && event.kind != "run").collect();
    let mut marks: Vec<&str> =
        notes.iter().filter(|event| event.fault.is_none()).map(|event| event.kind.as_str()).collect();
    marks.sort_unstable();
    marks.dedup();
    let lanes: Vec<&str> = kinds.into_iter().chain(marks).collect();
    let top = |kind: &str| {
        let place = lanes.iter().position(|lane| *lane == kind).unwrap_or_default();
        TOP + f64::from(u32::try_from(place).unwrap_or(u32::MAX)) * LANE
    };
    let height = top(lanes.last().copied().unwrap_or_default()) + LANE + BOTTOM;
    let mut svg = axis.open(height);
    for lane in &lanes {
        let _ = write!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", top(lane) + 13.0, escape(lane));
    }
    for band in bands {
        let (x, width) = extent(axis, band);
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\" fill=\"{}\">{}</rect>",
            top(&band.kind) + 2.0,
            LANE - 4.0,
            colour(&band.kind),
            tip(band)
        );
    }
    for event in notes.iter().filter(|event| event.fault.is_none()) {
        let x = axis.x(Duration::from_millis(event.at_ms));
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"1.5\" height=\"{}\" fill=\"#555\"><title>{}</title></rect>",
            top(&event.kind) + 2.0,
            LANE - 4.0,
            escape(&event.detail)
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_have_a_point_for_each_operation_and_a_band_for_each_fault() {
        let second = Duration::from_secs;
        let sample = |f, ended| Sample { f, start: second(1), end: second(2), ended };
        let samples = [sample("send", Ended::Ok), sample("send", Ended::Info), sample("poll", Ended::Ok)];
        let band =
            Band { kind: "kill".to_owned(), detail: "of <1>".to_owned(), from: second(1), to: second(2) };
        let svg = latency_drawing(&samples, &[band], second(10));
        assert_eq!(svg.matches("<circle").count(), 2, "polls wait, and are left out");
        assert!(svg.contains("<title>kill: of &lt;1&gt; (1.0 s)</title>"));
        assert!(rate_drawing(&samples, &[], second(10)).matches("<polyline").count() == 3);
        assert!(faults_drawing(&[], &[], Duration::ZERO).ends_with("</svg>"));
    }
}
