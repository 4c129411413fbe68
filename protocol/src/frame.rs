//! A frame: what travels on a QUIC stream. A fixed header of 96 bytes and a body.
//!
//! | offset | size | name            | meaning                                                                 |
//! |-------:|-----:|-----------------|-------------------------------------------------------------------------|
//! |      0 |    4 | checksum        | CRC-32 of bytes 4..96                                                   |
//! |      4 |    4 | body_checksum   | CRC-32 of the body                                                      |
//! |      8 |    4 | magic           | `VRVF`                                                                  |
//! |     12 |    1 | version         | see [`crate::version`]                                                  |
//! |     13 |    1 | command         | see [`Command`]                                                         |
//! |     14 |    1 | replica         | between nodes: the sender's place in the group                          |
//! |     15 |    1 | reserved        | zero                                                                    |
//! |     16 |   16 | cluster         | identity of the cluster; zero only in a client's first `Hello`          |
//! |     32 |    8 | group           | the group concerned, or zero                                            |
//! |     40 |    8 | view            | sender's view of that group                                             |
//! |     48 |    8 | op              | by command                                                              |
//! |     56 |    8 | commit          | by command; for prepares the sender's commit                            |
//! |     64 |    8 | commit_view     | view part of the name of the prepare at `commit` (or at `op`)           |
//! |     72 |    4 | commit_checksum | checksum part of that name                                              |
//! |     76 |    4 | body_size       | bytes that follow                                                       |
//! |     80 |    8 | correlation     | chosen by a client, echoed in the answer; between nodes by command      |
//! |     88 |    8 | generation      | between nodes: the op that put the sender there; see [`Voice`]          |
//!
//! [`crate::message`] and [`crate::client`] say what each command puts into which field.

use bytes::Bytes;
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{checksum, checksum_chunks};
use crate::id::{ClusterId, GroupId, Op, ReplicaIndex, View};
use crate::limits::{FRAME_BODY_BYTES_MAX, NUMBER_MAX};
use crate::version::{Version, Versions};

/// Bytes of a frame header.
pub const FRAME_HEADER_SIZE: usize = 96;

const MAGIC: u32 = u32::from_le_bytes(*b"VRVF");

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame asks or tells.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Command { $($(#[$doc])* $name = $number,)* }

        impl Command {
            /// Every command.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

commands! {
    /// First frame on a connection, in both directions: who is speaking.
    Hello = 1,
    /// Node to node: alive, and news of some groups.
    Pulse = 2,
    /// Node to node: filler, to see how much goes through in a time. It goes where repair goes, last in line. Fields: op = its
    /// place in a row, from 1; commit = how many make the row; correlation = which row.
    Probe = 3,
    /// Node to node: a row of `Probe`s has come. Fields: op = bytes of bodies that came behind the first; commit = the
    /// microseconds that took; correlation = which row.
    Probed = 4,

    /// Consensus, see [`crate::message::Message`].
    Prepare = 16,
    /// Consensus.
    PrepareOk = 17,
    /// Consensus.
    Commit = 18,
    /// Consensus.
    StartViewChange = 19,
    /// Consensus.
    DoViewChange = 20,
    /// Consensus.
    StartView = 21,
    /// Consensus.
    GetStartView = 22,
    /// Consensus.
    GetHeaders = 23,
    /// Consensus.
    Headers = 24,
    /// Consensus.
    GetPrepares = 25,
    /// Consensus.
    RepairPrepare = 26,
    /// Consensus.
    RepairMissing = 27,
    /// Consensus.
    ConfirmView = 28,
    /// Consensus.
    ViewConfirmed = 29,
    /// Consensus.
    Snapshot = 30,

    /// Client to node: append a batch to a partition.
    Append = 64,
    /// Answer to `Append`.
    AppendOk = 65,
    /// Client to node: records from an offset on.
    Fetch = 66,
    /// Answer to `Fetch`.
    FetchOk = 67,
    /// Client to node: a request of [`crate::client::Request`].
    Request = 68,
    /// Answer to `Request`: a [`crate::client::Response`].
    Response = 69,
    /// Answer to any client frame: a [`crate::client::Refusal`].
    Refused = 70,
}

#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    body_checksum: U32,
    magic: U32,
    version: u8,
    command: u8,
    replica: u8,
    reserved: u8,
    cluster: U128,
    group: U64,
    view: U64,
    op: U64,
    commit: U64,
    commit_view: U64,
    commit_checksum: U32,
    body_size: U32,
    correlation: U64,
    generation: U64,
}

const _: () = assert!(size_of::<Layout>() == FRAME_HEADER_SIZE, "the byte table is the struct");

/// In whose name a replica speaks to another of its group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Voice {
    /// Its place in the member list.
    pub replica: ReplicaIndex,
    /// The op of the group's log that put it there; zero if it is there from the start, or has no voice yet.
    pub generation: Op,
}

/// The fields of a frame header that mean something to sender and receiver; the rest is filled in when the frame is
/// encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The version that it is written in.
    pub version: Version,
    /// What the frame asks or tells.
    pub command: Command,
    /// Identity of the cluster.
    pub cluster: ClusterId,
    /// The group concerned.
    pub group: GroupId,
    /// Sender's view.
    pub view: View,
    /// By command.
    pub op: Op,
    /// By command.
    pub commit: u64,
    /// By command.
    pub commit_view: View,
    /// By command.
    pub commit_checksum: u32,
    /// Chosen by a client and echoed.
    pub correlation: u64,
    /// In whose name a replica speaks.
    pub voice: Voice,
}

impl FrameHeader {
    /// A header with nothing but a command and a cluster, in the oldest version that this release knows.
    #[must_use]
    pub fn new(command: Command, cluster: ClusterId) -> Self {
        Self {
            version: Versions::OF_THIS_RELEASE.oldest,
            command,
            cluster,
            group: GroupId::ZERO,
            view: View::ZERO,
            op: Op::ZERO,
            commit: 0,
            commit_view: View::ZERO,
            commit_checksum: 0,
            correlation: 0,
            voice: Voice::default(),
        }
    }
}

/// A header as read off a stream: verified, and knowing how many body bytes follow and what they must hash to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncomingHeader {
    header: FrameHeader,
    body_size: usize,
    body_checksum: u32,
}

