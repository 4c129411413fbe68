//! `varve dev`: a whole cluster on this machine, each node a process of its own, until Ctrl-C.
//!
//! The data stays: started again on the same directory, the same cluster comes back. A node that dies is reported and the
//! others go on, which is the point of it all.

mod children;
mod layout;
pub(crate) mod orders;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::watch;
use varve_protocol::id::NodeId;
use varve_replica::config::{CLUSTER_NODES_MAX, NodeSettings};

use crate::cluster_state::poll_summary;
use crate::command::node::Signals;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::health::{Health, Summary};
use crate::output::counted;
use crate::running::{Running, RunningNode};

use self::children::{AfterDeath, Children, Event, Order, Recipe};
use self::layout::{Layout, Wish};
use self::orders::Orders;
use self::view::{NodeView, Process, View};

/// What `varve dev` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many nodes a new cluster has [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=CLUSTER_NODES_MAX as i64))]
    nodes: Option<u8>,
    /// The UDP port of the first node; the others have the ones after it [default: 7101, or as before]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Seal what the nodes store with the keys in this file, which `varve key FILE` makes [default: not sealed, or as before]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Start nodes again that died
    #[arg(long)]
    restart: bool,
}

/// Runs the cluster.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let mut signals = Signals::new()?;
    let (nodes, base_port) = (arguments.nodes, arguments.base_port);
    let wish = Wish { nodes, base_port, key_file: arguments.key_file.clone() };
    let layout = Layout::open(&context.data_dir, wish)?;
    layout.check_ports()?;
    let after_death = if arguments.restart { AfterDeath::Restart } else { AfterDeath::Stay };
    let mut dev = Dev::start(context, layout, after_death);
    let ended = dev.watch(&mut signals).await;
    dev.stop(&mut signals).await;
    ended
}

/// A running cluster.
struct Dev {
    layout: Layout,
    after_death: AfterDeath,
    children: Children,
    orders: Orders,
    processes: BTreeMap<NodeId, Process>,
    summary: watch::Receiver<Option<Summary>>,
    /// Nodes that died and may look alive in the summary, which was made before.
    mourned: BTreeSet<NodeId>,
    poll: tokio::task::JoinHandle<()>,
    view: View,
    started: Instant,
    ready: bool,
}

impl Dev {
    fn start(context: &Context, layout: Layout, after_death: AfterDeath) -> Self {
        let recipes = layout.config.nodes.iter().map(|node| Recipe {
            node: node.id,
            config: layout.config_file(),
            log_file: layout.log_file(node.id),
            log_filter: context.log.clone(),
            after_death,
        });
        let children = Children::start(recipes);
        let orders = Orders::listen(layout.dir());
        let (report, summary) = watch::channel(None);
        let poll = tokio::spawn(poll_summary(layout.servers(|_| false), report));
        let mut view = View::new(context.output);
        let count = counted(layout.config.nodes.len(), "node");
        view.say(&format!("starting {count}, data in {}", layout.dir().display()));
        Self {
            processes: layout.config.nodes.iter().map(|node| (node.id, Process::Coming)).collect(),
            layout,
            after_death,
            children,
            orders,
            summary,
            mourned: BTreeSet::new(),
            poll,
            view,
            started: Instant::now(),
            ready: false,
        }
    }

    /// Shows what happens until a signal comes or no node is left.
    async fn watch(&mut self, signals: &mut Signals) -> Outcome {
        loop {
            tokio::select! {
                biased;
                () = signals.next() => return Ok(()),
                event = self.children.next() => match event {
                    Some(event) => self.on_event(event)?,
                    None => return Err(Failure::refused(anyhow!("the nodes are no longer watched"))),
                },
                Some(asked) = self.orders.next() => self.children.ask(asked),
                changed = self.summary.changed() => {
                    if changed.is_err() {
                        return Err(Failure::refused(anyhow!("the cluster is no longer watched")));
                    }
                    self.on_summary();
                }
            }
            self.show();
        }
    }

