//! The metadata state machine: nodes, streams, topics, partitions and where they live.
//!
//! A pure function of the committed log of group 0, so that it is the same on every node. Placement is decided here, from
//! committed facts only: partition `p` of a new topic starts at the node after the one where the last topic stopped, and
//! its other replicas follow in node order. So the first primaries, which lead each member list, spread evenly.
//!
//! The log is summed up when there is much of it ([`Metadata::encode`]), and a node may get that from another one instead of the log.
//!
//! Group ids count up and are never given out twice, also not after a topic is deleted.

mod moves;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::{DirectoryId, GroupId, NodeId, Op, ProducerId};
use varve_protocol::limits::{GROUPS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICAS_MAX};
use varve_protocol::mark::Mark;
use varve_protocol::metadata::{
    ClusterMap, MetadataError, MetadataOp, MetadataOutcome, NodeEntry, PartitionEntry, StreamEntry,
    TopicEntry, is_legal_name,
};
use varve_protocol::mutant::Mutant;
use varve_protocol::retention::Retention;
use varve_protocol::version::{Version, Versions};

/// Outcomes that are remembered for retries: as many as the client tables of a busy cluster can ask for.
const OUTCOMES_MAX: usize = 4096;

/// A node as it is registered.
#[derive(Debug, Clone)]
struct Registered {
    address: String,
    directory: DirectoryId,
    versions: Versions,
    /// The op that made the directory known.
    known_at: Op,
    /// Those it had before. They never come back: who says so has not heard of the present one.
    former: Vec<DirectoryId>,
}

#[derive(Debug, Clone)]
struct Topic {
    replication_factor: u8,
    partitions: Vec<PartitionEntry>,
    retention: Retention,
    compression: Compression,
}

/// The metadata as of one op.
#[derive(Debug, Clone)]
pub struct Metadata {
    applied: Op,
    version: Version,
    nodes: BTreeMap<NodeId, Registered>,
    streams: BTreeMap<String, BTreeMap<String, Topic>>,
    next_producer: ProducerId,
    next_group: GroupId,
    /// Grows whenever partitions come or go.
    placement_version: u64,
    /// Grows whenever a node has another data directory.
    directories_version: u64,
    /// Where the first partition of the next topic starts, as a place in the node list.
    placement_cursor: usize,
    /// Outcomes by op: the answer to a retry is looked up here.
    outcomes: BTreeMap<Op, MetadataOutcome>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            applied: Op::ZERO,
            version: Version::FIRST,
            nodes: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_producer: ProducerId::new(1),
            next_group: GroupId::METADATA.next(),
            placement_version: 0,
            directories_version: 0,
            placement_cursor: 0,
            outcomes: BTreeMap::new(),
        }
    }
}

impl Metadata {
    /// Applies the operation committed at `op`; `None` for a prepare that is no operation.
    pub fn apply(&mut self, op: Op, operation: Option<MetadataOp>) {
        assert!(op == self.applied.next(), "metadata is applied in order");
        self.applied = op;
        let Some(operation) = operation else { return };
        let outcome = self.outcome_of(operation).unwrap_or_else(MetadataOutcome::Refused);
        self.outcomes.insert(op, outcome);
        if self.outcomes.len() > OUTCOMES_MAX {
            self.outcomes.pop_first();
        }
    }

    /// The newest op applied.
    #[must_use]
    pub fn applied(&self) -> Op {
        self.applied
    }

    /// What the operation at `op` brought about, if it is still remembered.
    #[must_use]
    pub fn outcome(&self, op: Op) -> Option<&MetadataOutcome> {
        self.outcomes.get(&op)
    }

    /// The first group id not given out yet: a group below it that is in no topic was deleted.
    #[must_use]
    pub fn next_group(&self) -> GroupId {
        self.next_group
    }

    /// Grows whenever partitions come or go.
    #[must_use]
    pub fn placement_version(&self) -> u64 {
        self.placement_version
    }

