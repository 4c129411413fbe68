//! What can go wrong for a user of the client, and what it means for what was asked.

use std::path::PathBuf;
use std::time::Duration;

use varve_protocol::client::Refusal;
use varve_protocol::id::Offset;
use varve_protocol::metadata::MetadataError;
use varve_protocol::record::BatchError;

use crate::connection_string::ConnectionStringError;

/// What became of what was asked, when an error is the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was not done, and will not be.
    NotDone,
    /// It may have been done, or may yet be.
    Unknown,
}

/// Why the client cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The connection string cannot be read.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The socket or the authority's certificate cannot be used.
    #[error("{reason}")]
    Setup {
        /// What is wrong.
        reason: String,
    },
    /// No node answers.
    #[error("no node of the cluster can be reached: {reason}")]
    Unreachable {
        /// What happened at the last one tried.
        reason: String,
    },
    /// This release of the client does not know the version of the cluster. What was sent before may have been done.
    #[error("{reason}")]
    Release {
        /// Which versions those are, and what to do.
        reason: String,
    },
    /// A node refused, and asking again would not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The metadata group refused.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Not `stream/topic`.
    #[error("`{name}` names no topic: `stream/topic` does")]
    TopicName {
        /// As given.
        name: String,
    },
    /// The topic has no such partition.
    #[error("`{topic}` has {partitions} partitions, from 0; there is no partition {partition}")]
    PartitionUnknown {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },
    /// The record fits no batch.
    #[error(transparent)]
    Record(#[from] BatchError),
    /// It took too long.
    #[error("{what} took longer than {limit:?}: {reason}")]
    TimedOut {
        /// What was tried.
        what: &'static str,
        /// How long.
        limit: Duration,
        /// What happened last.
        reason: String,
    },
    /// An earlier batch of the same partition has failed, and order would be lost if this one went on.
    #[error("not sent, because an earlier batch to this partition failed: {reason}")]
    EarlierFailed {
        /// What happened to that one.
        reason: String,
    },
    /// The producer was dropped before this was sent.
    #[error("not sent: the producer was dropped before; wait for its acknowledgements, or call `flush`")]
    Dropped,
    /// A batch that is as it was appended, and that this build cannot read.
    #[error("the records from {offset} on cannot be read: {error}")]
    Unreadable {
        /// The first of them.
        offset: Offset,
        /// Why.
        error: BatchError,
    },
    /// A node answered what makes no sense.
    #[error("a node answered something that makes no sense: {reason}")]
    Nonsense {
        /// What.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::ConnectionString(_)
            | Self::File { .. }
            | Self::Setup { .. }
            | Self::Release { .. }
            | Self::Metadata(_)
            | Self::TopicName { .. }
            | Self::PartitionUnknown { .. }
            | Self::Record(_)
            | Self::EarlierFailed { .. }
            | Self::Dropped
            | Self::Unreadable { .. }
            | Self::Nonsense { .. } => false,
        }
    }

    /// What became of what was asked.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut { .. }
            | Self::Release { .. }
            | Self::Nonsense { .. }
            | Self::Refused(Refusal::UnknownOutcome | Refusal::ViewEnded { .. }) => Outcome::Unknown,
            Self::ConnectionString(_)
            | Self::File { .. }
            | Self::Setup { .. }
            | Self::Unreachable { .. }
            | Self::Refused(_)
            | Self::Metadata(_)
            | Self::TopicName { .. }
            | Self::PartitionUnknown { .. }
            | Self::Record(_)
            | Self::EarlierFailed { .. }
            | Self::Unreadable { .. }
            | Self::Dropped => Outcome::NotDone,
        }
    }
}