    fn on_event(&mut self, event: Event) -> Outcome {
        match event {
            Event::Started { node, pid } => {
                self.processes.insert(node, Process::Running(pid));
                self.mourned.remove(&node);
            }
            Event::Died { node, how, log_tail } => {
                self.processes.insert(node, Process::Dead);
                self.mourned.insert(node);
                let id = node.as_raw();
                let next = match self.after_death {
                    AfterDeath::Restart => "it is started again".to_owned(),
                    AfterDeath::Stay => format!(
                        "start it again with `varve node --config {} --id {id}`, or use `varve dev --restart`",
                        self.layout.config_file().display()
                    ),
                };
                let tail: String = log_tail.lines().map(|line| format!("  | {line}\n")).collect();
                self.view.say(format!("node {id} {how}; {next}\n{tail}").trim_end());
                let is_dead = |process: &Process| *process == Process::Dead;
                if self.after_death == AfterDeath::Stay && self.processes.values().all(is_dead) {
                    return Err(Failure::refused(anyhow!("no node is left; the logs above say why")));
                }
            }
            Event::Stopped { node } => {
                self.processes.insert(node, Process::Stopped);
                self.mourned.insert(node);
                self.view.say(&format!("node {} is stopped, as another command asked", node.as_raw()));
            }
        }
        let running = self.running();
        if let Err(error) = running.write(self.layout.dir()) {
            return Err(Failure::usage(anyhow::Error::new(error).context("cannot write dev.json")));
        }
        if self.ready {
            self.view.running(&running);
        }
        Ok(())
    }

    fn on_summary(&mut self) {
        let available = {
            let summary = self.summary.borrow_and_update();
            self.mourned.retain(|node| {
                NodeView::health_in(summary.as_ref(), *node).is_none_or(|health| health.unreachable.is_none())
            });
            // After a change of ports the map has the old ones until the nodes have registered the new.
            let is_known = |node: &NodeSettings| {
                NodeView::health_in(summary.as_ref(), node.id)
                    .is_some_and(|health| health.address == node.address)
            };
            summary.as_ref().is_some_and(|summary| summary.health != Health::Unavailable)
                && self.layout.config.nodes.iter().all(is_known)
        };
        if available && !self.ready {
            self.ready = true;
            let seconds = self.started.elapsed().as_secs_f64();
            self.view.say(&format!(
                "ready after {seconds:.1} s; other `varve` commands in this folder find the cluster by themselves, elsewhere \
                 use\n  --servers '{}'\nCtrl-C stops it, the data stays",
                self.layout.servers(|_| false)
            ));
            self.view.running(&self.running());
        }
    }

    fn process(&self, node: NodeId) -> Process {
        self.processes.get(&node).copied().unwrap_or(Process::Coming)
    }

    fn running(&self) -> Running {
        let nodes = self.layout.config.nodes.iter().map(|node| RunningNode {
            id: node.id.as_raw(),
            address: node.address.clone(),
            pid: self.process(node.id).pid(),
            log: self.layout.log_file(node.id),
        });
        let is_dead = |node: &NodeSettings| matches!(self.process(node.id), Process::Dead | Process::Stopped);
        Running {
            servers: self.layout.servers(is_dead),
            pid: std::process::id(),
            config: self.layout.config_file(),
            nodes: nodes.collect(),
        }
    }

    fn show(&mut self) {
        let summary = self.summary.borrow();
        let nodes: Vec<NodeView<'_>> = self
            .layout
            .config
            .nodes
            .iter()
            .map(|node| NodeView {
                node: node.id,
                address: &node.address,
                process: self.process(node.id),
                health: NodeView::health_in(summary.as_ref(), node.id)
                    .filter(|_| !self.mourned.contains(&node.id)),
            })
            .collect();
        self.view.show(&nodes);
    }

    /// Stops all nodes; a further signal kills them.
    async fn stop(mut self, signals: &mut Signals) {
        self.poll.abort();
        drop(self.orders);
        let started = Instant::now();
        self.children.tell(Order::Stop);
        tokio::select! {
            biased;
            () = self.children.gone() => {}
            () = signals.next() => {
                self.children.tell(Order::Kill);
                self.children.gone().await;
            }
        }
        let _ = Running::remove(self.layout.dir());
        let seconds = started.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        self.view
            .say(&format!("stopped after {seconds:.1} s; the data stays in {}", self.layout.dir().display()));
    }
}
