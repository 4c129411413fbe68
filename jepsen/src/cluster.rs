//! A cluster of real processes: made with `varve cert` and `varve format`, run with `varve node`, asked with `varve cluster
//! status`.
//!
//! Nodes die because the nemesis wants it, and then only by its hand. Whoever is found dead otherwise has died by itself: that is
//! noted, and he is started again, as whoever runs a cluster would.

mod clock;
mod process;
mod status;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

pub(crate) use self::clock::{Ahead, library as clock_library, sweep as sweep_clock};
pub(crate) use self::process::Death;
pub(crate) use self::status::Status;

use self::clock::Clock;
use self::process::Node;
use crate::command_line::{Said, ask, must};
use crate::faulty_disk::{Control, FaultyDisk};
use crate::findings::{self, Finding};
use crate::leftovers::Slot;
use crate::network::Network;
use crate::recorder::{Phase, Recorder};

/// How long a cluster may take to be there, and to be well again after everything is healed.
pub(crate) const WELL_WITHIN: Duration = Duration::from_secs(90);

/// Between two looks at how the cluster is.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// How long a question of the command line may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long whoever died by himself lies there.
const LIES_FOR: Duration = Duration::from_secs(1);

/// How long a node may take to end when its disk has failed: what is under way on the disk ends first, and disks may be slow.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// What it says then.
const DISK_ERROR: &str = "Input/output error";

/// Nodes look through all of their logs in seconds, and not in weeks.
const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;

/// Small segments, so that there are many.
const SEGMENT_BYTES: u64 = 1 << 20;

/// How a run's cluster is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: u8,
    pub(crate) seed: u64,
    pub(crate) varve: PathBuf,
    /// Bytes of a disk of its own for each node, which can be filled.
    pub(crate) disk_bytes: Option<u64>,
    /// The library that makes clocks wrong, if they shall be.
    pub(crate) clock_library: Option<PathBuf>,
    /// Disks are mounted that can be made bad.
    pub(crate) has_faulty_disks: bool,
}

/// The cluster of a run.
pub(crate) struct Cluster {
    plan: Plan,
    folder: PathBuf,
    pub(crate) network: Network,
    slot: Arc<Slot>,
    recorder: Arc<Recorder>,
    nodes: Vec<Mutex<Node>>,
    /// Of all nodes, or of none.
    clocks: Vec<Clock>,
    faulty_disks: Vec<FaultyDisk>,
    deaths: std::sync::Mutex<Vec<Death>>,
    findings: std::sync::Mutex<Vec<Finding>>,
    /// Whoever is found dead is started again.
    is_watched: AtomicBool,
    view_changes: AtomicU64,
    status: watch::Sender<Option<Status>>,
}

impl Cluster {
    /// Makes what a cluster needs, and starts nothing.
    pub(crate) async fn make(
        plan: Plan,
        folder: &Path,
        network: Network,
        slot: Arc<Slot>,
        recorder: Arc<Recorder>,
    ) -> anyhow::Result<Self> {
        let nodes = (1..=plan.nodes).map(|id| Mutex::new(Node::new(id, folder))).collect();
        let clocks = match &plan.clock_library {
            Some(library) => (1..=plan.nodes).map(|id| Clock::make(library, folder, id)).collect(),
            None => Ok(Vec::new()),
        };
        let mut cluster = Self {
            plan,
            folder: folder.to_owned(),
            network,
            slot,
            recorder,
            nodes,
            clocks: clocks?,
            faulty_disks: Vec::new(),
            deaths: std::sync::Mutex::default(),
            findings: std::sync::Mutex::default(),
            is_watched: AtomicBool::new(true),
            view_changes: AtomicU64::new(0),
            status: watch::Sender::new(None),
        };
        let config = cluster.config();
        fs::write(&config, cluster.configuration())
            .with_context(|| format!("cannot write {}", config.display()))?;
        cluster.varve(&["cert", "--config", &config.to_string_lossy()]).await?;
        for node in cluster.ids() {
            let disk = cluster.disk(node);
            fs::create_dir_all(&disk).with_context(|| format!("cannot make {}", disk.display()))?;
            if let Some(bytes) = cluster.plan.disk_bytes {
                cluster.slot.mount(&disk)?;
                must(&format!("mount -t tmpfs -o size={bytes} varve-jepsen {}", disk.display())).await?;
            }
            if cluster.plan.has_faulty_disks {
                let mount = cluster.faulty_mount(node);
                fs::create_dir_all(&mount).with_context(|| format!("cannot make {}", mount.display()))?;
                cluster.slot.mount(&mount)?;
                cluster.faulty_disks.push(FaultyDisk::mount(&disk, &mount)?);
            }
            cluster.format(node).await?;
        }
        Ok(cluster)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.plan.nodes
    }

