//! A failing seed comes back as a short story.
//!
//! A seed draws dozens of faults, a few clients and much weather, and as a rule two or three of those things are to blame. What
//! the universe fails without is taken away: [`search`] says in which order, [`part`] what there is to take, [`ddmin`] how
//! many things are taken at once. What is left is written to a file that `replay` plays, and told as a [`story`].
//!
//! Fast world only: there a universe costs a second or less, and some hundreds are played.

pub mod ddmin;
pub mod part;
pub mod search;
pub mod story;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::run::play_scenario;
use crate::scenario::{Profile, Scenario, World};
use crate::trace::Printing;
use search::{Bounds, Failure, Smallest, minimize};
use story::Story;

/// The command that makes a failing seed smaller.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// A seed of the fast world that fails.
    #[arg(long)]
    seed: u64,
    /// What its universe is about.
    #[arg(long, value_enum, default_value_t, value_name = "P")]
    profile: Profile,
    /// Where what is left is written; the default is seed-<SEED>.json.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most universes to play.
    #[arg(long, default_value_t = 1000)]
    tries: u64,
    /// When nothing more can be taken away, try each thing again with so many other seeds behind the same scenario.
    #[arg(long, default_value_t = 3)]
    shakes: u64,
    /// Begin no further universe after this many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Make this mistake while playing.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = crate::mutants::named, value_name = "NAME")]
    mutant: Option<varve_protocol::mutant::Mutant>,
}

/// What became of the wish to make a seed smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A story was told.
    Told,
    /// There is nothing to tell: the seed breaks no promise.
    Sound,
}

impl Plan {
    /// What the command line needs beside the file, so that the same code runs.
    fn command(&self) -> (&'static str, String) {
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.mutant {
            return (" --features mutants", format!(" --mutant {}", mutant.name()));
        }
        ("", String::new())
    }
}

/// Makes a seed smaller, writes what is left, and tells it.
///
/// # Errors
/// When the file cannot be written, or nobody listens any more.
pub fn run(plan: &Plan, out: &mut impl Write) -> anyhow::Result<Outcome> {
    #[cfg(feature = "mutants")]
    if let Some(mutant) = plan.mutant {
        mutant.choose();
    }
    let began = Instant::now();
    let minutes = plan.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let bounds =
        Bounds { tries: plan.tries, shakes: plan.shakes, deadline: minutes.map(|minutes| began + minutes) };
    let drawn = Scenario::draw_as(plan.profile, plan.seed, World::Fast);
    let report = play_scenario(drawn.clone(), Printing::Off);
    let Some(failure) = Failure::of(&report) else {
        writeln!(out, "fast seed {}: {}; nothing to make smaller", plan.seed, report.verdict)?;
        return Ok(Outcome::Sound);
    };
    let smallest = minimize(drawn.clone(), failure, bounds, |scenario| {
        Failure::of(&play_scenario(scenario.clone(), Printing::Off))
    });
    let Smallest { scenario, tries, end, .. } = smallest;
    let last = play_scenario(scenario.clone(), Printing::Off);
    let path = plan.out.clone().unwrap_or_else(|| PathBuf::from(format!("seed-{}.json", plan.seed)));
    Case::new(scenario.clone(), &last).write(&path)?;
    write!(out, "{}", Story { drawn: &drawn, left: &scenario, report: &last })?;
    let seconds = began.elapsed().as_secs_f64();
    writeln!(out, "\n{tries} universes in {seconds:.1} s; {end}")?;
    let (features, mutant) = plan.command();
    let file = path.display();
    writeln!(out, "repeat with: cargo run --release -p simulator{features} -- replay{mutant} {file}")?;
    Ok(Outcome::Told)
}

impl From<Outcome> for std::process::ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Told => 0,
            Outcome::Sound => 1,
        })
    }
}

/// Makes a seed smaller on the standard output.
///
/// # Errors
/// As [`run`].
pub fn run_aloud(plan: &Plan) -> anyhow::Result<Outcome> {
    run(plan, &mut io::stdout())
}
