//! Looks at the nodes from outside, again and again: what no replica may ever show, whatever the clients see.
//!
//! * One view of a group has one primary, and only one life of it: a node that restarts never resumes a view that it led.
//! * Within one life a replica's view does not go back, nor does its commit while it takes part.
//! * What is durable is written, and what is committed is durable on a quorum of disks, or in as many memories where the topic
//!   is content with that.
//! * Nobody enters a view that no other replica has named to it lately.
//! * A primary that hears no quorum takes requests for a moment only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_protocol::client::{GroupStatus, NodeStatus, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId, View};
use varve_replica::{DISK_FULL, ROTTEN};

use crate::oracle::Violation;

/// How long a primary may go on without hearing a quorum.
const LONELY_MAX: Duration = Duration::from_secs(1);

/// How long what another replica has said of a view may count: a proposal stands until its hearer has repeated its own four times,
/// 50 ms apart; and there is a look between.
const NAMED_FOR: Duration = Duration::from_millis(250);

/// Whether nothing is the matter with a replica but that it cannot write, or read something of what it holds.
pub(crate) fn takes_part(replica: &GroupStatus) -> bool {
    replica.problem.as_ref().is_none_or(|problem| problem == DISK_FULL || problem.contains(ROTTEN))
}

/// How a replica was when it was last looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    life: u64,
    view: View,
    commit: u64,
    /// The first view seen in this life.
    first_view: View,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    primaries: BTreeMap<(GroupId, View), (NodeId, u64)>,
    seen: BTreeMap<(NodeId, GroupId), Seen>,
    newest_view: BTreeMap<GroupId, View>,
    /// The views that other replicas have named to one, later than its own, and when they did so last.
    named: BTreeMap<(NodeId, GroupId), BTreeMap<View, Duration>>,
    /// Since when a primary has heard no quorum.
    lonely_since: BTreeMap<(NodeId, GroupId), Duration>,
    /// Replicas that may lack what they acknowledged from memory.
    silent: BTreeSet<(NodeId, GroupId)>,
    doubts_resolved: u64,
    /// Every group has several replicas.
    are_many: bool,
    /// A replica may leave a node and come back between two looks.
    may_return: bool,
}

impl Watch {
    /// A watch over groups of at least so many replicas, which may be moved.
    pub(crate) fn over(replicas_min: u8, may_return: bool) -> Self {
        Self { are_many: replicas_min > 1, may_return, ..Self::default() }
    }

    /// Notes that a node hears of a view from another one.
    pub(crate) fn note_named(&mut self, now: Duration, node: NodeId, (group, view): (GroupId, View)) {
        let is_news = self.seen.get(&(node, group)).is_none_or(|seen| view > seen.view);
        if is_news && view > View::ZERO {
            self.named.entry((node, group)).or_default().insert(view, now);
        }
    }

    /// Notes that a node is frozen: it has no time to act on what it has heard.
    pub(crate) fn note_frozen(&mut self, now: Duration, node: NodeId) {
        let of_node = self.named.range_mut((node, GroupId::METADATA)..=(node, GroupId::new(u64::MAX)));
        of_node.flat_map(|(_, views)| views.values_mut()).for_each(|at| *at = now);
    }

    fn was_named(&self, now: Duration, replica: (NodeId, GroupId), view: View) -> bool {
        let named = self.named.get(&replica);
        named.is_some_and(|views| views.range(view..).any(|(_, at)| now.saturating_sub(*at) <= NAMED_FOR))
    }

