//! Latencies: a histogram while they are counted, percentiles when they are told.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from longer ones.
const LATENCY_US_MAX: u64 = 600_000_000;

/// A histogram of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits up to ten minutes are a sound histogram")
}

/// Counts a latency; one that is too long for the histogram counts as the longest it knows.
pub(crate) fn count(latency_us: &mut Histogram<u64>, latency: Duration) {
    let latency = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX).min(LATENCY_US_MAX);
    latency_us.saturating_record(latency);
}

/// Percentiles in milliseconds; zero if there are no samples.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(latency_us: &Histogram<u64>) -> Self {
        let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: ms(0.5),
            p90: ms(0.9),
            p99: ms(0.99),
            p99_9: ms(0.999),
            p99_99: ms(0.9999),
            max: latency_us.max() as f64 / 1e3,
        }
    }

    /// All of them with their names.
    pub(crate) fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.max),
        ]
    }
}
