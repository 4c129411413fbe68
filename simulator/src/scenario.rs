//! The whole cause of a universe, as a seed draws it: the cluster, its weather, its load, and the schedule of its misfortunes.
//!
//! Swarm testing: each seed switches every kind of fault on or off and redraws its rates, zero included, because a rare
//! combination is found sooner by a run that has only that combination.
//!
//! A scenario is a value. A world plays it whether it was drawn, edited, or read from a file, and the same value is the same
//! universe. What is neither load nor misfortune (the clockwork of the nodes, the sizes of segments, the bytes that clients
//! write, the order of ties) is drawn from its seed while it is played.
//!
//! A [`Strike`] names whom it hits in words that both worlds understand ("the primary of the second partition"); the
//! world finds out at that moment who that is.

mod draw;
mod fault;
mod format;
mod profile;
mod release;
mod soundness;
mod weather;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::retention::Retention;
use varve_transport::Tuning;

pub use draw::{is_metadata_spared, is_metadata_summed_up, metadata_bytes_kept, retention, timing};
pub use fault::{Death, Fault, Reach, Strike, Victim};
pub use profile::Profile;
pub use release::{Release, Rollout};
pub use soundness::Unsound;

/// Which of the two worlds a seed runs in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// Deterministic nodes on an event heap, with messages for a wire.
    Fast,
    /// The server with real QUIC, in a simulated UDP network.
    Quic,
}

impl World {
    /// The name used on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Quic => "quic",
        }
    }
}

/// What the universe is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Faults strike.
    Safety,
    /// Everything must work again.
    Liveness,
    /// Everything is read.
    Audit,
    /// It is over.
    Over,
}

/// Everything that is decided before a universe starts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The seed that drew it.
    pub seed: u64,
    /// The world it was drawn for.
    pub world: World,
    /// The profile that bent it; [`Profile::Beyond`] promises less than the others.
    #[serde(default)]
    pub profile: Profile,
    /// Nodes: 1, 3, 5 or 7.
    pub nodes: u8,
    /// Partitions of the one topic.
    pub partitions: u32,
    /// Replicas of each partition, at most `nodes`.
    pub replication_factor: u8,
    /// When an append to it counts as done. From memory: then no more than a minority of a group's replicas is stopped
    /// uncleanly at once, but in a blackout.
    #[serde(with = "format::durability")]
    pub durability: Durability,
    /// What the clients do.
    pub load: Load,
    /// The network.
    pub link: Link,
    /// The disks.
    pub disk: Disk,
    /// Parts per million by which a clock may run fast or slow.
    pub clock_drift_ppm_max: u32,
    /// How long faults strike.
    #[serde(with = "format::time")]
    pub safety: Duration,
    /// The faults, by time.
    pub strikes: Vec<Strike>,
    /// Nodes that are kept out, and how, while the others must already work again.
    pub left_behind: Vec<LeftBehind>,
    /// How often disks forget what they had synced.
    pub rot: Rot,
    /// Which nodes are started with another release, and from when on; none: all with this one.
    #[serde(default)]
    pub rollouts: Vec<Rollout>,
}

/// Who is kept out while the others must already work again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftBehind {
    /// Who.
    #[serde(with = "format::node")]
    pub node: NodeId,
    /// By what.
    pub fault: Fault,
}

/// Disks that forget, when their computer stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rot {
    /// Stops after which something is harmed, in a thousand.
    pub crashes_permille: u32,
    /// Logs of the node that are then harmed, in a thousand.
    pub groups_permille: u32,
}

impl Rot {
    /// Disks that remember.
    pub const NONE: Self = Self { crashes_permille: 0, groups_permille: 0 };
}

