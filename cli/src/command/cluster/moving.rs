//! `varve cluster move`: which nodes hold a partition, at the operator's wish.

use std::time::Duration;

use anyhow::anyhow;
use varve_client::{Admin, Client};
use varve_protocol::id::{GroupId, NodeId};

use crate::cluster_state;
use crate::command::stream::print_done;
use crate::connection::connect;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::health::GroupHealth;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// From where to where.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Way {
    /// The node that holds a replica
    #[arg(long, value_name = "NODE", required_unless_present = "cancel")]
    from: Option<u8>,
    /// The node that shall hold it instead
    #[arg(long, value_name = "NODE", required_unless_present = "cancel")]
    to: Option<u8>,
    /// Give up what is under way, also that a replica comes or leaves: it is turned round
    #[arg(long, conflicts_with_all = ["from", "to"])]
    cancel: bool,
}

/// Moves a replica of the partition of this name, or gives that up.
pub(super) async fn move_replica(context: &Context, name: &str, way: Way) -> Outcome {
    let client = connect(context).await?;
    let id = group_of(&client, name).await?;
    let admin = client.admin();
    let (Some(from), Some(to)) = (way.from, way.to) else {
        admin.cancel_move(id).await?;
        return print_done(context, "gave up what was under way of", name);
    };
    admin.move_replica(id, NodeId::new(from), NodeId::new(to)).await?;
    wait_for_end(&admin, id).await?;
    let replicas = group(&client, name).await?.replicas;
    if replicas.contains(&to) && !replicas.contains(&from) {
        return print_done(context, "moved", &format!("{name} from node {from} to node {to}"));
    }
    Err(Failure::refused(anyhow!("the move of {name} from node {from} to node {to} was given up meanwhile")))
}

/// Has one more node hold the partition of this name.
pub(super) async fn add_replica(context: &Context, name: &str, to: u8) -> Outcome {
    let client = connect(context).await?;
    let id = group_of(&client, name).await?;
    client.admin().add_replica(id, NodeId::new(to)).await?;
    wait_for_end(&client.admin(), id).await?;
    if group(&client, name).await?.replicas.contains(&to) {
        return print_done(context, "added", &format!("a replica of {name} on node {to}"));
    }
    Err(Failure::refused(anyhow!("that node {to} shall hold a replica of {name} was given up meanwhile")))
}

/// Has a node leave the partition of this name.
pub(super) async fn remove_replica(context: &Context, name: &str, from: u8) -> Outcome {
    let client = connect(context).await?;
    let id = group_of(&client, name).await?;
    client.admin().remove_replica(id, NodeId::new(from)).await?;
    wait_for_end(&client.admin(), id).await?;
    if !group(&client, name).await?.replicas.contains(&from) {
        return print_done(context, "removed", &format!("the replica of {name} on node {from}"));
    }
    Err(Failure::refused(anyhow!("that node {from} shall leave {name} was given up meanwhile")))
}

async fn wait_for_end(admin: &Admin, group: GroupId) -> Outcome {
    loop {
        match admin.moving(group).await {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn group_of(client: &Client, name: &str) -> Outcome<GroupId> {
    let group = group(client, name).await?;
    if group.group == GroupId::METADATA.as_raw() {
        return Err(Failure::refused(anyhow!("every node holds the metadata: there is nowhere to move it")));
    }
    Ok(GroupId::new(group.group))
}

async fn group(client: &Client, name: &str) -> Outcome<GroupHealth> {
    let summary = cluster_state::summary(client).await?;
    summary.groups.into_iter().find(|group| group.name == name).ok_or_else(|| {
        Failure::refused(anyhow!(
            "there is no partition `{name}`; `varve cluster status` lists them: STREAM/TOPIC/PARTITION"
        ))
    })
}
