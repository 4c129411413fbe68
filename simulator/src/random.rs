//! Named streams of randomness, all grown from one seed.
//!
//! Each part of a universe draws from its own stream, so that one more draw in one part does not move the others. Only
//! integer arithmetic is used: the same seed means the same universe on every machine.

use std::time::Duration;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The stream called `name` of the universe `seed`.
#[must_use]
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Thirty-two bytes of the stream called `name`, for those who want a seed of their own.
#[must_use]
pub fn seed_bytes(seed: u64, name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    stream(seed, name).fill_bytes(&mut bytes);
    bytes
}

/// Whether something happens that happens `permille` times in a thousand.
pub fn chance(rng: &mut ChaCha8Rng, permille: u32) -> bool {
    permille > 0 && rng.random_range(0..1000) < permille
}

/// A duration between the two, inclusive, in whole nanoseconds.
pub fn duration_between(rng: &mut ChaCha8Rng, shortest: Duration, longest: Duration) -> Duration {
    let (shortest, longest) = (nanos(shortest), nanos(longest));
    Duration::from_nanos(rng.random_range(shortest..=longest.max(shortest)))
}

/// A duration with a long tail: half of the draws are below `mean`, each further `mean` halves the rest.
pub fn long_tail(rng: &mut ChaCha8Rng, mean: Duration) -> Duration {
    let mean = nanos(mean);
    if mean == 0 {
        return Duration::ZERO;
    }
    let whole = u64::from(rng.next_u64().leading_zeros());
    Duration::from_nanos(mean * whole + rng.random_range(0..mean))
}

/// One of `choices`.
///
/// # Panics
/// If there is nothing to choose from.
pub fn pick<T: Copy>(rng: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// The nanoseconds of a duration; the longest there can be if they do not fit.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
