//! What came of the records so far: counts, bytes, latencies, and the first thing that went wrong.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// The longest latency that is told apart from longer ones.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What came of the records so far.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    acknowledged: u64,
    bytes: u64,
    latency_us: Histogram<u64>,
    bar: ProgressBar,
}

/// What it comes to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Sums {
    /// Records that were acknowledged.
    pub(crate) records: u64,
    /// Bytes of their keys and payloads.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) megabytes_per_second: f64,
    /// From handing a record over until its acknowledgement.
    pub(crate) ack_ms_p50: f64,
    pub(crate) ack_ms_p99: f64,
    pub(crate) ack_ms_max: f64,
}

impl Tally {
    /// Starts the clock; with a bar on stderr if that is a terminal.
    pub(crate) fn start(bytes_expected: Option<u64>) -> Self {
        let bar = match (std::io::stderr().is_terminal(), bytes_expected) {
            (false, _) => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            (true, Some(bytes)) => ProgressBar::new(bytes).with_style(style("{bar:30} {percent:>3}% ")),
            (true, None) => ProgressBar::no_length().with_style(style("")),
        };
        let latency_us = Histogram::new_with_max(LATENCY_US_MAX, 3)
            .expect("three digits up to ten minutes are a sound histogram");
        Self { started: Instant::now(), acknowledged: 0, bytes: 0, latency_us, bar }
    }

    /// Counts a record that was acknowledged.
    pub(crate) fn acknowledged(&mut self, bytes: usize, latency: Duration) {
        self.acknowledged += 1;
        self.bytes += bytes as u64;
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latency_us.saturating_record(latency_us.min(LATENCY_US_MAX));
        // The newline was a byte of the input, too.
        self.bar.inc(bytes as u64 + 1);
    }

    /// Takes the bar away and adds up.
    pub(crate) fn finish(self) -> Sums {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let ms = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Sums {
            records: self.acknowledged,
            bytes: self.bytes,
            seconds,
            megabytes_per_second: self.bytes as f64 / 1e6 / seconds.max(1e-6),
            ack_ms_p50: ms(0.5),
            ack_ms_p99: ms(0.99),
            ack_ms_max: ms(1.0),
        }
    }
}

fn style(bar: &str) -> ProgressStyle {
    let template = format!("{bar}{{decimal_bytes}} acknowledged, {{decimal_bytes_per_sec}}");
    ProgressStyle::with_template(&template).expect("the template is sound")
}

impl Sums {
    /// For people.
    pub(crate) fn text(&self) -> String {
        if self.records == 0 {
            return "0 records: the input was empty".to_owned();
        }
        let records = if self.records == 1 { "record" } else { "records" };
        format!(
            "{} {records}, {} bytes in {:.2} s: {:.1} MB/s, acknowledged after {:.1} ms (p50), {:.1} ms (p99)",
            self.records,
            self.bytes,
            self.seconds,
            self.megabytes_per_second,
            self.ack_ms_p50,
            self.ack_ms_p99
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_what_was_acknowledged() {
        let mut tally = Tally::start(None);
        for ms in 1..=100 {
            tally.acknowledged(10, Duration::from_millis(ms));
        }
        let sums = tally.finish();
        assert_eq!((sums.records, sums.bytes), (100, 1_000));
        assert!((sums.ack_ms_p50 - 50.0).abs() < 0.1 && (sums.ack_ms_p99 - 99.0).abs() < 0.1, "{sums:?}");
        assert!(sums.text().starts_with("100 records, 1000 bytes in "), "{}", sums.text());
    }
}
