//! All tests of the core's behaviour, in one binary: golden traces of single claims, and arbitrary schedules.

#![allow(missing_docs, reason = "tests are not read as documentation of an interface")]

mod cluster;
mod golden;
mod oracle;
mod schedule;
mod trace;
