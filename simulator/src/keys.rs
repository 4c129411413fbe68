//! The key files of nodes: in some universes disks are sealed, from the first life of a node on or from a later one, and every few
//! lives there is a newer key.

use std::fmt::Write as _;

use rand::Rng as _;
use varve_protocol::id::NodeId;
use varve_storage::{KEY_SIZE, Keys};

use crate::random::{chance, seed_bytes, stream};

/// Universes in which disks are sealed, of a thousand.
const SEALED_PERMILLE: u32 = 350;

/// Lives that a node has with the same newest key.
const LIVES_PER_KEY: u64 = 2;

/// Keys that there are at most.
const KEYS_MAX: u64 = 4;

/// The keys that a node has in one of its lives, of which the first is number 1.
pub(crate) fn keys_of(seed: u64, node: NodeId, life: u64) -> Keys {
    let mut rng = stream(seed, "keys");
    if !chance(&mut rng, SEALED_PERMILLE) {
        return Keys::NONE;
    }
    let first_life = rng.random_range(0..=LIVES_PER_KEY);
    let count = (life + first_life).saturating_sub(1) / LIVES_PER_KEY;
    parse(count.min(KEYS_MAX), seed_bytes(seed, &format!("nonces {node} life {life}")))
}

/// All keys that a node may ever have, to read with.
pub(crate) fn all_keys() -> Keys {
    parse(KEYS_MAX, [0; 32])
}

fn parse(count: u64, entropy: [u8; 32]) -> Keys {
    let mut text = String::new();
    for key in 1..=count {
        for _ in 0..KEY_SIZE {
            let _ = write!(text, "{key:02x}");
        }
        text.push('\n');
    }
    if count == 0 { Keys::NONE } else { Keys::parse(&text, entropy).expect("these are keys") }
}
