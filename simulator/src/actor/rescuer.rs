//! The operator who is called when the power of everybody has failed: what groups say that wait for him, he has go on.
//!
//! He does what `varve cluster force-recover --accept-loss` does, with the same requests and the same judgement ([`Recovery`]):
//! he asks all replicas of the group what they hold, and forces as many as a majority needs, the newest logs first. If one of
//! them does not answer, he begins anew. Before that he looks on for a while, as people do.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_client::recovery::Recovery;
use varve_protocol::client::{Doubt, GroupStatus, Request, Response, Role};
use varve_protocol::id::{ClusterId, GroupId, NodeId};

use super::{Actor, Answer, Happening, Orders, Placement, request_frame};
use crate::oracle::{LogEnd, Violation};

/// The pause between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a replica begins that says that its group waits for an operator.
const CALL: &str = "unsafe restart";

/// What he is at.
#[derive(Debug)]
enum Step {
    /// He looks at one node after the other.
    Watching,
    /// He asks all replicas of a group what they hold.
    Asking { group: GroupId, replicas: Vec<NodeId>, said: BTreeMap<NodeId, Doubt> },
    /// He forces these, one after the other.
    Forcing { group: GroupId, left: Vec<NodeId> },
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Rescuer {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    placement: Placement,
    reaction: Duration,
    /// Since when groups call for him.
    calls: BTreeMap<GroupId, Duration>,
    step: Step,
    correlation: u64,
    next_node: usize,
    /// When to look again, or when the answer is too late.
    act_at: Duration,
}

impl Rescuer {
    /// An operator who takes so much time before he acts.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, reaction: Duration) -> Self {
        Self {
            cluster,
            nodes,
            placement: Placement::new(),
            reaction,
            calls: BTreeMap::new(),
            step: Step::Watching,
            correlation: 0,
            next_node: 0,
            act_at: Duration::MAX,
        }
    }

    fn ask(&self, node: NodeId, (group, request): (GroupId, &Request), orders: &mut Orders<'_>) {
        let mut frame = request_frame(self.cluster, self.correlation, request);
        frame.header.group = group;
        orders.send(node, frame);
    }

    /// Goes back to looking on. Answers to what he has asked so far come too late.
    fn begin_anew(&mut self, now: Duration) {
        self.correlation += 1;
        self.step = Step::Watching;
        self.act_at = now + LOOK_EVERY;
    }

    /// Looks at the next node, or begins to help the group that has waited for him the longest.
    fn act(&mut self, orders: &mut Orders<'_>) {
        self.correlation += 1;
        self.act_at = orders.now + PATIENCE;
        let due = self.calls.iter().min_by_key(|(_, since)| **since).map(|(group, since)| (*group, *since));
        match due {
            Some((group, since)) if orders.now >= since + self.reaction => {
                self.calls.remove(&group);
                let replicas = self.placement.iter().find(|(other, _)| *other == group);
                let replicas = replicas.map(|(_, replicas)| replicas.clone()).unwrap_or_default();
                for node in &replicas {
                    self.ask(*node, (group, &Request::GetDoubt), orders);
                }
                self.step = Step::Asking { group, replicas, said: BTreeMap::new() };
            }
            Some(_) | None => {
                self.step = Step::Watching;
                self.next_node = (self.next_node + 1) % self.nodes.len();
                self.ask(self.nodes[self.next_node], (GroupId::METADATA, &Request::GetStatus), orders);
            }
        }
    }

    /// Who calls, and who works without him.
    fn note(&mut self, replicas: &[GroupStatus], now: Duration) {
        for replica in replicas {
            let is_ours = self.placement.iter().any(|(group, _)| *group == replica.group);
            let calls = replica.problem.as_ref().is_some_and(|problem| problem.starts_with(CALL));
            if is_ours && calls {
                self.calls.entry(replica.group).or_insert(now);
            } else if matches!(replica.role, Role::Primary | Role::Backup) {
                self.calls.remove(&replica.group);
            }
        }
    }

    fn on_answer(&mut self, node: NodeId, answer: Answer, orders: &mut Orders<'_>) -> Result<(), Violation> {
        let now = orders.now;
        let step = std::mem::replace(&mut self.step, Step::Watching);
        match (step, answer) {
            (Step::Watching, Answer::Response(Response::Status(status))) => {
                self.note(&status.groups, now);
                self.act_at = now + LOOK_EVERY;
            }
            (Step::Asking { group, replicas, mut said }, Answer::Response(Response::Doubt(doubt))) => {
                said.insert(node, doubt);
                if said.len() < replicas.len() {
                    self.step = Step::Asking { group, replicas, said };
                    return Ok(());
                }
                return self.decide(group, &said, orders);
            }
            (Step::Forcing { group, mut left }, Answer::Response(Response::Doubt(_))) => {
                left.remove(0);
                self.force(group, left, orders);
            }
            (Step::Watching | Step::Asking { .. } | Step::Forcing { .. }, Answer::Refused(_)) => {
                self.begin_anew(now);
            }
            (step, answer) => {
                let detail = format!("{step:?}: {node} answered the operator with {answer:?}");
                return Err(Violation::new("unsound answer", detail));
            }
        }
        Ok(())
    }

    fn decide(
        &mut self,
        group: GroupId,
        said: &BTreeMap<NodeId, Doubt>,
        orders: &mut Orders<'_>,
    ) -> Result<(), Violation> {
        let (nodes, doubts): (Vec<NodeId>, Vec<Doubt>) = said.iter().unzip();
        match Recovery::plan(&doubts, nodes.len()) {
            Ok(Recovery { forced, head, log_end }) => {
                let left = LogEnd { op: head.as_raw(), offset: log_end.as_raw() };
                orders.oracle.forced(group, left)?;
                orders.forced += 1;
                self.force(group, forced.into_iter().map(|place| nodes[place]).collect(), orders);
            }
            Err(_) => self.begin_anew(orders.now),
        }
        Ok(())
    }

    /// Forces the first of those who are left.
    fn force(&mut self, group: GroupId, left: Vec<NodeId>, orders: &mut Orders<'_>) {
        let Some(first) = left.first().copied() else { return self.begin_anew(orders.now) };
        self.correlation += 1;
        self.act_at = orders.now + PATIENCE;
        self.ask(first, (group, &Request::ForceRecover), orders);
        self.step = Step::Forcing { group, left };
    }

    fn is_asked(&self, node: NodeId) -> bool {
        match &self.step {
            Step::Watching => self.nodes[self.next_node] == node,
            Step::Asking { replicas, said, .. } => replicas.contains(&node) && !said.contains_key(&node),
            Step::Forcing { left, .. } => left.first() == Some(&node),
        }
    }
}

impl Actor for Rescuer {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(placement) => {
                self.placement = placement;
                self.act_at = orders.now;
            }
            Happening::Answer(node, frame)
                if frame.header.correlation == self.correlation && self.is_asked(node) =>
            {
                self.on_answer(node, Answer::read(node, &frame)?, orders)?;
            }
            Happening::Lost(node) if self.is_asked(node) => self.begin_anew(orders.now),
            Happening::Wake | Happening::Answer(..) | Happening::Lost(_) | Happening::Healed => {}
        }
        if orders.now >= self.act_at {
            self.act(orders);
        }
        if self.act_at < Duration::MAX {
            orders.wake_at(self.act_at);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        None
    }
}
