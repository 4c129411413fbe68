//! When each record of a load is due. Pure arithmetic.
//!
//! Record `k` of a load of `rate` records per second is due `k / rate` after the start, whatever became of those before it. The
//! records are dealt to the producers in turn. A record that is sent late, because the cluster or this process was slow, was
//! due all the same: what it waited is part of its latency, or the worst moments would be the ones with the fewest samples.

use std::time::Duration;

use crate::measure::rate;

/// One producer's share of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Records per second of the whole load; none: as fast as possible.
    pub(super) rate: Option<f64>,
    /// Which producer, from 0.
    pub(super) producer: u64,
    /// Of how many.
    pub(super) producers: u64,
}

impl Share {
    /// The number in the whole load of this producer's `turn`-th record.
    pub(super) fn record(&self, turn: u64) -> u64 {
        turn * self.producers + self.producer
    }

    /// When a record of the load is due, from the start; none: as soon as it can be sent.
    pub(super) fn due(&self, record: u64) -> Option<Duration> {
        self.rate.map(|rate| rate::due(rate, record))
    }

    /// How many of this producer's records are due before `end`, from `turn` on; none are without a rate.
    pub(super) fn left(&self, turn: u64, end: Duration) -> u64 {
        let is_left = |turn: u64| self.due(self.record(turn)).is_some_and(|due| due < end);
        if !is_left(turn) {
            return 0;
        }
        // Twice as far until it is too far, and then halves: the same arithmetic decides as when it is sent.
        let mut step = 1;
        while is_left(turn + step) {
            step *= 2;
        }
        let (mut inside, mut outside) = (step / 2, step);
        while outside - inside > 1 {
            let middle = inside + (outside - inside) / 2;
            if is_left(turn + middle) { inside = middle } else { outside = middle }
        }
        outside
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn producers_share_a_load_without_gap_or_overlap() {
        let shares = (0..3).map(|producer| Share { rate: Some(4.0), producer, producers: 3 });
        let records: BTreeSet<u64> =
            shares.flat_map(|share| (0..100).map(move |turn| share.record(turn))).collect();
        assert_eq!(records, (0..300).collect());
    }

    #[test]
    fn a_record_is_due_whatever_became_of_the_ones_before() {
        let share = Share { rate: Some(4.0), producer: 0, producers: 1 };
        assert_eq!(share.due(0), Some(Duration::ZERO));
        assert_eq!(share.due(10), Some(Duration::from_millis(2_500)));
        // An hour of a fast load has not drifted.
        let fast = Share { rate: Some(300_000.0), ..share };
        assert_eq!(fast.due(300_000 * 3_600), Some(Duration::from_secs(3_600)));
        assert_eq!(Share { rate: None, ..share }.due(10), None);
    }

    #[test]
    fn what_is_left_of_a_share_is_what_would_be_sent() {
        let end = Duration::from_millis(1_700);
        for (rate, producer) in [(7.0, 0), (7.0, 2), (1_000.0, 1), (0.1, 0), (0.1, 1)] {
            let share = Share { rate: Some(rate), producer, producers: 3 };
            let all = (0..).take_while(|turn| share.due(share.record(*turn)).unwrap() < end).count() as u64;
            for turn in 0..all + 3 {
                assert_eq!(share.left(turn, end), all.saturating_sub(turn), "{rate} {producer} {turn}");
            }
        }
        assert_eq!(Share { rate: None, producer: 0, producers: 1 }.left(0, end), 0);
    }
}
