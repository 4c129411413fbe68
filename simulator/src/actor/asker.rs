//! What clients share that want one thing of the metadata at a time: a node is asked, and another one if it is lost, does not answer in
//! time, or sends them on.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Refusal, Request};
use varve_protocol::id::{ClusterId, NodeId, Op, ProducerId};

use super::{Answer, Happening, Orders, request_frame};
use crate::oracle::Violation;

/// The pause before another node is asked.
const RETRY: Duration = Duration::from_millis(30);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who is asked, and when.
#[derive(Debug)]
pub(super) struct Asker {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    pub(super) rng: ChaCha8Rng,
    target: usize,
    correlation: u64,
    act_at: Duration,
    is_awaiting: bool,
}

impl Asker {
    /// One that asks nothing yet.
    pub(super) fn new(cluster: ClusterId, nodes: Vec<NodeId>, rng: ChaCha8Rng) -> Self {
        Self { cluster, nodes, rng, target: 0, correlation: 0, act_at: Duration::MAX, is_awaiting: false }
    }

    /// Something is to be asked at this time; at the end of time: nothing any more.
    pub(super) fn ask_at(&mut self, at: Duration) {
        self.act_at = at;
    }

    /// The answer to what was asked last, if that is what has happened.
    pub(super) fn hear(&mut self, happening: Happening, now: Duration) -> Result<Option<Answer>, Violation> {
        match happening {
            Happening::Lost(node) if self.is_awaiting && node == self.nodes[self.target] => {
                self.try_elsewhere(now, None);
            }
            Happening::Answer(node, frame)
                if self.is_awaiting && frame.header.correlation == self.correlation =>
            {
                self.is_awaiting = false;
                return Answer::read(node, &frame).map(Some);
            }
            Happening::Wake
            | Happening::Lost(_)
            | Happening::Answer(..)
            | Happening::Placed(_)
            | Happening::Healed => {}
        }
        Ok(None)
    }

    /// Asks again elsewhere, if this is why; says whether it is.
    pub(super) fn is_sent_on(&mut self, refusal: &Refusal, now: Duration) -> bool {
        let named = if let Refusal::NotPrimary { primary, .. } = refusal { Some(*primary) } else { None };
        let is_sent_on = named.is_some() || refusal.is_retryable() || *refusal == Refusal::UnknownOutcome;
        if is_sent_on {
            self.try_elsewhere(now, named);
        }
        is_sent_on
    }

    fn try_elsewhere(&mut self, now: Duration, named: Option<NodeId>) {
        self.is_awaiting = false;
        let known = named.and_then(|named| self.nodes.iter().position(|node| *node == named));
        // In turn, two who name each other would never let go of it.
        self.target = known.unwrap_or_else(|| self.rng.random_range(0..self.nodes.len()));
        self.act_at = now + RETRY;
    }

    /// Whether it is time to ask. Who has not answered in time is not asked again.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.act_at;
        if is_due && self.is_awaiting {
            self.target = self.rng.random_range(0..self.nodes.len());
        }
        is_due
    }

    /// Asks, as a producer with the number of its request, or as nobody (zero).
    pub(super) fn ask(
        &mut self,
        request: &Request,
        (producer, number): (ProducerId, u64),
        orders: &mut Orders<'_>,
    ) {
        self.correlation += 1;
        self.is_awaiting = true;
        self.act_at = orders.now + PATIENCE;
        let mut frame = request_frame(self.cluster, self.correlation, request);
        frame.header.commit = producer.as_raw();
        frame.header.op = Op::new(number);
        orders.send(self.nodes[self.target], frame);
    }

    /// Wishes to be woken when there is something to ask.
    pub(super) fn sleep(&self, orders: &mut Orders<'_>) {
        if self.act_at < Duration::MAX {
            orders.wake_at(self.act_at);
        }
    }
}
