//! What users store: records, appended and replicated in batches.
//!
//! A batch is the body of a prepare of kind `Records`. All numbers are little-endian.
//!
//! | offset | size | name              | meaning                                                     |
//! |-------:|-----:|-------------------|-------------------------------------------------------------|
//! |      0 |    4 | record_count      | records that follow, at least 1                             |
//! |      4 |    4 | records_size      | bytes of the records, uncompressed                          |
//! |      8 |    1 | version           | 1                                                           |
//! |      9 |    1 | compression       | of what follows, see [`Compression`]                        |
//! |     10 |    6 | reserved          | zero                                                        |
//!
//! Then the records, compressed if that makes them smaller; if not, compression is 0. Each of them:
//!
//! | offset | size | name              | meaning                                                     |
//! |-------:|-----:|-------------------|-------------------------------------------------------------|
//! |      0 |    4 | size              | bytes of this record, these four included                   |
//! |      4 |    4 | key_size          | bytes of the key; `0xffff_ffff`: no key                     |
//! |      8 |    8 | timestamp         | microseconds since 1970, as the producer says; zero: unsaid |
//! |     16 |    4 | headers_size      | bytes of user headers, see [`Headers`]                      |
//! |     20 |    4 | reserved          | zero                                                        |
//! |     24 |    . | key, headers,     |                                                             |
//! |        |      | payload           |                                                             |
//!
//! Offsets are not stored: the prepare header has that of the first record, and they are dense. The limits of a batch hold
//! for the records uncompressed; limits of what is stored and fetched count bytes as they are stored.

mod headers;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::headers::{HeaderError, HeaderKind, HeaderValue, Headers, UnknownHeaderKind};
use crate::compression::Compression;
use crate::id::Timestamp;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use crate::mutant::Mutant;

/// Bytes of a batch header.
pub const BATCH_HEADER_SIZE: usize = 16;

/// Bytes of a record beside its key, headers and payload.
pub const RECORD_HEADER_SIZE: usize = 24;

const VERSION: u8 = 1;
const NO_KEY: u32 = u32::MAX;

/// What a user stores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// When the producer made it; zero if it did not say.
    pub timestamp: Timestamp,
    /// Decides the partition, if the producer wishes.
    pub key: Option<Bytes>,
    /// What it says beside that.
    pub headers: Headers,
    /// The content.
    pub payload: Bytes,
}

impl Record {
    /// Bytes this record takes in a batch.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        let key_size = self.key.as_ref().map_or(0, Bytes::len);
        RECORD_HEADER_SIZE + key_size + self.headers.as_bytes().len() + self.payload.len()
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
    #[error("batch version {version} is unknown to this build")]
    Version {
        /// What stands there.
        version: u8,
    },
    /// Compressed in a way this version cannot read.
    #[error("batch compression {number} is unknown to this build")]
    Compression {
        /// What stands there.
        number: u8,
    },
    /// It would be larger than any batch once it is decompressed.
    #[error("batch announces {size} bytes of records, and its limit is {BATCH_BYTES_MAX}")]
    TooLarge {
        /// What it announces.
        size: usize,
    },
    /// The compressed data are damaged, or hold more or less than announced.
    #[error(
        "batch cannot be decompressed: its {compression} data are not the {size} bytes of records that it announces"
    )]
    Compressed {
        /// How they are compressed.
        compression: Compression,
        /// What is announced.
        size: usize,
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
        self.buffer.put_u32_le(to_u32(record.headers.as_bytes().len()));
        self.buffer.put_u32_le(0);
        if let Some(key) = &record.key {
            self.buffer.extend_from_slice(key);
        }
        self.buffer.extend_from_slice(record.headers.as_bytes());
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
    pub fn finish(self) -> Bytes {
        self.finish_compressed(Compression::None)
    }

    /// The finished batch, its records compressed if that makes them smaller.
    #[must_use]
    pub fn finish_compressed(mut self, compression: Compression) -> Bytes {
        let records = &self.buffer[BATCH_HEADER_SIZE..];
        let records_size = u32::try_from(records.len()).expect("a batch within limits fits 32 bits");
        let compressed = compression.compress(records);
        let stored = if compressed.is_some() { compression } else { Compression::None };
        self.buffer[0..4].copy_from_slice(&self.record_count.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&records_size.to_le_bytes());
        self.buffer[8] = VERSION;
        self.buffer[9] = stored.number();
        match compressed {
            // A buffer of its own: that of the plain records would be kept as long as the batch is.
            Some(compressed) => [&self.buffer[..BATCH_HEADER_SIZE], &compressed].concat().into(),
            None => self.buffer.freeze(),
        }
    }
}

