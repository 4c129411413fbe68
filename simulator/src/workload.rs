//! What clients append: records that say who made them, so that a reader can tell whether it sees the right ones.
//!
//! The payload of a record, little-endian:
//!
//! | offset | size | meaning                                                        |
//! |-------:|-----:|----------------------------------------------------------------|
//! |      0 |    4 | producer                                                       |
//! |      4 |    8 | counter of that producer, over all partitions                  |
//! |     12 |    . | filler, a function of the twelve bytes before it, and of       |
//! |        |      | whether there are headers                                      |
//!
//! In a compressed topic most records have headers, which are a function of the same twelve bytes.

use bytes::Bytes;
use varve_protocol::compression::Compression;
use varve_protocol::limits::BATCH_BYTES_MAX;
use varve_protocol::record::{BatchBuilder, HeaderValue, Headers, Record};

/// Bytes of a payload before the filler.
const IDENTITY_SIZE: usize = 12;

/// Bytes of filler that are made at once.
const CHUNK_SIZE: usize = 8;

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

    /// The record of this value in a topic of this compression; its payload is `size` bytes long, or as short as possible.
    #[must_use]
    pub fn to_record(self, size: usize, compression: Compression) -> Record {
        let headers = match compression {
            Compression::None => Headers::new(),
            Compression::Lz4 | Compression::Zstd => self.headers(),
        };
        let mut payload = Vec::with_capacity(size.max(IDENTITY_SIZE));
        payload.extend_from_slice(&self.producer.to_le_bytes());
        payload.extend_from_slice(&self.counter.to_le_bytes());
        for place in 0_u64.. {
            let rest = size.saturating_sub(payload.len()).min(CHUNK_SIZE);
            if rest == 0 {
                break;
            }
            payload.extend_from_slice(&self.filler(place, &headers)[..rest]);
        }
        Record { headers, payload: payload.into(), ..Record::default() }
    }

    /// The value of a record; `None` if no client of ours made it like that.
    #[must_use]
    pub fn from_record(record: &Record) -> Option<Self> {
        let (payload, headers) = (&record.payload, &record.headers);
        let producer = u32::from_le_bytes(payload.get(0..4)?.try_into().ok()?);
        let counter = u64::from_le_bytes(payload.get(4..IDENTITY_SIZE)?.try_into().ok()?);
        let value = Self { producer, counter };
        let is_sound = |(place, chunk): (u64, &[u8])| *chunk == value.filler(place, headers)[..chunk.len()];
        let chunks = payload[IDENTITY_SIZE..].chunks(CHUNK_SIZE);
        let are_headers_sound = headers.is_empty() || *headers == value.headers();
        (are_headers_sound && (0..).zip(chunks).all(is_sound)).then_some(value)
    }

    /// Some records have none, some have one, some have several.
    fn headers(self) -> Headers {
        let mut headers = Headers::new();
        let mut insert = |key: &str, value: HeaderValue<'_>| {
            headers.insert(key, value).expect("these headers are far below the limits");
        };
        if !self.counter.is_multiple_of(3) {
            insert("counter", self.counter.into());
        }
        if self.counter % 3 == 2 {
            insert("producer", self.producer.into());
            insert("made_by", self.to_string().as_str().into());
        }
        headers
    }

    /// Says whether there are headers, too, so that lost ones are noticed. Where there are, each second chunk compresses; where
    /// there are none, all chunks are alike.
    fn filler(self, place: u64, headers: &Headers) -> [u8; CHUNK_SIZE] {
        let own = if headers.is_empty() { 0 } else { 1 + place * (place % 2) };
        let mixed = (self.counter ^ u64::from(self.producer) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ own.wrapping_mul(0xbf58_476d_1ce4_e5b9)).to_le_bytes()
    }
}

/// A batch of `count` records that start with `first`, each payload `size` bytes long, for a topic of this compression.
/// Whoever appends may use another.
///
/// # Panics
/// If that is more than a batch can hold.
#[must_use]
pub fn batch(
    first: Value,
    (count, size): (u32, usize),
    of_topic: Compression,
    compression: Compression,
) -> Bytes {
    let mut builder = BatchBuilder::new(BATCH_BYTES_MAX);
    for index in 0..u64::from(count) {
        let record = first.plus(index).to_record(size, of_topic);
        builder.push(&record).expect("batches of the simulator are far below the limit");
    }
    builder.finish_compressed(compression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_noticed() {
        for compression in Compression::ALL {
            for counter in 0..3 {
                let value = Value { producer: 2, counter };
                let record = value.to_record(60, *compression);
                assert_eq!(Value::from_record(&record), Some(value));
                let mut bare = record.clone();
                bare.headers = Headers::new();
                assert!(Value::from_record(&bare) != Some(value) || record.headers.is_empty());
                let mut other = record.clone();
                other.headers.insert("counter", counter + 1).unwrap();
                assert_eq!(Value::from_record(&other), None);
                for place in 0..60 {
                    let mut payload = record.payload.to_vec();
                    payload[place] ^= 4;
                    let garbled = Record { payload: payload.into(), ..record.clone() };
                    assert_ne!(Value::from_record(&garbled), Some(value));
                }
            }
        }
    }

    #[test]
    fn large_batches_compress_in_part() {
        let first = Value { producer: 2, counter: 2 };
        for compression in [Compression::Lz4, Compression::Zstd] {
            let size = |count_and_size, codec| batch(first, count_and_size, compression, codec).len();
            let (plain, small) = (size((4, 2000), Compression::None), size((4, 2000), compression));
            assert!(small > plain / 4 && small < plain * 3 / 4, "{compression}: {small} of {plain}");
        }
    }
}
