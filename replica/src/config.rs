//! The file `cluster.toml`: which nodes make up a cluster, where each keeps its data, and how it beats.
//!
//! All nodes of a cluster share one file. Its path is the base of every relative path in it. The `cluster.toml` at the root
//! of the project shows every key with its meaning, default and bounds; a test keeps the two together.
//!
//! * every key carries its unit in its name, and has bounds; most have a default;
//! * an unknown key is an error that names file, line and the nearest known key;
//! * what is loaded is checked as a whole: whoever holds a [`ClusterConfig`] need not doubt it.

mod error;
mod file;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use varve_protocol::id::{ClusterId, NodeId};

pub use self::error::{ConfigError, Problem};

/// Nodes of one cluster in this version: every node holds a replica of the metadata group.
pub const CLUSTER_NODES_MAX: usize = varve_protocol::limits::REPLICAS_MAX;

/// A numeric key: its default and its bounds, both inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NumberKey {
    /// Table and name, as in `timing.pulse_interval_ms`.
    pub key: &'static str,
    /// The value if the file does not say.
    pub default: u64,
    /// The smallest legal value.
    pub min: u64,
    /// The largest legal value.
    pub max: u64,
}

impl NumberKey {
    const fn new(key: &'static str, default: u64, bounds: RangeInclusive<u64>) -> Self {
        Self { key, default, min: *bounds.start(), max: *bounds.end() }
    }
}

/// Milliseconds between two pulses to a peer.
pub const PULSE_INTERVAL_MS: NumberKey = NumberKey::new("timing.pulse_interval_ms", 25, 1..=1_000);

/// Milliseconds without a sign of life after which the groups that a peer leads look for another primary.
pub const SUSPICION_TIMEOUT_MS: NumberKey = NumberKey::new("timing.suspicion_timeout_ms", 150, 10..=60_000);

/// Milliseconds after which a view change that got nowhere is tried with the next primary.
pub const VIEW_CHANGE_TIMEOUT_MS: NumberKey =
    NumberKey::new("timing.view_change_timeout_ms", 300, 20..=60_000);

/// Milliseconds that a node must stay after it has come back, before it leads again what it is preferred for; zero: never.
pub const RESTORE_PRIMARIES_AFTER_MS: NumberKey =
    NumberKey::new("timing.restore_primaries_after_ms", 10_000, 0..=3_600_000);

/// Bytes after which a segment file is closed and the next one begun.
pub const SEGMENT_SIZE_BYTES_MAX: NumberKey =
    NumberKey::new("storage.segment_size_bytes_max", 256 << 20, 1 << 20..=4 << 30);

/// Milliseconds after the first prepare in a segment file from which on a prepare begins the next one.
pub const SEGMENT_AGE_MS_MAX: NumberKey =
    NumberKey::new("storage.segment_age_ms_max", 604_800_000, 1_000..=315_360_000_000);

/// Milliseconds until what a replica has acknowledged from memory is synced, in topics whose durability is quorum-memory. Its upper
/// bound is well below the time after which a primary whose disk takes nothing gives way.
pub const MEMORY_SYNC_MS: NumberKey = NumberKey::new("storage.memory_sync_ms", 100, 1..=2_000);

/// Bytes a second of its logs that a node looks at to see whether they have rotted; zero: never. The default passes over 600 GB
/// in two weeks, and takes a disk less than one part in a hundred of its time.
pub const SCRUB_BYTES_PER_SECOND_MAX: NumberKey =
    NumberKey::new("storage.scrub_bytes_per_second_max", 512 << 10, 0..=1 << 40);

/// Bytes of the largest UDP payload that the network between the nodes carries.
pub const PATH_MTU_MAX: NumberKey = NumberKey::new("transport.path_mtu_max", 1452, 1_200..=65_527);

/// Bytes a second of its logs that a node sends at most to replicas that catch up, all of them together; zero: no limit.
pub const CATCH_UP_BYTES_PER_SECOND_MAX: NumberKey =
    NumberKey::new("transport.catch_up_bytes_per_second_max", 0, 0..=1 << 40);

