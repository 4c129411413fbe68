//! What stands in a record: its value, and a filling that follows from the value, so that a garbled record is noticed.

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Bytes of the value in front.
const VALUE_SIZE: usize = 8;

/// Bytes of filling at most; few records are that large.
const FILLING_MAX: usize = 8_000;

/// What a garbled record is taken for: nobody sends that.
pub(super) const GARBLED: u64 = u64::MAX;

/// The payload of a value.
pub(super) fn payload(value: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(value);
    let largest = if rng.random_ratio(1, 10) { FILLING_MAX } else { FILLING_MAX / 10 };
    let mut bytes = vec![0; VALUE_SIZE + rng.random_range(0..largest)];
    let (front, filling) = bytes.split_at_mut(VALUE_SIZE);
    front.copy_from_slice(&value.to_le_bytes());
    rng.fill_bytes(filling);
    bytes
}

/// The value of a payload, or [`GARBLED`].
pub(super) fn value(bytes: &[u8]) -> u64 {
    let value = bytes.first_chunk().map(|front| u64::from_le_bytes(*front));
    value.filter(|value| payload(*value) == bytes).unwrap_or(GARBLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbled_payloads_are_noticed() {
        for original in [0, 1, 77, 1 << 40] {
            let bytes = payload(original);
            assert_eq!(value(&bytes), original);
            for place in [0, VALUE_SIZE, bytes.len() - 1] {
                let mut garbled = bytes.clone();
                garbled[place] ^= 4;
                assert_eq!(value(&garbled), GARBLED);
            }
            assert_eq!(value(&bytes[..bytes.len() - 1]), GARBLED);
        }
        assert_eq!(value(b""), GARBLED);
    }
}
