//! A prepare: the unit of replication, of the segment file and of what consumers receive. One format everywhere.
//!
//! The header is 128 bytes, little-endian:
//!
//! | offset | size | name            | meaning                                                               |
//! |-------:|-----:|-----------------|-----------------------------------------------------------------------|
//! |      0 |    4 | checksum        | CRC-32 of bytes 4..128                                                |
//! |      4 |    4 | body_checksum   | CRC-32 of the body                                                    |
//! |      8 |    4 | magic           | `VRVP`                                                                |
//! |     12 |    1 | version         | see [`crate::version`]                                                |
//! |     13 |    1 | kind            | see [`PrepareKind`]                                                   |
//! |     14 |    2 | reserved        | zero                                                                  |
//! |     16 |   16 | cluster         | identity of the cluster                                               |
//! |     32 |    8 | group           | whose log this belongs to                                             |
//! |     40 |    8 | op              | position in that log, from 1                                          |
//! |     48 |    8 | view            | the view in which this op was first prepared; never changes           |
//! |     56 |    8 | parent_view     | `view` of the prepare before; zero for op 1                           |
//! |     64 |    4 | parent_checksum | `checksum` of the prepare before; zero for op 1                       |
//! |     68 |    4 | body_size       | bytes of the body that follows                                        |
//! |     72 |    8 | base_offset     | offset of the first record, or of the next one if there are none      |
//! |     80 |    8 | timestamp       | microseconds since 1970 at the primary; strictly growing in a log     |
//! |     88 |    8 | producer        | who asked; zero: the cluster itself                                   |
//! |     96 |    8 | request         | that producer's request number in this group; zero: not a session     |
//! |    104 |    4 | record_count    | records in the body                                                   |
//! |    108 |    4 | epoch           | version of the group's member list                                    |
//! |    112 |   16 | reserved        | zero                                                                  |
//!
//! The body is a record batch ([`crate::record`]), an rkyv archive of a metadata operation, or a
//! [`crate::replacement::Replacement`].

use std::fmt;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::checksum;
use crate::id::{ClusterId, Epoch, GroupId, Offset, Op, ProducerId, RequestNumber, Timestamp, View};
use crate::limits::{BATCH_BYTES_MAX, NUMBER_MAX};
use crate::version::{Version, Versions};

/// Bytes of a prepare header.
pub const PREPARE_HEADER_SIZE: usize = 128;

/// Where the magic number of a header stands in it.
pub const PREPARE_MAGIC_AT: usize = 8;
/// The magic number of a header, as it is stored.
pub const PREPARE_MAGIC: [u8; 4] = *b"VRVP";

const MAGIC: u32 = u32::from_le_bytes(PREPARE_MAGIC);

/// What the body of a prepare is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PrepareKind {
    /// Nothing: an empty body, for instance to commit what an earlier view left behind.
    Noop = 0,
    /// A batch of records for a partition.
    Records = 1,
    /// An operation on the metadata; only in group 0.
    Metadata = 2,
    /// A replica that has lost its disk is replaced; see [`crate::replacement`].
    Replacement = 3,
    /// Older segments are let go; see [`crate::log_start`].
    LogStart = 4,
}

impl PrepareKind {
    const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Noop),
            1 => Some(Self::Records),
            2 => Some(Self::Metadata),
            3 => Some(Self::Replacement),
            4 => Some(Self::LogStart),
            _ => None,
        }
    }
}

/// The name of one prepare of a group. A view has one primary and that primary seals each op once, so (op, view) is
/// unique by protocol; the checksum is there to notice when that was broken by a fault.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct PrepareId {
    /// Position in the log.
    pub op: Op,
    /// The view in which it was first prepared.
    pub view: View,
    /// The header's checksum.
    pub checksum: u32,
}

impl PrepareId {
    /// The end of the empty log: parent of op 1.
    pub const ROOT: Self = Self { op: Op::ZERO, view: View::ZERO, checksum: 0 };
}

impl fmt::Display for PrepareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.op, self.view)
    }
}

/// What a primary fills in when it seals a prepare; the checksums follow from it and from the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrepareFields {
    /// The version that it is written in: the cluster's.
    pub version: Version,
    /// Identity of the cluster.
    pub cluster: ClusterId,
    /// Whose log.
    pub group: GroupId,
    /// The primary's view.
    pub view: View,
    /// The prepare before this one; its op plus one is this op.
    pub parent: PrepareId,
    /// Version of the member list.
    pub epoch: Epoch,
    /// What the body is.
    pub kind: PrepareKind,
    /// Offset of the first record, or of the next one.
    pub base_offset: Offset,
    /// Records in the body.
    pub record_count: u32,
    /// Primary's clock, later than the parent's.
    pub timestamp: Timestamp,
    /// Who asked.
    pub producer: ProducerId,
    /// Which of that producer's requests.
    pub request: RequestNumber,
}