/// A verified batch; its records share its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Uncompressed.
    records: Bytes,
    record_count: u32,
    compression: Compression,
}

impl Batch {
    /// Verifies every bound of a batch, and decompresses it. Checksums are the prepare's.
    ///
    /// # Errors
    /// When anything is out of bounds.
    pub fn decode(bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_SIZE {
            return Err(BatchError::Size { need: BATCH_HEADER_SIZE, have: bytes.len() });
        }
        let (record_count, records_size) = (u32_at(&bytes, 0), u32_at(&bytes, 4) as usize);
        if bytes[8] != VERSION {
            return Err(BatchError::Version { version: bytes[8] });
        }
        let compression =
            Compression::from_number(bytes[9]).ok_or(BatchError::Compression { number: bytes[9] })?;
        let need = BATCH_HEADER_SIZE + records_size;
        if need > BATCH_BYTES_MAX && !Mutant::BombTaken.is_on() {
            return Err(BatchError::TooLarge { size: records_size });
        }
        let room = records_size / RECORD_HEADER_SIZE;
        let fits = (1..=BATCH_RECORDS_MAX).contains(&record_count) && record_count as usize <= room;
        if !fits || bytes[10..16] != [0; 6] {
            return Err(BatchError::Field { field: "record_count", record: 0 });
        }
        let records = match compression {
            Compression::None if bytes.len() != need => {
                return Err(BatchError::Size { need, have: bytes.len() });
            }
            Compression::None => bytes.slice(BATCH_HEADER_SIZE..),
            Compression::Lz4 | Compression::Zstd => {
                decompressed(compression, &bytes[BATCH_HEADER_SIZE..], records_size)?
            }
        };
        if compression == Compression::None || !Mutant::CompressedUnverified.is_on() {
            verify_records(&records, record_count)?;
        }
        Ok(Self { records, record_count, compression })
    }

    /// Records in the batch, at least one.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Bytes of the records, uncompressed.
    #[must_use]
    pub fn records_size(&self) -> usize {
        self.records.len()
    }

    /// How it is stored.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut position = 0;
        (0..self.record_count).map(move |_| {
            let size = u32_at(&self.records, position) as usize;
            let record = self.records.slice(position..position + size);
            position += size;
            let key_size = u32_at(&record, 4);
            let headers_at = RECORD_HEADER_SIZE + if key_size == NO_KEY { 0 } else { key_size as usize };
            let payload_at = headers_at + u32_at(&record, 16) as usize;
            Record {
                timestamp: Timestamp::new(
                    u64::from(u32_at(&record, 8)) | u64::from(u32_at(&record, 12)) << 32,
                ),
                key: (key_size != NO_KEY).then(|| record.slice(RECORD_HEADER_SIZE..headers_at)),
                headers: Headers::from_sound(record.slice(headers_at..payload_at)),
                payload: record.slice(payload_at..),
            }
        })
    }
}

/// The records of a compressed batch; `size` is within the limit of a batch. They are never larger than that, whatever the
/// data are.
fn decompressed(compression: Compression, stored: &[u8], size: usize) -> Result<Bytes, BatchError> {
    // What had not become smaller would have been stored as it was.
    let mut records = if stored.len() < size { vec![0; size] } else { Vec::new() };
    if !records.is_empty() && compression.decompress(stored, &mut records) {
        Ok(records.into())
    } else {
        Err(BatchError::Compressed { compression, size })
    }
}

fn verify_records(records: &[u8], record_count: u32) -> Result<(), BatchError> {
    let mut position = 0;
    for record in 0..record_count {
        position += verify_record(&records[position..], record)?;
    }
    if position == records.len() {
        Ok(())
    } else {
        let [need, have] = [position, records.len()].map(|size| BATCH_HEADER_SIZE + size);
        Err(BatchError::Size { need, have })
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
    let content = &bytes[RECORD_HEADER_SIZE..size];
    let key_size = u32_at(bytes, 4);
    let key_size = if key_size == NO_KEY { 0 } else { key_size as usize };
    let Some((_, content)) = content.split_at_checked(key_size) else { return refuse("key_size") };
    let Some((headers, _)) = content.split_at_checked(u32_at(bytes, 16) as usize) else {
        return refuse("headers_size");
    };
    if bytes[20..24] != [0; 4] {
        return refuse("reserved");
    }
    if headers::are_sound(headers) { Ok(size) } else { refuse("headers") }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes make a u32"))
}