/// Why bytes are not a frame. After any of these the stream cannot be trusted and is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header.
    #[error("frame cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// The header's checksum does not match.
    #[error("frame header checksum mismatch")]
    HeaderChecksum,
    /// The body's checksum does not match.
    #[error("frame body checksum mismatch ({command:?})")]
    BodyChecksum {
        /// Command of the frame.
        command: Command,
    },
    /// The checksum is right and the magic is not.
    #[error("not a frame: magic {magic:08x}")]
    Magic {
        /// What stands there.
        magic: u32,
    },
    /// Of a release that this one cannot read.
    #[error(
        "a frame of format {format}, and this release knows formats {} to {}: start a newer release here, or upgrade step by step",
        Versions::READABLE.oldest.in_frame(), Versions::READABLE.newest.in_frame()
    )]
    Version {
        /// What stands there.
        format: u8,
    },
    /// A command this version does not know.
    #[error("frame command {command} is unknown")]
    UnknownCommand {
        /// What stands there.
        command: u8,
    },
    /// More bytes than any frame may have.
    #[error("frame body of {size} bytes is over the limit of {FRAME_BODY_BYTES_MAX}")]
    TooLarge {
        /// Announced size.
        size: usize,
    },
    /// A number that nothing in a cluster has counted up to.
    #[error("frame field `{field}` is out of bounds")]
    Number {
        /// Name of the field.
        field: &'static str,
    },
    /// Header and checksums are right, and the body does not mean anything for this command.
    #[error("the body of {command:?} cannot be read: {reason}")]
    Body {
        /// Command of the frame.
        command: Command,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl IncomingHeader {
    /// Reads and verifies a header.
    ///
    /// # Errors
    /// When the bytes are too few, rotten, of another version, or announce more than a frame may have.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Ok((layout, _)) = Layout::read_from_prefix(bytes) else {
            return Err(FrameError::Truncated { need: FRAME_HEADER_SIZE, have: bytes.len() });
        };
        if layout.checksum.get() != checksum(&bytes[4..FRAME_HEADER_SIZE]) {
            return Err(FrameError::HeaderChecksum);
        }
        if layout.magic.get() != MAGIC {
            return Err(FrameError::Magic { magic: layout.magic.get() });
        }
        let Some(version) = Version::of_frame(layout.version) else {
            return Err(FrameError::Version { format: layout.version });
        };
        let Some(command) = Command::from_raw(layout.command) else {
            return Err(FrameError::UnknownCommand { command: layout.command });
        };
        let body_size = layout.body_size.get() as usize;
        if body_size > FRAME_BODY_BYTES_MAX {
            return Err(FrameError::TooLarge { size: body_size });
        }
        let numbers = [
            ("view", layout.view.get()),
            ("op", layout.op.get()),
            ("commit", layout.commit.get()),
            ("commit_view", layout.commit_view.get()),
            ("generation", layout.generation.get()),
        ];
        if let Some((field, _)) = numbers.into_iter().find(|(_, number)| *number > NUMBER_MAX) {
            return Err(FrameError::Number { field });
        }
        let header = FrameHeader {
            version,
            command,
            cluster: ClusterId::new(layout.cluster.get()),
            group: GroupId::new(layout.group.get()),
            view: View::new(layout.view.get()),
            op: Op::new(layout.op.get()),
            commit: layout.commit.get(),
            commit_view: View::new(layout.commit_view.get()),
            commit_checksum: layout.commit_checksum.get(),
            correlation: layout.correlation.get(),
            voice: Voice {
                replica: ReplicaIndex::new(layout.replica),
                generation: Op::new(layout.generation.get()),
            },
        };
        Ok(Self { header, body_size, body_checksum: layout.body_checksum.get() })
    }

    /// Bytes of body that follow the header on the stream.
    #[must_use]
    pub fn body_size(&self) -> usize {
        self.body_size
    }

    /// Joins header and body into a frame.
    ///
    /// # Errors
    /// When the body is not the one the header was made for.
    pub fn with_body(self, body: Bytes) -> Result<Frame, FrameError> {
        if body.len() != self.body_size {
            return Err(FrameError::Truncated { need: self.body_size, have: body.len() });
        }
        if checksum(&body) != self.body_checksum {
            return Err(FrameError::BodyChecksum { command: self.header.command });
        }
        Ok(Frame { header: self.header, body: Body::from(body) })
    }
}

