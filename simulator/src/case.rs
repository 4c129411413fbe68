//! A case: a scenario in a file, with what it came to when the file was written.
//!
//! The file is JSON. It holds the whole scenario and not only its seed, so that it can be edited, and stays the same story
//! when seeds come to draw other ones. What happens in it still follows from the code: [`Case::play`] says whether it is the
//! same universe as before, event by event.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::{Report, Verdict};
use crate::run::play_scenario;
use crate::scenario::{Scenario, Unsound};
use crate::trace::Printing;

/// A scenario and its outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The verdict, in words; nobody reads it but people.
    pub outcome: String,
    /// The digest of all events, in hexadecimal.
    pub trace: String,
    /// The whole cause.
    pub scenario: Scenario,
}

/// Whether a case came to the same as when it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Likeness {
    /// The same universe, event by event.
    Same,
    /// Another one: the case was edited, or the code has changed.
    Different,
}

/// Why a case cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no case.
    #[error("{path} holds no case")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: serde_json::Error,
    },
    /// The scenario cannot be played.
    #[error("the scenario in {path} cannot be played")]
    Unsound {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Unsound,
    },
}

impl Case {
    /// A scenario and what it came to.
    #[must_use]
    pub fn new(scenario: Scenario, report: &Report) -> Self {
        Self { outcome: report.verdict.to_string(), trace: hexadecimal(report.trace), scenario }
    }

    /// Reads a case.
    ///
    /// # Errors
    /// When there is no file, it holds no case, or one that cannot be played.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let here = || path.to_owned();
        let text = fs::read_to_string(path).map_err(|source| CaseError::Read { path: here(), source })?;
        let case: Self =
            serde_json::from_str(&text).map_err(|source| CaseError::Parse { path: here(), source })?;
        case.scenario.verify().map_err(|source| CaseError::Unsound { path: here(), source })?;
        Ok(case)
    }

    /// Writes a case.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CaseError> {
        let text = serde_json::to_string_pretty(self).expect("a case has no maps with odd keys");
        fs::write(path, text + "\n").map_err(|source| CaseError::Write { path: path.to_owned(), source })
    }

    /// Plays it again.
    #[must_use]
    pub fn play(&self, printing: Printing) -> (Report, Likeness) {
        let report = play_scenario(self.scenario.clone(), printing);
        let is_same = self.trace == hexadecimal(report.trace);
        (report, if is_same { Likeness::Same } else { Likeness::Different })
    }
}

fn hexadecimal(trace: u64) -> String {
    format!("{trace:016x}")
}

/// The command that plays a file again.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// A file written by `minimize`, edited or not.
    file: PathBuf,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Make this mistake while playing.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = crate::mutants::named, value_name = "NAME")]
    mutant: Option<varve_protocol::mutant::Mutant>,
}

/// Plays a file and tells what it came to.
///
/// # Errors
/// When it cannot be read.
pub fn replay(plan: &Plan) -> anyhow::Result<Verdict> {
    #[cfg(feature = "mutants")]
    if let Some(mutant) = plan.mutant {
        mutant.choose();
    }
    let case = Case::read(&plan.file)?;
    let (report, likeness) = case.play(if plan.trace { Printing::On } else { Printing::Off });
    let out = &mut std::io::stdout();
    // Who stops listening misses the rest.
    report.print_outcome(out).unwrap_or_default();
    println!("  {}", case.scenario.summary());
    match likeness {
        Likeness::Same => println!("  the same universe as when the file was written, event by event"),
        Likeness::Different => {
            println!("  not the universe of when the file was written, which was: {}", case.outcome);
        }
    }
    Ok(report.verdict)
}
