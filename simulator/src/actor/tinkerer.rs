//! A client that changes the metadata while faults strike: streams and topics come and go, each change exactly once.
//!
//! All names are its own, and it makes one change after the other in a session. So it knows what every answer must be: a
//! retry that is told "exists already" was done twice, a change that is told "does not exist" was lost. What it knows at the
//! end is compared with the map of every node.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::{ClusterId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};
use varve_protocol::retention::Retention;

use super::asker::Asker;
use super::{Actor, Answer, Happening, Orders, Streams};
use crate::oracle::Violation;
use crate::random::{chance, long_tail};

/// The mean pause between two changes.
const PAUSE: Duration = Duration::from_millis(400);

/// Changes made after the faults are over.
const GOAL: u64 = 2;

/// Streams that exist at the same time.
const STREAMS_MAX: usize = 4;

/// The topic in each of its streams.
const TOPIC: &str = "pebbles";

/// Changes streams and topics.
#[derive(Debug)]
pub(crate) struct Tinkerer {
    asker: Asker,
    replication_factor: u8,
    producer: Option<ProducerId>,
    /// The number of the change under way, or of the last one.
    request: u64,
    change: Option<MetadataOp>,
    /// Its streams, and the partitions of the topic in each, if there is one.
    streams: Streams,
    is_healed: bool,
    done_after_heal: u64,
}

impl Tinkerer {
    /// A tinkerer that has changed nothing yet.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, factor: u8, rng: ChaCha8Rng) -> Self {
        Self {
            asker: Asker::new(cluster, nodes, rng),
            replication_factor: factor,
            producer: None,
            request: 0,
            change: None,
            streams: Streams::new(),
            is_healed: false,
            done_after_heal: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.is_healed && self.done_after_heal >= GOAL && self.change.is_none()
    }

    /// The next change: something that must succeed.
    fn draw(&mut self) -> MetadataOp {
        let count = self.streams.len();
        let chosen = self.asker.rng.random_range(0..count.max(1));
        let grows = count == 0 || (count < STREAMS_MAX && chance(&mut self.asker.rng, 500));
        match self.streams.iter().nth(chosen).filter(|_| !grows) {
            None => MetadataOp::CreateStream { stream: format!("s{}", self.request) },
            Some((stream, Some(_))) => {
                MetadataOp::DeleteTopic { stream: stream.clone(), topic: TOPIC.to_owned() }
            }
            Some((stream, None)) if chance(&mut self.asker.rng, 300) => {
                MetadataOp::DeleteStream { stream: stream.clone() }
            }
            Some((stream, None)) => MetadataOp::CreateTopic {
                stream: stream.clone(),
                topic: TOPIC.to_owned(),
                partitions: self.asker.rng.random_range(1..=3),
                replication_factor: Some(self.replication_factor),
                retention: Retention::FOREVER,
                compression: Compression::None,
                durability: Durability::QuorumDisk,
            },
        }
    }

    fn apply(&mut self, change: MetadataOp) {
        match change {
            MetadataOp::CreateStream { stream } => {
                self.streams.insert(stream, None);
            }
            MetadataOp::DeleteStream { stream } => {
                self.streams.remove(&stream);
            }
            MetadataOp::CreateTopic { stream, partitions, .. } => {
                self.streams.insert(stream, Some(partitions));
            }
            MetadataOp::DeleteTopic { stream, .. } => {
                self.streams.insert(stream, None);
            }
            MetadataOp::RegisterNode { .. }
            | MetadataOp::RegisterProducer
            | MetadataOp::MoveReplica { .. }
            | MetadataOp::CancelMove { .. }
            | MetadataOp::FinishMove { .. }
            | MetadataOp::RaiseVersion { .. } => {}
        }
    }

    fn go_on_later(&mut self, now: Duration) {
        let pause = long_tail(&mut self.asker.rng, PAUSE);
        self.asker.ask_at(now + pause);
    }

    fn on_answer(&mut self, answer: &Answer, orders: &mut Orders<'_>) -> Result<(), Violation> {
        let client = orders.client;
        match answer {
            Answer::Response(Response::Changed(MetadataOutcome::Producer(producer)))
                if self.producer.is_none() =>
            {
                orders.oracle.registered(*producer, client)?;
                self.producer = Some(*producer);
                self.go_on_later(orders.now);
            }
            Answer::Response(Response::Changed(MetadataOutcome::Done)) => {
                if let Some(change) = self.change.take() {
                    self.apply(change);
                    self.done_after_heal += u64::from(self.is_healed);
                    orders.changes_made += 1;
                }
                self.go_on_later(orders.now);
            }
            Answer::Refused(refusal) if self.asker.is_sent_on(refusal, orders.now) => {
                orders.sessions_forgotten += u64::from(*refusal == Refusal::UnknownOutcome);
            }
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) | Answer::Refused(_) => {
                let detail = format!("client {client} asked for {:?} and was told {answer:?}", self.change);
                return Err(Violation::new("a change was lost or made twice", detail));
            }
        }
        Ok(())
    }

    fn act(&mut self, orders: &mut Orders<'_>) {
        let mut session = (ProducerId::ZERO, 0);
        let change = match (self.producer, &self.change) {
            (None, _) => MetadataOp::RegisterProducer,
            (Some(producer), Some(change)) => {
                session = (producer, self.request);
                change.clone()
            }
            (Some(producer), None) => {
                self.request += 1;
                let change = self.draw();
                self.change = Some(change.clone());
                session = (producer, self.request);
                change
            }
        };
        self.asker.ask(&Request::Change(change), session, orders);
    }
}

impl Actor for Tinkerer {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match &happening {
            Happening::Placed(_) => self.asker.ask_at(orders.now),
            Happening::Healed => self.is_healed = true,
            Happening::Wake | Happening::Lost(_) | Happening::Answer(..) => {}
        }
        if let Some(answer) = self.asker.hear(happening, orders.now)? {
            self.on_answer(&answer, orders)?;
        }
        if self.is_done() {
            return Ok(());
        }
        if self.asker.is_due(orders.now) {
            self.act(orders);
        }
        self.asker.sleep(orders);
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        let Self { change, done_after_heal, .. } = self;
        (!self.is_done()).then(|| format!("{done_after_heal} of {GOAL} new changes made, then {change:?}"))
    }

    fn streams(&self) -> Option<&Streams> {
        Some(&self.streams)
    }
}