/// The body of a frame: up to three chunks, so that a prepare is sent without copying its records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Body {
    chunks: Vec<Bytes>,
}

impl Body {
    /// A body of several chunks.
    #[must_use]
    pub fn from_chunks(chunks: Vec<Bytes>) -> Self {
        Self { chunks }
    }

    /// Bytes in all chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body as one piece; copies only if it has several chunks. A received body has one.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            several => several.concat().into(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { chunks: vec![bytes] }
    }
}

/// A frame: header and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The meaning of the frame.
    pub header: FrameHeader,
    /// What comes with it.
    pub body: Body,
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub fn bare(header: FrameHeader) -> Self {
        Self { header, body: Body::default() }
    }

    /// The bytes to send, header first.
    ///
    /// # Panics
    /// If the body is over [`FRAME_BODY_BYTES_MAX`]: batches, fetches and messages are bounded below that.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let body_size = self.body.len();
        assert!(body_size <= FRAME_BODY_BYTES_MAX, "the body of a frame is within limits");
        let header = &self.header;
        let mut layout = Layout {
            checksum: U32::ZERO,
            body_checksum: U32::new(checksum_chunks(&self.body.chunks)),
            magic: U32::new(MAGIC),
            version: header.version.in_frame(),
            command: header.command as u8,
            replica: header.voice.replica.as_raw(),
            reserved: 0,
            cluster: U128::new(header.cluster.as_raw()),
            group: U64::new(header.group.as_raw()),
            view: U64::new(header.view.as_raw()),
            op: U64::new(header.op.as_raw()),
            commit: U64::new(header.commit),
            commit_view: U64::new(header.commit_view.as_raw()),
            commit_checksum: U32::new(header.commit_checksum),
            body_size: U32::new(u32::try_from(body_size).expect("a body within limits fits 32 bits")),
            correlation: U64::new(header.correlation),
            generation: U64::new(header.voice.generation.as_raw()),
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        let mut chunks = Vec::with_capacity(1 + self.body.chunks.len());
        chunks.push(Bytes::copy_from_slice(layout.as_bytes()));
        chunks.extend(self.body.chunks.iter().filter(|chunk| !chunk.is_empty()).cloned());
        chunks
    }

    /// Reads one whole frame from `bytes`, which must hold nothing else. The streaming way is
    /// [`IncomingHeader::decode`] and [`IncomingHeader::with_body`].
    ///
    /// # Errors
    /// As those two, and when bytes are left over.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let incoming = IncomingHeader::decode(bytes)?;
        incoming.with_body(bytes.slice(FRAME_HEADER_SIZE..))
    }
}
