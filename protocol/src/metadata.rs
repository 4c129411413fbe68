//! The metadata of a cluster: operations that group 0 replicates, and the picture that clients get of the result.
//!
//! All of it travels and is stored as rkyv archives (unaligned, little-endian). The order of fields and variants is the
//! format: add at the end only.

#![allow(
    missing_docs,
    reason = "rkyv derives undocumented mirrors of variants with fields; ours are documented"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::compression::Compression;
use crate::durability::Durability;
use crate::id::{DirectoryId, GroupId, NodeId, Op, ProducerId, ReplicaIndex, View};
use crate::limits::{NAME_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICAS_MAX};
use crate::retention::Retention;
use crate::version::{Version, Versions};

/// A change of the metadata: the body of a prepare of kind `Metadata`.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum MetadataOp {
    /// A node of the configuration, with the address its peers and clients reach it at.
    RegisterNode {
        /// Which node.
        node: NodeId,
        /// `host:port`.
        address: String,
        /// Its data directory: another than before if it has lost its disk.
        directory: DirectoryId,
        /// What its release knows.
        versions: Versions,
    },
    /// Gives out a new producer id.
    RegisterProducer,
    /// Adds a stream.
    CreateStream {
        /// Its name.
        stream: String,
    },
    /// Removes a stream that has no topics.
    DeleteStream {
        /// Its name.
        stream: String,
    },
    /// Adds a topic and places its partitions on the registered nodes.
    CreateTopic {
        /// Name of its stream.
        stream: String,
        /// Its name.
        topic: String,
        /// Number of partitions.
        partitions: u32,
        /// Replicas of each: 1, 3, 5 or 7; if none is given 3, or 1 if fewer nodes are registered.
        replication_factor: Option<u8>,
        /// When an append counts as done.
        durability: Durability,
        /// How long records are kept.
        retention: Retention,
        /// How producers compress the batches they append; a node takes any that it knows.
        compression: Compression,
    },
    /// Removes a topic and the data of its partitions.
    DeleteTopic {
        /// Name of its stream.
        stream: String,
        /// Its name.
        topic: String,
    },
    /// Has a node take the place of another that holds a replica of a partition, or a vacant one, or leave its place vacant. The
    /// opposite of a move that is under way turns that round.
    MoveReplica {
        /// The group of the partition.
        group: GroupId,
        /// Who holds a replica; zero: there is to be one more.
        from: NodeId,
        /// Who is to hold it instead; zero: there is to be one less.
        to: NodeId,
    },
    /// Gives up a move, once. Who was to come may have taken the place by now, so that is turned round: who held the replica takes it
    /// again.
    CancelMove {
        /// The group of the partition.
        group: GroupId,
    },
    /// The replica that was moved has a voice: who held it before need not keep it.
    FinishMove {
        /// The group of the partition.
        group: GroupId,
        /// The op that began the move.
        since: Op,
    },
    /// From now on the cluster is of a newer version, which the releases of all its nodes know.
    RaiseVersion {
        /// That version.
        to: Version,
    },
}

/// What a committed [`MetadataOp`] brought about.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum MetadataOutcome {
    /// Done.
    Done,
    /// A producer was registered.
    Producer(ProducerId),
    /// Nothing was changed.
    Refused(MetadataError),
}

