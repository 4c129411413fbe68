//! What clients and nodes say to each other. Every client frame has a correlation number, which the answer echoes;
//! answers may come in another order than the requests, except those to appends of one group on one stream.
//!
//! | command    | frame fields used beside group and correlation                         | body                               |
//! |------------|------------------------------------------------------------------------|------------------------------------|
//! | `Hello`    | op = node id (zero: a client), correlation = incarnation, commit: below | -                                  |
//! | `Append`   | op = request number, commit = producer id                               | a record batch                     |
//! | `AppendOk` | op = op, commit = base offset, view                                     | -                                  |
//! | `Fetch`    | op = first offset wanted                                                | archive of [`FetchOptions`]        |
//! | `FetchOk`  | commit = high watermark, view                                           | prepares, header and body in a row |
//! | `Request`  | op = request number, commit = producer id (only [`Request::Change`])    | archive of [`Request`]             |
//! | `Response` | -                                                                      | archive of [`Response`]            |
//! | `Refused`  | -                                                                      | archive of [`Refusal`]             |
//!
//! A `Hello` has the same form in all versions and is written in the oldest one that the sender knows; commit is the newest one. A node
//! answers a client with the version of its cluster there ([`crate::version`]): all that follows is written in it. Who does not know it
//! is told so and sent away, for records are handed out as they are stored.
//!
//! The first prepare of a `FetchOk` may begin below the offset asked for: a batch is handed out whole, and the consumer skips.
//! Archives are rkyv's; the order of fields and variants is the format: add at the end only.

#![allow(
    missing_docs,
    reason = "rkyv derives undocumented mirrors of variants with fields; ours are documented"
)]

use bytes::Bytes;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::frame::{Command, FrameError};
use crate::id::{GroupId, NodeId, Offset, Op, RequestNumber, Timestamp, View};
use crate::limits::BATCH_BYTES_MAX;
use crate::metadata::{ClusterMap, MetadataOp, MetadataOutcome};

/// How much a fetch wants and how long it is ready to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct FetchOptions {
    /// Stop adding prepares once this many bytes are reached; one is always given if there is one.
    pub bytes_max: u32,
    /// Milliseconds to wait if there is no record at the offset yet; zero: answer at once, perhaps with nothing.
    pub wait_ms: u32,
}

