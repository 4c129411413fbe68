//! All of the metadata as bytes, so that the operations that brought it about can be let go: what a snapshot of group 0 holds beside the
//! state of the group. The bytes are a [`MetadataState`], and the same on every node that has applied the same operations.

use varve_protocol::client::{decode_archive, encode_archive};
use varve_protocol::frame::Command;
use varve_protocol::metadata::{
    ClusterMap, MetadataState, NodeDirectories, NodeEntry, StreamEntry, TopicEntry,
};
use varve_protocol::mutant::Mutant;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::version::Versions;

use super::{Metadata, Registered, Topic};

impl Metadata {
    /// The metadata as of a snapshot of group 0; `None` if the snapshot holds none that this release can read.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Option<Self> {
        let metadata = Self::decode(varve_consensus::snapshot::beside(snapshot)?)?;
        (metadata.applied == snapshot.op()).then_some(metadata)
    }

    /// All of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let directories = |registered: &Registered| NodeDirectories {
            directory: registered.directory,
            known_at: registered.known_at,
            former: registered.former.clone(),
        };
        let outcomes = self.outcomes.iter().filter(|_| !Mutant::AnswersNotSummedUp.is_on());
        let state = MetadataState {
            map: self.map(),
            directories: self.nodes.values().map(directories).collect(),
            next_producer: self.next_producer,
            next_group: self.next_group,
            placement_version: self.placement_version,
            directories_version: self.directories_version,
            placement_cursor: self.placement_cursor as u64,
            outcomes: outcomes.map(|(op, outcome)| (*op, outcome.clone())).collect(),
        };
        encode_archive(&state).into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let state: MetadataState = decode_archive(Command::Snapshot, bytes).ok()?;
        let ClusterMap { op, version, nodes, streams, .. } = state.map;
        let versions: Option<Vec<Versions>> = nodes.iter().map(|entry| entry.versions).collect();
        let versions = versions?;
        if nodes.len() != state.directories.len() {
            return None;
        }
        let registered = |((entry, directories), versions): ((NodeEntry, NodeDirectories), Versions)| {
            let NodeDirectories { directory, known_at, former } = directories;
            (entry.node, Registered { address: entry.address, directory, versions, known_at, former })
        };
        Some(Self {
            applied: op,
            version,
            nodes: nodes.into_iter().zip(state.directories).zip(versions).map(registered).collect(),
            streams: streams.into_iter().map(stream).collect(),
            next_producer: state.next_producer,
            next_group: state.next_group,
            placement_version: state.placement_version,
            directories_version: state.directories_version,
            placement_cursor: usize::try_from(state.placement_cursor).ok()?,
            outcomes: state.outcomes.into_iter().collect(),
        })
    }
}

fn stream(StreamEntry { name, topics }: StreamEntry) -> (String, std::collections::BTreeMap<String, Topic>) {
    let topic = |entry: TopicEntry| {
        let TopicEntry { name, replication_factor, partitions, retention, compression } = entry;
        (name, Topic { replication_factor, partitions, retention, compression })
    };
    (name, topics.into_iter().map(topic).collect())
}

#[cfg(test)]
mod tests {
    use varve_protocol::compression::Compression;
    use varve_protocol::durability::Durability;
    use varve_protocol::id::{DirectoryId, GroupId, NodeId};
    use varve_protocol::metadata::MetadataOp;
    use varve_protocol::retention::Retention;

    use super::*;

    /// Some of everything that can become of metadata.
    fn operations() -> Vec<Option<MetadataOp>> {
        let register = |node: u8, directory: u64| MetadataOp::RegisterNode {
            node: NodeId::new(node),
            address: format!("127.0.0.1:{node}"),
            directory: DirectoryId::new(directory),
            versions: Versions::OF_THE_NEXT_RELEASE,
        };
        let topic = |topic: &str, partitions| MetadataOp::CreateTopic {
            stream: "s".to_owned(),
            topic: topic.to_owned(),
            partitions,
            replication_factor: Some(3),
            durability: Durability::QuorumMemory,
            retention: Retention { bytes: Some(7), age_ms: None },
            compression: Compression::Zstd,
        };
        let stream = |stream: &str| MetadataOp::CreateStream { stream: stream.to_owned() };
        let moving = |group, from, to| MetadataOp::MoveReplica {
            group: GroupId::new(group),
            from: NodeId::new(from),
            to: NodeId::new(to),
        };
        vec![
            Some(register(1, 101)),
            Some(register(2, 102)),
            Some(register(3, 103)),
            Some(register(4, 104)),
            None,
            Some(MetadataOp::RaiseVersion { to: Versions::OF_THE_NEXT_RELEASE.newest }),
            Some(stream("s")),
            Some(stream("empty")),
            Some(MetadataOp::RegisterProducer),
            Some(topic("a", 2)),
            Some(topic("a", 2)),
            Some(topic("b", 3)),
            Some(moving(1, 1, 4)),
            Some(MetadataOp::DeleteTopic { stream: "s".to_owned(), topic: "b".to_owned() }),
            Some(register(2, 202)),
            Some(MetadataOp::CancelMove { group: GroupId::new(1) }),
            Some(moving(2, 0, 1)),
            Some(topic("c", 4)),
            Some(MetadataOp::RegisterProducer),
        ]
    }

    fn apply(metadata: &mut Metadata, operation: &Option<MetadataOp>) {
        metadata.apply(metadata.applied.next(), operation.clone());
    }

    #[test]
    fn whoever_goes_on_from_the_bytes_comes_to_the_same() {
        let operations = operations();
        for cut in 0..=operations.len() {
            let mut whole = Metadata::default();
            operations[..cut].iter().for_each(|operation| apply(&mut whole, operation));
            let bytes = whole.encode();
            let mut resumed = Metadata::decode(&bytes).expect("what was encoded can be decoded");
            assert_eq!(format!("{resumed:?}"), format!("{whole:?}"), "after {cut} operations");
            assert_eq!(resumed.encode(), bytes);
            for operation in &operations[cut..] {
                apply(&mut whole, operation);
                apply(&mut resumed, operation);
            }
            assert_eq!(format!("{resumed:?}"), format!("{whole:?}"), "from {cut} operations on");
        }
    }

    #[test]
    fn bytes_that_are_no_metadata_are_refused() {
        let mut metadata = Metadata::default();
        operations().iter().for_each(|operation| apply(&mut metadata, operation));
        let bytes = metadata.encode();
        for size in 0..bytes.len() {
            // An archive has its root at its end: what is cut off may look like one of other bytes, and is no panic.
            let _ = Metadata::decode(&bytes[..size]);
        }
        assert!(Metadata::decode(&[]).is_none());
        let state: MetadataState = decode_archive(Command::Snapshot, &bytes).expect("it is sound");
        let lacking = MetadataState { directories: Vec::new(), ..state };
        assert!(Metadata::decode(&encode_archive(&lacking)).is_none(), "every node has a directory");
    }
}
