//! What a run has made outside its store, written down before it is made, so that it can be removed by whoever comes later.
//!
//! A run takes a slot: a number, and a file of that number in a folder that all runs on this machine share. The file names the
//! harness, its nodes' processes, its namespaces, bridge and mounts. It is removed last. A file whose harness is no longer there
//! tells what was left behind.
//!
//! Processes are told apart by their id and the time of their start, since ids are given out again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::cluster::sweep_clock;
use crate::command_line::try_now;

/// Runs on one machine at once; each has a network of its own, by its number.
const SLOTS: u8 = 200;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// When it was started, in ticks since the system was.
    started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the 22nd field is the 20th behind it.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    fn is_there(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it is still the same process.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        match Pid::from_raw(self.pid).filter(|_| self.is_there()) {
            Some(pid) => kill_process(pid, signal).map_err(io::Error::from),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("process {} is gone", self.pid))),
        }
    }
}

/// What a run has made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    harness: ProcessId,
    /// Where it keeps its results.
    store: PathBuf,
    nodes: Vec<ProcessId>,
    namespaces: Vec<String>,
    bridge: Option<String>,
    mounts: Vec<PathBuf>,
}

impl Made {
    fn remove(&self) {
        for node in &self.nodes {
            // A process that is stopped dies of this, too.
            let _ = node.signal(Signal::KILL);
            sweep_clock(node.pid);
        }
        for namespace in &self.namespaces {
            try_now(&format!("ip netns del {namespace}"));
        }
        if let Some(bridge) = &self.bridge {
            try_now(&format!("ip link del {bridge}"));
        }
        for mount in &self.mounts {
            // Lazily, for a process that was killed may not be quite gone.
            try_now(&format!("umount -l {}", mount.display()));
        }
    }
}

/// The slot of a run. What it has made is removed when it is dropped.
pub(crate) struct Slot {
    pub(crate) number: u8,
    file: PathBuf,
    made: Mutex<Made>,
}

impl Slot {
    /// Takes the first slot that is free.
    pub(crate) fn take(store: &Path) -> anyhow::Result<Self> {
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let harness = ProcessId::of(i32::try_from(std::process::id())?).context("/proc is not there")?;
        let made = Made {
            harness,
            store: store.to_owned(),
            nodes: Vec::new(),
            namespaces: Vec::new(),
            bridge: None,
            mounts: Vec::new(),
        };
        for number in 0..SLOTS {
            let file = folder.join(format!("{number}.json"));
            match OpenOptions::new().write(true).create_new(true).open(&file) {
                Ok(mut open) => {
                    open.write_all(&serde_json::to_vec(&made)?)
                        .with_context(|| format!("cannot write {}", file.display()))?;
                    return Ok(Self { number, file, made: Mutex::new(made) });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", file.display())),
            }
        }
        bail!("{SLOTS} runs are under way, or were left behind: `jepsen clean` removes those");
    }

    /// Writes down what is about to be made.
    pub(crate) fn namespace(&self, name: &str) -> anyhow::Result<()> {
        self.note(|made| made.namespaces.push(name.to_owned()))
    }

    pub(crate) fn bridge(&self, name: &str) -> anyhow::Result<()> {
        self.note(|made| made.bridge = Some(name.to_owned()))
    }

    pub(crate) fn mount(&self, path: &Path) -> anyhow::Result<()> {
        self.note(|made| made.mounts.push(path.to_owned()))
    }

    /// Writes down a process, and forgets those that are gone.
    pub(crate) fn process(&self, process: ProcessId) -> anyhow::Result<()> {
        self.note(|made| {
            made.nodes.retain(|node| node.is_there());
            made.nodes.push(process);
        })
    }

    fn note(&self, change: impl FnOnce(&mut Made)) -> anyhow::Result<()> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut made);
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&*made)?)
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).remove();
        let _ = fs::remove_file(&self.file);
    }
}

/// Each user has his own: only root makes what others cannot see anyway.
fn folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(if user == 0 {
        "varve-jepsen".to_owned()
    } else {
        format!("varve-jepsen-{user}")
    })
}

/// Removes what runs have left behind whose harness is gone. Returns a line for each.
pub(crate) fn clean() -> anyhow::Result<Vec<String>> {
    let folder = folder();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut lines = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(made) = serde_json::from_slice::<Made>(&text) else {
            // It was killed before it had written anything, and so before it had made anything; or it is just about to.
            lines.push(format!("{} cannot be read: remove it by hand if no run is starting", path.display()));
            continue;
        };
        if made.harness.is_there() {
            lines.push(format!("left alone: the run in {} is under way", made.store.display()));
            continue;
        }
        made.remove();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        lines.push(format!(
            "removed what the run in {} had left: {} processes, {} namespaces, {} mounts",
            made.store.display(),
            made.nodes.len(),
            made.namespaces.len(),
            made.mounts.len()
        ));
    }
    Ok(lines)
}
