//! The outside judge: real processes, real faults, and what clients saw of them.
//!
//! ```text
//!   run         one test from an empty folder to a verdict      matrix      many of them
//!   cluster     real nodes                                      network     namespaces, or loopback
//!   workload    what clients do                                 nemesis     what breaks meanwhile
//!   recorder    writes the history                              leftovers   what must be removed at the end
//!   history     what clients of a log did and were told         checker     which promises of a log that breaks
//!   registry    the same for streams and topics                 linear      whether some order explains all answers
//!   findings    what is wrong, with the history that shows it   faulty_disk  slow, failing, forgetful
//!   results, page   the verdict, for machines and people
//! ```

mod arguments;
mod checker;
mod cluster;
mod command_line;
mod faulty_disk;
mod findings;
mod history;
mod leftovers;
mod linear;
mod matrix;
mod minimise;
mod nemesis;
mod network;
mod page;
mod recorder;
mod registry;
mod results;
mod run;
mod workload;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Arguments, Command, Format};
use crate::history::History;
use crate::registry::{RegistryHistory, is_of_registry};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test(arguments) => arguments.options().and_then(|options| until_signal(test(options))),
        Command::TestAll(arguments) => {
            arguments.tests().and_then(|tests| until_signal(matrix::run_all(tests)))
        }
        Command::Check { history, output } => judge(&history, output),
        Command::Clean => clean(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs to the end or until a signal. Then everything is dropped, and what was made is removed by that.
fn until_signal(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| signal(kind).context("cannot listen for signals"));
        let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
            bail!("cannot listen for signals");
        };
        tokio::select! {
            biased;
            done = work => done,
            _ = interrupt.recv() => bail!("interrupted; there is no verdict"),
            _ = terminate.recv() => bail!("told to stop; there is no verdict"),
            _ = hangup.recv() => bail!("the terminal is gone; there is no verdict"),
        }
    });
    // Tasks hold what must be removed; they end here.
    drop(runtime);
    done
}

async fn test(options: run::Options) -> anyhow::Result<u8> {
    let done = run::run(&options).await?;
    let mut stdout = io::stdout().lock();
    write!(stdout, "{}", done.results)?;
    writeln!(stdout, "{}", done.folder.join("report.html").display())?;
    Ok(done.results.verdict.exit_code())
}

fn clean() -> anyhow::Result<u8> {
    let lines = leftovers::clean()?;
    let mut stdout = io::stdout().lock();
    if lines.is_empty() {
        writeln!(stdout, "nothing was left behind")?;
    }
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    Ok(0)
}

/// Judges a history of either kind, which its operations tell.
fn judge(path: &Path, output: Format) -> anyhow::Result<u8> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = || path.display().to_string();
    if text.lines().any(is_of_registry) {
        let report = registry::check(&RegistryHistory::read(text.as_bytes()).with_context(name)?);
        print(&report, output)?;
        Ok(report.exit_code())
    } else {
        let report = checker::check(&History::read(text.as_bytes()).with_context(name)?);
        print(&report, output)?;
        Ok(report.exit_code())
    }
}

fn print(report: &(impl std::fmt::Display + serde::Serialize), output: Format) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match output {
        Format::Text => write!(stdout, "{report}")?,
        Format::Json => writeln!(stdout, "{}", serde_json::to_string_pretty(report)?)?,
    }
    Ok(())
}
