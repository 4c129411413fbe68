//! Clients as small state machines that speak frames; the fast world has no others.
//!
//! An actor is told what happened and answers with orders: frames to send, and when it wants to be woken. It never blocks,
//! knows no connection (frames to a node without one make the wire dial) and tells the oracle what it learns.

mod asker;
pub(crate) mod balancer;
pub(crate) mod mover;
pub(crate) mod operator;
pub(crate) mod producer;
pub(crate) mod raiser;
pub(crate) mod reader;
pub(crate) mod rescuer;
pub(crate) mod scout;
pub(crate) mod surveyor;
pub(crate) mod tinkerer;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use varve_protocol::client::{
    FetchOptions, NodeStatus, Refusal, Request, Response, decode_archive, encode_archive,
};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, Op, ProducerId, RequestNumber, Timestamp};
use varve_protocol::prepare::{Prepare, PrepareKind};
use varve_protocol::record::Batch;

use crate::oracle::{Oracle, Violation};
use crate::workload::Value;

/// Where the partitions of the topic live: group and replicas, by partition number.
pub(crate) type Placement = Vec<(GroupId, Vec<NodeId>)>;

/// Streams beside that of the workload, and the partitions of the topic in each, if there is one.
pub(crate) type Streams = BTreeMap<String, Option<u32>>;

/// Something that happened to an actor.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The moment it asked for has come.
    Wake,
    /// A node answered.
    Answer(NodeId, Frame),
    /// The connection with a node is gone, and all that was asked there.
    Lost(NodeId),
    /// The topic exists.
    Placed(Placement),
    /// The faults are over: prove that it works again, then come to an end.
    Healed,
}

/// What an actor has at hand while it handles something.
#[derive(Debug)]
pub(crate) struct Orders<'a> {
    /// The time.
    pub(crate) now: Duration,
    /// Which client it is.
    pub(crate) client: u32,
    /// Who has to be told.
    pub(crate) oracle: &'a mut Oracle,
    /// What is to be sent.
    pub(crate) frames: Vec<(NodeId, Frame)>,
    /// When to be woken.
    pub(crate) wake_at: Option<Duration>,
    /// Records read.
    pub(crate) records_read: u64,
    /// Answers that a session is not remembered.
    pub(crate) sessions_forgotten: u64,
    /// Changes of the metadata that were made.
    pub(crate) changes_made: u64,
    /// Handovers of primaries that were begun.
    pub(crate) handovers: u64,
    /// Moves of replicas that were begun, or given up.
    pub(crate) moves: u64,
    /// Latest ends of partitions that were told.
    pub(crate) ends_confirmed: u64,
    /// Sessions that were begun anew because the group had lost what it had acknowledged.
    pub(crate) sessions_lost: u64,
    /// Groups that an operator has forced.
    pub(crate) forced: u64,
    /// How nodes said they are.
    pub(crate) statuses: Vec<NodeStatus>,
}

impl<'a> Orders<'a> {
    /// No orders yet.
    pub(crate) fn new(now: Duration, client: u32, oracle: &'a mut Oracle) -> Self {
        Self {
            now,
            client,
            oracle,
            frames: Vec::new(),
            wake_at: None,
            records_read: 0,
            sessions_forgotten: 0,
            changes_made: 0,
            handovers: 0,
            moves: 0,
            ends_confirmed: 0,
            sessions_lost: 0,
            forced: 0,
            statuses: Vec::new(),
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, node: NodeId, frame: Frame) {
        self.frames.push((node, frame));
    }

    /// Wakes the actor at the earliest of all moments it asked for.
    pub(crate) fn wake_at(&mut self, at: Duration) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }
}

/// A client.
pub(crate) trait Actor {
    /// Handles what happened.
    ///
    /// # Errors
    /// When a promise was broken.
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation>;

    /// What it still waits for before the universe may end, in words; `None` if nothing.
    fn waits_for(&self) -> Option<String>;

    /// The placement it has found out, if that is its task.
    fn placement(&self) -> Option<&Placement> {
        None
    }

    /// Where the partitions are after all that was moved, if that is its task.
    fn moved(&self) -> Option<&Placement> {
        None
    }

    /// The streams it has made, with the partitions of the topic in each, if that is its task.
    fn streams(&self) -> Option<&Streams> {
        None
    }

    /// Where each replica of a group ended when it was read, if that is its task.
    fn ends(&self, _group: GroupId) -> BTreeMap<NodeId, u64> {
        BTreeMap::new()
    }
}

/// The frame of an append.
pub(crate) fn append_frame(
    cluster: ClusterId,
    group: GroupId,
    (producer, request): (ProducerId, RequestNumber),
    (correlation, batch): (u64, Bytes),
) -> Frame {
    let mut header = FrameHeader::new(Command::Append, cluster);
    header.group = group;
    header.op = Op::new(request.as_raw());
    header.commit = producer.as_raw();
    header.correlation = correlation;
    Frame { header, body: batch.into() }
}

