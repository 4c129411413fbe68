//! One seed, one universe: the real node on simulated networks and disks.

fn main() {}
