//! What clients append: records that say who made them, so that a reader can tell whether it sees the right ones.
//!
//! The payload of a record, little-endian:
//!
//! | offset | size | meaning                                                        |
//! |-------:|-----:|----------------------------------------------------------------|
//! |      0 |    4 | producer                                                       |
//! |      4 |    8 | counter of that producer, over all partitions                  |
//! |     12 |    . | filler, a function of the twelve bytes before it               |

use bytes::Bytes;
use varve_protocol::limits::BATCH_BYTES_MAX;
use varve_protocol::record::{BatchBuilder, Record};

/// Bytes of a payload before the filler.
const IDENTITY_SIZE: usize = 12;

/// The identity of a record; no two records of a universe share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Value {
    /// Which client made it.
    pub producer: u32,
    /// Counts the records of that client.
    pub counter: u64,
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.producer, self.counter)
    }
}

impl Value {
    /// The value that stands `index` records after this one in a batch.
    #[must_use]
    pub fn plus(self, index: u64) -> Self {
        Self { counter: self.counter + index, ..self }
    }

    /// The payload of this value, `size` bytes long, or as short as possible.
    #[must_use]
    pub fn to_payload(self, size: usize) -> Bytes {
        let mut payload = Vec::with_capacity(size.max(IDENTITY_SIZE));
        payload.extend_from_slice(&self.producer.to_le_bytes());
        payload.extend_from_slice(&self.counter.to_le_bytes());
        let filler = self.filler();
        while payload.len() < size {
            let rest = (size - payload.len()).min(filler.len());
            payload.extend_from_slice(&filler[..rest]);
        }
        payload.into()
    }

    /// The value in a payload; `None` if no client of ours made it like that.
    #[must_use]
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        let producer = u32::from_le_bytes(payload.get(0..4)?.try_into().ok()?);
        let counter = u64::from_le_bytes(payload.get(4..IDENTITY_SIZE)?.try_into().ok()?);
        let value = Self { producer, counter };
        let filler = value.filler();
        let is_sound = |chunk: &[u8]| *chunk == filler[..chunk.len()];
        payload[IDENTITY_SIZE..].chunks(filler.len()).all(is_sound).then_some(value)
    }

    fn filler(self) -> [u8; 8] {
        let mixed = (self.counter ^ u64::from(self.producer) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed.to_le_bytes()
    }
}

/// A batch of `count` records that start with `first`, each payload `size` bytes long.
///
/// # Panics
/// If that is more than a batch can hold.
#[must_use]
pub fn batch(first: Value, count: u32, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BATCH_BYTES_MAX);
    for index in 0..u64::from(count) {
        let record = Record { payload: first.plus(index).to_payload(size), ..Record::default() };
        builder.push(&record).expect("batches of the simulator are far below the limit");
    }
    builder.finish()
}