/// The frame of a fetch.
pub(crate) fn fetch_frame(
    cluster: ClusterId,
    (group, offset): (GroupId, u64),
    correlation: u64,
    options: FetchOptions,
) -> Frame {
    let mut header = FrameHeader::new(Command::Fetch, cluster);
    header.group = group;
    header.op = Op::new(offset);
    header.correlation = correlation;
    Frame { header, body: encode_archive(&options).into() }
}

/// The frame of any other request.
pub(crate) fn request_frame(cluster: ClusterId, correlation: u64, request: &Request) -> Frame {
    let mut header = FrameHeader::new(Command::Request, cluster);
    header.correlation = correlation;
    Frame { header, body: encode_archive(request).into() }
}

/// What a node answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An append is done.
    Appended(Offset),
    /// Prepares from an offset on.
    Fetched { high_watermark: u64, prepares: Vec<Prepare> },
    /// The answer to another request.
    Response(Response),
    /// It was not done.
    Refused(Refusal),
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// When no node should ever say this.
    pub(crate) fn read(node: NodeId, frame: &Frame) -> Result<Self, Violation> {
        let header = &frame.header;
        let body = frame.body.to_bytes();
        let unsound = |what: String| Violation::new("unsound answer", format!("{node} sent {what}"));
        match header.command {
            Command::AppendOk => Ok(Self::Appended(Offset::new(header.commit))),
            Command::FetchOk => {
                let prepares = read_prepares(body).map_err(|error| unsound(error.to_string()))?;
                Ok(Self::Fetched { high_watermark: header.commit, prepares })
            }
            Command::Response => decode_archive(header.command, &body)
                .map(Self::Response)
                .map_err(|error| unsound(error.to_string())),
            Command::Refused => decode_archive(header.command, &body)
                .map(Self::Refused)
                .map_err(|error| unsound(error.to_string())),
            Command::Hello
            | Command::Pulse
            | Command::Probe
            | Command::Probed
            | Command::Prepare
            | Command::PrepareOk
            | Command::Commit
            | Command::StartViewChange
            | Command::DoViewChange
            | Command::StartView
            | Command::GetStartView
            | Command::GetHeaders
            | Command::Headers
            | Command::GetPrepares
            | Command::RepairPrepare
            | Command::RepairMissing
            | Command::ConfirmView
            | Command::ViewConfirmed
            | Command::Snapshot
            | Command::Append
            | Command::Fetch
            | Command::Request => Err(unsound(format!("{:?} to a client", header.command))),
        }
    }
}

fn read_prepares(mut bytes: Bytes) -> Result<Vec<Prepare>, varve_protocol::prepare::PrepareError> {
    let mut prepares = Vec::new();
    while !bytes.is_empty() {
        let prepare = Prepare::decode(&bytes)?;
        bytes = bytes.slice(prepare.header().total_size()..);
        prepares.push(prepare);
    }
    Ok(prepares)
}

/// Tells the oracle what a fetch brought, and gives the offset after the last record. The records must follow each other
/// from `wanted` on, with times that grow, and stay below the high watermark.
///
/// # Errors
/// When a promise was broken.
pub(crate) fn observe_fetch(
    replica: (GroupId, NodeId),
    wanted: u64,
    (high_watermark, prepares): (u64, &[Prepare]),
    orders: &mut Orders<'_>,
) -> Result<u64, Violation> {
    let (group, node) = replica;
    orders.oracle.observed_high_watermark(orders.client, replica, high_watermark)?;
    let mut next = wanted;
    let mut before = Timestamp::ZERO;
    for prepare in prepares {
        let header = prepare.header();
        let (base, end) = (header.base_offset().as_raw(), header.next_offset().as_raw());
        orders.oracle.observed_prepare(replica, header.id())?;
        let follows = if next == wanted { base <= wanted } else { base == next };
        if header.group() != group || !follows {
            let detail =
                format!("{node} gave {:?} to a fetch of {group} that had come to {next}", header.id());
            return Err(Violation::new("fetch skipped records", detail));
        }
        let timestamp = std::mem::replace(&mut before, header.timestamp());
        if timestamp >= before {
            let detail =
                format!("{node} gave {:?} of {before:?} of {group} after {timestamp:?}", header.id());
            return Err(Violation::new("time went back", detail));
        }
        if end > high_watermark {
            let detail = format!("{node} gave {base} to {end} of {group}, high watermark {high_watermark}");
            return Err(Violation::new("read beyond the high watermark", detail));
        }
        if header.kind() == PrepareKind::Records {
            observe_batch(replica, prepare, orders)?;
        }
        next = next.max(end);
    }
    Ok(next)
}

fn observe_batch(
    replica: (GroupId, NodeId),
    prepare: &Prepare,
    orders: &mut Orders<'_>,
) -> Result<(), Violation> {
    let base = prepare.header().base_offset().as_raw();
    let Ok(batch) = Batch::decode(prepare.body().clone()) else {
        return Err(orders.oracle.unreadable(replica, base));
    };
    for (offset, record) in (base..).zip(batch.records()) {
        let Some(value) = Value::from_record(&record) else {
            return Err(orders.oracle.unreadable(replica, offset));
        };
        orders.oracle.observed(replica, offset, value)?;
        orders.records_read += 1;
    }
    Ok(())
}
