//! All tests of the core's behaviour, in one binary: golden traces of single claims, and arbitrary schedules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod disk;
mod far_behind;
mod golden;
mod journal;
mod oracle;
mod schedule;
mod trace;
