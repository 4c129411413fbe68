//! `varve node`: one node of a cluster, until it is told to stop.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use varve_protocol::id::NodeId;
use varve_protocol::limits::NODES_MAX;
use varve_replica::ServerError;
use varve_replica::config::ClusterConfig;
use varve_replica::server::run_node;

use crate::failure::{Failure, Outcome};

/// Which node of which cluster.
#[derive(clap::Args, Debug)]
pub(crate) struct Which {
    /// The cluster's configuration, the same file for all its nodes
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    pub(crate) config: PathBuf,
    /// Which node of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=NODES_MAX as i64))]
    pub(crate) id: u8,
}

impl Which {
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.id)
    }

    /// Why this node could not be run or formatted, with where it keeps its data, or how what is missing is made.
    pub(crate) fn failure(&self, config: &ClusterConfig, error: ServerError) -> Failure {
        let Some(node) = config.node(self.node()) else { return error.into() };
        match &error {
            ServerError::Storage(_) | ServerError::Release { .. } => {
                Failure::from(error).context(format!("node {} in {}", self.id, node.data_dir.display()))
            }
            ServerError::File { path, .. } if [&config.ca, &node.cert, &node.key].contains(&path) => {
                let make = format!("`varve cert --config {}` makes what is missing", self.config.display());
                Failure::from(error).context(make)
            }
            ServerError::Keys(_) => {
                let which = "a node that has run needs the key file it had; `varve key FILE` makes one for a new node";
                Failure::from(error).context(which)
            }
            ServerError::File { .. }
            | ServerError::Config(_)
            | ServerError::Transport(_)
            | ServerError::UnknownNode { .. }
            | ServerError::Address { .. }
            | ServerError::Halted { .. }
            | ServerError::DiskThread(_)
            | ServerError::Entropy(_)
            | ServerError::DiskEnded
            | ServerError::TransportEnded => error.into(),
        }
    }

    /// Tells a user who comes here first where to go first.
    fn check_ready(&self, config: &ClusterConfig) -> Outcome {
        let Some(node) = config.node(self.node()) else {
            let (file, known) = (self.config.display(), config.node_list());
            return Err(Failure::usage(anyhow!("{file} has no node {}; it has {known}", self.id)));
        };
        let empty = match node.data_dir.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !empty {
            return Ok(());
        }
        Err(Failure::usage(anyhow!(
            "node {id} has no data in {}. If it is new, make it ready with `varve format --config {} --id {id}`; if it has run \
             before, its disk is not mounted or lost; one that is lost is made ready in the same way, and the node gets its data and \
             its votes back from the others",
            node.data_dir.display(),
            self.config.display(),
            id = self.id
        )))
    }
}

/// What `varve node` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Stop when stdin ends: whoever holds its other end has died
    #[arg(long)]
    exit_with_parent: bool,
}

/// Runs a node.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let config = ClusterConfig::load(&arguments.which.config)?;
    arguments.which.check_ready(&config)?;
    let runtime = match config.transport.threads {
        1 => Builder::new_current_thread().enable_all().build(),
        // This thread drives the node itself, the others its connections.
        threads => Builder::new_multi_thread().worker_threads(threads - 1).enable_all().build(),
    };
    let runtime = runtime.context("the system gives no threads").map_err(Failure::refused)?;
    runtime.block_on(run_until_told(arguments, &config))
}

async fn run_until_told(arguments: &Arguments, config: &ClusterConfig) -> Outcome {
    let mut signals = Signals::new()?;
    let orphaned = arguments.exit_with_parent.then(end_of_stdin);
    let (asked, stop) = oneshot::channel();
    let signals = tokio::spawn(async move {
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = wait_for(orphaned) => {}
        }
        // The receiver is gone only if the node has ended by itself.
        let _ = asked.send(());
        signals.next().await;
        std::process::exit(1);
    });
    let ended = run_node(config, arguments.which.node(), async move {
        let _ = stop.await;
    })
    .await;
    signals.abort();
    ended.map_err(|error| arguments.which.failure(config, error))
}

/// The signals that ask a process to stop.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    pub(crate) fn new() -> Outcome<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals").map_err(Failure::refused);
        let hangup = listen(SignalKind::hangup())?;
        Ok(Self([listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, hangup]))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Waits for the end of stdin. The thread is not joined: it may sit in its read until the process ends.
fn end_of_stdin() -> impl Future<Output = ()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = ended.send(());
    });
    async move {
        let _ = end.await;
    }
}

async fn wait_for(event: Option<impl Future<Output = ()>>) {
    match event {
        Some(event) => event.await,
        None => std::future::pending().await,
    }
}