    /// Looks at a node in one of its lives; gives the groups that are in a view not seen there before. Of some groups it may be the
    /// last one left.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        (node, life): (NodeId, u64),
        status: &NodeStatus,
        decides_alone: impl Fn(GroupId) -> bool,
    ) -> Result<Vec<(GroupId, View)>, Violation> {
        let mut news = Vec::new();
        // A replica that has no voice is another than the one that was there before.
        let may_be_new = |replica: &GroupStatus| {
            replica.role == Role::Learner
                || (self.may_return && replica.view == View::ZERO && replica.head == 0)
        };
        let stays = |group: GroupId| status.groups.iter().any(|one| one.group == group && !may_be_new(one));
        self.seen.retain(|(on, group), seen| *on != node || seen.life != life || stays(*group));
        for replica in &status.groups {
            let key = (node, replica.group);
            let before = self.seen.get(&key).filter(|before| before.life == life);
            let first_view = before.map_or(replica.view, |before| before.first_view);
            let seen_now = Seen { life, view: replica.view, commit: replica.commit, first_view };
            self.look_at_replica((now, node, life), replica, decides_alone(replica.group))?;
            self.note_doubt(key, replica);
            if let Some(named) = self.named.get_mut(&key) {
                named.retain(|view, _| *view > replica.view);
            }
            let seen = self.seen.insert(key, seen_now);
            if seen.map(|seen| seen.view) != Some(replica.view) {
                news.push((replica.group, replica.view));
            }
            let newest = self.newest_view.entry(replica.group).or_default();
            *newest = replica.view.max(*newest);
        }
        Ok(news)
    }

    fn note_doubt(&mut self, key: (NodeId, GroupId), replica: &GroupStatus) {
        let is_silent = |problem: &String| problem.contains("acknowledged");
        if replica.problem.as_ref().is_some_and(is_silent) {
            self.silent.insert(key);
        } else if matches!(replica.role, Role::Primary | Role::Backup) && self.silent.remove(&key) {
            self.doubts_resolved += 1;
        }
    }

    fn look_at_replica(
        &self,
        (now, node, life): (Duration, NodeId, u64),
        replica: &GroupStatus,
        decides_alone: bool,
    ) -> Result<(), Violation> {
        let GroupStatus { group, view, head, durable, commit, .. } = replica;
        if durable > head {
            let detail = format!("{node}: {group} is durable up to op{durable} and ends at op{head}");
            return Err(Violation::new("durable beyond the log", detail));
        }
        if let Some(before) = self.seen.get(&(node, *group)).filter(|before| before.life == life) {
            if *view < before.view {
                let detail = format!("{node}: {group} went from {} to {view}", before.view);
                return Err(Violation::new("view went back", detail));
            }
            let was_named = || self.was_named(now, (node, *group), *view);
            if *view > before.view && self.are_many && !decides_alone && !was_named() {
                let detail =
                    format!("{node}: {group} went from {} to {view}, which nobody had named", before.view);
                return Err(Violation::new("a view was entered alone", detail));
            }
            // One that takes no part may have given up its log, to take that of the others.
            if *commit < before.commit && takes_part(replica) {
                let detail = format!("{node}: {group} went from op{} to op{commit}", before.commit);
                return Err(Violation::new("commit went back", detail));
            }
        }
        Ok(())
    }

    /// Notes who leads which view.
    pub(crate) fn look_at_primaries(
        &mut self,
        node: NodeId,
        life: u64,
        status: &NodeStatus,
    ) -> Result<(), Violation> {
        for replica in status.groups.iter().filter(|replica| replica.role == Role::Primary) {
            let key = (replica.group, replica.view);
            let (other, other_life) = *self.primaries.entry(key).or_insert((node, life));
            let (group, view) = key;
            if other != node {
                let detail = format!("{group} in {view}: {other} and {node}");
                return Err(Violation::new("two primaries in one view", detail));
            }
            if other_life != life {
                let detail = format!("{group} in {view}: {node} leads it again after a restart");
                return Err(Violation::new("a restarted primary resumed its view", detail));
            }
        }
        Ok(())
    }

    /// Looks at all replicas of a group at once: so many, on some of the nodes that may hold one. Of a replica that does not work
    /// now it is not known what it holds, and it is taken to hold everything; so is a node that is down.
    pub(crate) fn look_at_disks(
        (group, durability): (GroupId, Durability),
        (replicas, may_hold): (usize, &[NodeId]),
        statuses: &BTreeMap<NodeId, NodeStatus>,
    ) -> Result<(), Violation> {
        let held = |replica: &GroupStatus| match durability {
            Durability::QuorumDisk => replica.durable,
            Durability::QuorumMemory => replica.head,
        };
        let replica_of = |node: &NodeId, group: GroupId| {
            let replicas = statuses.get(node).map(|status| status.groups.iter());
            replicas.and_then(|mut replicas| replicas.find(|replica| replica.group == group))
        };
        let replica_on = |node: &NodeId| replica_of(node, group);
        let working = |node: &NodeId| replica_on(node).filter(|replica| takes_part(replica));
        let commit =
            may_hold.iter().filter_map(working).map(|replica| replica.commit).max().unwrap_or_default();
        // One that does not know the newest metadata may have a replica that it has not opened yet.
        let metadata_of = |node: &NodeId| replica_of(node, GroupId::METADATA).map(|metadata| metadata.commit);
        let newest = statuses.keys().filter_map(metadata_of).max();
        let has_none = |node: &NodeId| {
            replicas < may_hold.len() && metadata_of(node) == newest && replica_on(node).is_none()
        };
        let is_holder =
            |node: &&NodeId| !has_none(node) && working(node).is_none_or(|replica| held(replica) >= commit);
        let holders: Vec<NodeId> = may_hold.iter().filter(is_holder).copied().collect();
        if 2 * holders.len() > replicas || commit == 0 {
            return Ok(());
        }
        let say = |node: &NodeId| match replica_on(node) {
            Some(replica) => format!("{node} {:?} {} op{}", replica.role, replica.view, held(replica)),
            None => format!("{node} none"),
        };
        let said: Vec<String> = may_hold.iter().map(say).collect();
        let detail =
            format!("{group} is committed up to op{commit}, held on {holders:?} only: {}", said.join(", "));
        Err(Violation::new("committed on too few disks", detail))
    }

    /// Looks for primaries that take requests although they hear no quorum of their group. Nodes that are frozen do not know.
    pub(crate) fn look_for_lonely_primaries(
        &mut self,
        now: Duration,
        (group, members): (GroupId, &[NodeId]),
        awake: &BTreeMap<NodeId, NodeStatus>,
    ) -> Result<(), Violation> {
        self.lonely_since.retain(|(node, _), _| awake.contains_key(node));
        for (node, status) in awake {
            let leads = |replica: &GroupStatus| replica.group == group && replica.role == Role::Primary;
            let heard = members.iter().filter(|member| status.hears.contains(member)).count();
            if 2 * heard > members.len() || !status.groups.iter().any(leads) {
                self.lonely_since.remove(&(*node, group));
                continue;
            }
            let since = *self.lonely_since.entry((*node, group)).or_insert(now);
            if now - since > LONELY_MAX {
                let hears = &status.hears;
                let detail =
                    format!("{node} hears {hears:?} and leads {group} of {members:?} since {since:?}");
                return Err(Violation::new("a primary without a quorum", detail));
            }
        }
        Ok(())
    }

    /// The view in which a node's replica of a group began its life.
    pub(crate) fn first_view(&self, node: NodeId, group: GroupId) -> View {
        self.seen.get(&(node, group)).map(|seen| seen.first_view).unwrap_or_default()
    }

    /// The newest view of a group that was ever seen.
    pub(crate) fn newest_view(&self, group: GroupId) -> View {
        self.newest_view.get(&group).copied().unwrap_or_default()
    }

    /// Replicas that stopped uncleanly and have a voice again.
    pub(crate) fn doubts_resolved(&self) -> u64 {
        self.doubts_resolved
    }

    /// Views entered beyond the first, over all groups.
    pub(crate) fn view_changes(&self) -> u64 {
        self.newest_view.values().map(|view| view.as_raw()).sum()
    }
}
