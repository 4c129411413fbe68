//! The power of everybody fails, whatever groups acknowledge from memory; and what must not come of it.
//!
//! * What a replica knew to be committed, and had synced, is there afterwards: no operator gives it up.
//! * Where so many replicas came back in doubt that the others are no majority, nobody leads before an operator has spoken.
//!
//! Disks that forget at the same time are left out: an operator who has to do without what one of them held can lose anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::Rng;
use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId};

use super::machine::{Ending, Machine};
use super::nemesis::Undo;
use super::universe::Universe;
use super::watch::takes_part;
use crate::actor::Placement;
use crate::oracle::{LogEnd, Oracle, Violation};
use crate::random::{duration_between, stream};

/// What a replica has committed in its present life, and how much of that is on its disk.
#[derive(Default, Debug)]
struct Progress {
    life: u64,
    /// Known to be committed, and not synced when it was last looked at.
    waiting: VecDeque<LogEnd>,
    synced: LogEnd,
}

/// Looks at groups that acknowledge from memory.
#[derive(Default, Debug)]
pub(crate) struct Vigil {
    progress: BTreeMap<(NodeId, GroupId), Progress>,
    /// How replicas came back from a blackout: whether in doubt.
    came_back: BTreeMap<(NodeId, GroupId), bool>,
    /// The lives that nodes were in when the power failed.
    last_lives: BTreeMap<NodeId, u64>,
}

impl Vigil {
    /// Looks at a node in one of its lives.
    pub(crate) fn look(&mut self, node: NodeId, life: u64, status: &NodeStatus) {
        for replica in &status.groups {
            self.note_progress((node, replica.group), life, replica);
            if self.last_lives.get(&node).is_some_and(|last| life > *last) {
                let is_in_doubt = |problem: &String| problem.contains("acknowledged");
                let doubt = replica.problem.as_ref().is_some_and(is_in_doubt);
                self.came_back.entry((node, replica.group)).or_insert(doubt);
            }
        }
    }

    fn note_progress(&mut self, key: (NodeId, GroupId), life: u64, replica: &GroupStatus) {
        let progress = self.progress.entry(key).or_default();
        let is_sound = takes_part(replica) && replica.role != Role::Learner;
        if progress.life != life || !is_sound {
            *progress = Progress { life, ..Progress::default() };
        }
        let commit = LogEnd { op: replica.commit, offset: replica.high_watermark.as_raw() };
        if is_sound && progress.waiting.back().is_none_or(|last| *last < commit) {
            progress.waiting.push_back(commit);
        }
        while let Some(first) = progress.waiting.front().filter(|first| first.op <= replica.durable) {
            progress.synced = progress.synced.max(*first);
            progress.waiting.pop_front();
        }
    }

    /// The power of everybody fails; of nodes in these lives.
    fn begin(&mut self, lives: BTreeMap<NodeId, u64>) {
        self.came_back.clear();
        self.last_lives = lives;
    }

    /// How much of a group is committed, and synced by one of those who are up.
    fn synced(&self, group: GroupId, up: &BTreeMap<NodeId, NodeStatus>) -> LogEnd {
        let of_group =
            self.progress.iter().filter(|((node, other), _)| *other == group && up.contains_key(node));
        of_group.map(|(_, progress)| progress.synced).max().unwrap_or_default()
    }

    /// Whether somebody leads a group that waits for an operator.
    pub(crate) fn verify(
        &self,
        placement: &Placement,
        oracle: &Oracle,
        statuses: &BTreeMap<NodeId, NodeStatus>,
    ) -> Result<(), Violation> {
        for (group, members) in placement.iter().filter(|(group, _)| oracle.may_await_operator(*group)) {
            let is_in_doubt = |node: &&NodeId| self.came_back.get(&(**node, *group)) == Some(&true);
            let in_doubt: BTreeSet<NodeId> = members.iter().filter(is_in_doubt).copied().collect();
            if 2 * (members.len() - in_doubt.len()) > members.len() {
                continue;
            }
            let replica_of = |node: &NodeId| {
                let mut replicas = statuses.get(node)?.groups.iter();
                replicas.find(|replica| replica.group == *group)
            };
            // One that opens its replica late takes itself for the primary of the first view until it hears of the others.
            let newest = members.iter().filter_map(replica_of).map(|replica| replica.view).max();
            let leads = |node: &&NodeId| {
                replica_of(node)
                    .is_some_and(|replica| replica.role == Role::Primary && Some(replica.view) == newest)
            };
            if let Some(node) = members.iter().find(leads) {
                let detail = format!("{node} leads {group}; {in_doubt:?} of {members:?} are in doubt");
                return Err(Violation::new("a group went on without its operator", detail));
            }
        }
        Ok(())
    }
}

impl<M: Machine> Universe<M> {
    /// The power of everybody fails; they come back one by one, the last after `lasts`.
    pub(super) fn black_out(&mut self, lasts: Duration) {
        let is_from_memory = self.scenario.durability == Durability::QuorumMemory;
        if is_from_memory && (self.lost_disk.is_some() || self.atlas.harmed().is_some()) {
            return self.note("no power fails now: a disk has forgotten something".to_owned());
        }
        self.statistics.power_failures += 1;
        if is_from_memory {
            let statuses = self.statuses();
            for (group, _) in self.placement.clone() {
                let synced = self.vigil.synced(group, &statuses);
                self.note(format!("{group} is committed and synced up to {synced:?}"));
                self.oracle.power_failed(group, synced);
            }
            self.vigil.begin(self.hosts.iter().map(|(node, host)| (*node, host.life)).collect());
        }
        let rng = &mut stream(self.scenario.seed, &format!("blackout {}", self.dooms));
        let nodes: Vec<NodeId> = self.scenario.node_ids().collect();
        let last = nodes[rng.random_range(0..nodes.len())];
        for node in nodes {
            if is_from_memory {
                self.stop(node, Ending::Power);
            } else {
                self.crash(node, Ending::Power);
            }
            let wait = if node == last { lasts } else { duration_between(rng, lasts / 10, lasts) };
            self.undo_later(Undo::of_crash(node), wait);
        }
    }

    /// Looks at the groups that acknowledge from memory.
    pub(super) fn keep_vigil(&mut self, statuses: &BTreeMap<NodeId, NodeStatus>) -> Result<(), Violation> {
        if !self.scenario.has_rescuer() {
            return Ok(());
        }
        for (node, status) in statuses {
            self.vigil.look(*node, self.hosts[node].life, status);
        }
        self.vigil.verify(&self.placement, &self.oracle, statuses)
    }
}
