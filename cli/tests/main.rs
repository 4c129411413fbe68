//! The binary as users meet it: a cluster of real processes, real certificates and real disks, driven by commands.
//!
//! Every test has a folder and ports of its own. Nothing waits for luck: what takes time is polled until a deadline.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "main/bench.rs"]
mod bench;
#[path = "main/cluster.rs"]
mod cluster;
#[path = "main/data.rs"]
mod data;
#[path = "main/drill.rs"]
mod drill;
#[path = "main/failover.rs"]
mod failover;
#[path = "main/mistakes.rs"]
mod mistakes;
#[path = "main/moves.rs"]
mod moves;
#[path = "main/records.rs"]
mod records;
#[path = "main/sealed.rs"]
mod sealed;
#[path = "main/tour.rs"]
mod tour;
