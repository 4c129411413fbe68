//! `varve cluster transfer` and `varve cluster drain`: who leads what, at the operator's wish.

use anyhow::anyhow;
use serde::Serialize;
use varve_client::Client;
use varve_protocol::id::{GroupId, NodeId};

use crate::cluster_state;
use crate::command::stream::print_done;
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::health::{GroupHealth, Summary};
use crate::output::{self, counted};

#[derive(Serialize)]
struct Drained {
    done: &'static str,
    node: u8,
    groups: usize,
}

/// Lets node `to` lead the group of this name.
pub(super) async fn transfer(context: &Context, name: &str, to: u8) -> Outcome {
    let client = connect(context).await?;
    let summary = cluster_state::summary(&client).await?;
    let Some(group) = summary.groups.iter().find(|group| group.name == name) else {
        return Err(Failure::refused(anyhow!(
            "there is no group `{name}`; `varve cluster status` lists them: `metadata`, or STREAM/TOPIC/PARTITION"
        )));
    };
    hand_over(&client, group, to).await?;
    print_done(context, "transferred primary", &format!("{name} to node {to}"))
}

/// Lets other nodes lead everything that this node leads.
pub(super) async fn drain(context: &Context, node: u8) -> Outcome {
    let groups = hand_over_all(&connect(context).await?, node).await?;
    output::print(context.output, &Drained { done: "drained", node, groups }, |drained| {
        format!("node {} leads nothing any more: {} moved", drained.node, counted(drained.groups, "group"))
    })
}

/// Lets other nodes lead everything that this node leads; tells how many groups that were.
pub(crate) async fn hand_over_all(client: &Client, node: u8) -> Outcome<usize> {
    let mut summary = cluster_state::summary(client).await?;
    if !summary.nodes.iter().any(|one| one.id == node) {
        return Err(Failure::refused(anyhow!("there is no node {node} in this cluster")));
    }
    let mut moved = 0;
    for place in 0..summary.groups.len() {
        let group = &summary.groups[place];
        if group.primary != Some(node) {
            continue;
        }
        let Some(to) = successor(&summary, group, node) else {
            return Err(Failure::refused(anyhow!(
                "no other node can lead {}: {} of its {} work",
                group.name,
                group.working.len(),
                counted(group.replicas.len(), "replica")
            )));
        };
        hand_over(client, group, to).await?;
        summary.groups[place].primary = Some(to);
        moved += 1;
    }
    Ok(moved)
}

async fn hand_over(client: &Client, group: &GroupHealth, to: u8) -> Outcome {
    Ok(client.admin().transfer_primary(GroupId::new(group.group), NodeId::new(to)).await?)
}

/// The working replica elsewhere whose node leads the least.
fn successor(summary: &Summary, group: &GroupHealth, node: u8) -> Option<u8> {
    let led = |by: u8| summary.groups.iter().filter(|other| other.primary == Some(by)).count();
    group.working.iter().copied().filter(|other| *other != node).min_by_key(|other| (led(*other), *other))
}
