//! The client that creates the stream and the topic, whatever the weather, and finds out where the partitions are.

use std::time::Duration;

use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, NodeId};
use varve_protocol::metadata::{ClusterMap, MetadataError, MetadataOp, MetadataOutcome, StreamEntry};
use varve_protocol::retention::Retention;

use super::{Actor, Answer, Happening, Orders, Placement, Streams, request_frame};
use crate::oracle::Violation;
use crate::scenario::Scenario;

/// The name of the stream and of the topic in it.
pub(crate) const NAME: &str = "sediment";

/// The pause before it asks again.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    CreateStream,
    CreateTopic,
    GetMap,
    Done,
}

/// Creates one stream and one topic.
#[derive(Debug)]
pub(crate) struct Operator {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    partitions: u32,
    replication_factor: u8,
    retention: Retention,
    durability: Durability,
    compression: Compression,
    patience: Duration,
    step: Step,
    target: usize,
    correlation: u64,
    ask_at: Option<Duration>,
    deadline: Duration,
    placement: Option<Placement>,
}

impl Operator {
    /// An operator for the topic of a scenario.
    pub(crate) fn new(cluster: ClusterId, scenario: &Scenario) -> Self {
        Self {
            cluster,
            nodes: scenario.node_ids().collect(),
            partitions: scenario.partitions,
            replication_factor: scenario.replication_factor,
            retention: scenario.load.retention,
            durability: scenario.durability,
            compression: scenario.load.compression,
            patience: scenario.load.patience.max(Duration::from_millis(500)),
            step: Step::CreateStream,
            target: 0,
            correlation: 0,
            ask_at: Some(Duration::ZERO),
            deadline: Duration::ZERO,
            placement: None,
        }
    }

    fn request(&self) -> Request {
        let (stream, topic) = (NAME.to_owned(), NAME.to_owned());
        match self.step {
            Step::CreateStream => Request::Change(MetadataOp::CreateStream { stream }),
            Step::CreateTopic => Request::Change(MetadataOp::CreateTopic {
                stream,
                topic,
                partitions: self.partitions,
                replication_factor: Some(self.replication_factor),
                retention: self.retention,
                durability: self.durability,
                compression: self.compression,
            }),
            Step::GetMap | Step::Done => Request::GetMap,
        }
    }

    fn ask_again(&mut self, now: Duration, target: Option<NodeId>) {
        let known = target.and_then(|node| self.nodes.iter().position(|other| *other == node));
        self.target = known.unwrap_or((self.target + 1) % self.nodes.len());
        self.ask_at = Some(now + RETRY);
    }

    fn on_answer(&mut self, answer: Answer, now: Duration) -> Result<(), Violation> {
        match answer {
            Answer::Response(Response::Changed(outcome)) => self.on_changed(&outcome, now),
            Answer::Response(Response::Map(map)) => {
                self.placement = placement(&map);
                match &self.placement {
                    Some(placement) => {
                        verify_placement(placement, self.partitions, self.replication_factor)?;
                        self.step = Step::Done;
                    }
                    None => self.ask_again(now, None),
                }
                Ok(())
            }
            Answer::Refused(Refusal::NotPrimary { primary, .. }) => {
                self.ask_again(now, (primary != NodeId::ZERO).then_some(primary));
                Ok(())
            }
            Answer::Refused(refusal) if refusal.is_retryable() || refusal == Refusal::UnknownOutcome => {
                self.ask_again(now, None);
                Ok(())
            }
            Answer::Refused(refusal) => {
                Err(Violation::new("sound request refused", format!("the operator was told: {refusal}")))
            }
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) => {
                Err(Violation::new("unsound answer", "the operator got what it had not asked for".to_owned()))
            }
        }
    }

    fn on_changed(&mut self, outcome: &MetadataOutcome, now: Duration) -> Result<(), Violation> {
        match outcome {
            MetadataOutcome::Done
            | MetadataOutcome::Refused(MetadataError::StreamExists(_) | MetadataError::TopicExists(_)) => {
                self.step = match self.step {
                    Step::CreateStream => Step::CreateTopic,
                    Step::CreateTopic | Step::GetMap | Step::Done => Step::GetMap,
                };
                self.ask_at = Some(now);
                Ok(())
            }
            // The nodes register themselves when the metadata group first works; until then there is no room.
            MetadataOutcome::Refused(MetadataError::BadReplicationFactor { .. }) => {
                self.ask_again(now, Some(self.nodes[self.target]));
                Ok(())
            }
            MetadataOutcome::Refused(error) => {
                Err(Violation::new("sound request refused", format!("the operator was told: {error}")))
            }
            MetadataOutcome::Producer(_) => {
                Err(Violation::new("unsound answer", "the operator was registered as a producer".to_owned()))
            }
        }
    }
}

impl Actor for Operator {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        if self.step == Step::Done {
            return Ok(());
        }
        match happening {
            Happening::Answer(node, frame) if self.is_answer(&frame) => {
                self.on_answer(Answer::read(node, &frame)?, orders.now)?;
            }
            Happening::Lost(node) if node == self.nodes[self.target] && self.ask_at.is_none() => {
                self.ask_again(orders.now, None);
            }
            Happening::Wake
            | Happening::Answer(..)
            | Happening::Lost(_)
            | Happening::Placed(_)
            | Happening::Healed => {}
        }
        if self.step == Step::Done {
            return Ok(());
        }
        if self.ask_at.is_none() && orders.now >= self.deadline {
            self.ask_again(orders.now, None);
        }
        if self.ask_at.is_some_and(|at| at <= orders.now) {
            self.ask_at = None;
            self.correlation += 1;
            self.deadline = orders.now + self.patience;
            orders.send(
                self.nodes[self.target],
                request_frame(self.cluster, self.correlation, &self.request()),
            );
        }
        orders.wake_at(self.ask_at.unwrap_or(self.deadline));
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        (self.step != Step::Done).then(|| format!("the operator is still at {:?}", self.step))
    }

    fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }
}

impl Operator {
    fn is_answer(&self, frame: &Frame) -> bool {
        frame.header.correlation == self.correlation && self.ask_at.is_none()
    }
}

/// Where a cluster map says that the partitions of the topic are; `None` if it does not know the topic.
pub(crate) fn placement(map: &ClusterMap) -> Option<Placement> {
    let stream = map.streams.iter().find(|stream| stream.name == NAME)?;
    let topic = stream.topics.iter().find(|topic| topic.name == NAME)?;
    Some(topic.partitions.iter().map(|partition| (partition.group, partition.replicas())).collect())
}

/// The streams in a cluster map beside that of the workload.
pub(crate) fn other_streams(map: &ClusterMap) -> Streams {
    let others = map.streams.iter().filter(|stream| stream.name != NAME);
    let partitions = |stream: &StreamEntry| {
        let topic = stream.topics.first()?;
        u32::try_from(topic.partitions.len()).ok()
    };
    others.map(|stream| (stream.name.clone(), partitions(stream))).collect()
}

fn verify_placement(placement: &Placement, partitions: u32, factor: u8) -> Result<(), Violation> {
    let has_all = placement.len() == partitions as usize;
    let is_full = |replicas: &Vec<NodeId>| {
        let distinct: std::collections::BTreeSet<_> = replicas.iter().collect();
        replicas.len() == usize::from(factor) && distinct.len() == replicas.len()
    };
    if has_all && placement.iter().all(|(_, replicas)| is_full(replicas)) {
        return Ok(());
    }
    let detail = format!("{partitions} partitions of {factor} replicas were wanted: {placement:?}");
    Err(Violation::new("wrong placement", detail))
}
