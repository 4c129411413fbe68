//! What clients do while things break, each of them with the client library, and each step of it in the history.
//!
//! A workload prepares the cluster, then works until the time is over, and reads everything back when all is healed. Consumer
//! groups and transactions will be workloads of their own, with a checker of their own: see [`Judge`].

mod log;
mod names;
mod payload;
mod readers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::sync::watch;
use tokio::task::JoinSet;
use varve_client::{Client, ClientError, Outcome};

use crate::recorder::{Ended, Recorder};

/// How long a client waits before it tries again what failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// How long a client may take to find the cluster before and after the faults.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);

/// What clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Producers that wait for each acknowledgement, consumers, and questions for the end, on many partitions
    Append,
    /// Producers that send ahead and repeat what a failover interrupted: each record once, and in order
    ExactlyOnce,
    /// Streams and topics are created, deleted and listed
    Metadata,
}

/// Who judges the history of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judge {
    /// The checker of sends and polls.
    Log,
    /// The checker of names.
    Registry,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::ExactlyOnce => "exactly-once",
            Self::Metadata => "metadata",
        }
    }

    pub(crate) fn judge(self) -> Judge {
        match self {
            Self::Append | Self::ExactlyOnce => Judge::Log,
            Self::Metadata => Judge::Registry,
        }
    }
}

/// What all clients of a run share.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) servers: Arc<str>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) seed: u64,
    /// Operations per second that all clients together aim at.
    pub(crate) rate: u32,
    pub(crate) partitions: u32,
    /// Turns true when the time is over.
    pub(crate) over: watch::Receiver<bool>,
}

impl Scene {
    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits, but not after the time is over.
    async fn wait(&self, time: Duration) {
        let mut over = self.over.clone();
        let _ = tokio::time::timeout(time, over.wait_for(|over| *over)).await;
    }

    /// A connection of one's own; tried until it is there, or the time is over.
    async fn client(&self) -> Option<Client> {
        while !self.is_over() {
            if let Ok(client) = Client::connect(&self.servers).await {
                return Some(client);
            }
            self.wait(PAUSE_AFTER_ERROR).await;
        }
        None
    }

    /// A connection while the cluster is well.
    async fn client_when_well(&self) -> anyhow::Result<Client> {
        tokio::time::timeout(CONNECTS_WITHIN, Client::connect(&self.servers))
            .await
            .context("no node answers a client")?
            .context("cannot connect a client")
    }
}

/// Makes what the workload needs, while the cluster is well.
pub(crate) async fn prepare(workload: Workload, scene: &Scene) -> anyhow::Result<()> {
    match workload {
        Workload::Append | Workload::ExactlyOnce => log::prepare(scene).await,
        Workload::Metadata => Ok(()),
    }
}

/// Works until the time is over.
pub(crate) async fn work(workload: Workload, scene: &Scene) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    match workload {
        Workload::Append => {
            log::append(scene, &mut clients);
            readers::read(scene, &mut clients);
        }
        Workload::ExactlyOnce => {
            log::exactly_once(scene, &mut clients);
            readers::read(scene, &mut clients);
        }
        Workload::Metadata => names::change(scene, &mut clients),
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client of the harness failed")?;
    }
    Ok(())
}

/// Reads everything back, when all is healed.
pub(crate) async fn read_back(workload: Workload, scene: &Scene) -> anyhow::Result<()> {
    match workload {
        Workload::Append | Workload::ExactlyOnce => readers::drain(scene).await,
        Workload::Metadata => names::list_latest(scene).await,
    }
}

/// What an error of the client library says about what was asked.
fn ended(error: &ClientError) -> Ended {
    match error.outcome() {
        Outcome::NotDone => Ended::Fail,
        Outcome::Unknown => Ended::Info,
    }
}

/// The path of a history in a store.
pub(crate) fn history_in(store: &Path) -> std::path::PathBuf {
    store.join("history.jsonl")
}
