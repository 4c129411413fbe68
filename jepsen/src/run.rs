//! One test, from an empty folder to a verdict.
//!
//! ```text
//!   make the network and the cluster ─▶ wait until it is well ─▶ clients work, the nemesis breaks things
//!     ─▶ the time is over: heal everything ─▶ wait until it is well ─▶ read all back ─▶ stop, look through the disks ─▶ judge
//! ```
//!
//! Everything outside the store is removed when the run is over, however it ends: see [`crate::leftovers`].

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error, anyhow, bail};
use clap::ValueEnum;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, Plan, Status, WELL_WITHIN, clock_library};
use crate::faulty_disk::faulty_disks_are_possible;
use crate::findings::{self, Finding};
use crate::leftovers::Slot;
use crate::nemesis::{self, Choice, Kind, Nemesis, Tally};
use crate::network::{Links, Network, namespaces_are_possible};
use crate::page::page;
use crate::recorder::{Phase, Recorder};
use crate::results::{Asked, Results, Verdict, count};
use crate::workload::{self, Scene, Workload};

/// How long clients may take to end, when the time is over and all is healed: as long as the client library retries, and some.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(90);

/// How long faults may take to be mended when the time is over.
const MENDED_WITHIN: Duration = Duration::from_secs(150);

/// Bytes of a node's own disk, where disks are filled.
const DISK_BYTES: u64 = 256 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum NetworkKind {
    /// A network namespace for each node; needs root
    Namespaces,
    /// Loopback, without faults of the network
    Loopback,
}

/// How a run shall be.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) workload: Workload,
    pub(crate) nemesis: Choice,
    pub(crate) time_limit: Duration,
    pub(crate) nodes: u8,
    pub(crate) seed: u64,
    pub(crate) network: NetworkKind,
    pub(crate) varve: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) rate: u32,
    pub(crate) partitions: u32,
    pub(crate) keep_data: bool,
}

/// Where a run's results are, and what they are.
pub(crate) struct Done {
    pub(crate) folder: PathBuf,
    pub(crate) results: Results,
}

pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs a test.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Done> {
    if !options.varve.is_file() {
        bail!(
            "there is no {}: `cargo build --release -p varve` makes it, or name one with --varve",
            options.varve.display()
        );
    }
    let mut choice = options.nemesis.clone();
    let left_out = leave_out(&mut choice, options.network)?;
    let folder = make_folder(options)?;
    let history = workload::history_in(&folder);
    let recorder =
        Recorder::create(&history).with_context(|| format!("cannot make {}", history.display()))?;
    let recorder = Arc::new(recorder);
    let slot = Arc::new(Slot::take(&folder)?);
    say(&format!("seed {}, results in {}", options.seed, folder.display()));
    let network = match options.network {
        NetworkKind::Namespaces => {
            let is_shaped = choice.kinds.iter().any(|kind| kind.is_shape());
            let links = if is_shaped { Links::Shaped } else { Links::Plain };
            Network::namespaces(options.nodes, &slot, links).await?
        }
        NetworkKind::Loopback => Network::loopback(options.nodes, &slot)?,
    };
    if let Some(links) = network.faulty().filter(|_| choice.kinds.iter().any(|kind| kind.is_shape())) {
        say(&format!("links are shaped by {}", links.shaper()));
    }
    for why in &left_out {
        say(&format!("left out: {why}"));
    }
    let plan = Plan {
        nodes: options.nodes,
        seed: options.seed,
        varve: options.varve.clone(),
        clock_library: clock_library().filter(|_| choice.kinds.iter().any(|kind| kind.is_clock())),
        has_faulty_disks: choice.kinds.iter().any(|kind| kind.needs_faulty_disk()),
        disk_bytes: choice.kinds.contains(&Kind::DiskFull).then_some(DISK_BYTES),
    };
    let cluster = Cluster::make(plan, &folder, network, slot.clone(), recorder.clone()).await?;
    let test = Test { options, choice, left_out, folder, recorder, cluster: Arc::new(cluster) };
    test.run().await
}

/// Takes out the kinds that are not possible here, if nobody insists on them; says which and why.
fn leave_out(choice: &mut Choice, network: NetworkKind) -> anyhow::Result<Vec<String>> {
    let mut left_out = Vec::new();
    match network {
        NetworkKind::Namespaces => namespaces_are_possible()?,
        NetworkKind::Loopback => {
            let why = "nodes on loopback share a network; use `--network namespaces` as root";
            left_out
                .extend(choice.leave_out(|kind| kind.is_cut() || kind.is_shape(), why).map_err(Error::msg)?);
        }
    }
    left_out.extend(leave_out_for_want_of_means(choice)?);
    Ok(left_out)
}