#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    body_checksum: U32,
    magic: U32,
    version: u8,
    kind: u8,
    reserved: U16,
    cluster: U128,
    group: U64,
    op: U64,
    view: U64,
    parent_view: U64,
    parent_checksum: U32,
    body_size: U32,
    base_offset: U64,
    timestamp: U64,
    producer: U64,
    request: U64,
    record_count: U32,
    epoch: U32,
    reserved_end: [u8; 16],
}

const _: () = assert!(size_of::<Layout>() == PREPARE_HEADER_SIZE, "the byte table is the struct");

/// A sealed and verified prepare header: a value of this type always carries a right header checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PrepareHeader(Layout);

/// Why bytes are not a prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// Fewer bytes than a header or than the header announces.
    #[error("prepare cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// The header's checksum does not match.
    #[error("prepare header checksum mismatch")]
    HeaderChecksum,
    /// The body's checksum does not match; the header is sound.
    #[error("prepare body checksum mismatch at {op}")]
    BodyChecksum {
        /// The op of the header.
        op: Op,
    },
    /// The checksum is right and the magic is not.
    #[error("not a prepare: magic {magic:08x}")]
    Magic {
        /// What stands there.
        magic: u32,
    },
    /// Of a release that this one cannot read.
    #[error(
        "a prepare of format {format}, and this release knows formats {} to {}: start the release that wrote it, or a newer one",
        Versions::READABLE.oldest.in_prepare(), Versions::READABLE.newest.in_prepare()
    )]
    Version {
        /// What stands there.
        format: u8,
    },
    /// A kind this version does not know, or a field out of its bounds.
    #[error("prepare field `{field}` is out of bounds")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
}

impl PrepareHeader {
    /// Seals a header over `body`.
    ///
    /// # Panics
    /// If the body is larger than [`BATCH_BYTES_MAX`]: whoever takes requests refuses it before.
    #[must_use]
    pub fn seal(fields: PrepareFields, body: &[u8]) -> Self {
        assert!(body.len() <= BATCH_BYTES_MAX, "the body of a prepare is within limits");
        let body_size = u32::try_from(body.len()).expect("a body within limits fits 32 bits");
        let mut layout = Layout {
            checksum: U32::ZERO,
            body_checksum: U32::new(checksum(body)),
            magic: U32::new(MAGIC),
            version: fields.version.in_prepare(),
            kind: fields.kind as u8,
            reserved: U16::ZERO,
            cluster: U128::new(fields.cluster.as_raw()),
            group: U64::new(fields.group.as_raw()),
            op: U64::new(fields.parent.op.next().as_raw()),
            view: U64::new(fields.view.as_raw()),
            parent_view: U64::new(fields.parent.view.as_raw()),
            parent_checksum: U32::new(fields.parent.checksum),
            body_size: U32::new(body_size),
            base_offset: U64::new(fields.base_offset.as_raw()),
            timestamp: U64::new(fields.timestamp.as_raw()),
            producer: U64::new(fields.producer.as_raw()),
            request: U64::new(fields.request.as_raw()),
            record_count: U32::new(fields.record_count),
            epoch: U32::new(fields.epoch.as_raw()),
            reserved_end: [0; 16],
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        Self(layout)
    }

    /// Reads and verifies the header at the start of `bytes`.
    ///
    /// # Errors
    /// When the bytes are too few, rotten, of another version, or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, PrepareError> {
        let Ok((layout, _)) = Layout::read_from_prefix(bytes) else {
            return Err(PrepareError::Truncated { need: PREPARE_HEADER_SIZE, have: bytes.len() });
        };
        if layout.checksum.get() != checksum(&bytes[4..PREPARE_HEADER_SIZE]) {
            return Err(PrepareError::HeaderChecksum);
        }
        if layout.magic.get() != MAGIC {
            return Err(PrepareError::Magic { magic: layout.magic.get() });
        }
        if Version::of_prepare(layout.version).is_none() {
            return Err(PrepareError::Version { format: layout.version });
        }
        let bounds = [
            ("kind", PrepareKind::from_raw(layout.kind).is_some()),
            ("op", (1..=NUMBER_MAX).contains(&layout.op.get())),
            ("view", layout.view.get().max(layout.parent_view.get()) <= NUMBER_MAX),
            ("timestamp", layout.timestamp.get() <= NUMBER_MAX),
            ("request", layout.request.get() <= NUMBER_MAX),
            ("body_size", layout.body_size.get() as usize <= BATCH_BYTES_MAX),
            ("base_offset", layout.base_offset.get() <= NUMBER_MAX),
            ("reserved", layout.reserved.get() == 0 && layout.reserved_end == [0; 16]),
        ];
        match bounds.into_iter().find(|(_, within)| !within) {
            Some((field, _)) => Err(PrepareError::Field { field }),
            None => Ok(Self(layout)),
        }
    }

