//! Tests of the simulator and, by it, of everything else.

mod oracle;
mod socket;
mod tidy;
mod toy;
