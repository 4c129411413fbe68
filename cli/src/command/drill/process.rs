//! The process of a node on this machine: found, checked, and then sent a signal.
//!
//! A process is taken for a node only if its command line is that of a `varve node`, its configuration gives this node the
//! address that the cluster knows it by, and it lives in our network. It is held by a descriptor before it is looked at, so
//! the signal reaches the process that was looked at or nobody, whatever becomes of its number meanwhile.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser as _;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use varve_protocol::id::NodeId;
use varve_protocol::metadata::NodeEntry;
use varve_replica::config::ClusterConfig;

use crate::arguments;
use crate::failure::{Failure, Outcome};

/// How long after its time a process that is stopped goes on by itself, should the drill have died meanwhile.
const SAFETY_MARGIN: Duration = Duration::from_secs(2);

/// A process that is a node.
#[derive(Debug)]
pub(super) struct NodeProcess {
    pub(super) pid: u32,
    held: OwnedFd,
}

impl NodeProcess {
    /// Finds the process of a node; none if it does not run here.
    pub(super) fn find(node: &NodeEntry) -> Option<Self> {
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<u32>().ok()
        });
        pids.into_iter().find_map(|pid| Self::open(pid, node))
    }

    fn open(pid: u32, node: &NodeEntry) -> Option<Self> {
        let held = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        let process = Path::new("/proc").join(pid.to_string());
        is_node(&process, node).then_some(Self { pid, held })
    }

    /// Ends it as a power failure would, as far as a process can tell.
    pub(super) fn kill(&self) -> Outcome {
        self.send(Signal::KILL)
    }

    /// Stops it from running until the guard that comes back is dropped. Should this process die before, it goes on by itself a
    /// little after `limit`.
    pub(super) fn pause(self, limit: Duration) -> Outcome<Paused> {
        let seconds = (limit + SAFETY_MARGIN).as_secs() + 1;
        let pid = self.pid;
        let net = Command::new("sh")
            .args(["-c", &format!("sleep {seconds}; kill -CONT {pid}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Else Ctrl-C would reach it, too.
            .process_group(0)
            .spawn();
        let net = net.map_err(|error| {
            Failure::refused(anyhow!(
                "nobody would let process {pid} go on if this one died: no `sh`: {error}"
            ))
        })?;
        let mut paused = Paused { process: self, net };
        match paused.process.send(Signal::STOP) {
            Ok(()) => Ok(paused),
            Err(failure) => {
                paused.end_net();
                Err(failure)
            }
        }
    }

    fn send(&self, signal: Signal) -> Outcome {
        pidfd_send_signal(&self.held, signal).map_err(|error| {
            Failure::refused(anyhow!(
                "process {} cannot be sent a signal: {error}; a drill runs as the user that the node runs as, or as root",
                self.pid
            ))
        })
    }
}

/// A process that does not run until this is dropped.
#[derive(Debug)]
pub(super) struct Paused {
    process: NodeProcess,
    /// Lets it go on if nobody else does.
    net: Child,
}

impl Paused {
    fn end_net(&mut self) {
        // With its `sleep`; if it has ended, it has done what it was there for.
        let group = i32::try_from(self.net.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.net.wait();
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(failure) = self.process.send(Signal::CONT) {
            tracing::warn!(problem = failure.line(), "a process that was paused cannot be let go on");
        }
        self.end_net();
    }
}

/// Whether what `/proc/PID` tells is a `varve node` that is this node.
fn is_node(process: &Path, node: &NodeEntry) -> bool {
    let Some(which) = fs::read(process.join("cmdline")).ok().as_deref().and_then(node_of) else {
        return false;
    };
    let same = |what: &str| {
        let (theirs, ours) =
            (fs::read_link(process.join(what)), fs::read_link(Path::new("/proc/self").join(what)));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    };
    // A path that is not absolute begins where the process works.
    let config = fs::read_link(process.join("cwd")).map(|folder| folder.join(which.1));
    let Some(config) = config.ok().and_then(|path| ClusterConfig::load(path).ok()) else { return false };
    let settings = config.node(which.0);
    which.0 == node.node
        && settings.is_some_and(|settings| settings.address == node.address)
        && same("ns/net")
}

/// Which node of which configuration a command line runs, if it is one that runs a node.
fn node_of(command_line: &[u8]) -> Option<(NodeId, PathBuf)> {
    let words: Vec<String> = command_line
        .strip_suffix(b"\0")?
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // Most processes are none, and parsing is not free.
    if !words.iter().any(|word| word == "node") {
        return None;
    }
    let arguments::Command::Node(arguments) = arguments::Arguments::try_parse_from(words).ok()?.command
    else {
        return None;
    };
    Some((arguments.which.node(), arguments.which.config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_its_command_line() {
        let of = |line: &str| node_of(line.replace(' ', "\0").as_bytes());
        let found = Some((NodeId::new(2), PathBuf::from("a/cluster.toml")));
        assert_eq!(of("/usr/bin/varve node --config a/cluster.toml --id 2 "), found);
        assert_eq!(of("varve --log debug node --id 2 --config a/cluster.toml --exit-with-parent "), found);
        for other in [
            "varve dev --nodes 3 ",
            "varve format --id 2 ",
            "varve node ",
            "vi node ",
            "grep node cluster.toml ",
            "",
            "varve node --id 2",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_is_no_node() {
        let node = NodeEntry { node: NodeId::new(1), address: "127.0.0.1:7101".to_owned(), versions: None };
        assert!(NodeProcess::open(std::process::id(), &node).is_none());
    }
}