    /// The version that it is written in.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.0.version)
    }

    /// The 128 bytes as stored and sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether `body` is the body this header was sealed over.
    #[must_use]
    pub fn matches_body(&self, body: &[u8]) -> bool {
        body.len() == self.body_size() && checksum(body) == self.0.body_checksum.get()
    }

    /// The name of this prepare.
    #[must_use]
    pub fn id(&self) -> PrepareId {
        PrepareId { op: self.op(), view: self.view(), checksum: self.0.checksum.get() }
    }

    /// The name of the prepare before this one.
    #[must_use]
    pub fn parent(&self) -> PrepareId {
        PrepareId {
            op: self.op().previous(),
            view: View::new(self.0.parent_view.get()),
            checksum: self.0.parent_checksum.get(),
        }
    }

    /// Identity of the cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        ClusterId::new(self.0.cluster.get())
    }

    /// Whose log this belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        GroupId::new(self.0.group.get())
    }

    /// Position in the log.
    #[must_use]
    pub fn op(&self) -> Op {
        Op::new(self.0.op.get())
    }

    /// The view in which this op was first prepared.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.0.view.get())
    }

    /// What the body is.
    ///
    /// # Panics
    /// Never: the kind was checked when the header was made.
    #[must_use]
    pub fn kind(&self) -> PrepareKind {
        PrepareKind::from_raw(self.0.kind).expect("the kind was checked when the header was made")
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_size(&self) -> usize {
        self.0.body_size.get() as usize
    }

    /// Bytes of header and body together: what the prepare takes in a segment file.
    #[must_use]
    pub fn total_size(&self) -> usize {
        PREPARE_HEADER_SIZE + self.body_size()
    }

    /// Offset of the first record; of the next one if this prepare has none.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        Offset::new(self.0.base_offset.get())
    }

    /// Records in the body.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.0.record_count.get()
    }

    /// The offset that the first record after this prepare gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.base_offset().plus(self.record_count().into())
    }

    /// The primary's clock when it sealed this prepare.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::new(self.0.timestamp.get())
    }

    /// Who asked for it.
    #[must_use]
    pub fn producer(&self) -> ProducerId {
        ProducerId::new(self.0.producer.get())
    }

    /// Which of that producer's requests.
    #[must_use]
    pub fn request(&self) -> RequestNumber {
        RequestNumber::new(self.0.request.get())
    }

    /// Version of the member list.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.0.epoch.get())
    }
}

impl fmt::Debug for PrepareHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareHeader")
            .field("group", &self.group())
            .field("id", &self.id())
            .field("parent", &self.parent())
            .field("kind", &self.kind())
            .field("base_offset", &self.base_offset())
            .field("record_count", &self.record_count())
            .field("body_size", &self.body_size())
            .finish_non_exhaustive()
    }
}

/// A sealed header and the body it was sealed over. Shared: it travels through queues and logs as one pointer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare(Arc<Sealed>);

#[derive(PartialEq, Eq, Debug)]
struct Sealed {
    header: PrepareHeader,
    body: Bytes,
}

impl Prepare {
    /// Seals a prepare over `body`. Panics as [`PrepareHeader::seal`] does.
    #[must_use]
    pub fn seal(fields: PrepareFields, body: Bytes) -> Self {
        Self::new(PrepareHeader::seal(fields, &body), body)
    }

    fn new(header: PrepareHeader, body: Bytes) -> Self {
        Self(Arc::new(Sealed { header, body }))
    }

    /// Reads and verifies one prepare, header and body, at the start of `bytes`; the body shares the memory.
    ///
    /// # Errors
    /// As [`PrepareHeader::decode`], and when the body is short or rotten.
    pub fn decode(bytes: &Bytes) -> Result<Self, PrepareError> {
        let header = PrepareHeader::decode(bytes)?;
        if bytes.len() < header.total_size() {
            return Err(PrepareError::Truncated { need: header.total_size(), have: bytes.len() });
        }
        let body = bytes.slice(PREPARE_HEADER_SIZE..header.total_size());
        if !header.matches_body(&body) {
            return Err(PrepareError::BodyChecksum { op: header.op() });
        }
        Ok(Self::new(header, body))
    }

    /// The sealed header.
    #[must_use]
    pub fn header(&self) -> &PrepareHeader {
        &self.0.header
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The name of this prepare.
    #[must_use]
    pub fn id(&self) -> PrepareId {
        self.0.header.id()
    }

    /// Position in the log.
    #[must_use]
    pub fn op(&self) -> Op {
        self.0.header.op()
    }

    /// Header and body as they are stored and sent, without copying the body.
    #[must_use]
    pub fn chunks(&self) -> [Bytes; 2] {
        [Bytes::copy_from_slice(self.0.header.as_bytes()), self.0.body.clone()]
    }

    /// Appends header and body to `buffer`.
    pub fn encode(&self, buffer: &mut BytesMut) {
        buffer.extend_from_slice(self.0.header.as_bytes());
        buffer.extend_from_slice(&self.0.body);
    }
}