/// The same, as far as it is not about the network.
pub(crate) fn leave_out_for_want_of_means(choice: &mut Choice) -> anyhow::Result<Vec<String>> {
    let mut left_out = Vec::new();
    if !rustix::process::geteuid().is_root() {
        let why = "small disks are mounted, which needs root";
        left_out.extend(choice.leave_out(|kind| kind == Kind::DiskFull, why).map_err(Error::msg)?);
    }
    if let Err(why) = faulty_disks_are_possible() {
        left_out.extend(choice.leave_out(Kind::needs_faulty_disk, &why).map_err(Error::msg)?);
    }
    if clock_library().is_none() {
        let why = "clocks are made wrong by libfaketime, which is not installed";
        left_out.extend(choice.leave_out(Kind::is_clock, why).map_err(Error::msg)?);
    }
    Ok(left_out)
}

/// The folder of a run: its time and what it is.
fn make_folder(options: &Options) -> anyhow::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("{}-{}-{}", time_name(now), options.workload.name(), options.nemesis.name);
    fs::create_dir_all(&options.store).with_context(|| format!("cannot make {}", options.store.display()))?;
    let store = options.store.canonicalize()?;
    for again in 0..100 {
        let folder = store.join(if again == 0 { name.clone() } else { format!("{name}-{again}") });
        match fs::create_dir(&folder) {
            Ok(()) => {
                let latest = store.join("latest");
                let _ = fs::remove_file(&latest);
                // Convenience only: a file system without links has none.
                let _ = std::os::unix::fs::symlink(&folder, &latest);
                return Ok(folder);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
    }
    bail!("a hundred runs began in this second");
}

/// `20261129T031500Z` for seconds since 1970.
fn time_name(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Year, month and day for days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

struct Test<'a> {
    options: &'a Options,
    choice: Choice,
    left_out: Vec<String>,
    folder: PathBuf,
    recorder: Arc<Recorder>,
    cluster: Arc<Cluster>,
}

/// What happened until everything was read back.
struct Story {
    tally: Tally,
    plan: Vec<nemesis::Planned>,
    well_after: Option<Duration>,
    findings: Vec<Finding>,
}

/// Ends a task with whoever waits for it.
struct Watch(JoinHandle<anyhow::Result<()>>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Test<'_> {
    async fn run(self) -> anyhow::Result<Done> {
        let cluster = self.cluster.clone();
        let nodes = Watch(tokio::spawn(async move { cluster.watch_nodes().await }));
        let cluster = self.cluster.clone();
        let status = Watch(tokio::spawn(async move {
            cluster.watch_status().await;
            Ok(())
        }));
        let mut story = self.tell().await?;
        drop(status);
        if nodes.0.is_finished() {
            bail!("nobody looked after the nodes any more: one could not be started");
        }
        say("looking through the disks");
        story.findings.extend(
            self.cluster
                .verify()
                .await?
                .into_iter()
                .map(|text| Finding::new("damaged", format!("damaged: {text}"))),
        );
        drop(nodes);
        self.judge(story)
    }

    /// Starts the cluster, lets everything happen, heals, and reads back.
    async fn tell(&self) -> anyhow::Result<Story> {
        let (cluster, recorder) = (&self.cluster, &self.recorder);
        for node in cluster.ids() {
            cluster.start(node).await?;
        }
        let well = cluster.wait_until(WELL_WITHIN, Status::is_well).await;
        well.map_err(|why| anyhow!("the new cluster is not well after {WELL_WITHIN:?}: {why}"))?;
        let (end, over) = watch::channel(false);
        let scene = Scene {
            servers: cluster.servers().into(),
            recorder: recorder.clone(),
            seed: self.options.seed,
            rate: self.options.rate,
            partitions: self.options.partitions,
            over: over.clone(),
        };
        let workload = self.options.workload;
        workload::prepare(workload, &scene).await?;
        let plan = nemesis::plan(&self.choice.kinds, self.options.time_limit, self.options.seed);
        say(&format!("{} faults are planned for {:?}", plan.len(), self.options.time_limit));
        recorder.event(None, "run", Phase::Note, "the load begins");
        let faults = Nemesis::new(cluster.clone(), recorder.clone(), over);
        let mut faults = tokio::spawn({
            let plan = plan.clone();
            async move { faults.run(plan).await }
        });
        let mut clients = tokio::spawn({
            let scene = scene.clone();
            async move { workload::work(workload, &scene).await }
        });
        tokio::select! {
            biased;
            failed = &mut clients => bail!("the clients ended before the time: {failed:?}"),
            () = tokio::time::sleep(self.options.time_limit) => {}
        }
        end.send_replace(true);
        recorder.event(None, "run", Phase::Note, "the time is over, everything is healed");
        let tally = tokio::time::timeout(MENDED_WITHIN, &mut faults)
            .await
            .map_err(|_| anyhow!("the nemesis did not end within {MENDED_WITHIN:?}"))??
            .context("the nemesis failed")?;
        cluster.revive().await?;
        let (well_after, mut findings) = self.heal().await;
        match tokio::time::timeout(CLIENTS_END_WITHIN, &mut clients).await {
            Ok(ended) => ended??,
            Err(_) => findings.push(Finding::new(
                "clients_hang",
                format!(
                    "clients_hang: clients were not done {CLIENTS_END_WITHIN:?} after everything was healed"
                ),
            )),
        }
        clients.abort();
        say("reading everything back");
        if let Err(error) = workload::read_back(workload, &scene).await {
            findings.push(Finding::new("unreadable", format!("unreadable: {error:#}")));
        }
        if self.choice.kinds.contains(&Kind::CorruptFiles) {
            findings.extend(self.look_through().await);
        }
        Ok(Story { tally, plan, well_after, findings })
    }

    /// Waits until the cluster is well.
    async fn heal(&self) -> (Option<Duration>, Vec<Finding>) {
        let start = Instant::now();
        say("healed; waiting until the cluster is well");
        match self.cluster.wait_until(WELL_WITHIN, Status::is_well).await {
            Ok(_) => {
                self.recorder.event(None, "run", Phase::Note, "the cluster is well");
                (Some(start.elapsed()), Vec::new())
            }
            Err(complaints) => {
                let text =
                    format!("not_well_again: {WELL_WITHIN:?} after everything was healed: {complaints}");
                (None, vec![Finding::new("not_well_again", text)])
            }
        }
    }

    /// Waits until what has rotted is found: a start does not read what is old and sealed.
    async fn look_through(&self) -> Option<Finding> {
        say("waiting until the nodes have looked through their logs");
        let looked = self.cluster.wait_until(WELL_WITHIN, Status::is_looked_through).await;
        let text = || format!("rot_stays: after {WELL_WITHIN:?} not all logs were looked through and mended");
        looked.err().map(|_| Finding::new("rot_stays", text()))
    }

    fn judge(self, story: Story) -> anyhow::Result<Done> {
        say("judging");
        let kept = self.recorder.finish().context("the history could not be written")?;
        let judgement = findings::judge(&workload::history_in(&self.folder), self.options.workload.judge())?;
        let deaths = self.cluster.deaths();
        let mut found = judgement.findings;
        found.extend(story.findings);
        found.extend(self.cluster.findings());
        found.extend(findings::of_processes(&deaths, &self.folder, self.cluster.ids()));
        let results = Results {
            verdict: Verdict::Pass,
            asked: self.asked(),
            operations: count(&kept.samples),
            faults: story.tally,
            left_out: self.left_out,
            view_changes: self.cluster.view_changes(),
            deaths,
            well_after_ms: story.well_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            proves_nothing: judgement.proves_nothing,
            findings: found,
            checker: judgement.report,
            plan: story.plan,
            events: kept.events,
        };
        let results = results.decide(!self.choice.kinds.is_empty());
        write(&self.folder.join("results.json"), &serde_json::to_string_pretty(&results)?)?;
        write(&self.folder.join("report.html"), &page(&results, &kept.samples))?;
        if results.verdict == Verdict::Anomalies || self.options.keep_data {
            keep_data(&self.folder, self.cluster.has_own_disks())?;
        } else {
            remove_data(&self.folder, self.cluster.has_own_disks());
        }
        Ok(Done { folder: self.folder, results })
    }

    fn asked(&self) -> Asked {
        let Options { workload, time_limit, nodes, seed, network, rate, partitions, .. } = self.options;
        let network = match network {
            NetworkKind::Namespaces => "namespaces",
            NetworkKind::Loopback => "loopback",
        };
        let (workload, nemesis) = (workload.name(), self.options.nemesis.name.clone());
        let seconds = time_limit.as_secs_f64();
        let command = format!(
            "cargo run --release -p jepsen -- test --workload {workload} --nemesis {nemesis} --time-limit {seconds} \
             --nodes {nodes} --network {network} --rate {rate} --partitions {partitions} --seed {seed}"
        );
        Asked { workload, nemesis, network, nodes: *nodes, time_limit_s: seconds, seed: *seed, command }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Brings what is on mounted disks, which are about to go, to where it stays.
fn keep_data(folder: &Path, has_own_disks: bool) -> anyhow::Result<()> {
    if has_own_disks {
        let (from, to) = (folder.join("data"), folder.join("data-kept"));
        let copied = std::process::Command::new("cp").arg("-a").args([&from, &to]).status();
        if !copied.context("cannot run `cp`")?.success() {
            bail!("cannot copy {} to {}", from.display(), to.display());
        }
    }
    Ok(())
}

/// A run in which nothing was wrong needs its data no more.
fn remove_data(folder: &Path, has_own_disks: bool) {
    if !has_own_disks {
        let _ = fs::remove_dir_all(folder.join("data"));
    }
}

/// The network of a run if nobody says: namespaces where they are possible.
pub(crate) fn default_network() -> NetworkKind {
    if namespaces_are_possible().is_ok() { NetworkKind::Namespaces } else { NetworkKind::Loopback }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_named() {
        assert_eq!(time_name(0), "19700101T000000Z");
        assert_eq!(time_name(951_782_400), "20000229T000000Z");
        assert_eq!(time_name(1_735_689_599), "20241231T235959Z");
    }
}
