//! A client that asks where partitions end now, of whoever may or may not know: nodes that lead, that follow, that led once.
//!
//! It does not wait for one answer before it asks again, so that a node that hangs, or is cut off from its peers, has questions
//! to answer that were asked after it had lost its place.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{PartitionOffsets, Refusal, Request, Response};
use varve_protocol::id::{ClusterId, NodeId};

use super::{Actor, Answer, Happening, Orders, Placement, request_frame};
use crate::oracle::{EndQuestion, Violation};
use crate::random::{chance, long_tail};

/// The mean pause between two questions.
const PAUSE: Duration = Duration::from_millis(30);

/// Questions under way; the oldest is given up for a new one.
const ASKED_MAX: usize = 256;

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    node: NodeId,
    partition: usize,
    question: EndQuestion,
}

/// What is known of a partition.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// Who leads it, as somebody said.
    primary: Option<NodeId>,
    /// It was told where the partition ends since the faults are over.
    has_recovered: bool,
}

/// Asks for the latest ends of partitions.
#[derive(Debug)]
pub(crate) struct Surveyor {
    cluster: ClusterId,
    rng: ChaCha8Rng,
    placement: Placement,
    known: Vec<Known>,
    asked: BTreeMap<u64, Asked>,
    correlation: u64,
    ask_at: Duration,
    is_healed: bool,
}

impl Surveyor {
    /// A surveyor that draws its questions from `rng`.
    pub(crate) fn new(cluster: ClusterId, rng: ChaCha8Rng) -> Self {
        Self {
            cluster,
            rng,
            placement: Vec::new(),
            known: Vec::new(),
            asked: BTreeMap::new(),
            correlation: 0,
            ask_at: Duration::MAX,
            is_healed: false,
        }
    }

    fn ask(&mut self, orders: &mut Orders<'_>) {
        let Some(partition) = self.pick_partition() else { return };
        let (group, replicas) = &self.placement[partition];
        let any = replicas[self.rng.random_range(0..replicas.len())];
        let knows_better = chance(&mut self.rng, 500);
        let node = self.known[partition].primary.filter(|_| knows_better).unwrap_or(any);
        let question = orders.oracle.end_asked(*group);
        self.correlation += 1;
        self.asked.insert(self.correlation, Asked { node, partition, question });
        if self.asked.len() > ASKED_MAX {
            self.asked.pop_first();
        }
        let mut frame = request_frame(self.cluster, self.correlation, &Request::GetLatestOffsets);
        frame.header.group = *group;
        orders.send(node, frame);
        self.ask_at = orders.now + long_tail(&mut self.rng, PAUSE);
    }

    /// Any partition; in the end one that has not recovered, if there is one.
    fn pick_partition(&mut self) -> Option<usize> {
        if self.is_healed {
            return self.known.iter().position(|known| !known.has_recovered);
        }
        Some(self.rng.random_range(0..self.placement.len()))
    }

    fn on_answer(&mut self, answer: &Answer, asked: Asked, orders: &mut Orders<'_>) -> Result<(), Violation> {
        let known = &mut self.known[asked.partition];
        match answer {
            Answer::Response(Response::Offsets(PartitionOffsets { high_watermark, primary, .. })) => {
                orders.oracle.end_told(asked.question, asked.node, high_watermark.as_raw())?;
                orders.ends_confirmed += 1;
                *known = Known {
                    primary: Some(*primary).filter(|primary| *primary != NodeId::ZERO),
                    has_recovered: self.is_healed,
                };
                Ok(())
            }
            Answer::Refused(Refusal::NotPrimary { primary, .. }) => {
                known.primary = Some(*primary).filter(|primary| *primary != NodeId::ZERO);
                Ok(())
            }
            Answer::Refused(
                Refusal::NoPrimary { .. }
                | Refusal::UnknownGroup { .. }
                | Refusal::Storage { .. }
                | Refusal::DiskFull { .. },
            ) => {
                known.primary = None;
                Ok(())
            }
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) | Answer::Refused(_) => {
                let detail =
                    format!("the question for an end was answered by {} with {answer:?}", asked.node);
                Err(Violation::new("sound request refused", detail))
            }
        }
    }
}

impl Actor for Surveyor {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(placement) => {
                self.known = vec![Known::default(); placement.len()];
                self.placement = placement;
                self.ask_at = orders.now;
            }
            Happening::Healed => {
                self.is_healed = true;
                // What was asked before proves nothing of what comes after.
                self.asked.clear();
            }
            Happening::Lost(node) => self.asked.retain(|_, asked| asked.node != node),
            Happening::Answer(node, frame) => {
                let answer = Answer::read(node, &frame)?;
                if let Some(asked) = self.asked.remove(&frame.header.correlation) {
                    self.on_answer(&answer, asked, orders)?;
                }
            }
            Happening::Wake => {}
        }
        if orders.now >= self.ask_at {
            self.ask(orders);
        }
        if self.ask_at < Duration::MAX && (!self.is_healed || self.waits_for().is_some()) {
            orders.wake_at(self.ask_at);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        let late = self.known.iter().position(|known| self.is_healed && !known.has_recovered)?;
        Some(format!("nobody says where {} ends", self.placement[late].0))
    }
}
