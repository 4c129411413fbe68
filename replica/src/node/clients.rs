//! What clients ask of a node: appends, changes of the metadata, the cluster map, status.

use varve_consensus::event::{Outcome, RequestHandle};
use varve_protocol::client::{Refusal, Request, Response, decode_archive, encode_archive};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{GroupId, Offset, Op, ProducerId, RequestNumber};
use varve_protocol::limits::BATCH_BYTES_MAX;
use varve_protocol::metadata::{ClusterMap, MetadataOp, NodeEntry};
use varve_protocol::prepare::PrepareKind;
use varve_protocol::record::Batch;

use crate::event::Session;
use crate::group::{Group, State};
use crate::node::Node;
use crate::node::doubt::UNSAFE_RESTART;
use crate::node::offsets::is_led;

/// Bytes of appends that may be on their way to the disk before a node says that it is busy: some seconds' work of a
/// slow disk.
pub(super) const WRITING_BYTES_MAX: usize = 64 << 20;

/// Who waits for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    /// A client that appends.
    Append { session: Session, correlation: u64, group: GroupId },
    /// A client that changes the metadata.
    Change { session: Session, correlation: u64 },
    /// This node, which registers a node.
    Registration,
    /// Nobody: whether it was done is seen in the log.
    Nobody,
}

impl Node {
    pub(super) fn on_client_frame(&mut self, session: Session, frame: &Frame) {
        let header = &frame.header;
        if header.cluster != self.config.cluster {
            return self.refuse(session, header.correlation, Refusal::WrongCluster);
        }
        match header.command {
            Command::Append => self.on_append(session, frame),
            Command::Fetch => self.on_fetch(session, frame),
            Command::Request => self.on_request(session, frame),
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
            | Command::AppendOk
            | Command::FetchOk
            | Command::Response
            | Command::Refused => {
                self.frames_dropped += 1;
                let reason = format!("a client does not send {:?}", header.command);
                self.refuse(session, header.correlation, Refusal::Malformed { reason });
            }
        }
    }

    pub(super) fn on_client_gone(&mut self, session: Session) {
        self.drop_fetches_of(session);
    }

    fn on_append(&mut self, session: Session, frame: &Frame) {
        let FrameHeader { group, correlation, .. } = frame.header;
        let body = frame.body.to_bytes();
        if let Some(refusal) = self.why_no_append(group, body.len()) {
            return self.refuse(session, correlation, refusal);
        }
        let record_count = match Batch::decode(body.clone()) {
            Ok(batch) => batch.record_count(),
            Err(error) => {
                return self.refuse(session, correlation, Refusal::BadBatch { reason: error.to_string() });
            }
        };
        let handle = self.new_handle(Waiting::Append { session, correlation, group });
        self.request(group, handle, session_of(&frame.header), (PrepareKind::Records, record_count, body));
    }

    fn why_no_append(&self, group: GroupId, bytes: usize) -> Option<Refusal> {
        if group == GroupId::METADATA || self.groups.get(&group).and_then(Group::replica).is_none() {
            Some(self.why_no_replica(group))
        } else if bytes > BATCH_BYTES_MAX {
            Some(Refusal::BatchTooLarge { size: bytes as u64 })
        } else if let Some(refusal) = self.why_full(group) {
            Some(refusal)
        } else if self.writing_bytes > WRITING_BYTES_MAX {
            Some(Refusal::Busy)
        } else {
            None
        }
    }

