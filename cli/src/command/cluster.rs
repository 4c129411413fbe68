//! `varve cluster`: how the cluster is, and who leads what.

mod force;
mod moving;
pub(crate) mod transfer;
mod upgrade;

use anyhow::anyhow;
use clap::Subcommand;

use crate::cluster_state;
use crate::connection::{self, connect};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::health::{GroupHealth, Health, NodeHealth, Summary};
use crate::output::{self, counted, table};

/// Groups that are listed one by one; where there are more, only those that are not well.
const GROUPS_SHOWN_MAX: usize = 24;

/// What `varve cluster` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print nodes, their roles, and what is not well; exit code 1 if some group cannot take writes
    Status,
    /// Let another node lead a group; producers see a short wait and no error
    Transfer {
        /// STREAM/TOPIC/PARTITION, or `metadata`
        group: String,
        /// The node that shall lead it; it must hold a replica
        #[arg(long, value_name = "NODE")]
        to: u8,
    },
    /// Let other nodes lead everything that a node leads, so that it can be stopped unnoticed
    ///
    /// When the node is started again, it leads what it is preferred for after `restore_primaries_after_ms`.
    Drain {
        /// Which node
        node: u8,
    },
    /// Move a replica of a partition to another node, which takes the log first, while the partition goes on
    ///
    /// Waits until it is done; Ctrl-C ends the waiting and not the move.
    Move {
        /// STREAM/TOPIC/PARTITION
        group: String,
        #[command(flatten)]
        way: moving::Way,
    },
    /// Have one more node hold a replica of a partition; it takes the log first, while the partition goes on
    ///
    /// A partition of 3 replicas survives the loss of 1 node, one of 5 the loss of 2; 4 are a step in between. Waits until it is
    /// done; Ctrl-C ends the waiting only. To give it up: `varve cluster move GROUP --cancel`.
    AddReplica {
        /// STREAM/TOPIC/PARTITION
        group: String,
        /// The node that shall hold it
        #[arg(long, value_name = "NODE")]
        to: u8,
    },
    /// Have a node leave a partition: the others go on without it, and its copy is deleted
    ///
    /// Waits until it is done; Ctrl-C ends the waiting only. To give it up: `varve cluster move GROUP --cancel`.
    RemoveReplica {
        /// STREAM/TOPIC/PARTITION
        group: String,
        /// The node that shall hold it no more; it may be down
        #[arg(long, value_name = "NODE")]
        from: u8,
    },
    /// Let a group go on with what is left, when most of its replicas stopped without syncing what they had acknowledged
    ///
    /// Topics made with `--durability quorum-memory` need it after a power failure of all their nodes: `varve cluster status`
    /// says "unsafe restart" then. Start all nodes first. Without --accept-loss it says what may be lost, and does nothing.
    ForceRecover {
        /// STREAM/TOPIC/PARTITION
        group: String,
        #[command(flatten)]
        risk: force::Risk,
    },
    /// Print how far a rolling upgrade is, and finish it
    ///
    /// Stop one node after the other and start it with the newer release, in any order; it speaks as the others do. When all of
    /// them run it, --finish has the cluster go on to what it brings.
    Upgrade {
        /// Go on to the newest version that all nodes know; no node can be started with the older release then
        #[arg(long)]
        finish: bool,
    },
}

/// Does what was asked with the cluster.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::Status => status(context).await,
        Verb::Transfer { group, to } => transfer::transfer(context, group, *to).await,
        Verb::Drain { node } => transfer::drain(context, *node).await,
        Verb::Move { group, way } => moving::move_replica(context, group, *way).await,
        Verb::AddReplica { group, to } => moving::add_replica(context, group, *to).await,
        Verb::RemoveReplica { group, from } => moving::remove_replica(context, group, *from).await,
        Verb::ForceRecover { group, risk } => force::force_recover(context, group, *risk).await,
        Verb::Upgrade { finish } => upgrade::upgrade(context, *finish).await,
    }
}

