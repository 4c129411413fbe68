//! Tests of the simulator and, by it, of everything else.

mod determinism;
mod explore;
mod oracle;
mod seeds;
mod socket;
mod tidy;
mod toy;
