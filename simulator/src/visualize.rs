//! A universe as a page to look at: one file without anything from elsewhere.
//!
//! ```text
//!            0 s       1 s       2 s       3 s
//!   faults       ▓▓▓ crash     ▓▓▓▓▓▓▓ halves
//!   n1 g0    ███████   ░░░░░░░░░░░░░░░░░░░░░░     a lane per replica: what it was, and in which view
//!   n2 g0    ░░░░░░░████████████████████████
//!   g0       ________/‾‾‾‾‾‾‾‾‾‾‾‾‾               a graph per group: what each replica knew to be committed
//! ```
//!
//! Fast world only: there somebody can look at all nodes at once.

mod page;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::case::Case;
use crate::fast::run_with_chronicle;
use crate::report::Verdict;
use crate::scenario::{Profile, Scenario, World};

pub use page::page;

/// The command that draws a universe.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// Draw the universe of this seed.
    #[arg(long, required_unless_present = "case")]
    seed: Option<u64>,
    /// What the universe of the seed is about.
    #[arg(long, value_enum, default_value_t, value_name = "P", conflicts_with = "case")]
    profile: Profile,
    /// Draw the universe of a file that `minimize` wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    case: Option<PathBuf>,
    /// Where the page is written.
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    /// Make this mistake while playing.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = crate::mutants::named, value_name = "NAME")]
    mutant: Option<varve_protocol::mutant::Mutant>,
}

/// Plays a universe and draws it.
///
/// # Errors
/// When a file cannot be read or written, or holds a universe of the other world.
pub fn run(plan: &Plan) -> anyhow::Result<Verdict> {
    #[cfg(feature = "mutants")]
    if let Some(mutant) = plan.mutant {
        mutant.choose();
    }
    let scenario = match &plan.case {
        Some(path) => Case::read(path)?.scenario,
        None => Scenario::draw_as(plan.profile, plan.seed.unwrap_or_default(), World::Fast),
    };
    ensure!(scenario.world == World::Fast, "only universes of the fast world can be drawn");
    let (report, chronicle) = run_with_chronicle(scenario.clone());
    let drawn = page(&scenario, &report, &chronicle);
    fs::write(&plan.out, drawn).with_context(|| format!("{} cannot be written", plan.out.display()))?;
    println!("fast seed {}: {}\n  drawn in {}", report.seed, report.verdict, plan.out.display());
    Ok(report.verdict)
}