/// Why a [`MetadataOp`] was refused. Each text says what to do.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum MetadataError {
    /// The name is taken.
    #[error("stream `{0}` exists already")]
    StreamExists(String),
    /// No such stream.
    #[error("stream `{0}` does not exist; create it with `varve stream create {0}`")]
    StreamUnknown(String),
    /// Topics would be lost.
    #[error("stream `{0}` still has topics; delete them first with `varve topic delete`")]
    StreamNotEmpty(String),
    /// The name is taken.
    #[error("topic `{0}` exists already")]
    TopicExists(String),
    /// No such topic.
    #[error("topic `{0}` does not exist; create it with `varve topic create {0} --partitions 1`")]
    TopicUnknown(String),
    /// Not a legal name.
    #[error(
        "`{0}` is not a legal name: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`, not starting with `.`"
    )]
    BadName(String),
    /// Not a legal number of partitions.
    #[error("{0} partitions are not possible: between 1 and {PARTITIONS_PER_TOPIC_MAX}")]
    BadPartitions(u32),
    /// Not a legal replication factor.
    #[error(
        "replication factor {wanted} is not possible: 1, 3, 5 or 7, and at most the {nodes} nodes there are"
    )]
    BadReplicationFactor {
        /// What was asked for.
        wanted: u8,
        /// Nodes registered.
        nodes: u8,
    },
    /// Every node is at its limit of partitions.
    #[error("the cluster has no room for {0} more partitions; add nodes or delete topics")]
    TooManyPartitions(u32),
    /// No such partition.
    #[error("{0} is no partition: its topic was deleted; see `varve topic list`")]
    GroupUnknown(GroupId),
    /// There is nothing to move.
    #[error("{node} holds no replica of {group}; see `varve topic describe`")]
    NoReplica {
        /// The group.
        group: GroupId,
        /// Who holds none.
        node: NodeId,
    },
    /// A node holds one replica of a group at most.
    #[error("{node} holds a replica of {group} already; choose another node")]
    ReplicaExists {
        /// The group.
        group: GroupId,
        /// Who holds one.
        node: NodeId,
    },
    /// Not a node of this cluster.
    #[error("there is no {0} in this cluster; see `varve cluster status`")]
    NodeUnknown(NodeId),
    /// Replicas are moved one after the other.
    #[error("{}; wait until it has, or give that up: `varve cluster move --cancel`", way(group, from, to))]
    MoveUnderWay {
        /// The group.
        group: GroupId,
        /// From where; zero: from nowhere.
        from: NodeId,
        /// To where; zero: to nowhere.
        to: NodeId,
    },
    /// There is nothing to give up.
    #[error("no replica of {0} is coming, going or being moved")]
    NoMove(GroupId),
    /// It is on its way back.
    #[error("that is being given up already: now {}", way(group, from, to))]
    MoveGivenUp {
        /// The group.
        group: GroupId,
        /// From where; zero: from nowhere.
        from: NodeId,
        /// To where; zero: to nowhere.
        to: NodeId,
    },
    /// The others would be no quorum.
    #[error(
        "{0} has less than 3 replicas, and a move is agreed on by the others; add one on the other node with \
         `varve cluster add-replica`, then remove this one"
    )]
    TooFewToMove(GroupId),
    /// Nothing would be left.
    #[error("{0} has no other replica; to delete what it holds, delete its topic")]
    LastReplica(GroupId),
    /// No vacant place.
    #[error("{0} has {REPLICAS_MAX} replicas, and may not have more")]
    NoRoom(GroupId),
    /// Neither from nor to anywhere.
    #[error("a replica is moved from a node to another")]
    NoWay,
    /// A node could not read what the others would write.
    #[error(
        "{node} runs a release that knows {versions}: start one there that knows version {to}, then try again"
    )]
    VersionUnknown {
        /// The version that was asked for.
        to: Version,
        /// Who does not know it.
        node: NodeId,
        /// What it knows.
        versions: Versions,
    },
    /// There is no way back, and nothing to do.
    #[error("the cluster is at version {0} already")]
    VersionReached(Version),
}

fn way(group: &GroupId, from: &NodeId, to: &NodeId) -> String {
    match (*from, *to) {
        (NodeId::ZERO, to) => format!("{to} is to hold one more replica of {group}"),
        (from, NodeId::ZERO) => format!("the replica of {group} on {from} is to leave"),
        (from, to) => format!("a replica of {group} moves from {from} to {to}"),
    }
}

