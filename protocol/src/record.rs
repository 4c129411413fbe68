//! What users store: records, appended and replicated in batches.
//!
//! A batch is the body of a prepare of kind `Records`. All numbers are little-endian.
//!
//! | offset | size | name              | meaning                                                     |
//! |-------:|-----:|-------------------|-------------------------------------------------------------|
//! |      0 |    4 | record_count      | records that follow, at least 1                             |
//! |      4 |    4 | records_size      | bytes of the records, uncompressed                          |
//! |      8 |    1 | version           | 1                                                           |
//! |      9 |    1 | compression       | 0: none; no other value is known to this version            |
//! |     10 |    6 | reserved          | zero                                                        |
//!
//! Then each record:
//!
//! | offset | size | name              | meaning                                                     |
//! |-------:|-----:|-------------------|-------------------------------------------------------------|
//! |      0 |    4 | size              | bytes of this record, these four included                   |
//! |      4 |    4 | key_size          | bytes of the key; `0xffff_ffff`: no key                     |
//! |      8 |    8 | timestamp         | microseconds since 1970, as the producer says; zero: unsaid |
//! |     16 |    4 | headers_size      | bytes of user headers; zero in this version                 |
//! |     20 |    4 | reserved          | zero                                                        |
//! |     24 |    . | key, payload      |                                                             |
//!
//! Offsets are not stored: the prepare header has that of the first record, and they are dense.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::Timestamp;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};

/// Bytes of a batch header.
pub const BATCH_HEADER_SIZE: usize = 16;

/// Bytes of a record beside its key and payload.
pub const RECORD_HEADER_SIZE: usize = 24;

const VERSION: u8 = 1;
const COMPRESSION_NONE: u8 = 0;
const NO_KEY: u32 = u32::MAX;

/// What a user stores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// When the producer made it; zero if it did not say.
    pub timestamp: Timestamp,
    /// Decides the partition, if the producer wishes.
    pub key: Option<Bytes>,
    /// The content.
    pub payload: Bytes,
}

impl Record {
    /// Bytes this record takes in a batch.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        RECORD_HEADER_SIZE + self.key.as_ref().map_or(0, Bytes::len) + self.payload.len()
    }
}

/// Why bytes are not a batch, or a record does not go into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than announced, or more.
    #[error("batch is {have} bytes long and should be {need}")]
    Size {
        /// Bytes announced.
        need: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// Written by a version this one cannot read.
    #[error("batch version {version} or its compression {compression} is unknown to this build")]
    Version {
        /// What stands there.
        version: u8,
        /// What stands there.
        compression: u8,
    },
    /// A field out of its bounds.
    #[error("batch field `{field}` is out of bounds in record {record}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Which record of the batch, from 0.
        record: u32,
    },
    /// A record over the limit.
    #[error(
        "record of {size} bytes is over the limit of {RECORD_BYTES_MAX}; split it, or store a reference to it"
    )]
    RecordTooLarge {
        /// Its size with framing.
        size: usize,
    },
    /// The batch has no room for this record; send it and start another.
    #[error("batch is full")]
    Full,
}

/// Collects records into a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    record_count: u32,
    bytes_max: usize,
}

