//! Which groups are here: opened and closed as the metadata says, and their files deleted.

use std::collections::{BTreeMap, VecDeque};

use varve_consensus::Replica;
use varve_consensus::event::Input;
use varve_protocol::id::{GroupId, NodeId, Op};
use varve_protocol::mark::Mark;
use varve_protocol::metadata::{Move, PartitionEntry};
use varve_protocol::mutant::Mutant;
use varve_protocol::retention::Retention;
use varve_storage::Job;

use crate::group::{Group, Placement};
use crate::node::Node;
use crate::timers::Due;

impl Node {
    /// Opens the partitions that the metadata places here and closes those that it no longer knows.
    pub(super) fn reconcile_groups(&mut self) {
        let is_behind = self.metadata.applied() < self.metadata_floor;
        if is_behind || self.placement_seen == Some(self.metadata.placement_version()) {
            return;
        }
        self.placement_seen = Some(self.metadata.placement_version());
        let here = self.config.node;
        let is_here = |partition: &&PartitionEntry| {
            partition.places.contains(&here) || partition.moving.is_some_and(|moving| moving.to == here)
        };
        let placed = self.metadata.partitions().filter(is_here);
        let retentions: BTreeMap<GroupId, Retention> = self.metadata.retentions().collect();
        let placement = |partition: &PartitionEntry| Placement {
            nodes: partition.places.clone(),
            founders: partition.founders,
            directories: partition.directories.clone(),
            arrived: partition.arrived.clone(),
            moving: partition.moving,
            retention: retentions[&partition.group],
            durability: partition.durability,
        };
        let wanted: BTreeMap<_, _> =
            placed.map(|partition| (partition.group, placement(partition))).collect();
        let is_deleted = |id: &GroupId| {
            *id != GroupId::METADATA && *id < self.metadata.next_group() && !wanted.contains_key(id)
        };
        // What was learnt in one go may be that a replica went, and another of the same group came.
        let has_come_anew = |(id, group): (&GroupId, &Group)| {
            let stay = group.placement.stay_of(here);
            let is_other = wanted.get(id).is_some_and(|placement| placement.stay_of(here) != stay);
            (is_other && !Mutant::EarlierStayKept.is_on()).then_some(*id)
        };
        let come_anew = self.groups.iter().filter_map(has_come_anew);
        let deleted = self.groups.keys().chain(self.dormant.keys()).copied().filter(is_deleted);
        let closed: Vec<GroupId> = deleted.chain(come_anew).collect();
        for id in closed {
            self.close_group(id);
        }
        self.delete_files();
        // Who takes a place tells of it, and who leads a group that a replica leaves.
        let is_told_of = |moving: Move| moving.to == here || moving.to == NodeId::ZERO;
        let moving = wanted.iter().filter(|(_, placement)| placement.moving.is_some_and(is_told_of));
        self.moving = moving.map(|(id, _)| *id).collect();
        self.is_awaited = false;
        for (id, placement) in wanted {
            if self.groups.contains_key(&id) {
                self.place_anew(id, placement);
            } else if self.may_open(id, &placement) {
                self.open_group(id, placement, VecDeque::new());
            } else {
                Mark::ReturnAwaited.hit();
                self.is_awaited = true;
            }
        }
        if self.is_awaited {
            self.drive(GroupId::METADATA, Input::SaveCommit);
        }
    }

    /// Whether a group that is wanted here may be opened. One that was here before, and went, comes back when its files of that
    /// time are deleted, and when the metadata will say after any restart that it is here again: else it would be taken for what
    /// is to be deleted, with all that it has promised since.
    fn may_open(&self, id: GroupId, placement: &Placement) -> bool {
        let metadata = self.groups.get(&GroupId::METADATA).and_then(Group::replica);
        let saved = metadata.map_or(Op::ZERO, Replica::commit_saved);
        let is_known = placement.arrived(self.config.node) <= saved || Mutant::ArrivalNotSaved.is_on();
        let is_going = self.deleting.values().flatten().any(|deleting| *deleting == id);
        is_known && !is_going && !self.being_deleted.contains(&id)
    }

    /// The files of a group are gone.
    pub(super) fn on_deleted(&mut self, id: GroupId) {
        Mark::GroupDeleted.hit();
        tracing::info!(group = %id, "files deleted");
        self.being_deleted.remove(&id);
        self.after_metadata_write();
    }

    /// The metadata will say after any restart what it says now: what waited for that is done.
    pub(super) fn after_metadata_write(&mut self) {
        self.delete_files();
        if self.is_awaited {
            self.placement_seen = None;
            self.reconcile_groups();
        }
    }

    /// The metadata may want the replicas of a group that is here elsewhere now.
    fn place_anew(&mut self, id: GroupId, placement: Placement) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.placement != placement) else {
            return;
        };
        group.placement = placement;
        group.look_who_is_seated();
        self.unseated.insert(id);
        if self.groups.get(&id).and_then(Group::replica).is_some_and(Replica::is_primary) {
            self.note_news(id);
        }
    }

    /// Deletes the files of groups that are no longer here, once the metadata will say so after any restart: a group that is
    /// placed here and has no files is taken for a new one, and would forget what it has promised.
    pub(super) fn delete_files(&mut self) {
        let Some(replica) = self.groups.get(&GroupId::METADATA).and_then(Group::replica) else { return };
        let (saved, durable) = (replica.commit_saved(), replica.durable().op);
        let saved = if Mutant::FilesDeletedEarly.is_on() { Op::new(u64::MAX) } else { saved };
        while let Some(deleted) = self.deleting.first_entry().filter(|deleted| *deleted.key() <= saved) {
            for group in deleted.remove() {
                self.being_deleted.insert(group);
                self.submit(Job::DeleteGroup { group });
            }
        }
        if self.is_awaited || self.deleting.keys().any(|op| *op <= durable) {
            self.drive(GroupId::METADATA, Input::SaveCommit);
        }
    }

    fn close_group(&mut self, id: GroupId) {
        tracing::info!(group = %id, "group is no longer here");
        self.dormant.remove(&id);
        self.unled.remove(&id);
        self.unseated.remove(&id);
        self.scrubbing.forget(id);
        if let Some(group) = self.groups.remove(&id) {
            if let Some(at) = group.armed {
                self.timers.clear(at, Due::Group(id));
            }
            self.writing_bytes -= group.writing_bytes();
            self.tail_bytes -= group.tail.bytes();
        }
        self.refuse_all_waiting(id);
        self.deleting.entry(self.metadata.applied()).or_default().push(id);
    }
}
