//! The QUIC world: the server with real QUIC, in a simulated UDP network.
//!
//! ```text
//!   varve-client, actors ──▶ quinn ──▶ socket ──▶ turmoil ──▶ card ──▶ quinn ──▶ server ──▶ node ──▶ disk in memory
//!          │                              │                   │        └─────────── process ────────────┘
//!        oracle                        weather             weather                    ▲
//!                                                                                  nemesis
//! ```
//!
//! Every client, card and process has its own Tokio runtime on a paused clock, and the world moves them by one millisecond at a
//! time: turmoil moves the clients and the cards with the network, then each process moves that is not frozen.

mod board;
mod card;
mod client;
mod host;
mod nemesis;
mod process;
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
