//! The outside judge: real processes, real faults.

fn main() {}
