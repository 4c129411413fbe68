//! When each record of a load is due, and what it holds. Pure arithmetic.
//!
//! Record `k` of a load of `rate` records per second is due `k / rate` after the start, whatever became of those before it. The
//! records are dealt to the producers in turn. A record that is sent late, because the cluster or this process was slow, was
//! due all the same: what it waited is part of its latency, or the worst moments would be the ones with the fewest samples.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// Random bytes that payloads are cut from; larger than the window of a compressor that is meant to be fast.
const POOL_SIZE: usize = 4 << 20;

/// Bytes at the front of a payload that tell a reader of the same run when it was due.
pub(super) const STAMP_SIZE: usize = 16;

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
        self.rate.map(|rate| Duration::from_secs_f64(record as f64 / rate))
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

/// Payloads that do not compress, the same ones for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Payloads {
    pool: Bytes,
    size: usize,
}

impl Payloads {
    /// Payloads of `size` bytes.
    pub(super) fn new(seed: u64, size: usize) -> Self {
        let mut state = seed;
        let words = (POOL_SIZE + size).div_ceil(8);
        let pool: Vec<u8> = (0..words).flat_map(|_| split_mix(&mut state).to_le_bytes()).collect();
        Self { pool: pool.into(), size }
    }

    /// The payload of a record; nothing is copied.
    pub(super) fn plain(&self, record: u64) -> Bytes {
        let place = record.wrapping_mul(self.size as u64) % POOL_SIZE as u64;
        let start = usize::try_from(place).expect("the pool fits memory");
        self.pool.slice(start..start + self.size)
    }

    /// The same with a stamp over its front.
    ///
    /// | offset | size | what                                               |
    /// |--------|------|----------------------------------------------------|
    /// | 0      | 8    | the run, so that records of others are told apart  |
    /// | 8      | 8    | when it was due, in nanoseconds after the start    |
    pub(super) fn stamped(&self, record: u64, run: u64, due: Duration) -> Bytes {
        let mut payload = BytesMut::from(self.plain(record).as_ref());
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        payload[..8].copy_from_slice(&run.to_le_bytes());
        payload[8..STAMP_SIZE].copy_from_slice(&nanos.to_le_bytes());
        payload.freeze()
    }
}

/// When a payload of this run was due; none if it is of another run, or no load at all.
pub(super) fn read_stamp(payload: &[u8], run: u64) -> Option<Duration> {
    let (stamped, rest) = payload.split_first_chunk::<8>()?;
    let nanos = rest.first_chunk::<8>()?;
    (u64::from_le_bytes(*stamped) == run).then(|| Duration::from_nanos(u64::from_le_bytes(*nanos)))
}

/// The generator SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
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

    #[test]
    fn payloads_depend_on_the_seed_alone_and_do_not_repeat_soon() {
        let (one, same, other) = (Payloads::new(7, 100), Payloads::new(7, 100), Payloads::new(8, 100));
        let distinct: BTreeSet<Bytes> = (0..40_000).map(|record| one.plain(record)).collect();
        assert_eq!(distinct.len(), 40_000);
        assert!((0..50_000).all(|record| one.plain(record) == same.plain(record)));
        assert_ne!(one.plain(0), other.plain(0));
        assert_eq!(one.plain(u64::MAX).len(), 100);
        // Published outputs of the generator for the seed 1234567.
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn stamps_are_read_by_their_own_run_only() {
        let payloads = Payloads::new(1, 20);
        let due = Duration::from_nanos(123_456_789_012);
        let stamped = payloads.stamped(5, 42, due);
        assert_eq!(read_stamp(&stamped, 42), Some(due));
        assert_eq!(stamped[STAMP_SIZE..], payloads.plain(5)[STAMP_SIZE..]);
        assert_eq!(read_stamp(&stamped, 43), None);
        assert_eq!(read_stamp(&stamped[..15], 42), None);
    }
}