/// Whether `name` may name a stream or a topic.
#[must_use]
pub fn is_legal_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.')
}

/// The picture of the cluster as of one op of the metadata group, as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Archive, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The newest metadata op applied.
    pub op: Op,
    /// The version of the cluster: what its nodes send and write.
    pub version: Version,
    /// All nodes, by id.
    pub nodes: Vec<NodeEntry>,
    /// All streams, by name.
    pub streams: Vec<StreamEntry>,
    /// Who leads which group, as far as the answering node knows: group, view, primary. A hint; may be old.
    pub primaries: Vec<(GroupId, View, NodeId)>,
}

/// All of the metadata as of one op: what a snapshot of group 0 holds.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MetadataState {
    /// Nodes, streams and topics, and the op; without primaries, which are not metadata.
    pub map: ClusterMap,
    /// The data directories of the nodes of the map, in its order.
    pub directories: Vec<NodeDirectories>,
    /// The first producer id not given out yet.
    pub next_producer: ProducerId,
    /// The first group id not given out yet.
    pub next_group: GroupId,
    /// How often partitions came or went.
    pub placement_version: u64,
    /// How often a node had another data directory.
    pub directories_version: u64,
    /// Where the first partition of the next topic starts, as a place in the list of nodes.
    pub placement_cursor: u64,
    /// Outcomes by op, oldest first: the answers to retries.
    pub outcomes: Vec<(Op, MetadataOutcome)>,
}

/// The data directories that a node has had.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct NodeDirectories {
    /// The present one.
    pub directory: DirectoryId,
    /// The op that made it known.
    pub known_at: Op,
    /// Those before, oldest first.
    pub former: Vec<DirectoryId>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Which node.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
    /// What its release knows; none while the node is not registered.
    pub versions: Option<Versions>,
}

/// A stream.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct StreamEntry {
    /// Its name.
    pub name: String,
    /// Its topics, by name.
    pub topics: Vec<TopicEntry>,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct TopicEntry {
    /// Its name.
    pub name: String,
    /// Replicas of each partition.
    pub replication_factor: u8,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionEntry>,
    /// How long records are kept.
    pub retention: Retention,
    /// How producers compress the batches they append; never changes.
    pub compression: Compression,
}

impl TopicEntry {
    /// When an append to this topic counts as done: the same in all its partitions.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.partitions.first().map(|partition| partition.durability).unwrap_or_default()
    }
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// The group that replicates it.
    pub group: GroupId,
    /// The node in each of its places; zero for a vacant one.
    pub places: Vec<NodeId>,
    /// The data directories that those nodes had when the partition was made; zero for one that has come later.
    pub directories: Vec<DirectoryId>,
    /// Which op brought each of those nodes here; zero for one that is here from the start.
    pub arrived: Vec<Op>,
    /// The replica that is being moved, or is coming or going.
    pub moving: Option<Move>,
    /// When an append counts as done; never changes.
    pub durability: Durability,
    /// In how many places it had a replica when it was made; the first one led view 0.
    pub founders: u8,
}

impl PartitionEntry {
    /// The nodes that hold it.
    #[must_use]
    pub fn replicas(&self) -> Vec<NodeId> {
        self.places.iter().copied().filter(|node| *node != NodeId::ZERO).collect()
    }
}

/// A replica on its way from one node to another, or from or to nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Move {
    /// Whose place it is.
    pub place: ReplicaIndex,
    /// Who holds it; zero if the place is vacant.
    pub from: NodeId,
    /// Who is to hold it; zero if the place is to be vacant.
    pub to: NodeId,
    /// The op that began this.
    pub since: Op,
    /// The op that brought `to` here: the same, unless the move was turned round.
    pub arrived: Op,
}

impl Move {
    /// Whether it was turned round: both nodes may hold a replica.
    #[must_use]
    pub fn is_turned(&self) -> bool {
        self.arrived != self.since
    }
}
