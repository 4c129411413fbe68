//! How a drill reaches the nodes: signals to processes on this machine, orders to the `varve dev` that runs them, or an operator
//! who is told what to do.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use varve_protocol::metadata::NodeEntry;
use varve_replica::config::ClusterConfig;
use varve_replica::server::format_node;

use super::process::NodeProcess;
use crate::command::dev::orders::{Answer, Order, ask};
use crate::connection;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::running::Running;

/// What reaches the nodes.
#[derive(Debug)]
pub(super) struct Hands {
    data_dir: PathBuf,
    dev: Option<Running>,
    pub(super) is_manual: bool,
}

impl Hands {
    pub(super) fn new(context: &Context, is_manual: bool) -> Outcome<Self> {
        Ok(Self { data_dir: context.data_dir.clone(), dev: connection::dev(context)?, is_manual })
    }

    /// Makes sure that signals reach all of these, or that somebody else does it.
    pub(super) fn check_processes(&self, nodes: &[NodeEntry]) -> Outcome {
        if self.is_manual {
            return Ok(());
        }
        nodes.iter().try_for_each(|node| self.process(node).map(drop))
    }

    /// Makes sure that a `varve dev` runs all of these, or that somebody else does it.
    pub(super) fn check_dev(&self, nodes: &[NodeEntry], what: &str) -> Outcome {
        if self.is_manual || nodes.iter().all(|node| self.is_dev(node)) {
            return Ok(());
        }
        Err(Failure::usage(anyhow!(
            "{what} works with the nodes of a `varve dev` only, and none runs this cluster on {}; name its --data-dir",
            self.data_dir.display()
        )))
    }

    /// The process of a node.
    pub(super) fn process(&self, node: &NodeEntry) -> Outcome<NodeProcess> {
        NodeProcess::find(node).ok_or_else(|| {
            Failure::usage(anyhow!(
                "node {} at {} does not run on this machine, or as another user: its process cannot be sent a signal from here. \
                 Run the drill there, or with --manual, which says what to do when, and watches",
                node.node.as_raw(),
                node.address
            ))
        })
    }

    /// Whether a `varve dev` here runs a node.
    pub(super) fn is_dev(&self, node: &NodeEntry) -> bool {
        let runs = |running: &Running| {
            running.nodes.iter().any(|one| one.id == node.node.as_raw() && one.address == node.address)
        };
        self.dev.as_ref().is_some_and(runs)
    }

    /// Stops a node in good order.
    pub(super) async fn stop(&self, node: &NodeEntry) -> Outcome {
        ask(&self.data_dir, Order::Stop(node.node.as_raw())).await.map(drop)
    }

    /// Starts a node that does not run, or says how it is started. `before` is the process that it was.
    pub(super) async fn start(&self, node: &NodeEntry, before: Option<u32>) -> Outcome {
        let id = node.node.as_raw();
        if self.is_manual || !self.is_dev(node) {
            tell(&format!("now start node {id} at {} again, as it was started before", node.address));
            return Ok(());
        }
        loop {
            // A process that was killed a moment ago may not have been missed yet.
            match ask(&self.data_dir, Order::Start(id)).await? {
                Answer::Running(pid) if before == Some(pid) => {
                    tokio::time::sleep(super::sight::ASK_EVERY).await;
                }
                Answer::Running(_) | Answer::Stopped | Answer::Refused(_) => return Ok(()),
            }
        }
    }

    /// Empties the data directory of a node that is stopped, and formats it: a new disk.
    pub(super) fn replace_disk(&self, node: &NodeEntry) -> Outcome {
        let Some(dev) = &self.dev else { return Ok(()) };
        let config = ClusterConfig::load(&dev.config)?;
        let settings = config.node(node.node).filter(|settings| settings.address == node.address);
        let settings = settings.ok_or_else(|| {
            Failure::usage(anyhow!("{} has no node {} at {}", dev.config.display(), node.node, node.address))
        })?;
        empty(&settings.data_dir)
            .with_context(|| format!("cannot empty {}", settings.data_dir.display()))
            .map_err(Failure::refused)?;
        Ok(format_node(&config, node.node)?)
    }
}

fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?
        } else {
            fs::remove_file(entry.path())?
        }
    }
    Ok(())
}

/// Says something while a drill runs. If stderr is gone, nobody is left to tell.
pub(super) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
