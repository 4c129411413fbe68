//! What the disks of the QUIC world lose and forget, and whether that is made good.
//!
//! One disk at a time, as in the fast world: the next is spared until the one before has all that there is. What the nodes know is
//! taken from what they have told lately; what a disk holds is looked at on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use varve_protocol::client::NodeStatus;
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId, Op};

use super::Nemesis;
use crate::actor::Placement;
use crate::fast::machine::Machine;
use crate::fast::real::RealNode;
use crate::fast::rot::{Harm, rot};
use crate::fast::rot_in_use::{compare_disks, held_up_to, rot_in_use, works};
use crate::oracle::Violation;
use crate::quic::board::{Board, State};
use crate::quic::host::Host;
use crate::report::Statistics;

impl Nemesis {
    /// The node of which not everything works that was harmed.
    pub(crate) fn harmed(&self) -> Option<NodeId> {
        self.atlas.harmed()
    }

    /// Adds what the disks have forgotten.
    pub(crate) fn add_to(&self, statistics: &mut Statistics) {
        statistics.damages = self.atlas.damages;
        statistics.damages_in_use = self.atlas.damages_in_use;
        statistics.holes_mended = self.atlas.holes_mended;
        statistics.ends_recovered = self.atlas.ends_recovered;
    }

    /// Whose disk is lost now: the victim's, if one may be.
    pub(super) fn choose_disk_to_lose(
        &mut self,
        victim: NodeId,
        now: Duration,
        board: &Board,
    ) -> Option<NodeId> {
        let is_too_many = !self.all_disks_are_good(board)
            || self.harmed().is_some()
            || self.spared(vec![victim], board).is_empty();
        let state = &mut *board.lock();
        if is_too_many {
            state.trace.note(now, "no other disk is lost now");
            return None;
        }
        state.statistics.disks_lost += 1;
        self.lost_disk = Some(victim);
        self.lost_disk
    }

    /// Whether the disk that was lost last, if there is one, is made good: its node has all that there is, and a voice in all its
    /// groups.
    pub(super) fn all_disks_are_good(&self, board: &Board) -> bool {
        let state = board.lock();
        let Some(placement) = &state.placement else { return false };
        let Some(node) = self.lost_disk else { return true };
        let Some(status) = state.statuses.get(&node) else { return false };
        let newest = state.statuses.values().map(metadata_commit).max();
        let is_here = |(group, members): &(GroupId, Vec<NodeId>)| {
            !members.contains(&node) || status.groups.iter().any(|replica| replica.group == *group)
        };
        Some(metadata_commit(status)) == newest
            && status.groups.iter().all(works)
            && placement.iter().all(is_here)
    }

    /// The disk of a node that runs forgets something.
    pub(super) fn rot_in_use(
        &mut self,
        node: NodeId,
        now: Duration,
        (board, hosts): (&Board, &BTreeMap<NodeId, Arc<Host>>),
    ) {
        let is_spared = self.lost_disk.is_some() || self.harmed().is_some_and(|harmed| harmed != node);
        let is_too_many =
            self.durability == Durability::QuorumMemory && self.spared(vec![node], board).is_empty();
        let state = &mut *board.lock();
        if is_spared || is_too_many || state.placement.is_none() {
            return state.trace.note(now, "no disk forgets anything now: too few would remember");
        }
        // Who is down has told nothing since, and a log that is being read from its start is not in use yet.
        let replicas = state.statuses.get(&node).map(|status| status.groups.as_slice()).unwrap_or_default();
        let is_in_use = |group: &GroupId| replicas.iter().any(|one| one.group == *group && works(one));
        let groups: Vec<GroupId> =
            watched_groups(state).into_iter().map(|(group, _)| group).filter(is_in_use).collect();
        if groups.is_empty() {
            return;
        }
        let disk = hosts[&node].disk();
        for Harm { group, what } in self.atlas.harm_in_use(node, |rng| rot_in_use(&disk, &groups, rng)) {
            state.trace.note(now, format!("the disk of {node} forgets of {group}, which is in use: {what}"));
        }
    }

    /// The disk of a node that has just stopped may forget something.
    pub(super) fn let_rot(
        &mut self,
        node: NodeId,
        now: Duration,
        (board, hosts): (&Board, &BTreeMap<NodeId, Arc<Host>>),
    ) {
        if self.lost_disk.is_some() {
            // A group may have to do without that one already.
            return;
        }
        let state = &mut *board.lock();
        let groups: Vec<GroupId> = watched_groups(state).into_iter().map(|(group, _)| group).collect();
        let disk = hosts[&node].disk();
        for Harm { group, what } in
            self.atlas.harm(node, |rng, permille| rot(&disk, (&groups, permille), rng))
        {
            state.trace.note(now, format!("the disk of {node} forgets of {group}: {what}"));
        }
    }

    /// Looks whether what was lost or forgotten is made good.
    pub(crate) fn look_at_disks(
        &mut self,
        now: Duration,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) {
        if self.lost_disk.is_some() && self.all_disks_are_good(board) {
            self.lost_disk = None;
        }
        if self.harmed().is_none() {
            return;
        }
        let state = board.lock();
        self.atlas.look(&state.statuses);
        let Some((node, groups)) = self.atlas.wounded(now) else { return };
        let Some(status) = state.statuses.get(&node) else { return };
        let disk = hosts[&node].disk();
        for group in groups {
            let replica = status.groups.iter().find(|replica| replica.group == group);
            let is_whole = replica.is_none_or(|replica| {
                let durable = Op::new(replica.durable);
                works(replica) && RealNode::held(&disk, group).is_ok_and(|held| held_up_to(&held) >= durable)
            });
            if is_whole {
                self.atlas.close_wound(group);
            }
        }
    }

    /// Whether nothing that was forgotten, or found to be, is left to be mended.
    pub(crate) fn is_all_mended(&self, board: &Board) -> bool {
        let is_mended = |status: &NodeStatus| status.scrub.damages_found == status.scrub.damages_mended;
        self.harmed().is_none() && board.lock().statuses.values().all(is_mended)
    }

    /// At the end every replica holds what the others hold, on a disk that can be read.
    pub(crate) fn compare_disks(
        &self,
        board: &Board,
        hosts: &BTreeMap<NodeId, Arc<Host>>,
    ) -> Result<(), Violation> {
        let state = board.lock();
        let held = |node: NodeId, group| Some(RealNode::held(&hosts[&node].disk(), group));
        compare_disks(&watched_groups(&state), &state.statuses, held)
    }
}

fn metadata_commit(status: &NodeStatus) -> u64 {
    let metadata = status.groups.iter().find(|replica| replica.group == GroupId::METADATA);
    metadata.map_or(0, |replica| replica.commit)
}

/// The metadata and the partitions of the topic, with the nodes that hold them.
fn watched_groups(state: &State) -> Placement {
    let metadata = (GroupId::METADATA, state.statuses.keys().copied().collect());
    std::iter::once(metadata).chain(state.placement.iter().flatten().cloned()).collect()
}