    /// How many nodes can be down while the others are a majority.
    pub(crate) fn minority(&self) -> usize {
        usize::from(self.plan.nodes.saturating_sub(1) / 2)
    }

    pub(crate) fn has_own_disks(&self) -> bool {
        self.plan.disk_bytes.is_some()
    }

    fn config(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    /// Where a node sees its disk, if that can be made bad.
    fn faulty_mount(&self, node: u8) -> PathBuf {
        self.folder.join("disks").join(format!("node-{node}"))
    }

    /// The switch of a disk that can be made bad.
    pub(crate) fn disk_control(&self, node: u8) -> anyhow::Result<&Arc<Control>> {
        let disk = self.faulty_disks.get(usize::from(node) - 1);
        disk.map(|disk| &disk.control).context("the disks of nodes are not in the hands of the harness")
    }

    /// Where a node's disk is mounted, if it has one; its data directory is in it.
    pub(crate) fn disk(&self, node: u8) -> PathBuf {
        self.folder.join("data").join(format!("node-{node}"))
    }

    pub(crate) fn data_dir(&self, node: u8) -> PathBuf {
        self.disk(node).join("varve")
    }

    fn configuration(&self) -> String {
        let mut rng = ChaCha8Rng::seed_from_u64(self.plan.seed);
        let mut text = format!("cluster_id = \"{:032x}\"\n", rng.random::<u128>());
        for node in self.ids() {
            let address = self.network.address(node);
            let disks = if self.plan.has_faulty_disks { "disks" } else { "data" };
            let _ = writeln!(
                text,
                "\n[[node]]\nid = {node}\naddress = \"{address}\"\ndata_dir = \"{disks}/node-{node}/varve\""
            );
        }
        // Nodes that come back lead again soon, so that there is more of that.
        let restore = rng.random_range(1_500..6_000);
        let mtu = self.network.mtu();
        // One and more work by other paths of the runtime.
        let threads = rng.random_range(1..=2);
        let _ = write!(
            text,
            "\n[tls]\nca = \"tls/ca.crt\"\ncert_dir = \"tls\"\n\n[timing]\nrestore_primaries_after_ms = {restore}\n\n\
             [storage]\nsegment_size_bytes_max = {SEGMENT_BYTES}\n\
             scrub_bytes_per_second_max = {SCRUB_BYTES_PER_SECOND}\n\n[transport]\npath_mtu_max = {mtu}\n\
             threads = {threads}\n"
        );
        text
    }

    /// What clients connect to.
    pub(crate) fn servers(&self) -> String {
        let addresses: Vec<String> = self.ids().map(|node| self.network.address(node).to_string()).collect();
        format!("varve://{}/?ca={}", addresses.join(","), self.folder.join("tls/ca.crt").display())
    }

    /// Runs `varve` with these arguments, which must succeed.
    async fn varve(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let said = ask(&self.plan.varve.to_string_lossy(), arguments, ANSWER_WITHIN).await?;
        if said.code != Some(0) {
            bail!("`varve {}` failed: {}", arguments.join(" "), said.stderr);
        }
        Ok(())
    }

    /// Runs a `varve` command about this cluster, whatever comes of it.
    pub(crate) async fn varve_on_cluster(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<Said> {
        let servers = self.servers();
        let global = ["--servers", &servers, "--output", "json"];
        ask(&self.plan.varve.to_string_lossy(), global.iter().chain(arguments), limit).await
    }

    /// Makes a node's data directory.
    pub(crate) async fn format(&self, node: u8) -> anyhow::Result<()> {
        self.varve(&["format", "--config", &self.config().to_string_lossy(), "--id", &node.to_string()]).await
    }

    fn node(&self, node: u8) -> &Mutex<Node> {
        &self.nodes[usize::from(node) - 1]
    }

    /// Starts a node that is down.
    pub(crate) async fn start(&self, node: u8) -> anyhow::Result<()> {
        let (program, arguments) = self.network.command(node, &self.plan.varve);
        let mut command = Command::new(program);
        command.args(arguments).args(["--log", "info", "node", "--exit-with-parent", "--config"]);
        command.arg(self.config()).args(["--id", &node.to_string()]);
        if let Some(clock) = self.clocks.get(usize::from(node) - 1) {
            command.envs(clock.environment());
        }
        self.node(node).lock().await.start(command, &self.slot)
    }

    /// Kills a node with no warning.
    pub(crate) async fn kill(&self, node: u8) -> anyhow::Result<()> {
        self.node(node).lock().await.kill().await
    }

    /// Lets a node stop in order; kills it if it does not.
    pub(crate) async fn stop(&self, node: u8) -> anyhow::Result<()> {
        let stopped = self.node(node).lock().await.stop().await?;
        if !stopped {
            self.note("stop", format!("node {node} did not stop when asked to, and was killed"));
        }
        Ok(())
    }

    pub(crate) async fn pause(&self, node: u8) -> anyhow::Result<()> {
        self.node(node).lock().await.pause()
    }

    pub(crate) async fn resume(&self, node: u8) -> anyhow::Result<()> {
        self.node(node).lock().await.resume()
    }

    /// Starts whoever is down, and wakes whoever is paused.
    pub(crate) async fn revive(&self) -> anyhow::Result<()> {
        for node in self.ids() {
            let mut guard = self.node(node).lock().await;
            if guard.is_running() {
                guard.resume()?;
            } else {
                drop(guard);
                self.start(node).await?;
            }
        }
        Ok(())
    }

    /// Makes the clock of a node wrong, or right; it stays so over restarts.
    pub(crate) fn set_clock(&self, node: u8, ahead: Ahead) -> anyhow::Result<()> {
        let clock = self.clocks.get(usize::from(node) - 1);
        clock.context("nodes were started without the library that makes clocks wrong")?.set(ahead)
    }

    /// From now on a node may end by itself, because its disk fails.
    pub(crate) async fn expect_disk_error(&self, node: u8) {
        self.node(node).lock().await.may_end = true;
    }

    /// Whether a node whose disk has failed so many times has ended; it is started again then. One that should have ended and
    /// did not, or that has and did not say why, is a finding.
    pub(crate) async fn has_ended_of_disk_error(&self, node: u8, failures: u64) -> anyhow::Result<bool> {
        let start = Instant::now();
        let ended = loop {
            let ended = self.node(node).lock().await.find_ended(self.recorder.elapsed());
            if ended.is_some() || failures == 0 || start.elapsed() > ENDS_WITHIN {
                break ended;
            }
            tokio::time::sleep(LOOK_EVERY / 4).await;
        };
        self.node(node).lock().await.may_end = false;
        match &ended {
            Some(death) if failures > 0 && death.last_words.contains(DISK_ERROR) => {
                self.note("died", format!("node {node} {}: {}", death.how, death.last_words));
            }
            Some(death) => self.add(findings::of_death(death)),
            None if failures > 0 => {
                let text =
                    format!("went_on: node {node} goes on although its disk has failed {failures} times");
                self.add(Finding::new("went_on", text));
            }
            None => {}
        }
        if ended.is_some() {
            self.start(node).await?;
        }
        Ok(ended.is_some())
    }

    fn add(&self, finding: Finding) {
        self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
    }

    /// What nodes did that they should not.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn note(&self, kind: &str, detail: String) {
        self.recorder.event(None, kind, Phase::Note, detail);
    }

    /// Those that died by themselves.
    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Looks after the nodes until it is dropped: starts again who died by himself.
    pub(crate) async fn watch_nodes(&self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(LOOK_EVERY / 4).await;
            for node in self.ids() {
                let Some(death) = self.node(node).lock().await.find_dead(self.recorder.elapsed()) else {
                    continue;
                };
                self.note("died", format!("node {node} {}: {}", death.how, death.last_words));
                self.deaths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(death);
            }
            if !self.is_watched.load(Ordering::Relaxed) {
                continue;
            }
            for node in self.ids() {
                let lies_long = self.node(node).lock().await.lies_for(LIES_FOR);
                if lies_long {
                    self.start(node).await?;
                }
            }
        }
    }

