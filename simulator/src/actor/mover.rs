//! An operator who has replicas come, go, and move from node to node while faults strike, and now and then thinks better of it.
//!
//! In the end he gives nothing up any more and waits until the metadata tells of no move: then he knows where the replicas are.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Request, Response};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Op};
use varve_protocol::metadata::{ClusterMap, MetadataOp, MetadataOutcome, Move, PartitionEntry};

use super::{Actor, Answer, Happening, Orders, Placement, request_frame};
use crate::oracle::Violation;
use crate::random::{chance, long_tail, pick};

/// The mean pause between two wishes.
const PAUSE: Duration = Duration::from_millis(150);

/// How long the metadata must have told of no move in the end: by then nothing is on its way that was asked for before.
const STILL_FOR: Duration = Duration::from_secs(3);

/// Wishes that go to whom, and are about whom, they should, in a thousand.
const KNOWS_BETTER_PERMILLE: u32 = 850;

/// Moves that are given up, in a thousand.
const GIVEN_UP_PERMILLE: u32 = 150;

/// Wishes for one replica more, in a thousand.
const ONE_MORE_PERMILLE: u32 = 250;

/// Wishes for one more or one less.
const ONE_MORE_OR_LESS_PERMILLE: u32 = 500;

/// Moves replicas.
#[derive(Debug)]
pub(crate) struct Mover {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    groups: Vec<GroupId>,
    rng: ChaCha8Rng,
    correlation: u64,
    act_at: Duration,
    /// The newest metadata seen.
    seen: Op,
    placement: Option<Placement>,
    /// Moves that are under way.
    under_way: BTreeMap<GroupId, Move>,
    /// Who led the metadata last.
    primary: Option<NodeId>,
    /// Since when no move is seen, after all faults.
    still_since: Option<Duration>,
    is_healed: bool,
    is_done: bool,
}

impl Mover {
    /// A mover that has moved nothing yet.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, rng: ChaCha8Rng) -> Self {
        Self {
            cluster,
            nodes,
            groups: Vec::new(),
            rng,
            correlation: 0,
            act_at: Duration::MAX,
            seen: Op::ZERO,
            placement: None,
            under_way: BTreeMap::new(),
            primary: None,
            still_since: None,
            is_healed: false,
            is_done: false,
        }
    }

    fn any_node(&mut self) -> NodeId {
        self.nodes[self.rng.random_range(0..self.nodes.len())]
    }

    fn act(&mut self, orders: &mut Orders<'_>) {
        let asked = match self.primary {
            Some(primary) if chance(&mut self.rng, KNOWS_BETTER_PERMILLE) => primary,
            Some(_) | None => self.any_node(),
        };
        let wants_map = self.is_healed || chance(&mut self.rng, 200);
        let request = if wants_map { Request::GetMap } else { Request::Change(self.wish()) };
        self.correlation += 1;
        orders.send(asked, request_frame(self.cluster, self.correlation, &request));
        self.act_at = orders.now + long_tail(&mut self.rng, PAUSE);
    }

    fn wish(&mut self) -> MetadataOp {
        let group = self.groups[self.rng.random_range(0..self.groups.len())];
        if chance(&mut self.rng, GIVEN_UP_PERMILLE) {
            // What is given up he now and then wants after all.
            return match self.under_way.get(&group).filter(|moving| moving.is_turned()) {
                Some(Move { from, to, .. }) => MetadataOp::MoveReplica { group, from: *to, to: *from },
                None => MetadataOp::CancelMove { group },
            };
        }
        let (mut from, mut to) = (self.any_node(), self.any_node());
        let holders = self.placement.iter().flatten().find(|(moved, _)| *moved == group);
        if let Some((_, holders)) = holders.cloned()
            && chance(&mut self.rng, KNOWS_BETTER_PERMILLE)
        {
            from = pick(&mut self.rng, &holders);
            let others: Vec<NodeId> =
                self.nodes.iter().copied().filter(|node| !holders.contains(node)).collect();
            if !others.is_empty() {
                to = pick(&mut self.rng, &others);
            }
        }
        match self.rng.random_range(0..1000) {
            0..ONE_MORE_PERMILLE => from = NodeId::ZERO,
            ONE_MORE_PERMILLE..ONE_MORE_OR_LESS_PERMILLE => to = NodeId::ZERO,
            _ => {}
        }
        MetadataOp::MoveReplica { group, from, to }
    }

    fn learn(&mut self, map: &ClusterMap, now: Duration) {
        let partitions: Vec<&PartitionEntry> = map
            .streams
            .iter()
            .flat_map(|stream| &stream.topics)
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| self.groups.contains(&partition.group))
            .collect();
        if map.op < self.seen || partitions.len() < self.groups.len() {
            return;
        }
        let is_moving = partitions.iter().any(|partition| partition.moving.is_some());
        if map.op > self.seen || is_moving {
            self.still_since = None;
        }
        self.seen = map.op;
        let under_way = |partition: &&PartitionEntry| Some((partition.group, partition.moving?));
        self.under_way = partitions.iter().filter_map(under_way).collect();
        self.placement =
            Some(partitions.iter().map(|partition| (partition.group, partition.replicas())).collect());
        if self.is_healed && !is_moving {
            let since = *self.still_since.get_or_insert(now);
            self.is_done = now >= since + STILL_FOR;
        }
    }
}

impl Actor for Mover {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(placement) => {
                self.groups = placement.iter().map(|(group, _)| *group).collect();
                self.act_at = orders.now;
            }
            Happening::Healed => self.is_healed = true,
            Happening::Answer(node, frame) => match Answer::read(node, &frame)? {
                Answer::Response(Response::Map(map)) => self.learn(&map, orders.now),
                Answer::Response(Response::Changed(outcome)) => {
                    self.primary = Some(node);
                    orders.moves += u64::from(outcome == MetadataOutcome::Done);
                }
                Answer::Refused(_) => self.primary = self.primary.filter(|primary| *primary != node),
                answer @ (Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_)) => {
                    let detail = format!("the wish for a move was answered with {answer:?}");
                    return Err(Violation::new("unsound answer", detail));
                }
            },
            Happening::Wake | Happening::Lost(_) => {}
        }
        if orders.now >= self.act_at && !self.is_done {
            self.act(orders);
        }
        if self.act_at < Duration::MAX && !self.is_done {
            orders.wake_at(self.act_at);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        (!self.is_done)
            .then(|| format!("replicas that are still moved, as of {}: {:?}", self.seen, self.under_way))
    }

    fn moved(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }
}