async fn status(context: &Context) -> Outcome {
    let client = connect(context).await?;
    let mut summary = cluster_state::summary(&client).await?;
    if let Some(running) = connection::dev(context)? {
        summary.add_pids(|id| running.nodes.iter().find(|node| node.id == id).and_then(|node| node.pid));
    }
    output::print(context.output, &summary, text)?;
    match summary.unavailable().count() {
        0 => Ok(()),
        count => Err(Failure::refused(anyhow!(
            "{} cannot take writes: no primary has a majority of the replicas behind it",
            counted(count, "group")
        ))),
    }
}

fn text(summary: &Summary) -> String {
    let health = match summary.health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded: everything can be written and read, but not everything is up",
        Health::Unavailable => "unavailable: some groups cannot take writes",
    };
    let up = summary.nodes.iter().filter(|node| node.unreachable.is_none()).count();
    let mut text = format!(
        "{health}\n{up} of {} up, {}, version {}\n\n",
        counted(summary.nodes.len(), "node"),
        counted(summary.groups.len(), "group"),
        summary.version
    );
    let head = [
        "NODE",
        "PID",
        "ADDRESS",
        "STATE",
        "UP FOR",
        "PRIMARY OF",
        "BACKUP OF",
        "NOT WORKING",
        "HEARS",
        "PROBLEM",
    ];
    text += &table(&head, &[0, 1, 4, 5, 6, 7], summary.nodes.iter().map(node_row));
    let all = summary.groups.len() <= GROUPS_SHOWN_MAX;
    let shown: Vec<&GroupHealth> =
        summary.groups.iter().filter(|group| all || !group.is_well() || !group.problems.is_empty()).collect();
    if !shown.is_empty() {
        let head = ["GROUP", "NAME", "WRITES", "PRIMARY", "VIEW", "WORKING", "PROBLEM"];
        text += "\n";
        text += &table(&head, &[0, 3, 4], shown.into_iter().map(group_row));
    }
    text
}

fn node_row(node: &NodeHealth) -> Vec<String> {
    let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut row = vec![node.id.to_string(), pid, node.address.clone()];
    match &node.unreachable {
        Some(why) => {
            row.push("down".to_owned());
            row.extend(["-"; 5].map(str::to_owned));
            row.push(why.clone());
        }
        None => {
            let uptime = std::time::Duration::from_secs(node.uptime_ms / 1_000);
            row.extend([
                if node.is_well() { "up".to_owned() } else { "not well".to_owned() },
                humantime::format_duration(uptime).to_string(),
                node.primary_of.to_string(),
                node.backup_of.to_string(),
                (node.changing + node.faulty).to_string(),
                list(&node.hears),
                damages(node),
            ]);
        }
    }
    row
}

/// What of a node's logs had rotted, if anything is not as it was.
fn damages(node: &NodeHealth) -> String {
    let left = node.scrub.damages_found.saturating_sub(node.scrub.damages_mended);
    match usize::try_from(left).unwrap_or(usize::MAX) {
        0 => String::new(),
        left => format!("{} of its logs cannot be read", counted(left, "part")),
    }
}

fn group_row(group: &GroupHealth) -> Vec<String> {
    let problem = |(node, problem): &(u8, String)| format!("node {node}: {problem}");
    let moving = group.moving.map(|moving| moving.to_string());
    let problems: Vec<String> = moving.into_iter().chain(group.problems.iter().map(problem)).collect();
    vec![
        group.group.to_string(),
        group.name.clone(),
        if group.available { "yes".to_owned() } else { "no".to_owned() },
        group.primary.map_or_else(|| "-".to_owned(), |primary| primary.to_string()),
        group.view.to_string(),
        format!("{} of {}", group.working.len(), group.replicas.len()),
        problems.join("; "),
    ]
}

fn list(nodes: &[u8]) -> String {
    nodes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}
