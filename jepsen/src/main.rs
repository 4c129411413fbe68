//! The outside judge: real processes, real faults, and what clients saw of them.
//!
//! ```text
//!   history   what clients did and were told, one JSON object per line
//!   checker   which promises of a log that breaks
//! ```
//!
//! This version judges histories; it does not drive a cluster yet.

mod checker;
mod history;

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

use crate::checker::{Report, check};
use crate::history::History;

/// Judges what clients saw of a cluster. It checks histories that were recorded by others: it does not start clusters, drive
/// clients or break anything yet.
#[derive(Parser, Debug)]
#[command(
    name = "jepsen",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes:\n  0  nothing wrong was found\n  1  anomalies were found\n  \
                  2  the history cannot be read, or proves nothing"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Check a history of sends and polls against what a log promises
    Check {
        /// The history: JSON lines of {time_ns, process, type, f, value}
        history: PathBuf,
        /// How the report is printed
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// A line per anomaly, and a verdict.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

fn main() -> ExitCode {
    let Command::Check { history, output } = Arguments::parse().command;
    match judge(&history, output) {
        Ok(report) => ExitCode::from(report.exit_code()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(path: &Path, output: Format) -> anyhow::Result<Report> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let history = History::read(BufReader::new(file)).with_context(|| path.display().to_string())?;
    let report = check(&history);
    let mut stdout = io::stdout().lock();
    match output {
        Format::Text => write!(stdout, "{report}")?,
        Format::Json => writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(report)
}
