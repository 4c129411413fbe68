//! Claims about the metadata state machine.

use super::*;

const BOTH: Versions = Versions::OF_THE_NEXT_RELEASE;

fn register(node: u8, address: String, directory: DirectoryId) -> MetadataOp {
    let (node, versions) = (NodeId::new(node), Versions::OF_THIS_RELEASE);
    MetadataOp::RegisterNode { node, address, directory, versions }
}

fn cluster(nodes: u8) -> Metadata {
    let mut metadata = Metadata::default();
    for node in 1..=nodes {
        let address = format!("127.0.0.1:{node}");
        let directory = DirectoryId::new(u64::from(node) + 100);
        apply(&mut metadata, register(node, address, directory));
    }
    metadata
}

#[test]
fn a_data_directory_that_was_replaced_never_comes_back() {
    let mut metadata = cluster(3);
    let node = NodeId::new(2);
    let first = metadata.directory(node).expect("it is registered");
    let second = DirectoryId::new(202);
    for directory in [second, first.0] {
        let address = "127.0.0.1:2".to_owned();
        apply(&mut metadata, register(2, address, directory));
    }
    assert_eq!(metadata.directory(node), Some((second, Op::new(4))));
    assert!(metadata.is_former(node, first.0) && !metadata.is_former(node, second));
}

#[test]
fn the_version_is_raised_when_all_nodes_know_it_and_never_goes_back() {
    let mut metadata = cluster(3);
    let raise = |to: u8| MetadataOp::RaiseVersion { to: Version::new(to) };
    let upgrade = |node: u8, versions| {
        let (address, directory) = (format!("127.0.0.1:{node}"), DirectoryId::new(u64::from(node) + 100));
        MetadataOp::RegisterNode { node: NodeId::new(node), address, directory, versions }
    };
    for node in 1..=3 {
        let refused = apply(&mut metadata, raise(2));
        assert!(matches!(refused, MetadataOutcome::Refused(MetadataError::VersionUnknown { .. })));
        assert_eq!(apply(&mut metadata, upgrade(node, BOTH)), MetadataOutcome::Done);
    }
    assert_eq!(metadata.version_known_to_all(), Some(Version::new(2)));
    assert_eq!(apply(&mut metadata, raise(2)), MetadataOutcome::Done);
    for to in [1, 2] {
        let reached = MetadataError::VersionReached(Version::new(2));
        assert_eq!(apply(&mut metadata, raise(to)), MetadataOutcome::Refused(reached));
    }
    let late = apply(&mut metadata, upgrade(2, Versions::OF_THIS_RELEASE));
    assert!(matches!(late, MetadataOutcome::Refused(MetadataError::VersionUnknown { .. })));
    assert_eq!(metadata.versions(NodeId::new(2)), Some(BOTH));
}

fn apply(metadata: &mut Metadata, operation: MetadataOp) -> MetadataOutcome {
    let op = metadata.applied.next();
    metadata.apply(op, Some(operation));
    metadata.outcome(op).expect("the outcome was just stored").clone()
}

fn stream(name: &str) -> MetadataOp {
    MetadataOp::CreateStream { stream: name.to_owned() }
}

fn topic(name: &str, partitions: u32, replication_factor: u8) -> MetadataOp {
    MetadataOp::CreateTopic {
        stream: "s".to_owned(),
        topic: name.to_owned(),
        partitions,
        replication_factor: Some(replication_factor),
        durability: Durability::QuorumDisk,
        retention: Retention::FOREVER,
        compression: Compression::None,
    }
}

