//! Viewstamped Replication as a pure function of its inputs.
//!
//! A [`Replica`] is one member of one group: it takes an [`Input`] at a time and tells, in order, what is to be done as
//! [`Output`]s. It has no clock, no disk, no network, no randomness of its own and no threads: the same inputs give the same
//! outputs, which is what makes a failure found by one seed a failure found for good.
//!
//! ```text
//!             messages, requests, disk completions, time
//!                              |
//!                     step(now, input)
//!                              v
//!    +-----------------------------------------------+
//!    | replica   normal  primary     (N1 to N7)      |
//!    |           view_change         (V1 to V4, V7)  |
//!    |           install             (V5, V6)        |
//!    |           reading             (D2)            |
//!    |           repair  catchup     (R1)            |
//!    |           recovery            (S1, S2)        |
//!    |           transfer  snapshot  (R3)            |
//!    |           memory  torn        (S3)            |
//!    |           replacements        (S4, E1)        |
//!    |           members             (E1 to E3)      |
//!    | log  log_merge  client_table  quorum  timeout |
//!    +-----------------------------------------------+
//!                              |
//!                       poll_output()
//!                              v
//!       sends, appends, cuts, superblocks, applies, replies
//! ```
//!
//! # The protocol in a page
//!
//! Time is cut into numbered *views*, each with one *primary*, `view mod n`. The primary seals each request into a
//! *prepare* (op number, parent's name, view), writes it to its own journal and at the same time sends it to the backups.
//! Whoever has it durable says `prepare_ok`, the primary's own disk being one voice among equals. What a quorum holds is
//! *committed*: applied, answered, visible, in order.
//!
//! When backups miss the primary they propose the next view. When a quorum proposes it, its members leave the old view for
//! good, make that durable, and tell the new primary what they hold. From a quorum of such tales the new primary merges the
//! log that the view starts with: it contains everything that was ever committed, because any two quorums share a replica.
//!
//! A primary may be one of the past and not know it. So whoever wants to know what is committed *now* is answered after a
//! quorum has said, since he asked, that it works in the primary's view.
//!
//! # Two promises on disk
//!
//! * P1: `view = v` is durable before `DoViewChange` for v is sent. A replica that has told its log never helps an older
//!   view to commit anything, not even after a restart.
//! * P2: `log_view = v` is durable before `StartView` or `PrepareOk` in v is sent, and becomes so only when all that the
//!   primary of v announced is durable here. So the largest log view told in a view change leads to the newest log.
//!
//! Neither asks the driver for care: a message that needs something durable is not emitted before the driver has said that
//! it is.
//!
//! # Who counts
//!
//! The places of a group are fixed, who stands in them and whose word counts is not: entries of the log say so. An entry that has
//! a replica count, or has one leave, is committed by those who counted before it, with nothing sealed behind it until then
//! ([`members`]). An entry that puts another replica in a place is committed by the others ([`replacements`]).
//!
//! # Where a log starts
//!
//! A log may let go of its oldest prepares. The primary's driver seals a `LogStart` entry for that; when it is committed each
//! replica's driver removes what is older from its disk, and keeps a [`snapshot`] of the state that it builds on. A replica
//! that lacks something older takes that snapshot in place of its log (`replica/transfer`).
//!
//! # What the driver must know
//!
//! * Perform outputs in order; keep one FIFO queue of disk jobs per group, and answer its jobs in order.
//! * Ask [`Replica::next_timeout`] after every step, and after [`Replica::recover`], which has something due at once.
//! * Tell [`event::Input::PrimaryLiveness`] when it changes, and tell a suspicion again when the view has changed: a replica
//!   believes a new view's primary to be alive until told otherwise.
//! * A restarted replica assumes that all it is given is durable: sync the journal before reading it back.
//! * A log that has lost its end says so in its superblock (`is_torn`). Such a replica tells nobody what it holds, and is back
//!   when a primary has told it the log (`replica/torn`). A hole inside a log is the driver's to fill before it is recovered.
//! * In a group that acknowledges from memory ([`Config::durability`]) an `Append` is synced when [`Output::Sync`] asks for it.
//!   Tell [`Input::Stop`] before the process ends in order, and wait for [`Replica::may_stop`] (`replica/memory`).
//! * A producer's first request is taken at its word. One that was evicted from the client table and repeats its very first
//!   request is not told from a new one; sessions are registered elsewhere, under names that are used once.
//!
//! # Sources
//!
//! Liskov and Cowling, "Viewstamped Replication Revisited" (2012); Alagappan et al., "Protocol-Aware Recovery for
//! Consensus-Based Storage" (FAST'18); Michael et al., "Recovering Shared Objects Without Stable Storage" (DISC'17).

mod client_table;
pub mod config;
pub mod event;
mod log;
mod log_merge;
mod log_starts;
mod members;
mod quorum;
mod replacements;
mod replica;
pub mod snapshot;
mod status;
mod timeout;

pub use config::{Config, Timeouts};
pub use event::{Input, Output};
pub use quorum::quorum;
pub use replica::Replica;
pub use replica::recovery::RecoveredLog;
pub use status::Status;
