//! The command line as typed, and what of it does not go together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rand::Rng as _;
use rand::SeedableRng as _;

use crate::nemesis::Choice;
use crate::run::{NetworkKind, Options, default_network, leave_out_for_want_of_means, say};
use crate::workload::Workload;

const EXIT_CODES: &str = "Exit codes:
  0  nothing wrong was found
  1  anomalies were found
  2  the harness or its usage is at fault, or the run or history proves nothing";

/// Judges Varve from outside: real nodes, real faults, and what clients saw of them.
#[derive(Parser, Debug)]
#[command(name = "jepsen", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start a cluster, work with it while things break, heal, read everything back, and judge
    ///
    /// Writes the history, the nodes' logs, `results.json` and `report.html` into a folder of the store. Whatever else it makes is
    /// removed at the end.
    Test(TestArguments),
    /// Run every workload under every kind of nemesis, and print a table
    TestAll(TestAllArguments),
    /// Check a history against what a log, or a set of streams and topics, promises
    Check {
        /// The history: JSON lines of {time_ns, process, type, f, value}
        history: PathBuf,
        /// How the report is printed
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Remove processes, namespaces and mounts that a harness which was killed has left behind
    Clean,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// A line per anomaly, and a verdict.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What all tests take.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Seconds that the load and the faults last
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    time_limit: f64,
    /// Nodes of the cluster
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
    /// From which everything is drawn [default: drawn and told]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What connects the nodes [default: namespaces as root, loopback otherwise]
    #[arg(long, value_enum, value_name = "KIND")]
    network: Option<NetworkKind>,
    /// The binary under test [default: `varve` beside this one]
    #[arg(long, value_name = "PATH")]
    varve: Option<PathBuf>,
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "jepsen/store")]
    store: PathBuf,
    /// Operations per second that all clients together aim at
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Keep the nodes' data also if nothing was wrong
    #[arg(long)]
    keep_data: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TestArguments {
    /// What clients do
    #[arg(long, value_enum, value_name = "W")]
    workload: Workload,
    /// What breaks meanwhile, with commas: none, kill, stop, pause, rolling, isolate-one, isolate-primary, halves, ring, bridge,
    /// one-way, flapping (or all of those that cut links: partition), delay, loss, reorder, duplicate, corrupt-packets, rate (or all
    /// of those: netem), corrupt-files, lose-disk, disk-full, slow-disk, failing-disk, power-cut,
    /// clock-jump, clock-strobe, clock-drift (or all of those: clocks), transfer, move; or all
    #[arg(long, value_name = "N,N,...")]
    nemesis: Choice,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct TestAllArguments {
    /// Only these workloads, with commas
    #[arg(long, value_enum, value_name = "W,W,...", value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Only under this nemesis; may be given several times
    #[arg(long, value_name = "N,N,...")]
    nemesis: Vec<Choice>,
    #[command(flatten)]
    common: Common,
}

/// The columns of the matrix where links can be cut, and where not.
const IN_NAMESPACES: [&str; 15] = [
    "none",
    "kill",
    "stop,rolling",
    "pause",
    "partition",
    "netem",
    "kill,partition",
    "corrupt-files",
    "lose-disk",
    "disk-full",
    "slow-disk,failing-disk",
    "power-cut",
    "clocks",
    "transfer,move",
    "all",
];
const ON_LOOPBACK: [&str; 8] =
    ["none", "kill", "stop,rolling", "pause", "corrupt-files,lose-disk", "clocks", "transfer,move", "all"];

/// The longest run: what it keeps in memory is not bounded otherwise.
const SECONDS_MAX: f64 = 14_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok().filter(|seconds| (1.0..=SECONDS_MAX).contains(seconds));
    parsed.ok_or_else(|| format!("between 1 and {SECONDS_MAX} seconds"))
}

impl Common {
    fn options(&self, workload: Workload, nemesis: Choice, seed: u64) -> anyhow::Result<Options> {
        let varve = match &self.varve {
            Some(varve) => varve.clone(),
            None => std::env::current_exe().context("where is this program?")?.with_file_name("varve"),
        };
        if self.nodes < 3 && !nemesis.kinds.is_empty() {
            bail!("a cluster of {} has no node to spare: take at least 3, or `--nemesis none`", self.nodes);
        }
        Ok(Options {
            workload,
            nemesis,
            time_limit: Duration::from_secs_f64(self.time_limit),
            nodes: self.nodes,
            seed,
            network: self.network.unwrap_or_else(default_network),
            varve,
            store: self.store.clone(),
            rate: self.rate,
            partitions: self.partitions,
            keep_data: self.keep_data,
        })
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| rand_chacha::ChaCha8Rng::from_os_rng().random_range(0..1_000_000))
    }
}

impl TestArguments {
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        self.common.options(self.workload, self.nemesis.clone(), self.common.seed())
    }
}

impl TestAllArguments {
    /// Every workload under every nemesis, each with a seed of its own.
    pub(crate) fn tests(&self) -> anyhow::Result<Vec<Options>> {
        let workloads = if self.workload.is_empty() { Workload::value_variants() } else { &self.workload };
        let network = self.common.network.unwrap_or_else(default_network);
        let names: &[&str] = match network {
            NetworkKind::Namespaces => &IN_NAMESPACES,
            NetworkKind::Loopback => &ON_LOOPBACK,
        };
        let nemeses = if self.nemesis.is_empty() {
            let parsed = names.iter().map(|name| name.parse::<Choice>().map_err(anyhow::Error::msg));
            let mut columns = parsed.collect::<anyhow::Result<Vec<_>>>()?;
            columns.retain(|column| match leave_out_for_want_of_means(&mut column.clone()) {
                Ok(_) => true,
                Err(why) => {
                    say(&format!("left out of the matrix: {why}"));
                    false
                }
            });
            columns
        } else {
            self.nemesis.clone()
        };
        let first = self.common.seed();
        let pairs = workloads
            .iter()
            .flat_map(|workload| nemeses.iter().map(move |nemesis| (*workload, nemesis.clone())));
        (first..)
            .zip(pairs)
            .map(|(seed, (workload, nemesis))| self.common.options(workload, nemesis, seed))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_matrix_is_made_of_nemeses_that_exist() {
        for network in ["namespaces", "loopback"] {
            let typed = ["jepsen", "test-all", "--network", network, "--seed", "5", "--time-limit", "10"];
            let Command::TestAll(arguments) = Arguments::parse_from(typed).command else {
                panic!("not test-all")
            };
            let tests = arguments.tests().unwrap();
            assert!(tests.len() >= 21 && tests.len() % 3 == 0, "{} tests", tests.len());
            assert_eq!((tests[0].seed, tests[1].seed), (5, 6));
        }
    }

    #[test]
    fn small_clusters_are_not_broken() {
        let typed = ["jepsen", "test", "--workload", "append", "--nemesis", "kill", "--nodes", "1"];
        let Command::Test(arguments) = Arguments::parse_from(typed).command else { panic!("not test") };
        assert!(arguments.options().unwrap_err().to_string().contains("no node to spare"));
    }
}
