//! Disks that are slow, that fail, and that lose their power.
//!
//! A node whose disk fails says so and ends: that is what is promised, so it is no death by itself. One that ends without
//! saying what failed is one. It is started again when its disk is good.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::IteratorRandom as _;

use super::{BUSY, Fault, Needs, Struck};
use crate::cluster::Status;
use crate::faulty_disk::{Bad, Failing};
use crate::recorder::Phase;

/// The slowest that a sync gets, as a power of ten of milliseconds: two seconds.
const SYNC_EXPONENT: std::ops::Range<f64> = 0.0..3.3;

/// How slow reads and writes get, where they do.
const TRANSFER_MS: std::ops::Range<u64> = 1..30;

/// How long the data of nodes must have been open, before it is known what of it is not synced.
const WELL_FIRST: Duration = Duration::from_secs(8);

impl Fault {
    pub(super) async fn slow_disk(&mut self) -> Struck {
        let nodes = self.some_nodes();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        let sync = Duration::from_secs_f64(10_f64.powf(self.rng.random_range(SYNC_EXPONENT)) / 1_000.0);
        let transfer = if self.rng.random() { self.rng.random_range(TRANSFER_MS) } else { 0 };
        let bad = Bad { transfer: Duration::from_millis(transfer), sync, failing: None };
        let ms = sync.as_millis();
        self.note(
            Phase::Begin,
            format!(
                "the disks of nodes {nodes:?} take {ms} ms more for a sync, {transfer} ms to read or write"
            ),
        );
        for node in &nodes {
            self.cluster().disk_control(*node)?.spoil(bad);
        }
        self.last().await;
        let mut hits = 0;
        for node in &nodes {
            hits += self.cluster().disk_control(*node)?.mend();
        }
        self.note(
            Phase::End,
            format!("the disks of nodes {nodes:?} are fast again; they held up {hits} times"),
        );
        Ok(if hits == 0 { Err("nobody used the disk".to_owned()) } else { Ok(()) })
    }

    pub(super) async fn failing_disk(&mut self) -> Struck {
        let few = self.rng.random_range(1..=self.cluster().minority().max(1));
        let nodes: BTreeSet<u8> =
            self.cluster().ids().choose_multiple(&mut self.rng, few).into_iter().collect();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        if let Err(why) = self.all_are_well(&nodes).await {
            return Ok(Err(why));
        }
        let (failing, words) = match self.rng.random_range(0..3) {
            0 => (Failing::Writes, "write"),
            1 => (Failing::Syncs, "sync"),
            _ => (Failing::SyncsWithLoss, "sync, and forget what they were given"),
        };
        self.note(Phase::Begin, format!("the disks of nodes {nodes:?} fail to {words}"));
        for node in &nodes {
            self.cluster().disk_control(*node)?.spoil(Bad { failing: Some(failing), ..Bad::default() });
            self.cluster().expect_disk_error(*node).await;
        }
        self.last().await;
        let mut ended = Vec::new();
        let mut hits = 0;
        for node in &nodes {
            let failures = self.cluster().disk_control(*node)?.mend();
            hits += failures;
            if self.cluster().has_ended_of_disk_error(*node, failures).await? {
                ended.push(*node);
            }
        }
        self.note(
            Phase::End,
            format!("good again after {hits} failures; nodes {ended:?} ended and are back"),
        );
        Ok(if hits == 0 { Err("nobody used the disk".to_owned()) } else { Ok(()) })
    }

    pub(super) async fn power_cut(&mut self) -> Struck {
        let nodes = self.some_nodes();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        if let Err(why) = self.all_are_well(&nodes).await {
            return Ok(Err(why));
        }
        for node in &nodes {
            self.cluster().disk_control(*node)?.remember();
        }
        self.last().await;
        let mut lost = 0;
        for node in &nodes {
            self.cluster().kill(*node).await?;
        }
        for node in &nodes {
            let control = self.cluster().disk_control(*node)?.clone();
            lost += control.cut_power(&mut self.rng)?;
        }
        self.note(
            Phase::Begin,
            format!("nodes {nodes:?} lose power, and {lost} writes that were not synced"),
        );
        self.last().await;
        for node in &nodes {
            self.cluster().start(*node).await?;
        }
        self.note(Phase::End, format!("nodes {nodes:?} were started again"));
        Ok(Ok(()))
    }

    /// Waits a moment for nodes to have opened their data.
    async fn all_are_well(&self, nodes: &BTreeSet<u8>) -> Result<(), String> {
        let well = |status: &Status| nodes.iter().all(|node| status.is_node_well(*node));
        let waited = self.cluster().wait_until(WELL_FIRST, well).await;
        waited.map(|_| ()).map_err(|complaints| format!("not all of {nodes:?} are well: {complaints}"))
    }
}
