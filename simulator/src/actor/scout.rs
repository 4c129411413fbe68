//! A client that asks every node how it is, again and again: the eyes of a world that cannot look into its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_protocol::client::{Request, Response};
use varve_protocol::id::{ClusterId, NodeId};

use super::{Actor, Answer, Happening, Orders, request_frame};
use crate::oracle::Violation;

/// The pause between two questions to a node.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long a node may take before it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks every node for its status.
#[derive(Debug)]
pub(crate) struct Scout {
    cluster: ClusterId,
    ask_at: BTreeMap<NodeId, Duration>,
}

impl Scout {
    /// A scout among these nodes.
    pub(crate) fn new(cluster: ClusterId, nodes: &[NodeId]) -> Self {
        Self { cluster, ask_at: nodes.iter().map(|node| (*node, Duration::ZERO)).collect() }
    }
}

impl Actor for Scout {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Answer(node, frame) => {
                self.ask_at.insert(node, orders.now + ASK_EVERY);
                if let Answer::Response(Response::Status(status)) = Answer::read(node, &frame)? {
                    orders.statuses.push(status);
                }
            }
            Happening::Lost(node) => {
                self.ask_at.insert(node, orders.now + ASK_EVERY);
            }
            Happening::Wake | Happening::Placed(_) | Happening::Healed => {}
        }
        for (node, ask_at) in &mut self.ask_at {
            if *ask_at <= orders.now {
                *ask_at = orders.now + PATIENCE;
                orders.send(*node, request_frame(self.cluster, 1, &Request::GetStatus));
            }
        }
        if let Some(next) = self.ask_at.values().min() {
            orders.wake_at(*next);
        }
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        None
    }
}