/// A request that is not an append or a fetch.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum Request {
    /// Asks any node for the cluster map as it sees it.
    GetMap,
    /// Asks the primary of the metadata group for a change.
    Change(MetadataOp),
    /// Asks a replica of the group in the frame for its offsets as it knows them, which may be late.
    GetOffsets,
    /// Asks any node how it is.
    GetStatus,
    /// Asks the primary of the group in the frame to let another node lead it.
    HandOver {
        /// Which one.
        to: NodeId,
    },
    /// Asks any node how it is, without a word about each of its groups: the answer is small however many they are.
    GetVitals,
    /// Asks the primary of the group in the frame for its offsets now: its high watermark is no lower than the end of anything
    /// that was acknowledged, and of anything that was answered to such a request, before this one was sent.
    GetLatestOffsets,
    /// Asks a replica of the group in the frame what it holds, and whether it may lack what it acknowledged.
    GetDoubt,
    /// Has a replica of the group in the frame go on with what it holds, although it may lack what it acknowledged: that may be
    /// lost then. Nothing happens if it lacks nothing.
    ForceRecover,
    /// Asks a replica of the group in the frame which offset was the first to be appended at a time or later, as far as it knows.
    GetOffsetAt {
        /// By the clocks of the primaries that appended.
        time: Timestamp,
    },
    /// Asks any node how far the others are.
    GetDistances,
    /// Has any node send filler to another one, a few megabytes at most and behind all else, to see how much goes through.
    MeasureRate {
        /// To which.
        to: NodeId,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::GetMap`].
    Map(ClusterMap),
    /// To [`Request::Change`]: committed, with this outcome.
    Changed(MetadataOutcome),
    /// To [`Request::GetOffsets`] and [`Request::GetLatestOffsets`].
    Offsets(PartitionOffsets),
    /// To [`Request::GetStatus`].
    Status(NodeStatus),
    /// To [`Request::HandOver`]: it has begun, and is over when the group's offsets name the other node.
    HandingOver,
    /// To [`Request::GetVitals`].
    Vitals(NodeVitals),
    /// To [`Request::GetDoubt`] and [`Request::ForceRecover`].
    Doubt(Doubt),
    /// To [`Request::GetOffsetAt`]: no lower than the oldest offset kept; the high watermark if nothing was appended since.
    OffsetAt(Offset),
    /// To [`Request::GetDistances`]: of those that were heard since they were last connected.
    Distances(Vec<PeerDistance>),
    /// To [`Request::MeasureRate`].
    Rate(PeerRate),
}

/// How far one node is from the one that answers, by the last pulses that the two exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PeerDistance {
    /// Which one.
    pub node: NodeId,
    /// Round trips that all of this is about.
    pub round_trips: u32,
    /// The fastest, in microseconds.
    pub round_trip_us_min: u32,
    /// Half of them took no longer.
    pub round_trip_us_p50: u32,
    /// The slowest.
    pub round_trip_us_max: u32,
    /// Microseconds that its wall clock is ahead of the answerer's, give or take half of the fastest round trip.
    pub clock_ahead_us: i64,
}

/// How much goes through from the node that answers to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PeerRate {
    /// Which one.
    pub node: NodeId,
    /// Bytes per second that were sent: no more can have come.
    pub offered: u64,
    /// Bytes that came; zero if it was given up.
    pub bytes: u64,
    /// Microseconds in which they came.
    pub took_us: u64,
}

/// What a replica holds, and whether that may be less than it acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Doubt {
    /// It may lack what it acknowledged, and is silent until a primary has told it the log.
    pub is_in_doubt: bool,
    /// It works in its view.
    pub is_normal: bool,
    /// Its word counts; one that has lost its disk, or is new, takes the log and says nothing.
    pub has_voice: bool,
    /// The last view in which it worked.
    pub log_view: View,
    /// The newest op it holds.
    pub head: Op,
    /// The offset behind the newest record it holds.
    pub log_end: Offset,
}

/// The ends of a partition, as the replica that answers sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PartitionOffsets {
    /// Oldest offset kept.
    pub log_start: Offset,
    /// First offset that consumers cannot read yet.
    pub high_watermark: Offset,
    /// The view this replica is in.
    pub view: View,
    /// Who leads that view; zero while the replica is between views.
    pub primary: NodeId,
}

/// How a node is.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which node answers.
    pub node: NodeId,
    /// Milliseconds since its process started.
    pub uptime_ms: u64,
    /// Nodes it hears at the moment, itself included.
    pub hears: Vec<NodeId>,
    /// The groups it holds a replica of, by id.
    pub groups: Vec<GroupStatus>,
    /// Frames dropped because they could not be read or were not meant for this node.
    pub frames_dropped: u64,
    /// How sound its logs are.
    pub scrub: ScrubStatus,
}

/// What has come of looking at the logs of a node again, since its process started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Archive, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Passes over all of its logs.
    pub passes: u64,
    /// When the last one ended; zero if none has.
    pub last_pass_ended: Timestamp,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Stretches of logs, and files, that had rotted.
    pub damages_found: u64,
    /// Those of them that are as they were, or have gone with what held them.
    pub damages_mended: u64,
}

impl NodeStatus {
    /// The same without a word about each group.
    #[must_use]
    pub fn vitals(&self) -> NodeVitals {
        let counts = RoleCounts::of(self.groups.iter().map(|group| group.role));
        let metadata = self.groups.iter().find(|group| group.group == GroupId::METADATA);
        NodeVitals {
            node: self.node,
            uptime_ms: self.uptime_ms,
            hears: self.hears.clone(),
            counts,
            frames_dropped: self.frames_dropped,
            scrub: self.scrub,
            map_op: Op::new(metadata.map_or(0, |group| group.commit)),
        }
    }
}

/// How a node is, in short.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct NodeVitals {
    /// Which node answers.
    pub node: NodeId,
    /// Milliseconds since its process started.
    pub uptime_ms: u64,
    /// Nodes it hears at the moment, itself included.
    pub hears: Vec<NodeId>,
    /// What its replicas do.
    pub counts: RoleCounts,
    /// Frames dropped because they could not be read or were not meant for this node.
    pub frames_dropped: u64,
    /// The op of the cluster map that the node would give: an older map may lack something.
    pub map_op: Op,
    /// How sound its logs are.
    pub scrub: ScrubStatus,
}

/// How many replicas of a node do what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Archive, Serialize, Deserialize)]
pub struct RoleCounts {
    /// Those that lead.
    pub primary: u32,
    /// Those that follow.
    pub backup: u32,
    /// Those that change views or find their way back, after a restart or with a new disk.
    pub changing: u32,
    /// Those that cannot take part.
    pub faulty: u32,
}

impl RoleCounts {
    /// Counts these.
    pub fn of(roles: impl Iterator<Item = Role>) -> Self {
        let mut counts = Self::default();
        for role in roles {
            match role {
                Role::Primary => counts.primary += 1,
                Role::Backup => counts.backup += 1,
                Role::ViewChange | Role::Learner => counts.changing += 1,
                Role::Faulty => counts.faulty += 1,
            }
        }
        counts
    }
}

/// How one replica is.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// What the replica does.
    pub role: Role,
    /// Its view.
    pub view: View,
    /// Who leads that view.
    pub primary: NodeId,
    /// Newest op written here.
    pub head: u64,
    /// Newest op durable here; 0 while a snapshot takes the place of the log.
    pub durable: u64,
    /// Newest op known to be committed.
    pub commit: u64,
    /// First offset that consumers cannot read yet.
    pub high_watermark: Offset,
    /// Why it takes no part, if it does not.
    pub problem: Option<String>,
}

/// What a replica does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum Role {
    /// Leads its view.
    Primary,
    /// Follows a primary.
    Backup,
    /// Changes to another view, or is finding its way back after a restart, or leads and hears no majority.
    ViewChange,
    /// Cannot take part; see the problem.
    Faulty,
    /// Has lost its disk and takes the log anew; it has no voice before its group has let it in.
    Learner,
}

/// Why a node does not do what a client asked. `is_retryable` says whether asking again (perhaps elsewhere) can help;
/// nothing was done in any case but [`Refusal::UnknownOutcome`] and [`Refusal::ViewEnded`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another node leads the group.
    #[error("{group} is led by {primary} in {view}")]
    NotPrimary {
        /// The group.
        group: GroupId,
        /// The view this node is in.
        view: View,
        /// Who leads it; zero if this node cannot say.
        primary: NodeId,
    },
    /// The group has no primary at the moment.
    #[error(
        "{group} has no primary at the moment: a view change is under way, or too few of its nodes are up"
    )]
    NoPrimary {
        /// The group.
        group: GroupId,
    },
    /// A queue is full.
    #[error("the node is busy; ask again")]
    Busy,
    /// This node holds no replica of the group.
    #[error("this node holds no replica of {group}: the topic was deleted, or the cluster map is old")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// A request number was skipped, as far as this node knows. To a producer that knows the outcome of the expected request
    /// it means that the group has forgotten it, or that this node has not heard of its successor.
    #[error("requests must come in order: {expected} was expected")]
    OutOfOrder {
        /// What the group waits for.
        expected: RequestNumber,
    },
    /// A retry of something that this group no longer remembers: it may or may not have been done.
    #[error("the outcome of this request is no longer known: it may or may not have been appended")]
    UnknownOutcome,
    /// The batch cannot be read.
    #[error("the batch cannot be read: {reason}")]
    BadBatch {
        /// What is wrong.
        reason: String,
    },
    /// The batch is too large.
    #[error("batch of {size} bytes is over the limit of {BATCH_BYTES_MAX}; send smaller batches")]
    BatchTooLarge {
        /// Its size.
        size: u64,
    },
    /// No record has this offset.
    #[error("offset out of range: this partition has {earliest} to {next}, exclusive")]
    OffsetOutOfRange {
        /// Oldest offset kept.
        earliest: Offset,
        /// First offset that consumers cannot read yet.
        next: Offset,
    },
    /// The request cannot be read.
    #[error("the request cannot be read: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The client belongs to another cluster.
    #[error("this node belongs to another cluster; check the address and the cluster id")]
    WrongCluster,
    /// The replica's disk does not take writes.
    #[error("the node cannot store anything: {reason}")]
    Storage {
        /// What the disk says.
        reason: String,
    },
    /// The primary lost its view while the request was under way: it may or may not be done in a later view. Asking again
    /// with the same request number is safe.
    #[error("the primary of {group} was replaced while the request was under way")]
    ViewEnded {
        /// The group.
        group: GroupId,
    },
    /// The request is understood and cannot be done.
    #[error("{reason}")]
    NotPossible {
        /// Why.
        reason: String,
    },
    /// The disk of the node that should store this is full; nothing was done.
    #[error(
        "the disk of {node} is full: free some space there, or delete what is not needed any more; it goes on by itself then"
    )]
    DiskFull {
        /// Which node.
        node: NodeId,
    },
}

impl Refusal {
    /// Whether the same request may succeed later, or at another node.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotPrimary { .. }
            | Self::NoPrimary { .. }
            | Self::Busy
            | Self::UnknownGroup { .. }
            | Self::OutOfOrder { .. }
            | Self::Storage { .. }
            | Self::DiskFull { .. }
            | Self::ViewEnded { .. } => true,
            Self::UnknownOutcome
            | Self::BadBatch { .. }
            | Self::BatchTooLarge { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Malformed { .. }
            | Self::WrongCluster
            | Self::NotPossible { .. } => false,
        }
    }
}

/// Encodes a body that travels or is stored as an rkyv archive.
///
/// # Panics
/// Never: serialising into memory has no other way to fail.
#[must_use]
pub fn encode_archive<T>(value: &T) -> Bytes
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    let bytes = rkyv::to_bytes::<RkyvError>(value).expect("serialising into memory cannot fail");
    Bytes::copy_from_slice(&bytes)
}

/// Decodes and validates an rkyv archive. The caller has verified the checksum: validation checks structure only.
///
/// # Errors
/// When the bytes are no archive of a `T`.
pub fn decode_archive<T>(command: Command, bytes: &[u8]) -> Result<T, FrameError>
where
    T: Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    rkyv::from_bytes::<T, RkyvError>(bytes)
        .map_err(|_| FrameError::Body { command, reason: "it is not a sound archive" })
}
