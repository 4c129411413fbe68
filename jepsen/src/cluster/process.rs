//! One `varve node`: started, stopped, killed, paused, and found dead.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;
use serde::Serialize;
use tokio::process::{Child, Command};

use super::clock::sweep;
use crate::leftovers::{ProcessId, Slot};

/// How long a node may take to stop in order.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// A node that died by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Death {
    pub(crate) node: u8,
    pub(crate) at_ms: u64,
    pub(crate) how: String,
    /// The last line of its log.
    pub(crate) last_words: String,
}

struct Running {
    child: Child,
    id: ProcessId,
    is_paused: bool,
}

/// A node's process, or none.
pub(super) struct Node {
    id: u8,
    log: PathBuf,
    running: Option<Running>,
    found_dead: Option<Instant>,
    /// Its disk fails: it may end by itself, and does not have to be started again at once.
    pub(super) may_end: bool,
}

impl Node {
    pub(super) fn new(id: u8, folder: &Path) -> Self {
        let log = folder.join(format!("node-{id}.log"));
        Self { id, log, running: None, found_dead: None, may_end: false }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Runs the command, if it does not run already.
    pub(super) fn start(&mut self, mut command: Command, slot: &Slot) -> anyhow::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // Ctrl-C is for the harness, which stops its nodes by itself.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run node {}", self.id))?;
        let pid = child.id().context("a process that was just started has an id")?;
        let id = ProcessId::of(i32::try_from(pid)?).context("a process that was just started is there")?;
        slot.process(id)?;
        self.running = Some(Running { child, id, is_paused: false });
        self.found_dead = None;
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.kill().await.with_context(|| format!("cannot kill node {}", self.id))?;
            sweep(running.id.pid);
        }
        self.found_dead = None;
        Ok(())
    }

    /// Whether it stopped by itself when it was asked to.
    pub(super) async fn stop(&mut self) -> anyhow::Result<bool> {
        self.found_dead = None;
        let Some(mut running) = self.running.take() else { return Ok(true) };
        // One that has just died needs no signal.
        let _ = running.id.signal(Signal::CONT);
        let _ = running.id.signal(Signal::TERM);
        let has_stopped = tokio::time::timeout(STOPS_WITHIN, running.child.wait()).await.is_ok();
        if !has_stopped {
            running.child.kill().await.with_context(|| format!("cannot kill node {}", self.id))?;
        }
        // One that was just starting dies of the signal.
        sweep(running.id.pid);
        Ok(has_stopped)
    }

    pub(super) fn pause(&mut self) -> anyhow::Result<()> {
        if let Some(running) = &mut self.running {
            running.id.signal(Signal::STOP).with_context(|| format!("cannot pause node {}", self.id))?;
            running.is_paused = true;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        if let Some(running) = self.running.as_mut().filter(|running| running.is_paused) {
            running.id.signal(Signal::CONT).with_context(|| format!("cannot wake node {}", self.id))?;
            running.is_paused = false;
        }
        Ok(())
    }

    /// Notices once that it has died by itself, if it was not expected.
    pub(super) fn find_dead(&mut self, now: Duration) -> Option<Death> {
        if self.may_end {
            return None;
        }
        self.find_ended(now).inspect(|_| self.found_dead = Some(Instant::now()))
    }

    /// Notices once that it has ended.
    pub(super) fn find_ended(&mut self, now: Duration) -> Option<Death> {
        let status = self.running.as_mut()?.child.try_wait().ok().flatten()?;
        sweep(self.running.take()?.id.pid);
        let last_words = fs::read_to_string(&self.log).unwrap_or_default();
        let last_words = last_words.lines().last().unwrap_or("it said nothing").to_owned();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Some(Death { node: self.id, at_ms, how: how(status), last_words })
    }

    /// Whether it has died by itself, and that for so long.
    pub(super) fn lies_for(&self, limit: Duration) -> bool {
        self.found_dead.is_some_and(|at| at.elapsed() >= limit)
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