/// What the clients do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Producers with a session, which retry until they know the outcome.
    pub producers: u32,
    /// Producers without a session, which try once and live with not knowing.
    pub amnesiacs: u32,
    /// Consumers that read whatever replica they come across.
    pub readers: u32,
    /// Appends that a producer keeps in flight per partition.
    pub window: u32,
    /// Most records in a batch.
    pub batch_records_max: u32,
    /// Most bytes in a record's payload.
    pub payload_bytes_max: u32,
    /// Mean pause between two appends of a producer to a partition.
    #[serde(with = "format::time")]
    pub think: Duration,
    /// How long a client waits for an answer before it asks elsewhere.
    #[serde(with = "format::time")]
    pub patience: Duration,
    /// Whether somebody creates and deletes streams and topics all the time.
    pub tinkers: bool,
    /// Whether somebody has primaries moved all the time.
    pub balances: bool,
    /// Whether somebody has replicas moved all the time. A replica that goes leaves its group without one for a moment: there
    /// no disk forgets anything then, and nobody stays away.
    pub moves: bool,
    /// How long records are kept.
    #[serde(with = "format::RetentionFormat")]
    pub retention: Retention,
    /// How the topic is compressed. If it is, most records have headers, too, and producers without a session use any
    /// compression.
    #[serde(with = "format::compression")]
    pub compression: Compression,
}

/// The network between any two.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// One-way delay that nothing gets below.
    #[serde(with = "format::time")]
    pub latency: Duration,
    /// Mean of what comes on top.
    #[serde(with = "format::time")]
    pub latency_tail: Duration,
    /// Bytes per second, each way.
    pub bandwidth: u64,
    /// Mean time between resets of connections without a visible cause; zero: never (fast world).
    #[serde(with = "format::time")]
    pub reset_every: Duration,
    /// Silence after which an end gives a connection up.
    #[serde(with = "format::time")]
    pub idle_timeout: Duration,
    /// Packets lost, in a thousand (QUIC world).
    pub loss_permille: u32,
    /// Packets that arrive twice, in a thousand (QUIC world).
    pub duplicate_permille: u32,
    /// Packets overtaken by later ones, in a thousand (QUIC world).
    pub reorder_permille: u32,
    /// Packets of which some bits are others on arrival, in a thousand (QUIC world).
    #[serde(default)]
    pub corrupt_permille: u32,
    /// Bytes of the largest packet that gets through from a third of the time of the faults on; none: any does (QUIC world).
    #[serde(default)]
    pub narrows_to: Option<u32>,
    /// Bytes that may wait for a lane of data between two nodes; what finds no room is dropped (QUIC world).
    #[serde(default = "lane_bytes_default")]
    pub lane_bytes_max: usize,
}

/// What nodes are set to unless told otherwise.
pub(crate) fn lane_bytes_default() -> usize {
    Tuning::default().lane_bytes_max
}

/// The disks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Time of one round of writes and syncs.
    #[serde(with = "format::time")]
    pub latency: Duration,
    /// Rounds that take much longer, in a thousand.
    pub spike_permille: u32,
    /// The longest of those.
    #[serde(with = "format::time")]
    pub spike_max: Duration,
}

impl Scenario {
    /// The longest the cluster may take, once the faults are over, until everything works again: connections have to
    /// time out and be made anew, and every group may need several view changes, each longer than the one before. Where an
    /// operator is needed, he takes his time as well.
    #[must_use]
    pub fn recovery_max(&self) -> Duration {
        let operator = if self.has_rescuer() { 2 * self.reaction() } else { Duration::ZERO };
        2 * self.link.idle_timeout + Duration::from_secs(20) + operator
    }

    /// Whether more is harmed than a cluster is promised to survive: then what does not work must say so.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        self.profile == Profile::Beyond
    }

    /// Whether groups may come to wait for an operator.
    #[must_use]
    pub fn has_rescuer(&self) -> bool {
        let is_memory = self.durability == Durability::QuorumMemory && self.world == World::Fast;
        is_memory && self.strikes.iter().any(|strike| strike.fault == Fault::Blackout)
    }

    /// How long the operator looks on before he has a group go on: by then nothing arrives any more that was said before the power
    /// failed.
    #[must_use]
    pub fn reaction(&self) -> Duration {
        self.link.idle_timeout + Duration::from_millis(500)
    }

    /// The scenario in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self {
            nodes,
            partitions,
            replication_factor,
            durability,
            load,
            link,
            disk,
            safety,
            strikes,
            left_behind,
            rot,
            rollouts,
            ..
        } = self;
        let releases = if rollouts.is_empty() { "one release" } else { "two releases" };
        format!(
            "{nodes} nodes, {partitions} partitions x {replication_factor}, {durability}, {} strikes in {safety:?}, then without \
             {left_behind:?}, {releases}, {load:?}, {link:?}, {disk:?}, {rot:?}",
            strikes.len()
        )
    }

    /// All nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId::new)
    }
}
