//! What one side of a load came to, while it runs: counts, a histogram of latencies, and both second by second.
//!
//! All times are counted from the start of the load. What is measured is a span of it, from the end of the warm-up on. A record
//! counts for throughput if it was done within the span, and for latency if it was due within the span, however late it was
//! done: leaving out the stragglers at the end would flatter the worst.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Second, Side};
use crate::measure::latency::{Latency, count, histogram};

const SECOND: Duration = Duration::from_secs(1);

/// Counts what is done.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Duration,
    /// Exclusive.
    end: Duration,
    records_in_all: u64,
    records: u64,
    bytes: u64,
    last_done: Duration,
    latency_us: Histogram<u64>,
    seconds: Vec<Second>,
    current: Current,
    not_sent: u64,
    errors: u64,
    first_error: Option<String>,
}

/// The second that is being counted.
#[derive(Debug)]
struct Current {
    records: u64,
    bytes: u64,
    latency_us: Histogram<u64>,
}

impl Recorder {
    /// Measures from `start` to `end`, exclusive.
    pub(super) fn new(start: Duration, end: Duration) -> Self {
        Self {
            start,
            end,
            records_in_all: 0,
            records: 0,
            bytes: 0,
            last_done: start,
            latency_us: histogram(),
            seconds: Vec::new(),
            current: Current { records: 0, bytes: 0, latency_us: histogram() },
            not_sent: 0,
            errors: 0,
            first_error: None,
        }
    }

    /// Counts records that are done at the same moment.
    pub(super) fn done(&mut self, records: u64, bytes: u64, at: Duration) {
        self.records_in_all += records;
        self.last_done = self.last_done.max(at);
        if self.start <= at && at < self.end {
            self.roll(at);
            self.records += records;
            self.bytes += bytes;
            self.current.records += records;
            self.current.bytes += bytes;
        }
    }

    /// Notes how long something took that was due at this moment.
    pub(super) fn took(&mut self, due: Duration, latency: Duration) {
        if self.start <= due && due < self.end {
            count(&mut self.latency_us, latency);
            count(&mut self.current.latency_us, latency);
        }
    }

    /// Counts what was due and given up.
    pub(super) fn not_sent(&mut self, count: u64) {
        self.not_sent += count;
    }

    /// Counts what went wrong.
    pub(super) fn failed(&mut self, count: u64, error: &dyn std::fmt::Display) {
        self.errors += count;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Ends the span early.
    pub(super) fn end_at(&mut self, at: Duration) {
        self.end = self.end.min(at.max(self.start));
    }

    /// Records done so far, warm-up and all.
    pub(super) fn records_in_all(&self) -> u64 {
        self.records_in_all
    }

    /// When the last one was done.
    pub(super) fn last_done(&self) -> Duration {
        self.last_done
    }

    /// Adds up. `latency_is` says from when until when a latency goes.
    pub(super) fn finish(mut self, name: &str, latency_is: &str) -> Side {
        let span = self.end - self.start;
        self.roll(self.end);
        let rest = span.saturating_sub(SECOND * u32::try_from(self.seconds.len()).unwrap_or(u32::MAX));
        if !rest.is_zero() {
            self.close_second(rest);
        }
        let seconds = span.as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds.max(1e-6);
        Side {
            name: name.to_owned(),
            latency_is: latency_is.to_owned(),
            records_in_all: self.records_in_all,
            records: self.records,
            bytes: self.bytes,
            seconds,
            records_per_second: per_second(self.records),
            megabytes_per_second: per_second(self.bytes) / 1e6,
            latency_samples: self.latency_us.len(),
            latency_ms: Latency::of(&self.latency_us),
            not_sent: self.not_sent,
            errors: self.errors,
            first_error: self.first_error,
            over_time: self.seconds,
        }
    }

    /// Closes all seconds before this moment. The ones in which nothing was done count, too.
    fn roll(&mut self, at: Duration) {
        let whole = (at.min(self.end).saturating_sub(self.start)).as_secs();
        while (self.seconds.len() as u64) < whole {
            self.close_second(SECOND);
        }
    }

    fn close_second(&mut self, width: Duration) {
        let Current { records, bytes, latency_us } = &mut self.current;
        let seconds = width.as_secs_f64();
        self.seconds.push(Second {
            seconds,
            records_per_second: *records as f64 / seconds,
            megabytes_per_second: *bytes as f64 / seconds / 1e6,
            latency_ms: (!latency_us.is_empty()).then(|| Latency::of(latency_us)),
        });
        (*records, *bytes) = (0, 0);
        latency_us.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b.abs() * 0.002
    }

    #[test]
    fn the_warm_up_is_left_out_and_stragglers_are_not() {
        let mut recorder = Recorder::new(1_000 * MS, 3_000 * MS);
        for (due, done) in [(500, 600), (900, 1_100), (2_000, 2_010), (2_900, 3_400)] {
            recorder.done(1, 100, done * MS);
            recorder.took(due * MS, (done - due) * MS);
        }
        let side = recorder.finish("acks", "");
        assert_eq!((side.records_in_all, side.records, side.bytes), (4, 2, 200));
        assert_eq!(side.latency_samples, 2, "what was due in the warm-up is none of the two");
        assert!(near(side.records_per_second, 1.0) && near(side.latency_ms.max, 500.0), "{side:?}");
    }

    #[test]
    fn seconds_in_which_nothing_was_done_are_seen() {
        let mut recorder = Recorder::new(Duration::ZERO, 4_500 * MS);
        for at in [100, 200, 3_100, 4_400] {
            recorder.done(10, 1_000_000, at * MS);
            recorder.took(at * MS, 7 * MS);
        }
        let side = recorder.finish("acks", "");
        let rates: Vec<f64> = side.over_time.iter().map(|second| second.records_per_second).collect();
        assert_eq!(rates, [20.0, 0.0, 0.0, 10.0, 20.0], "the last one is half as wide");
        assert!(side.over_time[1].latency_ms.is_none() && side.over_time[3].latency_ms.is_some());
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut recorder = Recorder::new(Duration::ZERO, 10_000 * MS);
        for us in 1..=100_000 {
            recorder.took(Duration::ZERO, Duration::from_micros(us));
        }
        let latency = recorder.finish("acks", "").latency_ms;
        let expected = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];
        let actual = [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.p99_99, latency.max];
        assert!(actual.iter().zip(expected).all(|(a, b)| near(*a, b)), "{actual:?}");
    }

    #[test]
    fn an_interrupted_span_is_as_long_as_it_was() {
        let mut recorder = Recorder::new(1_000 * MS, 11_000 * MS);
        recorder.done(100, 0, 1_500 * MS);
        recorder.end_at(3_000 * MS);
        recorder.failed(2, &"gone");
        let side = recorder.finish("acks", "");
        assert!(near(side.records_per_second, 50.0) && side.over_time.len() == 2, "{side:?}");
        assert_eq!((side.errors, side.first_error.as_deref()), (2, Some("gone")));
        let mut early = Recorder::new(1_000 * MS, 11_000 * MS);
        early.end_at(500 * MS);
        assert_eq!(early.finish("acks", "").records_per_second, 0.0);
    }
}
