//! A disk that is full: this node stays, gives its groups to others to lead, refuses appends until there is room, and goes on then.
//!
//! What finds no room waits in the store, so to the replicas this is a disk that hangs: a backup does not acknowledge, and what a
//! primary has sealed commits without it. What is added here is that nobody has to find that out by waiting: the primary hands
//! over at once, clients are told, and the store is asked now and then whether there is room.

use std::time::Duration;

use varve_consensus::event::Input;
use varve_consensus::{Replica, Status};
use varve_protocol::client::Refusal;
use varve_protocol::id::{GroupId, ReplicaIndex};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_storage::Job;

use crate::group::Group;
use crate::node::Node;
use crate::node::clients::WRITING_BYTES_MAX;
use crate::timers::Due;

/// Between two looks whether there is room again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is the matter with a replica on a full disk, for people.
pub const DISK_FULL: &str =
    "the disk of its node is full: it takes no records until some space is freed, and goes on by itself then";

impl Node {
    /// What a group writes waits for room.
    pub(super) fn on_disk_full(&mut self, id: GroupId) {
        tracing::error!(group = %id, "the disk is full; what this replica writes waits until some space is freed");
        if self.full.is_empty() {
            self.timers.set(self.now.plus(LOOK_EVERY), Due::DiskRoom);
        }
        self.full.insert(id);
        self.give_way_if_full(id);
    }

    /// There was room, and nothing of a group waits any more.
    pub(super) fn on_disk_has_room(&mut self, id: GroupId) {
        tracing::info!(group = %id, "there is room on the disk; this replica goes on");
        self.full.remove(&id);
    }

    /// It is time to look whether there is room, and to make some.
    pub(super) fn on_disk_room_due(&mut self) {
        if self.full.is_empty() {
            return;
        }
        self.timers.set(self.now.plus(LOOK_EVERY), Due::DiskRoom);
        for id in self.full.clone() {
            self.let_go(id);
            self.give_way_if_full(id);
        }
        self.submit(Job::Resume);
    }

    /// Lets another replica lead a group that this one leads and cannot write: the nearest to its end, if one is up.
    fn give_way_if_full(&mut self, id: GroupId) {
        if self.full.contains(&id)
            && let Some(to) = self.nearest_other(id)
        {
            Mark::FullGaveWay.hit();
            self.drive(id, Input::HandOver { to });
        }
    }

    /// Who is nearest to the end of a group's log that this node leads, of the others that are up.
    pub(super) fn nearest_other(&self, id: GroupId) -> Option<ReplicaIndex> {
        let group = self.groups.get(&id)?;
        let replica = group.replica().filter(|replica| replica.takes_requests())?;
        let is_up = |place: &ReplicaIndex| {
            let node = group.node(*place);
            node != self.config.node && self.peers.get(&node).is_some_and(|peer| peer.is_alive())
        };
        let others = group.holders().map(|(place, _)| place).filter(is_up);
        others.min_by_key(|place| replica.lag(*place))
    }

    /// Why this node takes no appends to a group, unless it knows of another that may.
    pub(super) fn why_full(&self, id: GroupId) -> Option<Refusal> {
        let knows_another = |replica: &Replica| replica.status() == Status::Normal && !replica.is_primary();
        let replica = self.groups.get(&id).and_then(Group::replica);
        let is_full = self.full.contains(&id) && !replica.is_some_and(knows_another);
        is_full.then_some(Refusal::DiskFull { node: self.config.node })
    }

    /// Whether a prepare is better fetched later: those that wait for room must not fill the memory.
    pub(super) fn is_too_full_for(&self, id: GroupId, message: &Message) -> bool {
        let is_prepare = matches!(message, Message::Prepare { .. } | Message::RepairPrepare { .. });
        is_prepare && self.full.contains(&id) && self.writing_bytes > WRITING_BYTES_MAX / 2
    }
}
