//! A node that runs and hears nobody, on this machine: packets to and from its port are dropped by the kernel.
//!
//! The rule matches a port in a set, and the port is in the set for a limited time only, which the kernel counts. So the node is
//! heard again when the time is up, whatever becomes of this process; what may stay behind is a table that does nothing.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use varve_protocol::metadata::NodeEntry;

use crate::failure::{Failure, Outcome};

/// Whom an isolated node does not hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Isolated {
    /// Nodes and clients.
    All,
    /// Nodes only: clients reach it, and it does not know that it is alone.
    Nodes,
}

/// A node is isolated until this goes, or the time is up.
#[derive(Debug)]
pub(super) struct Isolation {
    table: String,
}

/// Whether it can be done here.
pub(super) fn check() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::usage(anyhow!(
            "only root may drop packets: run `varve drill isolate-primary` as root"
        )));
    }
    nft("list tables").map(drop).map_err(|failure| failure.context("packets cannot be dropped here"))
}

impl Isolation {
    /// Isolates a node of these for so long at most.
    pub(super) fn begin(
        node: &NodeEntry,
        nodes: &[NodeEntry],
        (isolated, time): (Isolated, Duration),
    ) -> Outcome<Self> {
        let table = format!("varve_drill_{}", std::process::id());
        let port = port(node)?;
        let others = nodes.iter().filter(|other| other.node != node.node).map(self::port);
        let others = others.collect::<Outcome<Vec<u16>>>()?;
        nft(&rules(&table, port, &others, (isolated, time)))?;
        Ok(Self { table })
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        if let Err(failure) = nft(&format!("delete table inet {}", self.table)) {
            tracing::warn!(problem = failure.line(), "a table of the packet filter stays behind");
        }
    }
}

fn port(node: &NodeEntry) -> Outcome<u16> {
    let port = node.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| Failure::refused(anyhow!("{} has no port", node.address)))
}

fn rules(table: &str, port: u16, others: &[u16], (isolated, time): (Isolated, Duration)) -> String {
    let others: Vec<String> = others.iter().map(u16::to_string).collect();
    let (to, from) = match isolated {
        Isolated::All => (String::new(), String::new()),
        Isolated::Nodes => {
            let others = others.join(", ");
            (format!(" udp sport {{ {others} }}"), format!(" udp dport {{ {others} }}"))
        }
    };
    let time_ms = time.as_millis();
    format!(
        "table inet {table} {{\n\
         set alone {{ type inet_service; flags timeout; elements = {{ {port} timeout {time_ms}ms }} }}\n\
         chain in {{ type filter hook input priority 0; policy accept;\n\
         iif lo udp dport @alone{to} drop\n\
         iif lo udp sport @alone{from} drop\n}}\n}}\n"
    )
}

/// Has the packet filter do something.
fn nft(script: &str) -> Outcome {
    let run = || -> std::io::Result<std::process::Output> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run()
        .context("the command `nft` is needed (on Debian: apt-get install nftables)")
        .map_err(Failure::usage)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::refused(anyhow!("`nft` says: {}", why.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_in_the_set_for_a_time_and_others_are_named_where_they_matter() {
        let time = Duration::from_millis(2_500);
        let all = rules("t", 7_101, &[7_102, 7_103], (Isolated::All, time));
        assert!(all.contains("elements = { 7101 timeout 2500ms }"), "{all}");
        assert!(all.contains("udp dport @alone drop\n") && all.contains("udp sport @alone drop\n"), "{all}");
        let nodes = rules("t", 7_101, &[7_102, 7_103], (Isolated::Nodes, time));
        assert!(nodes.contains("dport @alone udp sport { 7102, 7103 } drop"), "{nodes}");
        assert!(nodes.contains("sport @alone udp dport { 7102, 7103 } drop"), "{nodes}");
    }
}
