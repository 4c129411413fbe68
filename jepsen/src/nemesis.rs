//! Breaks things by a plan that is drawn from the seed, and mends them again.
//!
//! The plan says when which kind of fault begins, how long it lasts, and gives it a seed of its own, from which everything else is
//! drawn when it strikes: which nodes, which links, which bits. Some of that depends on how the cluster is then, as who leads, so
//! a seed repeats the plan and not each detail.
//!
//! Faults may overlap if they do not want the same thing: a node is in the hands of one fault at a time, and so is the network. A
//! fault that cannot be done at its time is skipped and says so.

mod bad_disks;
mod clocks;
mod cuts;
mod damage;
mod disks;
mod hands;
mod kind;
mod processes;
mod shaping;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::kind::{Choice, Kind};

use crate::cluster::Cluster;
use crate::recorder::{Phase, Recorder};

/// Nothing is broken in the first seconds, so that there is something to break.
const FIRST_AT: Duration = Duration::from_secs(2);

/// Between the beginnings of two faults.
const GAP_MS: std::ops::Range<u64> = 800..4_000;

/// A fault to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Planned {
    at_ms: u64,
    #[serde(serialize_with = "by_name")]
    kind: Kind,
    lasts_ms: u64,
    seed: u64,
}

fn by_name<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

/// Draws what shall happen until the time limit.
pub(crate) fn plan(kinds: &BTreeSet<Kind>, limit: Duration, seed: u64) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut plan = Vec::new();
    let mut at = FIRST_AT;
    while at < limit {
        let families: BTreeSet<&str> = kinds.iter().map(|kind| kind.family()).collect();
        let Some(family) = families.iter().choose(&mut rng) else { break };
        let Some(kind) = kinds.iter().filter(|kind| kind.family() == *family).choose(&mut rng) else { break };
        let lasts = kind.draw_length(&mut rng);
        let raw = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        plan.push(Planned { at_ms: raw(at), kind: *kind, lasts_ms: raw(lasts), seed: rng.random() });
        at += Duration::from_millis(rng.random_range(GAP_MS));
        // Faults of one family want the same things: they come one after the other if there are no others.
        if families.len() == 1 {
            at += lasts;
        }
    }
    plan
}

/// What is in the hands of faults.
#[derive(Default, Debug)]
struct Taken {
    nodes: BTreeSet<u8>,
    network: bool,
    shape: bool,
    damage: bool,
    clocks: bool,
}

/// What a fault needs for itself.
#[derive(Clone, Default, Debug)]
struct Needs {
    nodes: BTreeSet<u8>,
    network: bool,
    shape: bool,
    damage: bool,
    clocks: bool,
}

/// What a fault has taken; given back when it is dropped.
struct Hold {
    taken: Arc<Mutex<Taken>>,
    needs: Needs,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.nodes.retain(|node| !self.needs.nodes.contains(node));
        taken.network &= !self.needs.network;
        taken.shape &= !self.needs.shape;
        taken.damage &= !self.needs.damage;
        taken.clocks &= !self.needs.clocks;
    }
}

/// How many faults there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) injected: std::collections::BTreeMap<&'static str, usize>,
    pub(crate) skipped: std::collections::BTreeMap<&'static str, usize>,
}

/// Everything that faults share.
#[derive(Clone)]
pub(crate) struct Nemesis {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    taken: Arc<Mutex<Taken>>,
    over: watch::Receiver<bool>,
    tally: Arc<Mutex<Tally>>,
}

/// What came of a fault: what it was, for the note at its end; or why it was not done.
type Struck = anyhow::Result<Result<(), String>>;

/// A fault at work.
struct Fault {
    nemesis: Nemesis,
    number: usize,
    planned: Planned,
    rng: ChaCha8Rng,
}

impl Nemesis {
    pub(crate) fn new(cluster: Arc<Cluster>, recorder: Arc<Recorder>, over: watch::Receiver<bool>) -> Self {
        Self { cluster, recorder, taken: Arc::default(), over, tally: Arc::default() }
    }

