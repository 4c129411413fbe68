//! What `varve dev` shows: on a terminal a table that is drawn anew in its place, elsewhere a line per change.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};

use varve_protocol::id::NodeId;

use crate::health::{NodeHealth, Summary};
use crate::output::{Format, counted, quiet, table};
use crate::running::Running;

/// Where and how the state is shown.
#[derive(Debug)]
pub(crate) struct View {
    style: Style,
    /// Lines of the table on the screen.
    drawn: usize,
    /// What was said of each node last.
    said: BTreeMap<u8, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Screen,
    Lines,
    Json,
}

/// The process of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Process {
    /// Not there yet.
    Coming,
    /// Runs, with this pid.
    Running(u32),
    /// Has ended by itself.
    Dead,
    /// Was stopped because somebody asked for it.
    Stopped,
}

impl Process {
    pub(crate) fn pid(self) -> Option<u32> {
        match self {
            Self::Running(pid) => Some(pid),
            Self::Coming | Self::Dead | Self::Stopped => None,
        }
    }
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub(crate) struct NodeView<'a> {
    pub(crate) node: NodeId,
    pub(crate) address: &'a str,
    pub(crate) process: Process,
    pub(crate) health: Option<&'a NodeHealth>,
}

impl View {
    pub(crate) fn new(format: Format) -> Self {
        let style = match format {
            Format::Json => Style::Json,
            Format::Text if io::stdout().is_terminal() => Style::Screen,
            Format::Text => Style::Lines,
        };
        Self { style, drawn: 0, said: BTreeMap::new() }
    }

    /// Says something once.
    pub(crate) fn say(&mut self, text: &str) {
        if self.style != Style::Json {
            let erased = self.erase();
            put(&format!("{erased}{text}\n"));
        }
    }

    /// Tells programs how to connect, again when that changes.
    pub(crate) fn running(&self, running: &Running) {
        if self.style == Style::Json {
            put(&format!("{}\n", serde_json::to_string(running).expect("our own structures become JSON")));
        }
    }

    /// Shows how the nodes are.
    pub(crate) fn show(&mut self, nodes: &[NodeView<'_>]) {
        match self.style {
            Style::Screen => {
                let rows = nodes.iter().map(NodeView::row);
                let drawn = table(
                    &["NODE", "PID", "ADDRESS", "STATE", "PRIMARY OF", "BACKUP OF"],
                    &[0, 1, 4, 5],
                    rows,
                );
                let erased = self.erase();
                self.drawn = drawn.lines().count();
                put(&(erased + &drawn));
            }
            Style::Lines => {
                for node in nodes {
                    let line = node.line();
                    let before = self.said.insert(node.node.as_raw(), line.clone());
                    if before.as_ref() != Some(&line) {
                        put(&format!("{line}\n"));
                    }
                }
            }
            Style::Json => {}
        }
    }

    /// What takes the table from the screen: the cursor goes up, and everything below it away.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// If nobody reads any more, the cluster still runs.
fn put(text: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(failure) = quiet(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())) {
        tracing::warn!(problem = failure.line(), "nothing can be shown");
    }
}

impl<'a> NodeView<'a> {
    /// What a summary says of a node.
    pub(crate) fn health_in(summary: Option<&'a Summary>, node: NodeId) -> Option<&'a NodeHealth> {
        summary?.nodes.iter().find(|health| health.id == node.as_raw())
    }

    fn state(&self) -> &'static str {
        match (self.process, self.health) {
            (_, Some(health)) if health.is_well() => "up",
            (_, Some(health)) if health.unreachable.is_none() && health.faulty > 0 => "faulty",
            (_, Some(health)) if health.unreachable.is_none() => "view change",
            (Process::Coming | Process::Running(_), _) => "starting",
            (Process::Dead, _) => "down",
            (Process::Stopped, _) => "stopped",
        }
    }

    fn answers(&self) -> Option<&NodeHealth> {
        self.health.filter(|health| health.unreachable.is_none())
    }

    fn row(&self) -> Vec<String> {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        vec![
            self.node.as_raw().to_string(),
            or_dash(self.process.pid().map(|pid| pid.to_string())),
            self.address.to_owned(),
            self.state().to_owned(),
            or_dash(self.answers().map(|health| health.primary_of.to_string())),
            or_dash(self.answers().map(|health| health.backup_of.to_string())),
        ]
    }

    fn line(&self) -> String {
        let node = self.node.as_raw();
        let pid = self.process.pid().map_or_else(String::new, |pid| format!(" (process {pid})"));
        let roles = self.answers().map_or_else(String::new, |health| {
            format!(
                ", primary of {}, backup of {}",
                counted(health.primary_of as usize, "group"),
                health.backup_of
            )
        });
        format!("node {node} at {}{pid}: {}{roles}", self.address, self.state())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(unreachable: Option<&str>) -> NodeHealth {
        NodeHealth {
            id: 2,
            address: "127.0.0.1:7102".to_owned(),
            pid: None,
            unreachable: unreachable.map(str::to_owned),
            uptime_ms: 5,
            hears: vec![1, 2],
            primary_of: 1,
            backup_of: 2,
            changing: 0,
            faulty: 0,
            frames_dropped: 0,
            scrub: Default::default(),
        }
    }

    #[test]
    fn a_line_says_what_is_known() {
        let up = health(None);
        let gone = health(Some("timed out"));
        let node = |process, health| {
            NodeView { node: NodeId::new(2), address: "127.0.0.1:7102", process, health }.line()
        };
        assert_eq!(node(Process::Running(9), None), "node 2 at 127.0.0.1:7102 (process 9): starting");
        assert_eq!(
            node(Process::Running(9), Some(&up)),
            "node 2 at 127.0.0.1:7102 (process 9): up, primary of 1 group, backup of 2"
        );
        assert_eq!(node(Process::Dead, Some(&gone)), "node 2 at 127.0.0.1:7102: down");
    }
}
