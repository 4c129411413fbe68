//! Replicas that go from one node to another, at the operator's wish (rules E1, E2).
//!
//! ```text
//!   metadata            group's log                    old replica         new replica
//!   MoveReplica  ─────────────────────────────────────▶ (goes on)          opens, mute; takes the log
//!                  primary seals Replacement            nobody hears it    in its place; nobody counts it
//!                  a quorum of the others has it: committed
//!                                                                          knows that durably: has a voice
//!   FinishMove ◀──────────────────────── pulse: "I have a voice" ─────────
//!                                                       deletes its files
//! ```
//!
//! To the group's log it is the same as a lost disk: an entry puts another replica in a place, and `varve_consensus` says why
//! that is safe. There the old replica is gone; here it may be alive and not know, and it makes no difference: it is not on the
//! quorum that committed the entry, so with those who do not hold the entry either it is less than a quorum, and those who do
//! hold it hear it no more, from the moment the entry is in their logs, committed or not.
//!
//! The new one takes the log before its entry is sealed, so the group is without a replica only while that commits. It follows
//! the others as a stranger who listens: its questions are answered, its votes are not heard.

use varve_consensus::event::Input;
use varve_consensus::{Replica, Status, quorum};
use varve_protocol::client::encode_archive;
use varve_protocol::id::{GroupId, NodeId, ProducerId, ReplicaIndex, RequestNumber};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::metadata::{MetadataOp, Move};
use varve_protocol::prepare::PrepareKind;
use varve_protocol::pulse::{PULSE_MOVING_MAX, PulseMoving};

use crate::group::Group;
use crate::node::Node;
use crate::node::clients::Waiting;
use crate::node::liveness::Peer;

impl Peer {
    /// What the peer says of the replicas that are being moved to it.
    pub(super) fn note_moving(&mut self, told: &[PulseMoving]) {
        if told.is_empty() {
            self.moving.clear();
        }
        self.moving.extend(told.iter().map(|moving| (moving.group, *moving)));
    }
}

impl Node {
    /// How far the replicas are that are being moved here; if they are many, others each time.
    pub(super) fn moving_here(&self, sequence: u64) -> Vec<PulseMoving> {
        let here = self.config.node;
        let moving = |id: &GroupId| {
            let group = self.groups.get(id)?;
            let Move { since, .. } = group.placement.moving.filter(|moving| moving.to == here)?;
            let replica = group.replica().filter(|replica| replica.status() == Status::Normal)?;
            let reached = replica.commit().op.min(replica.durable().op);
            // A voice that it had before this move is another one.
            let seat = group.seat(group.placement.place_of(here)?);
            let has_voice = replica.is_admitted() && seat.since >= since;
            Some(PulseMoving { group: *id, since, reached, has_voice })
        };
        let mut all: Vec<PulseMoving> = self.arriving.iter().filter_map(moving).collect();
        if all.len() > PULSE_MOVING_MAX {
            let turns = sequence.wrapping_mul(PULSE_MOVING_MAX as u64) % all.len() as u64;
            all.rotate_left(usize::try_from(turns).unwrap_or_default());
            all.truncate(PULSE_MOVING_MAX);
        }
        all
    }

    /// As primary of the metadata, notes that a replica that was moved has a voice.
    pub(super) fn finish_moves(&mut self) {
        let metadata = self.groups.get(&GroupId::METADATA).and_then(Group::replica);
        if !metadata.is_some_and(Replica::takes_requests) || self.registering {
            return;
        }
        let told = self.peers.values().flat_map(|peer| peer.moving.values().copied());
        let mut told = told.chain(self.moving_here(0)).filter(|told| told.has_voice);
        let is_under_way = |told: &PulseMoving| {
            let moving = self.metadata.partition(told.group).and_then(|partition| partition.moving);
            moving.is_some_and(|moving| moving.since == told.since)
        };
        let Some(PulseMoving { group, since, .. }) = told.find(is_under_way) else { return };
        self.registering = true;
        let handle = self.new_handle(Waiting::Registration);
        let operation = MetadataOp::FinishMove { group, since };
        let body = (PrepareKind::Metadata, 0, encode_archive(&operation));
        self.request(GroupId::METADATA, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
    }

    /// Whether a replica that is being moved may take its place in a group that this node leads: it has nearly all of the log,
    /// and a quorum of the others too, so that the entry commits at once. Until it does, nobody stands in that place.
    pub(super) fn may_take_place(&self, id: GroupId, replica: ReplicaIndex, moving: Move) -> bool {
        let Some(group) = self.groups.get(&id) else { return false };
        let Some(here) = group.replica() else { return false };
        let reached = self
            .peers
            .get(&moving.to)
            .filter(|peer| peer.is_alive())
            .and_then(|peer| peer.moving.get(&id))
            .filter(|told| told.since == moving.since)
            .map(|told| told.reached);
        let head = here.head().op;
        let has_log = reached.is_some_and(|reached| head.since(reached.min(head)) <= PREPARES_IN_FLIGHT_MAX);
        let others = self.lags(group, here).filter(|(other, _)| *other != replica);
        let close = others.filter(|(_, lag)| *lag <= PREPARES_IN_FLIGHT_MAX).count();
        let members = u8::try_from(group.members.len()).expect("a group has at most seven members");
        has_log && close >= quorum(members)
    }

    /// The replicas of a group led here that are up and have a voice, this one too, and how many ops each is behind.
    fn lags<'a>(
        &'a self,
        group: &'a Group,
        here: &'a Replica,
    ) -> impl Iterator<Item = (ReplicaIndex, u64)> + 'a {
        let places = (0..).map(ReplicaIndex::new).zip(&group.members);
        let is_up = |(place, node): &(ReplicaIndex, &NodeId)| {
            self.peers.get(node).is_none_or(Peer::is_alive) && self.is_seated(group, *place)
        };
        places.filter(is_up).map(|(place, _)| (place, here.lag(place)))
    }

    /// Gives a group up that is led here if the replica here is being moved to a node that is up: it listens to the others. Who is
    /// nearest to the end of the log shall lead, for nothing is taken until it has all of it.
    pub(super) fn make_way(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(here) = group.replica() else { return };
        let own = here.config().replica;
        // It may be this node itself, that is to stand here again after a move that was given up.
        let is_up = |node: NodeId| self.peers.get(&node).is_none_or(Peer::is_alive);
        if !group.successor(own).is_some_and(is_up) {
            return;
        }
        let others = self.lags(group, here).filter(|(other, _)| *other != own);
        if let Some((to, _)) = others.min_by_key(|(other, lag)| (*lag, *other)) {
            self.drive(id, Input::HandOver { to });
        }
    }
}
