//! Who stands in which place: nodes are registered with their data directories, and replicas that have lost theirs are let
//! into their groups again (rules S4, E1).
//!
//! The metadata knows the data directory of each node. Where a group's place is held by another one, the node that leads the
//! group puts the present one there, with an entry of the group's own log; `varve_consensus` says why that is safe.

use varve_consensus::Replica;
use varve_protocol::client::encode_archive;
use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, ProducerId, ReplicaIndex, RequestNumber};
use varve_protocol::mark::Mark;
use varve_protocol::metadata::MetadataOp;
use varve_protocol::prepare::PrepareKind;
use varve_protocol::replacement::{Change, Replacement};

use crate::group::{Group, places};
use crate::node::Node;
use crate::node::clients::Waiting;
use crate::timers::Due;

impl Node {
    /// As primary of the metadata, registers nodes of the configuration that are not registered as they are.
    pub(super) fn register_nodes(&mut self) {
        let metadata = self.groups.get(&GroupId::METADATA).and_then(Group::replica);
        if !metadata.is_some_and(Replica::takes_requests) || self.registering {
            return;
        }
        let mut unregistered = self.config.members.keys().filter(|node| !self.is_registered(**node));
        let found =
            unregistered.find_map(|node| Some((*node, self.directory_of(*node)?, self.versions_of(*node)?)));
        let Some((node, directory, versions)) = found else { return self.raise_first_version() };
        let address = self.config.members[&node].clone();
        self.registering = true;
        let handle = self.new_handle(Waiting::Registration);
        let operation = MetadataOp::RegisterNode { node, address, directory, versions };
        let body = (PrepareKind::Metadata, 0, encode_archive(&operation));
        self.request(GroupId::METADATA, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
    }

    /// Whether all nodes of the configuration are registered as they are.
    pub(super) fn are_all_registered(&self) -> bool {
        self.config.members.keys().all(|node| self.is_registered(*node))
    }

    fn is_registered(&self, node: NodeId) -> bool {
        let versions = self.versions_of(node);
        if versions.is_some_and(|versions| !versions.contains(self.version())) {
            // It has no part in this cluster, and keeps the others from nothing.
            return true;
        }
        let registered = self.metadata.directory(node).map(|(directory, _)| directory);
        // What was heard of a node may be older than what the metadata knows of it.
        let is_known = |directory| registered == Some(directory) || self.metadata.is_former(node, directory);
        self.metadata.address(node) == self.config.members.get(&node).map(String::as_str)
            && registered.is_some()
            && versions.is_none_or(|versions| self.metadata.versions(node) == Some(versions))
            && self.directory_of(node).is_none_or(is_known)
    }

    /// The data directory of a node, as it says itself; `None` if it was not heard in this life.
    fn directory_of(&self, node: NodeId) -> Option<DirectoryId> {
        match self.peers.get(&node) {
            Some(peer) => peer.directory,
            None => Some(self.directory),
        }
    }

    /// Looks at all groups again if a node has another data directory than before.
    pub(super) fn note_registered(&mut self) {
        let version = self.metadata.directories_version();
        if self.directories_seen != version {
            self.directories_seen = version;
            self.unseated.extend(self.groups.keys());
            if self.metadata.is_former(self.config.node, self.directory) {
                tracing::error!(
                    directory = %self.directory,
                    "another data directory took the place of this one, which is never let in again: start this node with \
                     the newer one, or format an empty one"
                );
            }
        }
    }

    /// Lets replicas in, in the groups that this node leads, that stand there with another data directory than before, or are
    /// to stand there instead of another.
    pub(super) fn seat_replicas(&mut self) {
        let ids: Vec<GroupId> = self.unseated.iter().copied().collect();
        for id in ids {
            let Some(replica) = self.groups.get(&id).and_then(Group::replica) else { continue };
            let is_replacing = replica.is_replacing();
            let (takes_requests, is_primary) = (replica.takes_requests(), replica.is_primary());
            if takes_requests {
                self.make_way(id);
                self.follow_leaving(id);
            }
            match self.next_to_seat(id) {
                Some(replacement) if takes_requests && !is_replacing => {
                    self.mark_seating(id, replacement);
                    tracing::info!(group = %id, ?replacement, "let a replica in that has lost its disk, or was moved");
                    let handle = self.new_handle(Waiting::Nobody);
                    let body = (PrepareKind::Replacement, 0, replacement.encode());
                    self.request(id, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
                }
                None if !is_replacing && !self.is_moving(id) => {
                    self.unseated.remove(&id);
                    if is_primary {
                        // Now that it has a voice it counts among those who are heard.
                        self.timers.set(self.now, Due::Liveness(id));
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    fn mark_seating(&self, id: GroupId, Replacement { replica, change, .. }: Replacement) {
        let moving = self.groups.get(&id).and_then(|group| group.placement.successor(replica));
        match (change, moving) {
            (Change::Seated, None) => Mark::LostSeated.hit(),
            (Change::Seated, Some(moving)) if moving.from == NodeId::ZERO => Mark::JoinerSeated.hit(),
            (Change::Seated, Some(_)) => Mark::MoverSeated.hit(),
            (Change::Counted, _) => Mark::JoinerCounted.hit(),
            (Change::Vacated, _) => Mark::LeaverVacated.hit(),
        }
    }

    fn next_to_seat(&self, id: GroupId) -> Option<Replacement> {
        let group = self.groups.get(&id)?;
        let next = |replica| match group.placement.successor(replica) {
            Some(moving) => self.next_step(id, moving).or_else(|| self.replace_lost(group, replica)),
            None => self.replace_lost(group, replica),
        };
        places().find_map(next)
    }

    /// The entry that a place needs whose replica has lost its disk. Once somebody has taken a place he keeps it, until something
    /// else is wanted.
    fn replace_lost(&self, group: &Group, replica: ReplicaIndex) -> Option<Replacement> {
        let seat = group.seat(replica);
        let (node, since) = match group.placement.successor(replica) {
            Some(moving) if group.successor(replica).is_none() => {
                let since = if moving.from == NodeId::ZERO { Op::ZERO } else { moving.since };
                (moving.to, since)
            }
            Some(_) => (seat.node, Op::ZERO),
            None => {
                let node = group.placement.node(replica);
                (node, group.placement.arrived(node))
            }
        };
        let (directory, known_at) = self.metadata.directory(node)?;
        let known_at = known_at.max(since);
        // One that has come again is another, although it looks the same.
        let is_other = (node, directory) != (seat.node, seat.directory) || since > seat.since;
        let is_news = is_other && known_at > seat.since;
        is_news.then_some(Replacement { replica, change: Change::Seated, node, directory, known_at })
    }

    /// Whether something is to become of a place of a group that has not.
    fn is_moving(&self, id: GroupId) -> bool {
        let moving = |group: &Group| {
            let moving = group.placement.moving;
            // The last word on who leaves is not in its own entry.
            moving.is_some_and(|moving| group.successor(moving.place).is_some() || moving.to == NodeId::ZERO)
        };
        self.groups.get(&id).is_some_and(moving)
    }

    /// Whether the replica of a node stands in its place as far as the group's log here tells: until then it has no voice.
    /// One that has not said yet which data directory it has is taken to have the same as ever.
    pub(super) fn is_seated(&self, group: &Group, replica: ReplicaIndex) -> bool {
        self.directory_of(group.node(replica)).is_none_or(|present| present == group.seat(replica).directory)
    }
}
