//! The QUIC world: the server with real QUIC, in a simulated UDP network.
//!
//! ```text
//!   varve-client, actors ──▶ quinn ──▶ socket ──▶ turmoil ──▶ socket ──▶ quinn ──▶ server ──▶ node ──▶ disk in memory
//!          │                              │                                          ▲
//!        oracle                        weather                                    nemesis
//! ```
//!
//! Every host has its own Tokio runtime on a paused clock; the world steps all of them by one millisecond at a time.

mod board;
mod client;
mod host;
mod nemesis;
pub mod socket;
mod world;

use crate::report::Report;
use crate::scenario::Scenario;
use crate::trace::Printing;
use world::World;

/// Plays a scenario.
#[must_use]
pub fn run(scenario: Scenario, printing: Printing) -> Report {
    World::new(scenario, printing).run()
}
