//! The fast world: deterministic nodes on an event heap.
//!
//! ```text
//!      actor ◀──────▶ wire ◀──────▶ host ── machine ── disk
//!    (client)   (frames in flight)  (clocks, process)
//!        │            ▲                ▲
//!      oracle      nemesis ────────────┘            universe: takes the next event and lets it happen
//! ```
//!
//! There is no runtime and no thread; simulated time jumps from event to event. A simulated second costs as many steps as
//! something happens in it.

mod beyond;
mod blackout;
pub mod chronicle;
mod heap;
mod host;
pub mod machine;
mod nemesis;
pub mod real;
pub(crate) mod rot;
pub mod rot_in_use;
mod universe;
mod watch;
mod wire;

use chronicle::Chronicle;

use crate::report::Report;
use crate::scenario::Scenario;
use crate::trace::Printing;
use machine::Machine;
use universe::Universe;
pub(crate) use watch::takes_part;

/// Plays a scenario with nodes of some kind.
#[must_use]
pub fn run_with<M: Machine>(scenario: Scenario, printing: Printing) -> Report {
    Universe::<M>::new(scenario, printing).run()
}

/// Plays a scenario with the real node.
#[must_use]
pub fn run(scenario: Scenario, printing: Printing) -> Report {
    run_with::<real::RealNode>(scenario, printing)
}

/// Plays a scenario with the real node, and keeps what the nodes showed.
#[must_use]
pub fn run_with_chronicle(scenario: Scenario) -> (Report, Chronicle) {
    let mut universe = Universe::<real::RealNode>::new(scenario, Printing::Off);
    universe.chronicle = Some(Chronicle::default());
    let report = universe.run();
    (report, universe.chronicle.unwrap_or_default())
}