#[test]
fn first_primaries_spread_over_topics_and_partitions() {
    let mut metadata = cluster(3);
    apply(&mut metadata, stream("s"));
    for name in ["a", "b"] {
        assert_eq!(apply(&mut metadata, topic(name, 3, 3)), MetadataOutcome::Done);
    }
    for name in ["c", "d", "e"] {
        assert_eq!(apply(&mut metadata, topic(name, 1, 3)), MetadataOutcome::Done);
    }
    let mut led = BTreeMap::new();
    for partition in metadata.partitions() {
        *led.entry(partition.places[0]).or_insert(0) += 1;
        let mut distinct = partition.replicas();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 3, "no node holds two replicas of one partition");
    }
    assert_eq!(led.into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn a_group_id_is_never_given_out_twice() {
    let mut metadata = cluster(1);
    apply(&mut metadata, stream("s"));
    apply(&mut metadata, topic("t", 2, 1));
    let first: Vec<GroupId> = metadata.partitions().map(|partition| partition.group).collect();
    apply(&mut metadata, MetadataOp::DeleteTopic { stream: "s".to_owned(), topic: "t".to_owned() });
    apply(&mut metadata, topic("t", 2, 1));
    let second: Vec<GroupId> = metadata.partitions().map(|partition| partition.group).collect();
    assert_eq!((first, second), (groups(&[1, 2]), groups(&[3, 4])));
    assert_eq!(metadata.next_group(), GroupId::new(5));
}

fn groups(raw: &[u64]) -> Vec<GroupId> {
    raw.iter().map(|raw| GroupId::new(*raw)).collect()
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut metadata = cluster(3);
    apply(&mut metadata, stream("s"));
    apply(&mut metadata, topic("t", 1, 3));
    let before = metadata.map();
    let too_many = u32::try_from(GROUPS_PER_NODE_MAX).expect("the limit is small");
    let refused = [
        (stream("s"), MetadataError::StreamExists("s".to_owned())),
        (stream(".s"), MetadataError::BadName(".s".to_owned())),
        (stream(""), MetadataError::BadName(String::new())),
        (stream("a/b"), MetadataError::BadName("a/b".to_owned())),
        (topic("t", 1, 3), MetadataError::TopicExists("s/t".to_owned())),
        (topic("u", 0, 3), MetadataError::BadPartitions(0)),
        (topic("u", too_many, 3), MetadataError::BadPartitions(too_many)),
        (topic("u", 1, 2), MetadataError::BadReplicationFactor { wanted: 2, nodes: 3 }),
        (topic("u", 1, 5), MetadataError::BadReplicationFactor { wanted: 5, nodes: 3 }),
        (MetadataOp::DeleteStream { stream: "s".to_owned() }, MetadataError::StreamNotEmpty("s".to_owned())),
        (MetadataOp::DeleteStream { stream: "x".to_owned() }, MetadataError::StreamUnknown("x".to_owned())),
        (
            MetadataOp::DeleteTopic { stream: "s".to_owned(), topic: "x".to_owned() },
            MetadataError::TopicUnknown("s/x".to_owned()),
        ),
    ];
    for (operation, error) in refused {
        assert_eq!(apply(&mut metadata, operation), MetadataOutcome::Refused(error));
    }
    assert_eq!(metadata.map().streams, before.streams);
}

#[test]
fn a_topic_keeps_its_compression() {
    let mut metadata = cluster(1);
    apply(&mut metadata, stream("s"));
    for wanted in Compression::ALL {
        let mut operation = topic(wanted.name(), 1, 1);
        if let MetadataOp::CreateTopic { compression, .. } = &mut operation {
            *compression = *wanted;
        }
        apply(&mut metadata, operation);
    }
    let map = metadata.map();
    let kept = map.streams[0].topics.iter().map(|topic| (topic.name.as_str(), topic.compression));
    assert!(kept.eq([("lz4", Compression::Lz4), ("none", Compression::None), ("zstd", Compression::Zstd)]));
}

#[test]
fn producers_are_numbered_from_one() {
    let mut metadata = cluster(1);
    let numbers = [1, 2].map(|raw| MetadataOutcome::Producer(ProducerId::new(raw)));
    assert_eq!([0, 1].map(|_| apply(&mut metadata, MetadataOp::RegisterProducer)), numbers);
}
