//! Bad networks: what some nodes send is delayed, lost, reordered, doubled, corrupted or slow. The kernel's netem does it.

use anyhow::Context as _;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;

use super::kind::Shape;
use super::{BUSY, Fault, Needs, Struck};
use crate::recorder::Phase;

impl Fault {
    pub(super) async fn shape(&mut self, shape: Shape) -> Struck {
        let needs = Needs { shape: true, ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        let count = self.rng.random_range(1..=self.cluster().ids().count());
        let nodes = self.cluster().ids().choose_multiple(&mut self.rng, count);
        let rng = &mut self.rng;
        let how = match shape {
            Shape::Delay => format!("delay {}ms {}ms", rng.random_range(1..80), rng.random_range(1..40)),
            Shape::Loss => format!("loss {}%", rng.random_range(1..25)),
            Shape::Reorder => {
                format!("delay {}ms reorder {}% 50%", rng.random_range(2..20), rng.random_range(5..60))
            }
            Shape::Duplicate => format!("duplicate {}%", rng.random_range(1..30)),
            Shape::CorruptPackets => format!("corrupt {}%", rng.random_range(1..10)),
            Shape::Rate => format!("rate {}kbit", rng.random_range(500..20_000)),
        };
        let cluster = self.nemesis.cluster.clone();
        let network = cluster.network.faulty().context("links can only be shaped between namespaces")?;
        self.note(Phase::Begin, format!("what nodes {nodes:?} send has {how}"));
        for node in &nodes {
            network.shape(*node, &how).await?;
        }
        self.last().await;
        for node in &nodes {
            network.unshape(*node).await?;
        }
        self.note(Phase::End, "all links are good");
        Ok(Ok(()))
    }
}