    fn on_request(&mut self, session: Session, frame: &Frame) {
        let correlation = frame.header.correlation;
        match decode_archive::<Request>(Command::Request, &frame.body.to_bytes()) {
            Err(error) => self.refuse(session, correlation, Refusal::Malformed { reason: error.to_string() }),
            Ok(Request::GetMap) => self.respond(session, correlation, &Response::Map(self.cluster_map())),
            Ok(Request::GetStatus) => self.respond(session, correlation, &Response::Status(self.status())),
            Ok(Request::GetVitals) => self.respond(session, correlation, &Response::Vitals(self.vitals())),
            Ok(Request::GetDistances) => {
                self.respond(session, correlation, &Response::Distances(self.distances()));
            }
            Ok(Request::MeasureRate { to }) => self.on_measure_rate(session, correlation, to),
            Ok(Request::GetOffsets) => self.on_get_offsets(session, &frame.header),
            Ok(Request::GetLatestOffsets) => self.on_get_latest_offsets(session, &frame.header),
            Ok(Request::GetOffsetAt { time }) => self.on_get_offset_at(session, &frame.header, time),
            Ok(Request::HandOver { to }) => self.on_hand_over(session, &frame.header, to),
            Ok(Request::GetDoubt) => self.on_get_doubt(session, &frame.header),
            Ok(Request::ForceRecover) => self.on_force_recover(session, &frame.header),
            Ok(Request::Change(operation)) => self.on_change(session, &frame.header, &operation),
        }
    }

    fn on_change(&mut self, session: Session, header: &FrameHeader, operation: &MetadataOp) {
        if matches!(operation, MetadataOp::RegisterNode { .. }) {
            let reason = "nodes are registered by the cluster, from its configuration".to_owned();
            return self.refuse(session, header.correlation, Refusal::Malformed { reason });
        }
        let Some(replica) = self.groups.get(&GroupId::METADATA).and_then(Group::replica) else {
            let refusal = self.why_no_replica(GroupId::METADATA);
            return self.refuse(session, header.correlation, refusal);
        };
        if replica.takes_requests() && !self.are_all_registered() {
            // Placement counts the registered nodes: none is overlooked because it was registered a moment too late.
            return self.refuse(session, header.correlation, Refusal::Busy);
        }
        if let Some(refusal) = self.why_full(GroupId::METADATA) {
            return self.refuse(session, header.correlation, refusal);
        }
        let handle = self.new_handle(Waiting::Change { session, correlation: header.correlation });
        let body = (PrepareKind::Metadata, 0, encode_archive(operation));
        self.request(GroupId::METADATA, handle, session_of(header), body);
    }

    pub(super) fn new_handle(&mut self, waiting: Waiting) -> RequestHandle {
        let handle = RequestHandle(self.next_handle);
        self.next_handle += 1;
        self.waiting.insert(handle, waiting);
        handle
    }

    /// A request has ended; whoever waits for it is told.
    pub(super) fn reply(&mut self, handle: RequestHandle, outcome: Outcome) {
        match self.waiting.remove(&handle) {
            Some(Waiting::Append { session, correlation, group }) => match self.place_of(group, outcome) {
                Ok((op, base_offset)) => {
                    let mut header = FrameHeader::new(Command::AppendOk, self.config.cluster);
                    header.group = group;
                    header.op = op;
                    header.commit = base_offset.as_raw();
                    header.correlation = correlation;
                    self.answer(session, Frame::bare(header));
                }
                Err(refusal) => self.refuse(session, correlation, refusal),
            },
            Some(Waiting::Change { session, correlation }) => {
                match self.place_of(GroupId::METADATA, outcome) {
                    Ok((op, _)) => self.answer_change(session, correlation, op),
                    Err(refusal) => self.refuse(session, correlation, refusal),
                }
            }
            Some(Waiting::Registration) => self.registering = false,
            Some(Waiting::Nobody) | None => {}
        }
    }

    /// Refuses what waits on a group that was deleted.
    pub(super) fn refuse_all_waiting(&mut self, deleted: GroupId) {
        let mut refused = Vec::new();
        self.waiting.retain(|_, waiting| match *waiting {
            Waiting::Append { session, correlation, group } if group == deleted => {
                refused.push((session, correlation));
                false
            }
            Waiting::Append { .. } | Waiting::Change { .. } | Waiting::Registration | Waiting::Nobody => true,
        });
        for (session, correlation) in refused {
            self.refuse(session, correlation, Refusal::UnknownGroup { group: deleted });
        }
        self.refuse_fetches_of(deleted, &Refusal::UnknownGroup { group: deleted });
        self.refuse_questions_about(deleted);
    }

