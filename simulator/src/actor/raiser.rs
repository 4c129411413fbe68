//! The operator of a rolling upgrade: tries again and again to have the cluster go on to the next version (`varve cluster upgrade`). Too
//! early he is told which node does not know it; in the end, if all nodes run the next release, he must succeed.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{Request, Response};
use varve_protocol::id::{ClusterId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataError, MetadataOp, MetadataOutcome};
use varve_protocol::version::{Version, Versions};

use super::asker::Asker;
use super::{Actor, Answer, Happening, Orders};
use crate::oracle::Violation;
use crate::random::long_tail;

/// The mean pause between two tries.
const PAUSE: Duration = Duration::from_millis(700);

/// Raises the version of the cluster.
#[derive(Debug)]
pub(crate) struct Raiser {
    asker: Asker,
    /// Whether he must succeed in the end.
    must: bool,
    is_raised: bool,
    is_healed: bool,
}

impl Raiser {
    /// An operator who must succeed in the end, or need not.
    pub(crate) fn new(cluster: ClusterId, nodes: Vec<NodeId>, must: bool, rng: ChaCha8Rng) -> Self {
        Self { asker: Asker::new(cluster, nodes, rng), must, is_raised: false, is_healed: false }
    }

    fn try_later(&mut self, now: Duration) {
        let pause = long_tail(&mut self.asker.rng, PAUSE);
        self.asker.ask_at(now + pause);
    }

    fn on_answer(&mut self, answer: &Answer, now: Duration) -> Result<(), Violation> {
        match answer {
            Answer::Response(Response::Changed(
                MetadataOutcome::Done | MetadataOutcome::Refused(MetadataError::VersionReached(_)),
            )) => {
                self.is_raised = true;
                self.asker.ask_at(Duration::MAX);
            }
            Answer::Response(Response::Changed(MetadataOutcome::Refused(
                MetadataError::VersionUnknown { to, versions, .. },
            ))) if !versions.contains(*to) => self.try_later(now),
            Answer::Refused(refusal) if self.asker.is_sent_on(refusal, now) => {}
            Answer::Appended(_) | Answer::Fetched { .. } | Answer::Response(_) | Answer::Refused(_) => {
                let detail =
                    format!("the cluster was asked to go on to version {} and said {answer:?}", target());
                return Err(Violation::new("unsound answer", detail));
            }
        }
        Ok(())
    }
}

fn target() -> Version {
    Versions::OF_THE_NEXT_RELEASE.newest
}

impl Actor for Raiser {
    fn handle(&mut self, happening: Happening, orders: &mut Orders<'_>) -> Result<(), Violation> {
        match &happening {
            Happening::Placed(_) => self.try_later(orders.now),
            Happening::Healed => self.is_healed = true,
            Happening::Wake | Happening::Lost(_) | Happening::Answer(..) => {}
        }
        if let Some(answer) = self.asker.hear(happening, orders.now)? {
            self.on_answer(&answer, orders.now)?;
        }
        if self.is_raised || (self.is_healed && !self.must) {
            return Ok(());
        }
        if self.asker.is_due(orders.now) {
            let change = MetadataOp::RaiseVersion { to: target() };
            self.asker.ask(&Request::Change(change), (ProducerId::ZERO, 0), orders);
        }
        self.asker.sleep(orders);
        Ok(())
    }

    fn waits_for(&self) -> Option<String> {
        let waits = self.must && !self.is_raised;
        waits.then(|| format!("the cluster has not gone on to version {}", target()))
    }
}