/// Threads that a node's replicas and connections are served on; its disk has one of its own. With one, nothing is handed from thread
/// to thread: on a machine of two cores a record is acknowledged from memory in 0.20 ms instead of 0.33. With more, the packets of
/// several connections are sealed and opened at once, which only a node with cores to spare can gain from.
pub const THREADS: NumberKey = NumberKey::new("transport.threads", 1, 1..=64);

/// All numeric keys.
pub const NUMBER_KEYS: [NumberKey; 11] = [
    PULSE_INTERVAL_MS,
    SUSPICION_TIMEOUT_MS,
    VIEW_CHANGE_TIMEOUT_MS,
    RESTORE_PRIMARIES_AFTER_MS,
    SEGMENT_SIZE_BYTES_MAX,
    SEGMENT_AGE_MS_MAX,
    MEMORY_SYNC_MS,
    SCRUB_BYTES_PER_SECOND_MAX,
    PATH_MTU_MAX,
    CATCH_UP_BYTES_PER_SECOND_MAX,
    THREADS,
];

/// Pulses that fit into the suspicion timeout at least: one or two lost ones are no reason to suspect anybody.
pub const PULSES_PER_SUSPICION_MIN: u64 = 3;

/// A cluster as its file describes it, checked, with absolute or file-relative paths resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Who this cluster is; frames and data of any other are refused.
    pub cluster_id: ClusterId,
    /// The nodes, by id; at least one, at most [`CLUSTER_NODES_MAX`].
    pub nodes: Vec<NodeSettings>,
    /// The certificate of the authority that all nodes and clients trust.
    pub ca: PathBuf,
    /// The clockwork.
    pub timing: TimingSettings,
    /// How data is stored.
    pub storage: StorageSettings,
    /// How nodes reach each other.
    pub transport: TransportSettings,
}

/// One node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    /// Which one.
    pub id: NodeId,
    /// Where peers and clients reach it: `host:port`.
    pub address: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Its certificate.
    pub cert: PathBuf,
    /// The key of its certificate.
    pub key: PathBuf,
}

/// The table `[timing]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimingSettings {
    /// See [`PULSE_INTERVAL_MS`].
    pub pulse_interval: Duration,
    /// See [`SUSPICION_TIMEOUT_MS`].
    pub suspicion_timeout: Duration,
    /// See [`VIEW_CHANGE_TIMEOUT_MS`].
    pub view_change_timeout: Duration,
    /// See [`RESTORE_PRIMARIES_AFTER_MS`].
    pub restore_primaries_after: Duration,
}

/// The table `[storage]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageSettings {
    /// See [`SEGMENT_SIZE_BYTES_MAX`].
    pub segment_size_bytes_max: u64,
    /// See [`SEGMENT_AGE_MS_MAX`].
    pub segment_age_ms_max: u64,
    /// See [`MEMORY_SYNC_MS`].
    pub memory_sync: Duration,
    /// See [`SCRUB_BYTES_PER_SECOND_MAX`].
    pub scrub_bytes_per_second_max: u64,
    /// The file with the keys that what is stored is sealed with ([`varve_storage::Keys`]); none: nothing is sealed.
    pub key_file: Option<PathBuf>,
}

/// The table `[transport]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportSettings {
    /// See [`PATH_MTU_MAX`].
    pub path_mtu_max: u16,
    /// See [`CATCH_UP_BYTES_PER_SECOND_MAX`].
    pub catch_up_bytes_per_second_max: u64,
    /// See [`THREADS`].
    pub threads: usize,
}

impl ClusterConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When the file cannot be read, or does not describe a cluster; the error says where and what to do.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` is what relative paths and errors refer to.
    ///
    /// # Errors
    /// When the text does not describe a cluster.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let base = path.parent().unwrap_or(Path::new(""));
        file::parse(text, base).map_err(|located| ConfigError::Invalid {
            path: path.to_owned(),
            line: 1 + text[..located.at.min(text.len())].matches('\n').count(),
            problem: located.problem,
        })
    }

    /// The node with this id, if there is one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeSettings> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The ids of all nodes as a person reads them: `1, 2, 3`.
    #[must_use]
    pub fn node_list(&self) -> String {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.id.as_raw().to_string()).collect();
        ids.join(", ")
    }
}

#[cfg(test)]
mod tests;
