//! A node of the cluster: many replicated groups, the metadata, and what clients see of them.
//!
//! * [`Node`] is deterministic: inputs in ([`NodeInput`]), effects out ([`Effect`]). It composes the consensus cores, the
//!   metadata state machine, sessions, fetches and liveness.
//! * [`server`] is the tokio code around it: sockets, the disk thread, the clock.
//! * [`config`] is the file `cluster.toml`.

mod allowance;
mod anew;
pub mod config;
mod error;
mod event;
mod group;
pub mod inspect;
pub mod key_file;
mod mending;
pub mod metadata;
mod node;
mod recovery;
mod scrubbing;
pub mod server;
mod summary;
pub mod tail;
mod timers;
mod timing;

pub use error::ServerError;
pub use event::{Effect, NodeInput, Session};
pub use node::full::DISK_FULL;
pub use node::{METADATA_BYTES_KEPT, Node, NodeConfig};
pub use recovery::Recovery;
pub use scrubbing::ROTTEN;
pub use timing::Timing;
