//! An operator who cannot leave well alone: has primaries moved from node to node while faults strike.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::id::{ClusterId, GroupId, NodeId};

use super::{Actor, Answer, Happening, Orders, request_frame};
use crate::oracle::Violation;
use crate::random::long_tail;

/// The mean pause between two wishes.
const PAUSE: Duration = Duration::from_millis(250);

/// Moves primaries.
#[derive(Debug)]
pub(crate) struct Balancer {
    cluster: ClusterId,
    nodes: Vec<NodeId>,
    /// The metadata, the partitions of the topic, and some groups that others may make.
    groups: u64,
    rng: ChaCha8Rng,
    correlation: u64,
    act_at: Duration,
}

impl Balancer {
    /// A balancer that has moved nothing yet.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, partitions: u32, rng: ChaCha8Rng) -> Self {
        let groups = u64::from(partitions) + 4;
        Self { cluster, nodes, groups, rng, correlation: 0, act_at: Duration::MAX }
    }

    fn act(&mut self, orders: &mut Orders<'_>) {
        let mut any = || self.nodes[self.rng.random_range(0..self.nodes.len())];
        let (asked, to) = (any(), any());
        self.correlation += 1;
        let mut frame = request_frame(self.cluster, self.correlation, &Request::HandOver { to });
        frame.header.group = GroupId::new(self.rng.random_range(0..self.groups));
        orders.send(asked, frame);
        self.act_at = orders.now + long_tail(&mut self.rng, PAUSE);
    }
}

impl Actor for Balancer {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match happening {
            Happening::Placed(_) => self.act_at = orders.now,
            Happening::Healed => self.act_at = Duration::MAX,
            Happening::Answer(node, frame) => match Answer::read(node, &frame)? {
                Answer::Response(Response::HandingOver) => orders.handovers += 1,
                Answer::Refused(
                    Refusal::NotPrimary { .. }
                    | Refusal::NoPrimary { .. }
                    | Refusal::UnknownGroup { .. }
                    | Refusal::NotPossible { .. }
                    // Of a replica whose log has lost its end, and that has heard the same of others.
                    | Refusal::Storage { .. },
                ) => {}
                answer @ (Answer::Appended(_)
                | Answer::Fetched { .. }
                | Answer::Response(_)
                | Answer::Refused(_)) => {
                    let detail = format!("the wish for another primary was answered with {answer:?}");
                    return Err(Violation::new("sound request refused", detail));
                }
            },
            Happening::Wake | Happening::Lost(_) => {}
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
