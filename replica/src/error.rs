//! Why a node does not run.

use std::path::PathBuf;

use varve_protocol::id::NodeId;
use varve_storage::StorageError;
use varve_transport::TransportError;

use crate::config::ConfigError;
use crate::key_file::KeyFileError;

/// Why a node does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys that what is stored is sealed with cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The socket or the certificates cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A file that the node needs cannot be read or written.
    #[error("cannot {act} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data directory is of a cluster that this release is too old, or too new, for.
    #[error("{reason}")]
    Release {
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration has no such node.
    #[error("{node} is not in the configuration; it has {known}")]
    UnknownNode {
        /// What was asked for.
        node: NodeId,
        /// The nodes there are.
        known: String,
    },
    /// The address in the configuration leads nowhere.
    #[error("the address `{address}` of {node} cannot be resolved: {source}")]
    Address {
        /// Whose.
        node: NodeId,
        /// As configured.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The disk failed; the node has stopped so that its peers take over.
    #[error("{node} has stopped: {reason}")]
    Halted {
        /// Which node.
        node: NodeId,
        /// What failed.
        reason: String,
    },
    /// The system gives no thread for the disk.
    #[error("the disk thread could not be started: {0}")]
    DiskThread(std::io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Entropy(String),
    /// The disk thread ended although the node runs.
    #[error("the disk thread has ended; see the log above for why")]
    DiskEnded,
    /// The transport ended although the node runs.
    #[error("the transport has ended; see the log above for why")]
    TransportEnded,
}