    /// Asks how the cluster is.
    async fn ask_status(&self) -> anyhow::Result<Status> {
        let said = self.varve_on_cluster(&["cluster", "status"], ANSWER_WITHIN).await?;
        // Exit code 1 says that a group is not available, and the document is there all the same.
        serde_json::from_str(&said.stdout).map_err(|error| anyhow!("{error}; {}", said.stderr))
    }

    /// Asks again and again until it is dropped; counts view changes.
    pub(crate) async fn watch_status(&self) {
        let mut views = std::collections::BTreeMap::new();
        loop {
            if let Ok(status) = self.ask_status().await {
                for group in &status.groups {
                    let before = views.insert(group.group, group.view).unwrap_or(group.view);
                    if group.view > before {
                        self.view_changes.fetch_add(group.view - before, Ordering::Relaxed);
                        let primary =
                            group.primary.map_or("nobody".to_owned(), |node| format!("node {node}"));
                        self.note(
                            "view",
                            format!("{} is in view {}, led by {primary}", group.name, group.view),
                        );
                    }
                }
                self.status.send_replace(Some(status));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn view_changes(&self) -> u64 {
        self.view_changes.load(Ordering::Relaxed)
    }

    /// How the cluster was when it was last asked.
    pub(crate) fn status(&self) -> Option<Status> {
        self.status.borrow().clone()
    }

    /// Waits until a look that began after now shows what is wanted; returns the time it took, or how it is instead.
    pub(crate) async fn wait_until(
        &self,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        let mut looks = self.status.subscribe();
        // The look that is under way may have begun before.
        let mut to_skip = 1;
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if tokio::time::timeout(left, looks.changed()).await.is_err() || left.is_zero() {
                let status = self.status();
                return Err(
                    status.map_or("the cluster cannot be reached".to_owned(), |status| status.complaints())
                );
            }
            let is_wanted = looks.borrow_and_update().as_ref().is_some_and(&wanted);
            if to_skip == 0 && is_wanted {
                return Ok(start.elapsed());
            }
            to_skip = usize::saturating_sub(to_skip, 1);
        }
    }

    /// Stops all nodes in order and looks through their data; returns what is wrong with it.
    pub(crate) async fn verify(&self) -> anyhow::Result<Vec<String>> {
        self.is_watched.store(false, Ordering::Relaxed);
        let mut findings = Vec::new();
        for node in self.ids() {
            self.stop(node).await?;
        }
        for node in self.ids() {
            let folder = self.data_dir(node);
            let said =
                ask(&self.plan.varve.to_string_lossy(), [Path::new("verify"), &folder], WELL_WITHIN).await?;
            if said.code != Some(0) {
                let words = format!("{}\n{}", said.stdout.trim(), said.stderr);
                findings.push(format!("`varve verify` of node {node}: {}", words.trim()));
            }
        }
        Ok(findings)
    }
}
