//! Small scope, all of it: every state that a small group can get into, with the real consensus core.
//!
//! ```text
//!   search ── breadth first ──▶ state (a row of numbers) ── steps ──▶ law, election: is a promise broken?
//!      │                          │                                      │
//!   visited                    catalog ── local (core + disk) ── plan  way ── story
//! ```
//!
//! A state is what each replica is, with its disk and the jobs that are not on it yet, what is in flight, and what was
//! ever committed and answered. A step is a delivery, a disk job, a request, a read, a view entered, a time-out, or a crash (of the
//! jobs under way, any number of the oldest may have reached the disk) with its restart. [`search`] takes every step
//! possible in every state within the bounds of a [`Plan`], and says whether it came to the end.
//!
//! # What makes it small
//!
//! The core is a pure function, so it is run once for each pair of a replica and something that happens to it; a state of
//! the group is a few numbers. And many states are not visited, because whatever can go wrong from there can go wrong from
//! another one that is:
//! * Outputs are drained at once: what they do to others is a message, and a message may wait.
//! * A message that is never delivered is lost, and one that waits long is late. Losses need no step; `--drops` has it for
//!   those who want to see one in a story.
//! * Of a message there is one in flight. To send it again while it is has no effect.
//! * Of two states that differ in messages only, the one with more can do what the other can, so only the one with most is
//!   kept. For the same reason a delivery that changes nothing and sends nothing new is no step.
//! * A crash and the restart are one step, the first tick of the new life included: a replica that is down longer is one to
//!   which nothing happens.
//! * Who has suspected its primary does not take that back: as if it heard no proposal.
//! * A request is repeated until it is answered, at every primary; requests after the first are refused by the core until it
//!   is their turn, so there is one order of them. A read must be answered with what was committed anywhere when it was asked.
//! * Time: all short timers fire together, or all timers do. What they send may get lost, so that is as if fewer had.
//! * Pulses are sent when the commit has grown; later ones say the same.
//!
//! With `--duplicates any` the network may deliver each message as often as it likes. Then two more hold:
//! * An answer that costs its sender nothing is given at once. For that, everybody is asked for the view's log all the time.
//! * What is older than the receiver's durable view can only be answered like that, so it is forgotten.
//!
//! Without `--votes` a replica enters any view up to the bound at any time, and the votes that lead there are not sent. That
//! is more than can happen, and what a view change promises must not depend on who started it; what is then not seen is only
//! a word from a backup to one that told its log too late.
//!
//! # What it does not see
//!
//! Views and requests beyond the bounds, groups that are larger, logs longer than the core's memory, damaged disks. Replicas
//! that differ only in clocks and random numbers are one: `Replica::fingerprint` says which fields that are. Fingerprints
//! have 64 bits (states) or 128 (replicas, messages); two of ten million states share one with a chance of one in 300 000.
//! Symmetry of replicas is not used: views are led in turn, so replicas are not alike.
//!
//! # That it can say no
//!
//! A [`Plant`] is a mistake of the harness; the tests want each to be found.

mod catalog;
mod disk;
mod election;
mod finding;
mod law;
mod local;
mod plan;
mod plant;
mod search;
mod state;
mod story;
mod visited;
mod way;

pub use finding::{Ending, Finding, Progress};
pub use plan::{Bound, Plan};
pub use plant::Plant;
pub use search::search;
pub use story::Story;