impl BatchBuilder {
    /// An empty batch that grows up to `bytes_max` (at most [`BATCH_BYTES_MAX`]).
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let mut buffer = BytesMut::new();
        buffer.put_bytes(0, BATCH_HEADER_SIZE);
        Self { buffer, record_count: 0, bytes_max: bytes_max.min(BATCH_BYTES_MAX) }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`BatchError::Full`] if it does not fit any more, [`BatchError::RecordTooLarge`] if it fits no batch.
    pub fn push(&mut self, record: &Record) -> Result<(), BatchError> {
        let size = record.encoded_size();
        if size > RECORD_BYTES_MAX || size + BATCH_HEADER_SIZE > self.bytes_max {
            return Err(BatchError::RecordTooLarge { size });
        }
        if self.buffer.len() + size > self.bytes_max || self.record_count == BATCH_RECORDS_MAX {
            return Err(BatchError::Full);
        }
        let to_u32 = |length: usize| u32::try_from(length).expect("a record within limits fits 32 bits");
        self.buffer.put_u32_le(to_u32(size));
        self.buffer.put_u32_le(record.key.as_ref().map_or(NO_KEY, |key| to_u32(key.len())));
        self.buffer.put_u64_le(record.timestamp.as_raw());
        self.buffer.put_u64_le(0);
        if let Some(key) = &record.key {
            self.buffer.extend_from_slice(key);
        }
        self.buffer.extend_from_slice(&record.payload);
        self.record_count += 1;
        Ok(())
    }

    /// Records so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes so far, with the batch header.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The finished batch.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let records_size = self.buffer.len() - BATCH_HEADER_SIZE;
        let records_size = u32::try_from(records_size).expect("a batch within limits fits 32 bits");
        self.buffer[0..4].copy_from_slice(&self.record_count.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&records_size.to_le_bytes());
        self.buffer[8] = VERSION;
        self.buffer[9] = COMPRESSION_NONE;
        self.buffer.freeze()
    }
}

/// A verified batch; its records share its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    bytes: Bytes,
    record_count: u32,
}

impl Batch {
    /// Verifies every bound of a batch. Checksums are the prepare's.
    ///
    /// # Errors
    /// When anything is out of bounds.
    pub fn decode(bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_SIZE {
            return Err(BatchError::Size { need: BATCH_HEADER_SIZE, have: bytes.len() });
        }
        let record_count = u32_at(&bytes, 0);
        let need = BATCH_HEADER_SIZE + u32_at(&bytes, 4) as usize;
        let (version, compression) = (bytes[8], bytes[9]);
        if version != VERSION || compression != COMPRESSION_NONE {
            return Err(BatchError::Version { version, compression });
        }
        if bytes.len() != need {
            return Err(BatchError::Size { need, have: bytes.len() });
        }
        if record_count == 0 || record_count > BATCH_RECORDS_MAX || bytes[10..16] != [0; 6] {
            return Err(BatchError::Field { field: "record_count", record: 0 });
        }
        let mut position = BATCH_HEADER_SIZE;
        for record in 0..record_count {
            position += verify_record(&bytes[position..], record)?;
        }
        if position == bytes.len() {
            Ok(Self { bytes, record_count })
        } else {
            Err(BatchError::Size { need: position, have: bytes.len() })
        }
    }

    /// Records in the batch, at least one.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut position = BATCH_HEADER_SIZE;
        (0..self.record_count).map(move |_| {
            let size = u32_at(&self.bytes, position) as usize;
            let record = self.bytes.slice(position..position + size);
            position += size;
            let key_size = u32_at(&record, 4);
            let payload_at = RECORD_HEADER_SIZE + if key_size == NO_KEY { 0 } else { key_size as usize };
            Record {
                timestamp: Timestamp::new(
                    u64::from(u32_at(&record, 8)) | u64::from(u32_at(&record, 12)) << 32,
                ),
                key: (key_size != NO_KEY).then(|| record.slice(RECORD_HEADER_SIZE..payload_at)),
                payload: record.slice(payload_at..),
            }
        })
    }
}

/// The size of the sound record at the start of `bytes`.
fn verify_record(bytes: &[u8], record: u32) -> Result<usize, BatchError> {
    let refuse = |field| Err(BatchError::Field { field, record });
    if bytes.len() < RECORD_HEADER_SIZE {
        return refuse("size");
    }
    let size = u32_at(bytes, 0) as usize;
    if size < RECORD_HEADER_SIZE || size > bytes.len() || size > RECORD_BYTES_MAX {
        return refuse("size");
    }
    let key_size = u32_at(bytes, 4);
    if key_size != NO_KEY && key_size as usize > size - RECORD_HEADER_SIZE {
        return refuse("key_size");
    }
    if bytes[16..24] != [0; 8] {
        return refuse("headers_size");
    }
    Ok(size)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes make a u32"))
}
