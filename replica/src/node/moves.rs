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
//!
//! A replica more, and one less, are moves from and to nowhere:
//!
//! ```text
//!   metadata            group's log                    who leaves          who comes
//!   MoveReplica 0 → n  ────────────────────────────────────────────────────▶ opens, mute; takes the log
//!                  primary seals "seated"                                  counts for nothing
//!                                                                          knows that durably: has a voice
//!                  primary seals "counted" ◀─────────── pulse: "seated" ───
//!                  who counted before commits it                           counts behind it
//!   FinishMove ◀──────────────────────── pulse: "done" ───────────────────
//!
//!   MoveReplica n → 0  primary seals "vacated"         counts for it
//!                  and a no-op behind it                counts for nothing any more
//!   FinishMove ◀── pulse of the primary: "done"
//!                                                       deletes its files
//! ```
//!
//! Whose word counts while such an entry is not committed is in `consensus/src/members.rs`.

use bytes::Bytes;
use varve_consensus::event::Input;
use varve_consensus::{Replica, Status};
use varve_protocol::client::encode_archive;
use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, ProducerId, ReplicaIndex, RequestNumber};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::metadata::{MetadataOp, Move};
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::PrepareKind;
use varve_protocol::pulse::{PULSE_MOVING_MAX, PulseMoving, Stage};
use varve_protocol::replacement::{Change, Replacement};

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
    /// How far the replicas are that are being moved here, and those that leave groups led here; if they are many, others each
    /// time.
    pub(super) fn moving_here(&self, sequence: u64) -> Vec<PulseMoving> {
        let told = |id: &GroupId| {
            let group = self.groups.get(id)?;
            let moving = group.placement.moving?;
            let stage = self.stage_of(group, moving)?;
            let replica = group.replica()?;
            let reached = replica.commit().op.min(replica.durable().op);
            Some(PulseMoving { group: *id, since: moving.since, reached, stage })
        };
        let mut all: Vec<PulseMoving> = self.moving.iter().filter_map(told).collect();
        if all.len() > PULSE_MOVING_MAX {
            let turns = sequence.wrapping_mul(PULSE_MOVING_MAX as u64) % all.len() as u64;
            all.rotate_left(usize::try_from(turns).unwrap_or_default());
            all.truncate(PULSE_MOVING_MAX);
        }
        all
    }

    /// How far a move is, if it is this node that tells.
    fn stage_of(&self, group: &Group, moving: Move) -> Option<Stage> {
        let replica = group.replica().filter(|replica| replica.status() == Status::Normal)?;
        let commit = replica.commit().op;
        if moving.to == NodeId::ZERO {
            // Who stays knows by what was committed behind it that it has left, and needs it no more.
            let has_left = group.last_step(moving).is_some_and(|op| op < commit);
            return (replica.is_primary() && has_left).then_some(Stage::Done);
        }
        if moving.to != self.config.node {
            return None;
        }
        // A voice that it had before this move is another one.
        let is_present = group.seat(moving.place).since >= moving.since || Mutant::EarlierVoiceTold.is_on();
        let has_voice = replica.is_admitted() && is_present;
        let is_done = if moving.from == NodeId::ZERO {
            group.last_step(moving).is_some_and(|op| op <= commit)
        } else {
            has_voice
        };
        Some(match (has_voice, is_done) {
            (_, true) => Stage::Done,
            (true, false) => Stage::Seated,
            (false, false) => Stage::Listening,
        })
    }

    /// As primary of the metadata, notes that a replica has come, gone or moved as was wanted.
    pub(super) fn finish_moves(&mut self) {
        let metadata = self.groups.get(&GroupId::METADATA).and_then(Group::replica);
        if !metadata.is_some_and(Replica::takes_requests) || self.registering {
            return;
        }
        let told = self.peers.values().flat_map(|peer| peer.moving.values().copied());
        let mut told = told.chain(self.moving_here(0)).filter(|told| told.stage == Stage::Done);
        let is_under_way = |told: &PulseMoving| {
            let moving = self.metadata.partition(told.group).and_then(|partition| partition.moving);
            moving.is_some_and(|moving| moving.since == told.since)
        };
        let Some(PulseMoving { group, since, .. }) = told.find(is_under_way) else { return };
        Mark::MoveFinished.hit();
        self.registering = true;
        let handle = self.new_handle(Waiting::Registration);
        let operation = MetadataOp::FinishMove { group, since };
        let body = (PrepareKind::Metadata, 0, encode_archive(&operation));
        self.request(GroupId::METADATA, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
    }

    /// The entry that a group led here needs next for a move; `None`: it has it, or something must come first.
    pub(super) fn next_step(&self, id: GroupId, moving: Move) -> Option<Replacement> {
        let group = self.groups.get(&id)?;
        let Move { place, from, to, since, .. } = moving;
        group.successor(place)?;
        let newest = group.replica()?.newest_entry(place).map_or(Op::ZERO, |(_, entry)| entry.known_at);
        if newest > self.metadata.applied() && !Mutant::OldWishObeyed.is_on() {
            // Whoever sealed that knew more of what is wanted here.
            return None;
        }
        if to == NodeId::ZERO {
            let known_at = since.max(newest);
            let directory = DirectoryId::ZERO;
            let entry =
                Replacement { replica: place, change: Change::Vacated, node: to, directory, known_at };
            let may_leave =
                group.replica().is_some_and(|here| here.may_vacate(place, self.close(group).into_iter()));
            return (may_leave || Mutant::OthersNotAsked.is_on()).then_some(entry);
        }
        let (directory, known_at) = self.metadata.directory(to)?;
        let known_at = known_at.max(since);
        let seat = group.seat(place);
        let is_seated = (seat.node, seat.directory) == (to, directory);
        let change = if from == NodeId::ZERO && is_seated && self.may_count(group, moving) {
            Change::Counted
        } else if from == NodeId::ZERO && is_seated && seat.since >= since {
            return None;
        } else {
            Change::Seated
        };
        // Until that is committed nobody stands in the place; in a vacant one nobody is missed.
        let others = self.close(group).into_iter().filter(|other| *other != place || from == NodeId::ZERO);
        let commits = group.replica().is_some_and(|here| here.suffice(others));
        (commits && self.has_log(group, moving)).then_some(Replacement {
            replica: place,
            change,
            node: to,
            directory,
            known_at,
        })
    }

    /// Whether the word of a replica may count that was seated in a vacant place: it has a voice. One that was to leave, and stays
    /// after all, may never have lost it.
    fn may_count(&self, group: &Group, moving: Move) -> bool {
        let is_counted = group.replica().is_some_and(|here| here.is_member(moving.place));
        let told = self.told_of(group, moving).map(|told| told.stage);
        is_counted || told == Some(Stage::Seated) || Mutant::CountedWithoutVoice.is_on()
    }

    /// What a node that is up says of its replica, that is on its way to a group.
    fn told_of(&self, group: &Group, moving: Move) -> Option<PulseMoving> {
        let id = group.replica()?.config().group;
        let peer = self.peers.get(&moving.to).filter(|peer| peer.is_alive())?;
        peer.moving.get(&id).filter(|told| told.since == moving.since).copied()
    }

    /// Whether a replica that is on its way to a group led here has nearly all of the log.
    fn has_log(&self, group: &Group, moving: Move) -> bool {
        let Some(here) = group.replica() else { return false };
        let head = here.head().op;
        self.told_of(group, moving)
            .is_some_and(|told| head.since(told.reached.min(head)) <= PREPARES_IN_FLIGHT_MAX)
    }

    /// The replicas of a group led here that are up and near the end of the log: what they have to commit they commit at once.
    fn close(&self, group: &Group) -> Vec<ReplicaIndex> {
        let lags = group.replica().into_iter().flat_map(|here| self.lags(group, here));
        lags.filter(|(_, lag)| *lag <= PREPARES_IN_FLIGHT_MAX).map(|(place, _)| place).collect()
    }

    /// A replica has left a group led here, and nothing is behind that in the log: something shall be, so that all know.
    pub(super) fn follow_leaving(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(moving) = group.placement.moving.filter(|moving| moving.to == NodeId::ZERO) else { return };
        let Some(replica) = group.replica().filter(|replica| replica.takes_requests()) else { return };
        if group.last_step(moving) == Some(replica.head().op) && replica.commit() == replica.head() {
            Mark::LeavingFollowed.hit();
            let handle = self.new_handle(Waiting::Nobody);
            let body = (PrepareKind::Noop, 0, Bytes::new());
            self.request(id, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
        }
    }

    /// The replicas of a group led here that are up and have a voice, this one too, and how many ops each is behind.
    fn lags<'a>(
        &'a self,
        group: &'a Group,
        here: &'a Replica,
    ) -> impl Iterator<Item = (ReplicaIndex, u64)> + 'a {
        let is_up = |(place, node): &(ReplicaIndex, NodeId)| {
            self.peers.get(node).is_none_or(Peer::is_alive) && self.is_seated(group, *place)
        };
        group.holders().filter(is_up).map(|(place, _)| (place, here.lag(place)))
    }

    /// Gives a group up that is led here if the replica here is being moved to a node that is up: it listens to the others. Who is
    /// nearest to the end of the log shall lead, for nothing is taken until it has all of it.
    pub(super) fn make_way(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(here) = group.replica() else { return };
        let own = here.config().replica;
        // It may be this node itself, that is to stand here again after a move that was given up.
        let is_up = |node: NodeId| self.peers.get(&node).is_none_or(Peer::is_alive);
        if !group.successor(own).is_some_and(is_up) || Mutant::NoWayMade.is_on() {
            return;
        }
        let others = self.lags(group, here).filter(|(other, _)| *other != own);
        if let Some((to, _)) = others.min_by_key(|(other, lag)| (*lag, *other)) {
            Mark::WayMade.hit();
            self.drive(id, Input::HandOver { to });
        }
    }
}