    /// The address a node is registered with.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(|registered| registered.address.as_str())
    }

    /// The version of the cluster: what its nodes send and write.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the release of a node knows.
    #[must_use]
    pub fn versions(&self, node: NodeId) -> Option<Versions> {
        self.nodes.get(&node).map(|registered| registered.versions)
    }

    /// The newest version that all registered nodes know; none if there are none.
    #[must_use]
    pub fn version_known_to_all(&self) -> Option<Version> {
        self.nodes.values().map(|registered| registered.versions.newest).min()
    }

    /// Whether there is any stream.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The data directory a node is registered with, and the op that made it known.
    #[must_use]
    pub fn directory(&self, node: NodeId) -> Option<(DirectoryId, Op)> {
        self.nodes.get(&node).map(|registered| (registered.directory, registered.known_at))
    }

    /// Whether a node had that data directory before it had its present one.
    #[must_use]
    pub fn is_former(&self, node: NodeId, directory: DirectoryId) -> bool {
        let is_former =
            self.nodes.get(&node).is_some_and(|registered| registered.former.contains(&directory));
        is_former && !Mutant::FormerDiskReturns.is_on()
    }

    /// Grows whenever a node has another data directory.
    #[must_use]
    pub fn directories_version(&self) -> u64 {
        self.directories_version
    }

    /// Every partition of every topic.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionEntry> {
        self.streams.values().flat_map(BTreeMap::values).flat_map(|topic| &topic.partitions)
    }

    /// The partition that a group replicates.
    #[must_use]
    pub fn partition(&self, group: GroupId) -> Option<&PartitionEntry> {
        self.partitions().find(|partition| partition.group == group)
    }

    /// Every partition of every topic, and how long its records are kept.
    pub fn retentions(&self) -> impl Iterator<Item = (GroupId, Retention)> {
        let topics = self.streams.values().flat_map(BTreeMap::values);
        topics.flat_map(|topic| topic.partitions.iter().map(|partition| (partition.group, topic.retention)))
    }

    /// The picture that clients get; without primaries, which are not metadata.
    #[must_use]
    pub fn map(&self) -> ClusterMap {
        let topic_entry = |(name, topic): (&String, &Topic)| TopicEntry {
            name: name.clone(),
            replication_factor: topic.replication_factor,
            partitions: topic.partitions.clone(),
            retention: topic.retention,
            compression: topic.compression,
        };
        let stream_entry = |(name, topics): (&String, &BTreeMap<String, Topic>)| StreamEntry {
            name: name.clone(),
            topics: topics.iter().map(topic_entry).collect(),
        };
        let node_entry = |(node, registered): (&NodeId, &Registered)| NodeEntry {
            node: *node,
            address: registered.address.clone(),
            versions: Some(registered.versions),
        };
        ClusterMap {
            op: self.applied,
            version: self.version,
            nodes: self.nodes.iter().map(node_entry).collect(),
            streams: self.streams.iter().map(stream_entry).collect(),
            primaries: Vec::new(),
        }
    }

    fn outcome_of(&mut self, operation: MetadataOp) -> Result<MetadataOutcome, MetadataError> {
        match operation {
            MetadataOp::RegisterNode { node, address, directory, versions } => {
                self.register(node, address, directory, versions)?;
                Ok(MetadataOutcome::Done)
            }
            MetadataOp::RegisterProducer => {
                let producer = self.next_producer;
                self.next_producer = producer.next();
                Ok(MetadataOutcome::Producer(producer))
            }
            MetadataOp::CreateStream { stream } => self.create_stream(stream),
            MetadataOp::DeleteStream { stream } => self.delete_stream(stream),
            MetadataOp::CreateTopic {
                stream,
                topic,
                partitions,
                replication_factor,
                durability,
                retention,
                compression,
            } => {
                let replicas = (partitions, replication_factor);
                self.create_topic((&stream, topic), replicas, durability, (retention, compression))
            }
            MetadataOp::DeleteTopic { stream, topic } => self.delete_topic(&stream, topic),
            MetadataOp::MoveReplica { group, from, to } => self.move_replica(group, from, to),
            MetadataOp::CancelMove { group } => self.cancel_move(group),
            MetadataOp::FinishMove { group, since } => self.finish_move(group, since),
            MetadataOp::RaiseVersion { to } => self.raise_version(to),
        }
    }

    fn register(
        &mut self,
        node: NodeId,
        address: String,
        directory: DirectoryId,
        versions: Versions,
    ) -> Result<(), MetadataError> {
        if !versions.contains(self.version) {
            // The cluster went on while this was on its way.
            return Err(MetadataError::VersionUnknown { to: self.version, node, versions });
        }
        let is_former = self.is_former(node, directory);
        let known_at = self.applied;
        let Some(registered) = self.nodes.get_mut(&node) else {
            let registered = Registered { address, directory, versions, known_at, former: Vec::new() };
            self.nodes.insert(node, registered);
            self.directories_version += 1;
            return Ok(());
        };
        registered.address = address;
        registered.versions = versions;
        if registered.directory != directory && !is_former {
            registered.former.push(std::mem::replace(&mut registered.directory, directory));
            registered.known_at = known_at;
            self.directories_version += 1;
        }
        Ok(())
    }

    fn raise_version(&mut self, to: Version) -> Result<MetadataOutcome, MetadataError> {
        if to <= self.version {
            return Err(MetadataError::VersionReached(self.version));
        }
        let mut nodes = self.nodes.iter();
        if let Some((node, registered)) = nodes.find(|(_, registered)| !registered.versions.contains(to))
            && !Mutant::VersionRaisedAlone.is_on()
        {
            return Err(MetadataError::VersionUnknown { to, node: *node, versions: registered.versions });
        }
        Mark::VersionRaised.hit();
        self.version = to;
        Ok(MetadataOutcome::Done)
    }

    fn create_stream(&mut self, stream: String) -> Result<MetadataOutcome, MetadataError> {
        if !is_legal_name(&stream) {
            return Err(MetadataError::BadName(stream));
        }
        if self.streams.contains_key(&stream) {
            return Err(MetadataError::StreamExists(stream));
        }
        self.streams.insert(stream, BTreeMap::new());
        Ok(MetadataOutcome::Done)
    }

    fn delete_stream(&mut self, stream: String) -> Result<MetadataOutcome, MetadataError> {
        match self.streams.get(&stream) {
            None => Err(MetadataError::StreamUnknown(stream)),
            Some(topics) if !topics.is_empty() => Err(MetadataError::StreamNotEmpty(stream)),
            Some(_) => {
                self.streams.remove(&stream);
                Ok(MetadataOutcome::Done)
            }
        }
    }

    fn create_topic(
        &mut self,
        (stream, topic): (&str, String),
        (partitions, replication_factor): (u32, Option<u8>),
        durability: Durability,
        (retention, compression): (Retention, Compression),
    ) -> Result<MetadataOutcome, MetadataError> {
        if !is_legal_name(&topic) {
            return Err(MetadataError::BadName(topic));
        }
        let Some(topics) = self.streams.get(stream) else {
            return Err(MetadataError::StreamUnknown(stream.to_owned()));
        };
        if topics.contains_key(&topic) {
            return Err(MetadataError::TopicExists(format!("{stream}/{topic}")));
        }
        if partitions == 0 || partitions > PARTITIONS_PER_TOPIC_MAX {
            return Err(MetadataError::BadPartitions(partitions));
        }
        let replication_factor = replication_factor.unwrap_or(if self.nodes.len() < 3 { 1 } else { 3 });
        self.check_replication_factor(replication_factor)?;
        let entries = self.place(partitions, replication_factor, durability)?;
        let topics = self.streams.get_mut(stream).expect("the stream was found above");
        topics.insert(topic, Topic { replication_factor, partitions: entries, retention, compression });
        Ok(MetadataOutcome::Done)
    }

    fn delete_topic(&mut self, stream: &str, topic: String) -> Result<MetadataOutcome, MetadataError> {
        let Some(topics) = self.streams.get_mut(stream) else {
            return Err(MetadataError::StreamUnknown(stream.to_owned()));
        };
        match topics.remove(&topic) {
            Some(_) => {
                self.placement_version += 1;
                Ok(MetadataOutcome::Done)
            }
            None => Err(MetadataError::TopicUnknown(format!("{stream}/{topic}"))),
        }
    }

    fn check_replication_factor(&self, wanted: u8) -> Result<(), MetadataError> {
        let replicas = usize::from(wanted);
        if replicas % 2 == 1 && replicas <= REPLICAS_MAX && replicas <= self.nodes.len() {
            return Ok(());
        }
        let nodes = u8::try_from(self.nodes.len()).expect("node ids fit a byte, so does their number");
        Err(MetadataError::BadReplicationFactor { wanted, nodes })
    }

    /// Gives every partition of a new topic its group and its nodes.
    fn place(
        &mut self,
        partitions: u32,
        replication_factor: u8,
        durability: Durability,
    ) -> Result<Vec<PartitionEntry>, MetadataError> {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let replicas_placed: usize = self.partitions().map(|partition| partition.replicas().len()).sum();
        let replicas_wanted = partitions as usize * usize::from(replication_factor);
        if replicas_placed + replicas_wanted > GROUPS_PER_NODE_MAX * nodes.len() {
            return Err(MetadataError::TooManyPartitions(partitions));
        }
        let mut entries = Vec::with_capacity(partitions as usize);
        for _ in 0..partitions {
            let replicas = nodes.iter().cycle().skip(self.placement_cursor).take(replication_factor.into());
            let replicas: Vec<NodeId> = replicas.copied().collect();
            let directories = replicas.iter().map(|node| self.nodes[node].directory).collect();
            entries.push(PartitionEntry {
                group: self.next_group,
                arrived: vec![Op::ZERO; replicas.len()],
                places: replicas,
                founders: replication_factor,
                directories,
                moving: None,
                durability,
            });
            self.next_group = self.next_group.next();
            self.placement_cursor = (self.placement_cursor + 1) % nodes.len();
        }
        self.placement_version += 1;
        Ok(entries)
    }
}
