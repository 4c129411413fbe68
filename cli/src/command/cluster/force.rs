//! `varve cluster force-recover`: an operator lets a group go on with what its replicas hold, although more of them than a
//! minority may lack what they acknowledged.
//!
//! Who is forced, and what is left then, is decided by [`Recovery`].

use anyhow::anyhow;
use serde::Serialize;
use varve_client::Client;
use varve_client::recovery::Recovery;
use varve_protocol::client::Doubt;
use varve_protocol::id::{GroupId, NodeId};
use varve_protocol::metadata::NodeEntry;

use crate::cluster_state;
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What the operator takes upon himself.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Risk {
    /// Really do it: what was acknowledged and is not held by the replicas that are named may be lost for good
    #[arg(long)]
    accept_loss: bool,
    /// Do it although some replicas cannot be asked, which may hold more than the others; they must never come back with
    /// their data
    #[arg(long)]
    without_unreachable: bool,
}

#[derive(Serialize)]
struct Forced {
    done: &'static str,
    group: String,
    nodes: Vec<u8>,
    /// Where the partition ends now; what was acknowledged from there on is lost.
    log_end: u64,
}

/// A replica that answered.
type Found = (NodeEntry, Doubt);

/// Has the group of this name go on with what is left.
pub(super) async fn force_recover(context: &Context, name: &str, risk: Risk) -> Outcome {
    let client = connect(context).await?;
    let summary = cluster_state::summary(&client).await?;
    let Some(group) = summary.groups.iter().find(|group| group.name == name) else {
        return Err(Failure::refused(anyhow!(
            "there is no group `{name}`; `varve cluster status` lists them: STREAM/TOPIC/PARTITION"
        )));
    };
    let found = look(&client, GroupId::new(group.group), risk).await?;
    let doubts: Vec<Doubt> = found.iter().map(|(_, doubt)| *doubt).collect();
    let Recovery { forced, log_end, .. } = Recovery::plan(&doubts, group.replicas.len())
        .map_err(|why| Failure::refused(anyhow!("{name}: {why}")))?;
    let log_end = log_end.as_raw();
    let nodes: Vec<u8> = forced.iter().map(|place| found[*place].0.node.as_raw()).collect();
    if !risk.accept_loss {
        return Err(Failure::refused(anyhow!(
            "{name} would go on with what {} hold: up to offset {log_end}, exclusive. What was acknowledged from there on and \
             was not synced is lost for good, and offsets are given again; producers that go on with their sessions may be \
             refused. Say --accept-loss to do it",
            named(&nodes)
        )));
    }
    for place in forced {
        client.admin().force_recover(GroupId::new(group.group), &found[place].0).await?;
    }
    let forced = Forced { done: "forced", group: name.to_owned(), nodes, log_end };
    output::print(context.output, &forced, |forced| {
        format!(
            "{} goes on with what {} hold, up to offset {}",
            forced.group,
            named(&forced.nodes),
            forced.log_end
        )
    })
}

/// What the replicas say; all of them, unless the operator does without.
async fn look(client: &Client, group: GroupId, risk: Risk) -> Outcome<Vec<Found>> {
    let mut found = Vec::new();
    for (node, answer) in client.admin().doubts(group).await? {
        match answer {
            Ok(doubt) => found.push((node, doubt)),
            Err(error) if risk.without_unreachable => {
                tracing::warn!(node = %node.node, %error, "not asked");
            }
            Err(error) => {
                return Err(Failure::refused(anyhow!(
                    "node {} does not say what it holds, which may be more than the others do: {error}; start it, or say \
                     --without-unreachable if it never comes back",
                    node.node.as_raw()
                )));
            }
        }
    }
    Ok(found)
}

fn named(nodes: &[u8]) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| NodeId::new(*node).to_string()).collect();
    nodes.join(" and ")
}
