//! What is logged, and where: to stderr, filtered by `--log`.

use std::io::IsTerminal as _;

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Outcome};

/// Starts logging by this filter.
pub(crate) fn start(filter: &str) -> Outcome {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Failure::usage(anyhow!(
            "`{filter}` is not a log filter ({error}); try `debug` or `varve_replica=debug`"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // What is logged may go to a disk that is full: a line is lost then, and no thread ends for it.
        .log_internal_errors(false)
        .init();
    Ok(())
}
