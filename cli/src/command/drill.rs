//! `varve drill`: failures on purpose, with users watching.
//!
//! ```text
//!   options    what was typed                             consent    whether it is really wanted
//!   run        the topic, the probes, the rounds          round      one event, from well to well
//!   probe      producers and consumers at a fixed rate    sight      what the other nodes see of it
//!   hands      how nodes are reached                      process, isolation   the means
//!   ledger     lost, doubled, reordered                   timeline, profile    how long it took
//!   report     the document and its tables                page       the same as HTML
//!   check      whether machine and cluster are fit
//! ```
//!
//! A record counts from when it was due, and every record that was acknowledged is read back at the end: a drill that counts only what
//! went well would say that all is.

mod check;
mod consent;
mod hands;
mod isolation;
mod ledger;
mod options;
mod page;
mod probe;
mod process;
mod profile;
mod report;
mod round;
mod run;
mod sight;
mod timeline;

use std::time::Duration;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Outcome;

use self::isolation::Isolated;
use self::options::{Common, Manual, StrikeLimits};
use self::round::Act;
use self::run::Drill;

/// What `varve drill` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Kill the process of the node that leads partition 0, with SIGKILL
    ///
    /// The node must run on this machine; elsewhere, --manual says when to kill it, and watches. A node of a `varve dev` is started
    /// again by itself at the end of each round.
    KillPrimary {
        #[command(flatten)]
        manual: Manual,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limits: StrikeLimits,
    },
    /// Stop the process of the node that leads partition 0 for a time, with SIGSTOP, and let it go on
    ///
    /// Should the drill die meanwhile, the process goes on by itself some seconds after its time.
    PausePrimary {
        /// How long
        #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
        time: Duration,
        #[command(flatten)]
        manual: Manual,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limits: StrikeLimits,
    },
    /// Let the node that leads partition 0 hear nobody for a time: its packets are dropped
    ///
    /// For the nodes of a `varve dev`, as root, with `nft`. The kernel itself ends it when the time is up, also if the drill dies.
    IsolatePrimary {
        /// How long
        #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// From whom: from all, or from the other nodes only, while clients still reach it
        #[arg(long, value_enum, default_value = "all")]
        from: Isolated,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        limits: StrikeLimits,
    },
    /// Stop one node after the other in good order, start it again, and wait until all is well
    ///
    /// For the nodes of a `varve dev`, or with --manual. A round is one node.
    RollingRestart {
        /// Let others lead first what the node leads, as `varve cluster drain` does before maintenance
        #[arg(long)]
        drain: bool,
        #[command(flatten)]
        manual: Manual,
        #[command(flatten)]
        common: Common,
    },
    /// Let another node lead each partition, one after the other; nothing is stopped
    ///
    /// A round is one partition. At the end those lead that did before.
    TransferPrimaries {
        #[command(flatten)]
        common: Common,
    },
    /// Stop a node, empty its data directory, format it, start it, and wait until it has its votes back
    ///
    /// For the nodes of a `varve dev`, or with --manual. It is the node that leads partition 0.
    ReplaceNode {
        #[command(flatten)]
        manual: Manual,
        #[command(flatten)]
        common: Common,
    },
    /// Check a new machine or cluster: disk, network, limits; changes nothing
    Check(check::Arguments),
}

/// Drills.
pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let none = StrikeLimits::default();
    let by_itself = Manual::default();
    let (name, act, common, limits, manual) = match arguments.verb {
        Verb::Check(arguments) => return check::run(context, &arguments).await,
        Verb::KillPrimary { common, limits, manual } => ("kill-primary", Act::Kill, common, limits, manual),
        Verb::PausePrimary { time, common, limits, manual } => {
            ("pause-primary", Act::Pause(time), common, limits, manual)
        }
        Verb::IsolatePrimary { time, from, common, limits } => {
            ("isolate-primary", Act::Isolate(from, time), common, limits, by_itself)
        }
        Verb::RollingRestart { drain, common, manual } => {
            ("rolling-restart", Act::Restart { is_drained: drain }, common, none, manual)
        }
        Verb::TransferPrimaries { common } => ("transfer-primaries", Act::Transfer, common, none, by_itself),
        Verb::ReplaceNode { common, manual } => ("replace-node", Act::Replace, common, none, manual),
    };
    run::run(context, Drill { name, act, options: common, limits, is_manual: manual.manual }).await
}
