//! Where more is harmed than is promised to be survived: disks of a majority are lost, and forget what nobody else holds.
//!
//! A group may stay unavailable for ever then. But it is never wrong: whatever is acknowledged, read and told while all that happens
//! goes through the same oracle as ever, and at the end each group *works*, and then holds all that was acknowledged, or is
//! *ill*, and then says so. That is all that an operator can act upon.
//!
//! One node keeps its disk (which may forget): where nobody remembers the cluster, there is another one.

use std::collections::BTreeMap;

use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::id::{GroupId, NodeId, View};

use super::machine::Machine;
use super::universe::Universe;
use crate::oracle::Violation;
use crate::scenario::{Phase, is_metadata_spared};

/// How a group is when nothing more befalls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    /// A majority follows a primary.
    Works,
    /// It does not work, and somebody says why.
    Ill,
    /// It does not work although a majority is well, or nobody says why.
    Silent,
}

impl<M: Machine> Universe<M> {
    /// Whose disk is lost now, whatever the others hold; but one keeps it.
    pub(super) fn choose_any_disk_to_lose(&mut self, victim: NodeId) -> Option<NodeId> {
        let most =
            if self.is_metadata_spared() { (self.scenario.nodes - 1) / 2 } else { self.scenario.nodes - 1 };
        let is_too_many = !self.emptied.contains(&victim) && self.emptied.len() >= usize::from(most);
        if is_too_many || !self.may_be_harmed() {
            self.note("no disk is lost now: too few would remember the cluster".to_owned());
            return None;
        }
        self.emptied.insert(victim);
        self.statistics.disks_lost += 1;
        Some(victim)
    }

    /// The groups whose logs disks may forget something of.
    pub(super) fn groups_to_harm(&self) -> Vec<GroupId> {
        let groups = self.watched_groups().into_iter().map(|(group, _)| group);
        groups.filter(|group| *group != GroupId::METADATA || !self.is_metadata_spared()).collect()
    }

    fn is_metadata_spared(&self) -> bool {
        self.scenario.is_beyond() && is_metadata_spared(self.scenario.seed)
    }

    /// Whether there is anything yet that could be lost.
    pub(super) fn may_be_harmed(&self) -> bool {
        !self.scenario.is_beyond()
            || self.placement.iter().any(|(group, _)| self.oracle.acked_end(*group) > 0)
    }

    /// Time is up: what works by now is audited; what does not must say so.
    pub(super) fn on_deadline_beyond(&mut self, phase: Phase) -> Result<(), Violation> {
        let statuses = self.statuses();
        let mut is_map_known = true;
        for (group, members) in self.watched_groups() {
            let health = health(&replicas(group, &members, &statuses), members.len());
            self.note(format!("{group}: {health:?}"));
            // Without its metadata the cluster is ill as a whole, and not every node knows what it holds.
            if health == Health::Silent && is_map_known {
                let detail = format!("{group} of {members:?}: {}", self.describe_groups());
                return Err(Violation::new("unavailable without a word", detail));
            }
            is_map_known &= group != GroupId::METADATA || health == Health::Works;
        }
        if phase == Phase::Audit { self.finish_audit() } else { self.begin_audit() }
    }

    /// The partitions of which it is known at the end what they must hold.
    pub(super) fn groups_to_judge(&self) -> Vec<GroupId> {
        let statuses = self.statuses();
        let is_judged = |(group, members): &&(GroupId, Vec<NodeId>)| {
            let health = || health(&replicas(*group, members, &statuses), members.len());
            !self.scenario.is_beyond() || health() == Health::Works
        };
        self.placement.iter().filter(is_judged).map(|(group, _)| *group).collect()
    }

    /// Takes out of the replicas' ends those of replicas that say that something is the matter.
    pub(super) fn forget_the_ill(&self, group: GroupId, ends: &mut BTreeMap<NodeId, u64>) {
        if self.scenario.is_beyond() {
            let statuses = self.statuses();
            ends.retain(|node, _| replica(*node, group, &statuses).is_some_and(is_well));
        }
    }
}

fn replica(node: NodeId, group: GroupId, statuses: &BTreeMap<NodeId, NodeStatus>) -> Option<&GroupStatus> {
    statuses.get(&node)?.groups.iter().find(|replica| replica.group == group)
}

fn is_well(replica: &GroupStatus) -> bool {
    replica.problem.is_none() && matches!(replica.role, Role::Primary | Role::Backup)
}

/// Those of its replicas that there are.
fn replicas<'a>(
    group: GroupId,
    members: &[NodeId],
    statuses: &'a BTreeMap<NodeId, NodeStatus>,
) -> Vec<&'a GroupStatus> {
    members.iter().filter_map(|node| replica(*node, group, statuses)).collect()
}

/// How a group of so many is, as these replicas tell. The others are on nodes that do not know the newest metadata.
fn health(replicas: &[&GroupStatus], members: usize) -> Health {
    let leads = |replica: &&&GroupStatus| replica.role == Role::Primary;
    let view: Option<View> = replicas.iter().filter(leads).map(|primary| primary.view).max();
    let follows = |replica: &&&GroupStatus| {
        Some(replica.view) == view && matches!(replica.role, Role::Primary | Role::Backup)
    };
    if 2 * replicas.iter().filter(follows).count() > members {
        return Health::Works;
    }
    let is_ill = |replica: &&&GroupStatus| replica.problem.is_some() || replica.role == Role::Learner;
    let ill = replicas.iter().filter(is_ill).count();
    // As many as those that nothing is the matter with could lead and follow.
    if ill > 0 && 2 * (replicas.len() - ill) <= members { Health::Ill } else { Health::Silent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_protocol::id::Offset;

    fn health_of(replicas: &[(Role, u64, Option<&str>)], members: usize) -> Health {
        let status = |(role, view, problem): &(Role, u64, Option<&str>)| GroupStatus {
            group: GroupId::new(1),
            role: *role,
            view: View::new(*view),
            primary: NodeId::new(1),
            head: 5,
            durable: 5,
            commit: 5,
            high_watermark: Offset::new(5),
            problem: problem.map(str::to_owned),
        };
        let replicas: Vec<GroupStatus> = replicas.iter().map(status).collect();
        health(&replicas.iter().collect::<Vec<_>>(), members)
    }

    #[test]
    fn a_group_works_or_says_why_not() {
        use Health::{Ill, Silent, Works};
        use Role::{Backup, Faulty, Learner, Primary, ViewChange};
        let rotten = Some("rotten");
        assert_eq!(health_of(&[(Primary, 3, None), (Backup, 3, None), (Learner, 3, None)], 3), Works);
        assert_eq!(
            health_of(&[(Primary, 3, rotten), (Backup, 3, rotten)], 3),
            Works,
            "it serves what it can"
        );
        assert_eq!(health_of(&[(Primary, 3, None), (Backup, 2, None), (Faulty, 3, rotten)], 3), Silent);
        assert_eq!(health_of(&[(ViewChange, 3, None), (Learner, 3, None), (Learner, 3, None)], 3), Ill);
        assert_eq!(health_of(&[(ViewChange, 3, None), (ViewChange, 3, None), (Learner, 3, None)], 3), Silent);
        assert_eq!(health_of(&[(ViewChange, 3, None)], 3), Silent, "nobody says what is the matter");
        assert_eq!(health_of(&[(ViewChange, 3, rotten)], 3), Ill);
        assert_eq!(health_of(&[], 3), Silent);
    }
}
