//! The transport from outside: real endpoints on loopback, any free port, no sleeping for luck.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failed test panics")]

mod clients;
mod peers;
mod support;