    /// Carries out a plan until it is over; returns when every fault has been mended.
    pub(crate) async fn run(&self, plan: Vec<Planned>) -> anyhow::Result<Tally> {
        let mut faults = JoinSet::new();
        for (number, planned) in plan.into_iter().enumerate() {
            let at = Duration::from_millis(planned.at_ms);
            self.wait(at.saturating_sub(self.recorder.elapsed())).await;
            if *self.over.borrow() {
                break;
            }
            let rng = ChaCha8Rng::seed_from_u64(planned.seed);
            let fault = Fault { nemesis: self.clone(), number, planned, rng };
            faults.spawn(fault.strike());
            while let Some(ended) = faults.try_join_next() {
                ended??;
            }
        }
        while let Some(ended) = faults.join_next().await {
            ended??;
        }
        Ok(self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits, but not after everything is over.
    async fn wait(&self, time: Duration) {
        let mut over = self.over.clone();
        // A sender that is gone ends it, too.
        let _ = tokio::time::timeout(time, over.wait_for(|over| *over)).await;
    }

    fn take(&self, needs: Needs) -> Option<Hold> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = taken.nodes.is_disjoint(&needs.nodes)
            && !(taken.network && needs.network)
            && !(taken.shape && needs.shape)
            && !(taken.damage && needs.damage)
            && !(taken.clocks && needs.clocks);
        if !is_free {
            return None;
        }
        taken.nodes.extend(&needs.nodes);
        taken.network |= needs.network;
        taken.shape |= needs.shape;
        taken.damage |= needs.damage;
        taken.clocks |= needs.clocks;
        Some(Hold { taken: self.taken.clone(), needs })
    }
}

impl Fault {
    async fn strike(mut self) -> anyhow::Result<()> {
        let kind = self.planned.kind;
        let struck = match kind {
            Kind::Kill => self.kill().await?,
            Kind::Stop => self.stop().await?,
            Kind::Pause => self.pause().await?,
            Kind::Rolling => self.rolling().await?,
            Kind::Cut(cut) => self.cut(cut).await?,
            Kind::Shape(shape) => self.shape(shape).await?,
            Kind::CorruptFiles => self.corrupt_files().await?,
            Kind::LoseDisk => self.lose_disk().await?,
            Kind::DiskFull => self.disk_full().await?,
            Kind::SlowDisk => self.slow_disk().await?,
            Kind::FailingDisk => self.failing_disk().await?,
            Kind::PowerCut => self.power_cut().await?,
            Kind::Clock(clock) => self.clock(clock).await?,
            Kind::Transfer => self.transfer().await?,
            Kind::Move => self.move_replica().await?,
        };
        let mut tally = self.nemesis.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match struck {
            Ok(()) => *tally.injected.entry(kind.name()).or_default() += 1,
            Err(why) => {
                *tally.skipped.entry(kind.name()).or_default() += 1;
                self.note(Phase::Skipped, why);
            }
        }
        Ok(())
    }

    fn cluster(&self) -> &Cluster {
        &self.nemesis.cluster
    }

    fn note(&self, phase: Phase, detail: impl Into<String>) {
        self.nemesis.recorder.event(Some(self.number), self.planned.kind.name(), phase, detail);
    }

    /// Waits as long as the fault is to last.
    async fn last(&self) {
        self.nemesis.wait(Duration::from_millis(self.planned.lasts_ms)).await;
    }

    /// Who leads a group drawn at random.
    fn some_primary(&mut self) -> Option<u8> {
        let status = self.cluster().status()?;
        status.groups.choose(&mut self.rng)?.primary
    }

    /// A node that no other fault is at, if there is one.
    fn some_node(&mut self) -> u8 {
        let taken = self.nemesis.taken.lock().unwrap_or_else(PoisonError::into_inner).nodes.clone();
        let free = self.cluster().ids().filter(|node| !taken.contains(node)).choose(&mut self.rng);
        free.unwrap_or(1)
    }

    /// One node, a primary, a minority or all of them.
    fn some_nodes(&mut self) -> BTreeSet<u8> {
        let minority = self.cluster().minority();
        match self.rng.random_range(0..10) {
            0..4 => [self.some_node()].into(),
            4..7 => {
                let primary = self.some_primary();
                [primary.unwrap_or_else(|| self.some_node())].into()
            }
            7..9 => self.cluster().ids().choose_multiple(&mut self.rng, minority).into_iter().collect(),
            _ => self.cluster().ids().collect(),
        }
    }
}

const BUSY: &str = "another fault is at it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_plan() {
        let kinds: BTreeSet<Kind> = "all".parse::<Choice>().unwrap().kinds;
        let minute = Duration::from_secs(60);
        assert_eq!(plan(&kinds, minute, 1), plan(&kinds, minute, 1));
        assert_ne!(plan(&kinds, minute, 1), plan(&kinds, minute, 2));
        let faults = plan(&kinds, minute, 1);
        assert!(faults.len() >= 15, "{} faults in a minute", faults.len());
        assert!(faults.iter().all(|fault| fault.at_ms < 60_000));
        assert!(plan(&BTreeSet::new(), minute, 1).is_empty());
    }
}
