//! Why a `cluster.toml` cannot be used. Every text names the place and says what would be right.

use std::path::PathBuf;

use varve_protocol::id::{ClusterIdError, NodeId};
use varve_protocol::limits::NODES_MAX;

use super::{CLUSTER_NODES_MAX, NumberKey, PULSES_PER_SUSPICION_MIN};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file does not describe a cluster.
    #[error("{path}:{line}: {problem}", path = path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: Problem,
    },
}

/// What is wrong at one place of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML, a key is missing, or a value has another type than its key needs.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// A key that means nothing.
    #[error("unknown key `{key}`{}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// As written.
        key: String,
        /// The known key that is nearest to it, if any is near.
        nearest: Option<String>,
    },
    /// A number out of its bounds.
    #[error("`{}` is {value}; it must be from {} to {}", key.key, key.min, key.max)]
    OutOfBounds {
        /// Which key.
        key: NumberKey,
        /// As written.
        value: u64,
    },
    /// Healthy peers would be suspected.
    #[error(
        "`timing.suspicion_timeout_ms` is {suspicion_ms}; it must be at least {} times \
         `timing.pulse_interval_ms`, which is {pulse_ms}",
        PULSES_PER_SUSPICION_MIN
    )]
    SuspicionTooSoon {
        /// The suspicion timeout.
        suspicion_ms: u64,
        /// The pulse interval.
        pulse_ms: u64,
    },
    /// The cluster id cannot be read.
    #[error("`cluster_id`: {0}; draw one with `openssl rand -hex 16`")]
    ClusterId(#[from] ClusterIdError),
    /// No node, or too many.
    #[error("there are {count} nodes; a cluster has from 1 to {CLUSTER_NODES_MAX} in this version")]
    NodeCount {
        /// How many there are.
        count: usize,
    },
    /// Not a legal node id.
    #[error("`id` is {id}; a node id is from 1 to {NODES_MAX}")]
    NodeId {
        /// As written.
        id: u64,
    },
    /// Not an address.
    #[error("`address` is `{address}`; it must be `host:port`, such as `10.0.0.1:7101`")]
    Address {
        /// As written.
        address: String,
    },
    /// Two nodes cannot share this.
    #[error("nodes {} and {} have the same `{key}`, {value}", first.as_raw(), second.as_raw())]
    Shared {
        /// Which key.
        key: &'static str,
        /// The value that both have.
        value: String,
        /// The node that has it first.
        first: NodeId,
        /// The node that has it again.
        second: NodeId,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}
