//! Payloads that compress as far as they are meant to, and the stamp by which a run knows its own records again.

use bytes::{Bytes, BytesMut};

/// Random bytes that payloads are cut from; larger than the window of a compressor that is meant to be fast.
const POOL_SIZE: usize = 4 << 20;

/// Bytes at the front of a payload that tell a reader of the same run which record it is.
pub(crate) const STAMP_SIZE: usize = 16;

/// Bytes of a payload in which some are random and the rest are not: many of them in the shortest payload that is worth
/// compressing.
const STRIPE_SIZE: usize = 64;

/// Payloads that do not compress, or in part, the same ones for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    pool: Bytes,
    size: usize,
}

impl Payloads {
    /// Payloads of `size` bytes that do not compress.
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let mut state = seed;
        let words = (POOL_SIZE + size).div_ceil(8);
        let pool: Vec<u8> = (0..words).flat_map(|_| split_mix(&mut state).to_le_bytes()).collect();
        Self { pool: pool.into(), size }
    }

    /// The same, but so many of a hundred bytes compress to next to nothing.
    pub(crate) fn compressible(self, percent: u8) -> Self {
        let plain = STRIPE_SIZE * usize::from(percent) / 100;
        let mut pool = self.pool.to_vec();
        for stripe in pool.chunks_mut(STRIPE_SIZE) {
            let end = plain.min(stripe.len());
            stripe[..end].fill(b'.');
        }
        Self { pool: pool.into(), ..self }
    }

    /// The payload of a record; nothing is copied.
    pub(crate) fn plain(&self, record: u64) -> Bytes {
        let place = record.wrapping_mul(self.size as u64) % POOL_SIZE as u64;
        let start = usize::try_from(place).expect("the pool fits memory");
        self.pool.slice(start..start + self.size)
    }

    /// The same with a stamp over its front.
    ///
    /// | offset | size | what                                               |
    /// |--------|------|----------------------------------------------------|
    /// | 0      | 8    | the run, so that records of others are told apart  |
    /// | 8      | 8    | what the run has to say of it                      |
    pub(crate) fn stamped(&self, record: u64, run: u64, word: u64) -> Bytes {
        let mut payload = BytesMut::from(self.plain(record).as_ref());
        payload[..8].copy_from_slice(&run.to_le_bytes());
        payload[8..STAMP_SIZE].copy_from_slice(&word.to_le_bytes());
        payload.freeze()
    }
}

/// What a payload of this run was stamped with; none if it is of another run, or no load at all.
pub(crate) fn read_stamp(payload: &[u8], run: u64) -> Option<u64> {
    let (stamped, rest) = payload.split_first_chunk::<8>()?;
    let word = rest.first_chunk::<8>()?;
    (u64::from_le_bytes(*stamped) == run).then(|| u64::from_le_bytes(*word))
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
    fn as_much_of_a_payload_is_plain_as_was_asked_for() {
        for percent in [0, 25, 50, 100] {
            let payload = Payloads::new(7, 6_400).compressible(percent).plain(3);
            let plain = payload.iter().filter(|byte| **byte == b'.').count();
            let wanted = 64 * usize::from(percent);
            // One random byte in 256 is a dot, too.
            assert!((wanted..=wanted + 60).contains(&plain), "{percent} %: {plain} of 6400");
        }
    }

    #[test]
    fn stamps_are_read_by_their_own_run_only() {
        let payloads = Payloads::new(1, 20);
        let word = 123_456_789_012;
        let stamped = payloads.stamped(5, 42, word);
        assert_eq!(read_stamp(&stamped, 42), Some(word));
        assert_eq!(stamped[STAMP_SIZE..], payloads.plain(5)[STAMP_SIZE..]);
        assert_eq!(read_stamp(&stamped, 43), None);
        assert_eq!(read_stamp(&stamped[..15], 42), None);
    }
}
