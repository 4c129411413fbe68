//! What the acknowledgements say of one round: when they came again, how long none came, and how long they took before, during
//! and after the event. Pure arithmetic; all times count from the start of the drill.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::measure::latency::{Latency, count, histogram};

/// One acknowledged record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    /// When it should have been sent.
    pub(super) due: Duration,
    /// When its acknowledgement came.
    pub(super) done: Duration,
}

/// The moments of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moments {
    /// When it happened.
    pub(super) event: Duration,
    /// When it was over for the users: the partitions that were struck are acknowledged again.
    pub(super) over: Duration,
    /// When the round ended.
    pub(super) end: Duration,
}

/// How long no record was acknowledged: the longest stretch that reaches beyond the event.
pub(super) fn unavailable(samples: &[Sample], moments: Moments) -> Duration {
    let mut acks: Vec<Duration> = samples.iter().map(|sample| sample.done).collect();
    acks.sort_unstable();
    let behind = acks.partition_point(|ack| *ack <= moments.event);
    let mut before = acks[..behind].last().copied().unwrap_or(moments.event);
    let mut longest = Duration::ZERO;
    for ack in acks[behind..].iter().copied().chain([moments.end]) {
        longest = longest.max(ack.saturating_sub(before));
        before = ack;
    }
    longest
}

/// When the first record that was due after the event was acknowledged, from the event on.
pub(super) fn first_ack(samples: &[Sample], event: Duration) -> Option<Duration> {
    let after = samples.iter().filter(|sample| sample.due >= event);
    after.map(|sample| sample.done).min().map(|done| done.saturating_sub(event))
}

/// Latencies of acknowledgements: of those that came before the event, of the records that were due when it was over, and of those
/// that it caught.
#[derive(Clone, Debug)]
pub(super) struct Phases {
    pub(super) before: Histogram<u64>,
    pub(super) during: Histogram<u64>,
    pub(super) after: Histogram<u64>,
}

impl Phases {
    pub(super) fn new() -> Self {
        Self { before: histogram(), during: histogram(), after: histogram() }
    }

    /// Counts the samples of one round.
    pub(super) fn count(&mut self, samples: &[Sample], moments: Moments) {
        for Sample { due, done } in samples {
            let phase = match () {
                () if *done <= moments.event => &mut self.before,
                () if *due >= moments.over => &mut self.after,
                () => &mut self.during,
            };
            count(phase, done.saturating_sub(*due));
        }
    }

    /// In numbers.
    pub(super) fn told(&self) -> [Phase; 3] {
        let phase = |phase, latency_us: &Histogram<u64>| Phase {
            phase,
            samples: latency_us.len(),
            latency_ms: Latency::of(latency_us),
        };
        [phase("before", &self.before), phase("during", &self.during), phase("after", &self.after)]
    }
}

/// The latencies of one phase.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Phase {
    pub(super) phase: &'static str,
    pub(super) samples: u64,
    pub(super) latency_ms: Latency,
}

/// Some numbers, one of each round.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Distribution {
    pub(super) rounds: usize,
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Distribution {
    /// Of these; none if there are none. A percentile is the least number that so many of them do not exceed.
    pub(super) fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |per_cent: usize| sorted[(sorted.len() * per_cent).div_ceil(100).max(1) - 1];
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self { rounds: sorted.len(), min, p50: rank(50), p99: rank(99), max })
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Records due every 10 ms for a second, acknowledged 2 ms later; an event at 500 ms makes those wait until 800 ms that were not
    /// acknowledged by then.
    fn samples() -> Vec<Sample> {
        let sample = |due: u32| {
            let done = if (499..800).contains(&due) { 800 } else { due + 2 };
            Sample { due: due * MS, done: done * MS }
        };
        (0..100).map(|number| sample(number * 10)).collect()
    }

    fn moments() -> Moments {
        Moments { event: 500 * MS, over: 800 * MS, end: 1_000 * MS }
    }

    #[test]
    fn an_outage_reaches_from_the_last_ack_to_the_next() {
        assert_eq!(unavailable(&samples(), moments()), (800 - 492) * MS);
        assert_eq!(first_ack(&samples(), 500 * MS), Some(300 * MS));
        // An acknowledgement that was on its way ends no outage of those that came after.
        let mut late = samples();
        late.push(Sample { due: 498 * MS, done: 510 * MS });
        assert_eq!(unavailable(&late, moments()), 290 * MS);
        assert_eq!(first_ack(&late, 500 * MS), Some(300 * MS));
    }

    #[test]
    fn what_never_comes_back_is_unavailable_to_the_end() {
        let mut gone = samples();
        gone.retain(|sample| sample.done < 500 * MS);
        assert_eq!(unavailable(&gone, moments()), (1_000 - 492) * MS);
        assert_eq!(first_ack(&gone, 500 * MS), None);
        assert_eq!(unavailable(&[], moments()), 500 * MS);
    }

    #[test]
    fn an_outage_long_before_the_event_is_not_its_own() {
        let mut samples = samples();
        samples.retain(|sample| !(100 * MS..300 * MS).contains(&sample.due));
        assert_eq!(unavailable(&samples, moments()), (800 - 492) * MS);
    }

    #[test]
    fn what_the_event_caught_is_told_apart() {
        let mut phases = Phases::new();
        phases.count(&samples(), moments());
        let [before, during, after] = phases.told();
        assert_eq!((before.samples, during.samples, after.samples), (50, 30, 20));
        let caught = Sample { due: 498 * MS, done: 800 * MS };
        phases.count(&[caught], moments());
        assert_eq!(phases.told()[1].samples, 31, "it was on its way");
        assert!((before.latency_ms.max - 2.0).abs() < 0.01 && (after.latency_ms.max - 2.0).abs() < 0.01);
        assert!((during.latency_ms.max - 300.0).abs() < 1.0, "what waited counts with all of its wait");
    }

    #[test]
    fn percentiles_are_numbers_that_were_seen() {
        let of = |count: u32| Distribution::of((1..=count).rev().map(f64::from)).unwrap();
        assert_eq!((of(100).p50, of(100).p99, of(100).max, of(100).min), (50.0, 99.0, 100.0, 1.0));
        assert_eq!((of(1).p50, of(1).p99), (1.0, 1.0));
        assert_eq!((of(20).p50, of(20).p99), (10.0, 20.0));
        assert!(Distribution::of(std::iter::empty()).is_none());
    }
}
