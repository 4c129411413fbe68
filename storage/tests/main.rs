//! The tests of storage, one binary: what a disk promises, what a store does, and what it survives.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod conformance;
mod crash;
mod fault;
mod full;
mod journal;
mod kill;
mod let_go;
mod let_go_with;
mod log;
mod memory_disk;
mod model;
mod outside;
mod refusal;
mod resume;
mod rot;
mod scrub;
mod sealed;
mod spares;
mod support;
mod world;
