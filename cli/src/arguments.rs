//! The command line as typed. What each command takes stands in the command's own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    bench, cert, cluster, consume, dev, drill, dump, format, key, node, produce, stream, topic, verify,
};
use crate::output::Format;

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Which cluster: --servers, or else the `varve dev` that runs on --data-dir.

Exit codes:
  0  done
  1  the cluster refused or failed; the message says what was and what was not done
  2  wrong usage, or a configuration or data directory that cannot be used
  3  the cluster cannot be reached";

/// A clustered log: what is acknowledged is on disk at a majority.
#[derive(Parser, Debug)]
#[command(name = "varve", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The cluster: `varve://host:port,host:port/?ca=FILE`
    #[arg(long, global = true, env = "VARVE_SERVERS", value_name = "URL")]
    pub(crate) servers: Option<String>,
    /// Where `varve dev` keeps its data, and where other commands look for it
    #[arg(long, global = true, env = "VARVE_DATA_DIR", value_name = "DIR", default_value = "varve-data")]
    pub(crate) data_dir: PathBuf,
    /// How results are printed: text or json
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub(crate) output: Format,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as `varve_replica=debug`
    #[arg(long, global = true, env = "VARVE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine, for trying things
    ///
    /// Makes a new cluster in --data-dir if there is none, or brings the one that is there back. Each node is a process of its
    /// own; kill one and see what happens. Ctrl-C stops the cluster, the data stays.
    Dev(dev::Arguments),
    /// Run one node of a cluster
    ///
    /// Runs until SIGTERM or SIGINT; a second one ends it at once. Nothing that was acknowledged is lost either way.
    Node(node::Arguments),
    /// Make the data directory of a node ready for its first start
    ///
    /// Refuses a directory that holds data already. Never format the directory of a node that has run before: it would vote as
    /// if it had promised nothing.
    Format(format::Arguments),
    /// Make the authority of a cluster and a certificate for each node
    ///
    /// Makes what is missing of the files that the configuration names, and the authority's key beside its certificate.
    /// Overwrites nothing.
    Cert(cert::Arguments),
    /// Make a key for what nodes store, so that disks can be lost without their records being read
    ///
    /// Adds a new key to a key file: what a node writes after its next start is sealed with it (AES-256-GCM). What was written before
    /// stays as it is until it is let go, so older keys stay in the file as long. All nodes may have the same file, or each its own.
    Key(key::Arguments),
    /// Create, list, describe and delete streams
    Stream(stream::Arguments),
    /// Create, list, describe and delete topics
    Topic(topic::Arguments),
    /// Append the lines of stdin or a file as records
    ///
    /// Each line becomes a record: without its newline, otherwise byte for byte. A last line without a newline becomes one,
    /// too. Ends when every record is acknowledged, which means on disk at a majority, or says how many were.
    Produce(produce::Arguments),
    /// Print records
    ///
    /// Prints each record and a newline, so that a file of lines comes back as it was. Follows what is appended until Ctrl-C,
    /// unless --count or --until-end say where to end. Records of one partition come in order.
    Consume(consume::Arguments),
    /// Measure the cluster: throughput, and latencies that leave no wait out
    ///
    /// Drives the cluster with the client that everybody uses, and prints records and megabytes per second with percentiles of
    /// latency. Ctrl-C ends a run early and reports what there is. Measure with a release build, from a machine that has
    /// nothing else to do.
    Bench(bench::Arguments),
    /// Rehearse failures: what users see when a node dies, hangs or is replaced
    ///
    /// Appends to and reads from a topic at a fixed rate, does something to a node, and tells how long appends waited, whether
    /// anybody saw an error, and whether every record is there, once and in order. What hurts is asked for first. Exit code 1 if
    /// anything was lost or failed, or a limit was missed.
    Drill(drill::Arguments),
    /// See how the cluster is
    Cluster(cluster::Arguments),
    /// Check everything in the data directory of a node
    ///
    /// Reads all of it as a node that starts would, and changes nothing: checksums, the chain of prepares, the places of files,
    /// both copies of the superblocks. Says what a node would fetch from the others, and what it would refuse. While the node
    /// runs, what it is just writing may look damaged. Exit code 1 if there are findings, 2 if it is no data directory.
    Verify(verify::Arguments),
    /// Print what the log of a group holds, from the data directory of a node
    ///
    /// One line for each prepare, and for each record with --records; JSON lines with --output json. Changes nothing.
    Dump(dump::Arguments),
}
