//! `varve format`: the data directory of a node, before its first start. An explicit act, so that a node whose disk came
//! back empty does not quietly vote as if it had never promised anything.

use serde::Serialize;
use varve_replica::config::ClusterConfig;
use varve_replica::server::format_node;

use crate::command::node::Which;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// What `varve format` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

#[derive(Serialize)]
struct Formatted {
    node: u8,
    data_dir: String,
}

/// Formats a data directory.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let config = ClusterConfig::load(&arguments.which.config)?;
    let node = arguments.which.node();
    format_node(&config, node).map_err(|error| arguments.which.failure(&config, error))?;
    let data_dir = config.node(node).map(|node| node.data_dir.display().to_string()).unwrap_or_default();
    output::print(context.output, &Formatted { node: node.as_raw(), data_dir }, |formatted| {
        format!("node {} is ready for its first start in {}", formatted.node, formatted.data_dir)
    })
}
