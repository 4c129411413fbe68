//! `varve bench`: what a cluster can do, measured from outside with the client that everybody uses.
//!
//! ```text
//!   options    what was typed, and what of it does not go together
//!   schedule   when records are due                      load       the tasks that send, wait and read
//!   recorder   histograms, second by second              report     the document and its table
//!   page       the same as HTML                          compare    two documents
//!   raw        what the machine can do without a cluster
//! ```
//!
//! At a fixed rate a latency counts from when the record was due, not from when it could be sent: a cluster that stalls for a
//! second made every record of that second wait.

mod compare;
mod load;
mod options;
mod page;
mod raw;
mod recorder;
mod report;
mod run;
mod schedule;

use std::path::PathBuf;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Outcome;

use self::options::{Common, Load, Readers};
use self::run::Kind;

/// Records per second of `end-to-end` unless told otherwise: few enough that any cluster keeps up.
const RATE_DEFAULT: f64 = 1_000.0;

/// What `varve bench` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Append, as fast as possible or at a rate
    ///
    /// Latency goes to the acknowledgement: with --rate from when the record was due, without it from handing it over, which
    /// includes waiting for room in the window. What one record takes when no other is on its way, --in-flight 1 tells.
    Produce(Load),
    /// Read a topic that exists, from its first record to where it ends now
    ///
    /// Latency is that of a fetch, which brings many records.
    Consume {
        #[command(flatten)]
        common: Common,
        /// Stop after this time, even if there is more to read
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<std::time::Duration>,
        #[command(flatten)]
        readers: Readers,
    },
    /// How long a record takes from when it was due until a consumer has it, at a fixed rate [default: 1000/s]
    EndToEnd {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        readers: Readers,
    },
    /// Append and read at once, as fast as possible or at a rate
    Mixed {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        readers: Readers,
    },
    /// Compare two reports that --save has kept
    ///
    /// Prints B divided by A, and whether the difference is larger than what the runs vary by themselves: that is so if the
    /// middle four fifths of their seconds do not overlap.
    Compare {
        /// What to compare with
        #[arg(value_name = "A.json")]
        a: PathBuf,
        /// What is compared
        #[arg(value_name = "B.json")]
        b: PathBuf,
    },
}

/// Measures.
pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    match arguments.verb {
        Verb::Produce(load) => run::append(context, Kind::Produce, &load, None).await,
        Verb::Consume { common, duration, readers } => {
            run::consume(context, &common, duration, readers).await
        }
        Verb::EndToEnd { mut load, readers } => {
            load.rate.get_or_insert(RATE_DEFAULT);
            run::append(context, Kind::EndToEnd, &load, Some(readers)).await
        }
        Verb::Compare { a, b } => compare::run(context, &a, &b),
        Verb::Mixed { load, readers } => run::append(context, Kind::Mixed, &load, Some(readers)).await,
    }
}
