//! Bad networks: what some nodes send is delayed, lost, reordered, doubled, corrupted or slow. The kernel's netem does it,
//! or the harness where there is none.

use anyhow::Context as _;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;

use super::kind::Shape;
use super::{BUSY, Fault, Needs, Struck};
use crate::network;
use crate::recorder::Phase;

impl Fault {
    pub(super) async fn shape(&mut self, shape: Shape) -> Struck {
        let needs = Needs { shape: true, ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        let count = self.rng.random_range(1..=self.cluster().ids().count());
        let nodes = self.cluster().ids().choose_multiple(&mut self.rng, count);
        let rng = &mut self.rng;
        let good = network::Shape::default();
        let bad = match shape {
            Shape::Delay => network::Shape {
                delay_ms: rng.random_range(1..80),
                jitter_ms: rng.random_range(1..40),
                ..good
            },
            Shape::Loss => network::Shape { loss_percent: rng.random_range(1..25), ..good },
            Shape::Reorder => {
                let (delay_ms, reorder_percent) = (rng.random_range(2..20), rng.random_range(5..60));
                network::Shape { delay_ms, reorder_percent, ..good }
            }
            Shape::Duplicate => network::Shape { duplicate_percent: rng.random_range(1..30), ..good },
            Shape::CorruptPackets => network::Shape { corrupt_percent: rng.random_range(1..10), ..good },
            Shape::Rate => network::Shape { rate_kbit: rng.random_range(500..20_000), ..good },
        };
        let cluster = self.nemesis.cluster.clone();
        let links = cluster.network.faulty().context("links can only be shaped between namespaces")?;
        self.note(Phase::Begin, format!("what nodes {nodes:?} send has {bad}"));
        for node in &nodes {
            links.shape(*node, bad).await?;
        }
        self.last().await;
        for node in &nodes {
            links.unshape(*node).await?;
        }
        self.note(Phase::End, "all links are good");
        Ok(Ok(()))
    }
}