    pub(super) fn refuse(&mut self, session: Session, correlation: u64, refusal: Refusal) {
        let mut header = FrameHeader::new(Command::Refused, self.config.cluster);
        header.correlation = correlation;
        self.answer(session, Frame { header, body: encode_archive(&refusal).into() });
    }

    /// Why this node cannot serve a group that it holds no working replica of.
    pub(super) fn why_no_replica(&self, group: GroupId) -> Refusal {
        match self.groups.get(&group).map(|group| &group.state) {
            Some(State::Damaged(reason)) => Refusal::Storage { reason: reason.clone() },
            Some(State::Opening | State::Mending(_) | State::Open(_)) => Refusal::NoPrimary { group },
            None if self.dormant.contains_key(&group) => Refusal::NoPrimary { group },
            None => Refusal::UnknownGroup { group },
        }
    }

    pub(super) fn respond(&mut self, session: Session, correlation: u64, response: &Response) {
        let mut header = FrameHeader::new(Command::Response, self.config.cluster);
        header.correlation = correlation;
        self.answer(session, Frame { header, body: encode_archive(response).into() });
    }

    fn answer_change(&mut self, session: Session, correlation: u64, op: Op) {
        match self.metadata.outcome(op).cloned() {
            Some(outcome) => self.respond(session, correlation, &Response::Changed(outcome)),
            None => self.refuse(session, correlation, Refusal::UnknownOutcome),
        }
    }

    /// Where a request has ended up in the log, or why it has not.
    fn place_of(&self, group: GroupId, outcome: Outcome) -> Result<(Op, Offset), Refusal> {
        match outcome {
            Outcome::Committed { op, base_offset } => Ok((op, base_offset)),
            Outcome::NotPrimary => Err(self.redirect(group)),
            Outcome::Busy => Err(Refusal::Busy),
            Outcome::OutOfOrder { expected } => Err(Refusal::OutOfOrder { expected }),
            Outcome::UnknownOutcome => Err(Refusal::UnknownOutcome),
            Outcome::ViewEnded => Err(Refusal::ViewEnded { group }),
        }
    }

    pub(super) fn redirect(&self, id: GroupId) -> Refusal {
        let Some(group) = self.groups.get(&id) else { return Refusal::UnknownGroup { group: id } };
        match group.replica() {
            // Who is cut off from its primary names nobody: two of them could send a client from one to the other for ever.
            Some(replica) if is_led(replica) && !replica.is_primary() => {
                Refusal::NotPrimary { group: id, view: replica.view(), primary: group.primary_node() }
            }
            Some(replica) if replica.is_restart_unsafe() => {
                Refusal::Storage { reason: UNSAFE_RESTART.to_owned() }
            }
            Some(_) | None => Refusal::NoPrimary { group: id },
        }
    }

    fn cluster_map(&self) -> ClusterMap {
        let mut map = self.metadata.map();
        let leads = |(id, group): (&GroupId, &Group)| {
            let replica = group.replica().filter(|replica| is_led(replica))?;
            Some((*id, replica.view(), group.primary_node()))
        };
        map.primaries = self.groups.iter().filter_map(leads).collect();
        // Who is not registered yet is named after the configuration: whoever asks this node must learn of all the others,
        // for this one may be cut off before it hears of any registration.
        for (node, address) in &self.config.members {
            if self.metadata.address(*node).is_none() {
                map.nodes.push(NodeEntry { node: *node, address: address.clone(), versions: None });
            }
        }
        map.nodes.sort_by_key(|entry| entry.node);
        map
    }
}

/// The session in a client's frame: producer id and request number.
fn session_of(header: &FrameHeader) -> (ProducerId, RequestNumber) {
    (ProducerId::new(header.commit), RequestNumber::new(header.op.as_raw()))
}
