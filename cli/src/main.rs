//! `varve`: the one binary. Nodes, a whole cluster for trying things, administration, and getting records in and out.
//!
//! ```text
//!   arguments   what was typed            ──▶  context   what is meant: which cluster, which output
//!   command/*   one file per command      ──▶  failure   one line and an exit code, if it did not work
//! ```

mod arguments;
mod cluster_state;
mod command;
mod connection;
mod context;
mod entropy;
mod failure;
mod headers;
mod health;
mod logging;
mod measure;
mod memory;
mod output;
mod running;
mod topic_name;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    memory::keep_freed();
    let arguments = Arguments::parse();
    match command::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
