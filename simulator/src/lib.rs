//! One seed, one universe: the real node on simulated networks and disks.
//!
//! A seed draws a [`scenario`]: a cluster, its weather, its load and a schedule of faults. One of two worlds plays it:
//! * [`fast`]: the deterministic node, driven by an event heap, with simulated disks and messages for a wire;
//! * [`quic`]: the server with real QUIC in a simulated UDP network.
//!
//! Both run the same three phases: *safety* (faults strike while clients work), *liveness* (everything heals; within a
//! deadline that follows from the time-outs every partition must work again), *audit* (every replica is read from start
//! to end). The [`oracle`] watches all of it, and the [`report`] says what it came to.
//!
//! What is claimed: with faults that destroy nothing that a disk has synced, any number of crashes, power failures and
//! network partitions loses no acknowledged record, doubles none, reorders none, and the cluster works again when the
//! faults end.
//!
//! A topic that acknowledges from memory may lose the end of its log, and only if the power of everybody has failed (a *blackout*, in the
//! fast world) and an operator has had its groups go on with what was left. Before he has spoken they wait and say so; and what one
//! of them knew to be committed, and had synced, is never lost.
//!
//! Seeds of the profile *beyond* harm more than that ([`scenario::Profile`]): there a group may stay unavailable, and says so; it is never
//! wrong.
//!
//! A scenario is a value: it can be written to a file, edited, and played again (a [`case`]). [`minimize`] takes away what a failing
//! one fails without and tells the rest as a story, and [`visualize`] draws a universe as a page.
//!
//! Beside the seeds, [`explore`] visits every state of a small group, with nothing but the consensus core.
//!
//! The same seed gives the same universe, event by event: two runs print the same `trace`. What of the nodes' code the universes have
//! got to is counted: see [`marks`].

mod actor;
pub mod case;
pub mod diagram;
mod doubt;
pub mod entropy;
pub mod explore;
pub mod fast;
mod keys;
pub mod marks;
pub mod minimize;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod oracle;
pub mod panics;
pub mod quic;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod visualize;
pub mod workload;
