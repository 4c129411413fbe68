//! The operator of a rolling upgrade: tries again and again to have the cluster go on to the next version (`varve cluster upgrade`). Too
//! early he is told which node does not know it; in the end, if all nodes run the next release, he must succeed.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::id::{ClusterId, NodeId};
use varve_protocol::metadata::{MetadataError, MetadataOp, MetadataOutcome};
use varve_protocol::version::{Version, Versions};

use super::{Actor, Answer, Happening, Orders, request_frame};
use crate::oracle::Violation;
use crate::random::long_tail;

/// The mean pause between two tries.
const PAUSE: Duration = Duration::from_millis(700);

/// The pause before another node is asked.
const RETRY: Duration = Duration::from_millis(30);

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Raises the version of the cluster.
#[derive(Debug)]
pub(crate) struct Raiser {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    rng: ChaCha8Rng,
    /// Whether he must succeed in the end.
    must: bool,
    is_raised: bool,
    is_healed: bool,
    target: usize,
    correlation: u64,
    act_at: Duration,
    is_awaiting: bool,
}

impl Raiser {
    /// An operator who must succeed in the end, or need not.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, must: bool, rng: ChaCha8Rng) -> Self {
        Self {
            cluster,
            nodes,
            rng,
            must,
            is_raised: false,
            is_healed: false,
            target: 0,
            correlation: 0,
            act_at: Duration::MAX,
            is_awaiting: false,
        }
    }

    fn act(&mut self, orders: &mut Orders<'_>) {
        self.correlation += 1;
        self.is_awaiting = true;
        self.act_at = orders.now + PATIENCE;
        let change = MetadataOp::RaiseVersion { to: target() };
        let frame = request_frame(self.cluster, self.correlation, &Request::Change(change));
        orders.send(self.nodes[self.target], frame);
    }

    fn on_answer(&mut self, answer: Answer, orders: &mut Orders<'_>) -> Result<(), Violation> {
        self.is_awaiting = false;
        match answer {
            Answer::Response(Response::Changed(
                MetadataOutcome::Done | MetadataOutcome::Refused(MetadataError::VersionReached(_)),
            )) => {
                self.is_raised = true;
                self.act_at = Duration::MAX;
            }
            Answer::Response(Response::Changed(MetadataOutcome::Refused(
                MetadataError::VersionUnknown { to, versions, .. },
            ))) if !versions.contains(to) => self.act_at = orders.now + long_tail(&mut self.rng, PAUSE),
            Answer::Refused(Refusal::NotPrimary { primary, .. }) => {
                let known = self.nodes.iter().position(|node| *node == primary);
                self.try_elsewhere(orders.now, known);
            }
            Answer::Refused(refusal) if refusal.is_retryable() || refusal == Refusal::UnknownOutcome => {
                self.try_elsewhere(orders.now, None);
            }
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) | Answer::Refused(_) => {
                let detail =
                    format!("the cluster was asked to go on to version {} and said {answer:?}", target());
                return Err(Violation::new("unsound answer", detail));
            }
        }
        Ok(())
    }

    fn try_elsewhere(&mut self, now: Duration, target: Option<usize>) {
        self.target = target.unwrap_or_else(|| self.rng.random_range(0..self.nodes.len()));
        self.act_at = now + RETRY;
    }
}

fn target() -> Version {
    Versions::OF_THE_NEXT_RELEASE.newest
}

impl Actor for Raiser {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(_) => self.act_at = orders.now + long_tail(&mut self.rng, PAUSE),
            Happening::Healed => self.is_healed = true,
            Happening::Lost(node) if self.is_awaiting && node == self.nodes[self.target] => {
                self.is_awaiting = false;
                self.try_elsewhere(orders.now, None);
            }
            Happening::Answer(node, frame)
                if self.is_awaiting && frame.header.correlation == self.correlation =>
            {
                self.on_answer(Answer::read(node, &frame)?, orders)?;
            }
            Happening::Wake | Happening::Lost(_) | Happening::Answer(..) => {}
        }
        if self.is_raised || (self.is_healed && !self.must) {
            return Ok(());
        }
        if orders.now >= self.act_at {
            if self.is_awaiting {
                self.target = self.rng.random_range(0..self.nodes.len());
            }
            self.act(orders);
        }
        if self.act_at < Duration::MAX {
            orders.wake_at(self.act_at);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        let waits = self.must && !self.is_raised;
        waits.then(|| format!("the cluster has not gone on to version {}", target()))
    }
}
