//! What can go wrong with a data directory. Errors travel in completions, so they are values that can be cloned: the
//! system's error is kept as its kind and its text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use varve_protocol::id::{ClusterId, GroupId, NodeId, Op};

use crate::keys::KeyId;

/// An error of the system, as a value that can be cloned and compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct IoFailure {
    /// What kind it is.
    pub kind: io::ErrorKind,
    /// What the system says.
    pub text: String,
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<io::Error> for IoFailure {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

/// Why this package could not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refused an operation.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// The failed act, as a verb: "write to".
        act: &'static str,
        /// The file or directory, relative to the data directory.
        path: PathBuf,
        /// What the system says.
        source: IoFailure,
    },
    /// Another process holds the data directory.
    #[error("data directory {} is in use by another process; stop it, or give this node its own directory", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory holds something already, so it is not formatted over.
    #[error("the data directory holds {} already; formatting would destroy a node: choose an empty directory", found.display())]
    AlreadyFormatted {
        /// The first thing found.
        found: PathBuf,
    },
    /// The data directory has no identity.
    #[error(
        "the data directory is not formatted; if it was, its disk is lost or not mounted: format an empty directory and let the node join anew"
    )]
    NotFormatted,
    /// The identity file is rotten.
    #[error("file {} is damaged; replace the node: format an empty directory and let it join anew", path.display())]
    IdentityDamaged {
        /// The identity file.
        path: PathBuf,
    },
    /// The data directory was written by another version.
    #[error("{} has format version {found}; this build reads version {expected}: start the build that wrote it, or upgrade step by step", path.display())]
    WrongVersion {
        /// The file that says so.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The version of this build.
        expected: u32,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory belongs to cluster {found}, this node is of cluster {expected}: check the configured directory and cluster id"
    )]
    WrongCluster {
        /// The cluster of the directory.
        found: ClusterId,
        /// The cluster asked for.
        expected: ClusterId,
    },
    /// The data directory belongs to another node.
    #[error(
        "the data directory belongs to node {found}, this is node {expected}: check the configured directory and node id; never start two nodes from copies of one directory"
    )]
    WrongNode {
        /// The node of the directory.
        found: NodeId,
        /// The node asked for.
        expected: NodeId,
    },
    /// Both copies of a superblock entry are unreadable; whose promise it was cannot be told.
    #[error("superblocks are damaged in both copies (entry {entry} of {}); this node may have forgotten a vote: replace the node, let it join anew with an empty directory", path.display())]
    SuperblocksDamaged {
        /// The copy that was judged last.
        path: PathBuf,
        /// The place of the entry in the file.
        entry: u64,
    },
    /// A segment file is rotten, cut short or gone where it was durable before.
    #[error("log is damaged in {} at position {position} ({op}), and it cannot be told what was there; the other replicas go on without this one", path.display())]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where in the file the damage starts.
        position: u64,
        /// The first op that cannot be read.
        op: Op,
    },
    /// A file is sealed with a key that this node was not given.
    #[error("{} is sealed with key {key}, which is not in the key file of this node (`storage.key_file`): put its line back", path.display())]
    KeyMissing {
        /// The file.
        path: PathBuf,
        /// The name of the key.
        key: KeyId,
    },
    /// No such group on this store.
    #[error("group {group} is not on this disk")]
    GroupUnknown {
        /// The group asked for.
        group: GroupId,
    },
}

impl StorageError {
    pub(crate) fn io(act: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { act, path: path.to_owned(), source: source.into() }
    }

    /// Whether peers can give back what is lost here. Everything else needs an operator.
    #[must_use]
    pub fn is_repairable(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::AlreadyFormatted { .. }
            | Self::NotFormatted
            | Self::IdentityDamaged { .. }
            | Self::WrongVersion { .. }
            | Self::WrongCluster { .. }
            | Self::WrongNode { .. }
            | Self::SuperblocksDamaged { .. }
            | Self::KeyMissing { .. }
            | Self::GroupUnknown { .. } => false,
        }
    }

    /// Whether the disk, or the quota on it, is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source.kind),
            Self::Locked { .. }
            | Self::AlreadyFormatted { .. }
            | Self::NotFormatted
            | Self::IdentityDamaged { .. }
            | Self::WrongVersion { .. }
            | Self::WrongCluster { .. }
            | Self::WrongNode { .. }
            | Self::SuperblocksDamaged { .. }
            | Self::Damaged { .. }
            | Self::KeyMissing { .. }
            | Self::GroupUnknown { .. } => false,
        }
    }
}

/// Whether the system says that the disk, or the quota on it, is used up.
pub(crate) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Says what was tried, and on what, when the system refuses.
pub(crate) trait IoContext<T> {
    fn or_failed_to(self, act: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn or_failed_to(self, act: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|error| StorageError::io(act, path, error))
    }
}
