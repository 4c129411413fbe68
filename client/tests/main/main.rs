//! The client against nodes that answer what a test wants them to answer.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failed test panics")]

mod ends;
mod node;
mod old_maps;
mod old_starts;
mod release;
mod silent_primary;
