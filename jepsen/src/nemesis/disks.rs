//! What is done to disks: rot, loss, and no space left.
//!
//! Rot and loss hit one node at a time. The next may only be hit when that one has all it should have: what is on a majority of
//! disks is promised to survive, and no more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rand::seq::IteratorRandom as _;

use super::damage::damage;
use super::{BUSY, Fault, Hold, Needs, Struck};
use crate::cluster::{Status, WELL_WITHIN};
use crate::recorder::Phase;

impl Fault {
    /// A node whose data may be taken: all others have theirs.
    async fn victim(&mut self) -> Result<(u8, Hold), String> {
        let node = self.some_node();
        let nodes = BTreeSet::from([node]);
        let hold = self.nemesis.take(Needs { nodes, damage: true, ..Needs::default() }).ok_or(BUSY)?;
        let all_well = |status: &Status| self.cluster().ids().all(|id| status.is_node_well(id));
        match self.cluster().wait_until(Duration::from_secs(3), all_well).await {
            Ok(_) => Ok((node, hold)),
            Err(complaints) => Err(format!("not all nodes have their data: {complaints}")),
        }
    }

    /// Waits until a node has its data back, so that another one may be hit.
    async fn wait_for_data(&self, node: u8) {
        let well = |status: &Status| status.is_node_well(node);
        match self.cluster().wait_until(WELL_WITHIN, well).await {
            Ok(time) => {
                self.note(Phase::End, format!("node {node} was well after {:.1} s", time.as_secs_f64()))
            }
            Err(complaints) => self.note(Phase::End, format!("node {node} is still not well: {complaints}")),
        }
    }

    pub(super) async fn corrupt_files(&mut self) -> Struck {
        let (node, hold) = match self.victim().await {
            Ok(victim) => victim,
            Err(why) => return Ok(Err(why)),
        };
        // The dead and the stopped leave different ends behind.
        if rand::Rng::random(&mut self.rng) {
            self.cluster().kill(node).await?;
        } else {
            self.cluster().stop(node).await?;
        }
        let data_dir = self.cluster().data_dir(node);
        let done = damage(&data_dir, &mut self.rng).with_context(|| format!("cannot damage node {node}"))?;
        self.note(
            Phase::Begin,
            format!("node {node} is down: {}", done.as_deref().unwrap_or("nothing to damage")),
        );
        self.last().await;
        self.cluster().start(node).await?;
        self.wait_for_data(node).await;
        drop(hold);
        Ok(done.map(|_| ()).ok_or_else(|| format!("node {node} has nothing yet that may be damaged")))
    }

    pub(super) async fn lose_disk(&mut self) -> Struck {
        let (node, hold) = match self.victim().await {
            Ok(victim) => victim,
            Err(why) => return Ok(Err(why)),
        };
        self.note(Phase::Begin, format!("node {node} is killed and loses its data directory"));
        self.cluster().kill(node).await?;
        let data_dir = self.cluster().data_dir(node);
        fs::remove_dir_all(&data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))?;
        self.last().await;
        self.cluster().format(node).await?;
        self.cluster().start(node).await?;
        self.wait_for_data(node).await;
        drop(hold);
        Ok(Ok(()))
    }

    pub(super) async fn disk_full(&mut self) -> Struck {
        let count = self.cluster().minority().max(1);
        let few = rand::Rng::random_range(&mut self.rng, 1..=count);
        let nodes: BTreeSet<u8> =
            self.cluster().ids().choose_multiple(&mut self.rng, few).into_iter().collect();
        let needs = Needs { nodes: nodes.clone(), ..Needs::default() };
        let Some(_hold) = self.nemesis.take(needs) else { return Ok(Err(BUSY.to_owned())) };
        self.note(Phase::Begin, format!("the disks of nodes {nodes:?} are full"));
        for node in &nodes {
            let ballast = self.cluster().disk(*node).join("ballast");
            tokio::task::spawn_blocking(move || fill(&ballast)).await?.context("cannot fill a disk")?;
        }
        self.last().await;
        for node in &nodes {
            let ballast = self.cluster().disk(*node).join("ballast");
            fs::remove_file(&ballast).with_context(|| format!("cannot remove {}", ballast.display()))?;
        }
        self.note(Phase::End, format!("the disks of nodes {nodes:?} have space again"));
        Ok(Ok(()))
    }
}

/// Writes until there is no space left.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    // Smaller and smaller pieces, so that nothing is left.
    for size in [1 << 20, 4096, 1] {
        let piece = vec![0x5a; size];
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
