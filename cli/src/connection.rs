//! Which cluster a command talks to: the one it was given, or else the `varve dev` in this folder.

use anyhow::{Context as _, anyhow};

use varve_client::Client;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::running::Running;

/// The connection string that a command uses.
pub(crate) fn servers(context: &Context) -> Outcome<String> {
    if let Some(servers) = &context.servers {
        return Ok(servers.clone());
    }
    let data_dir = context.data_dir.display();
    dev(context)?.map(|running| running.servers).ok_or_else(|| {
        Failure::usage(anyhow!(
            "which cluster? No `varve dev` runs on {data_dir}: start one, or name a cluster with --servers or VARVE_SERVERS"
        ))
    })
}

/// The `varve dev` that a command talks to; none if it was given another cluster, or nothing runs.
pub(crate) fn dev(context: &Context) -> Outcome<Option<Running>> {
    let data_dir = &context.data_dir;
    let running = Running::read(data_dir)
        .with_context(|| format!("cannot read dev.json in {}", data_dir.display()))
        .map_err(Failure::usage)?;
    let meant =
        |running: &Running| context.servers.as_ref().is_none_or(|servers| *servers == running.servers);
    Ok(running.filter(meant))
}

/// Connects to the cluster that a command talks to.
pub(crate) async fn connect(context: &Context) -> Outcome<Client> {
    let servers = servers(context)?;
    Ok(Client::connect(&servers).await?)
}
