//! Tests of the simulator and, by it, of everything else.

mod blackout;
mod determinism;
mod explore;
mod minimize;
#[cfg(feature = "mutants")]
mod mutants;
mod oracle;
mod profiles;
mod replay;
mod seeds;
mod socket;
mod tidy;
mod toy;
mod visualize;
