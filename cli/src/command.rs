//! The commands, one file each: what it takes, what it does, what it prints.

pub(crate) mod bench;
pub(crate) mod cert;
pub(crate) mod cluster;
pub(crate) mod consume;
pub(crate) mod dev;
pub(crate) mod drill;
pub(crate) mod dump;
pub(crate) mod format;
pub(crate) mod key;
pub(crate) mod node;
pub(crate) mod produce;
pub(crate) mod stream;
pub(crate) mod topic;
pub(crate) mod verify;

use std::future::Future;

use anyhow::Context as _;

use crate::arguments::{Arguments, Command};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::logging;

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments) -> Outcome {
    let context = Context::from(arguments.global);
    let log_default = match arguments.command {
        Command::Node(_) => "info",
        Command::Dev(_)
        | Command::Format(_)
        | Command::Cert(_)
        | Command::Key(_)
        | Command::Stream(_)
        | Command::Topic(_)
        | Command::Produce(_)
        | Command::Consume(_)
        | Command::Bench(_)
        | Command::Drill(_)
        | Command::Cluster(_)
        | Command::Verify(_)
        | Command::Dump(_) => "error",
    };
    logging::start(context.log.as_deref().unwrap_or(log_default))?;
    match arguments.command {
        Command::Dev(arguments) => block_on(dev::run(&context, &arguments)),
        Command::Node(arguments) => node::run(&arguments),
        Command::Format(arguments) => format::run(&context, &arguments),
        Command::Cert(arguments) => cert::run(&context, &arguments),
        Command::Key(arguments) => key::run(&context, &arguments),
        Command::Stream(arguments) => block_on(stream::run(&context, arguments)),
        Command::Topic(arguments) => block_on(topic::run(&context, arguments)),
        Command::Produce(arguments) => block_on(produce::run(&context, &arguments)),
        Command::Consume(arguments) => block_on(consume::run(&context, &arguments)),
        Command::Bench(arguments) => block_on(bench::run(&context, arguments)),
        Command::Drill(arguments) => block_on(drill::run(&context, arguments)),
        Command::Cluster(arguments) => block_on(cluster::run(&context, &arguments)),
        Command::Verify(arguments) => verify::run(&context, &arguments),
        Command::Dump(arguments) => dump::run(&context, &arguments),
    }
}

fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gives no threads")
        .map_err(Failure::refused)?;
    runtime.block_on(future)
}
