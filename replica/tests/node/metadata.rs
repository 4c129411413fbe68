//! Streams, topics and partitions: made on the primary, known everywhere.

use varve_protocol::client::{Refusal, Request, Response};
use varve_protocol::id::{DirectoryId, GroupId, NodeId};
use varve_protocol::metadata::{MetadataError, MetadataOp, MetadataOutcome};
use varve_protocol::version::Versions;

use crate::cluster::{Cluster, n, refusal, request, response};

#[test]
fn a_topic_is_opened_on_the_nodes_it_is_placed_on_and_nowhere_else() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(3, 1);
    for id in [1, 2, 3].map(NodeId::new) {
        let here = cluster.status(id).groups;
        assert_eq!(here.len(), 2, "the metadata and one partition: {here:?}");
    }
    let leaders: Vec<NodeId> = groups.into_iter().map(|group| cluster.primary(group)).collect();
    assert_eq!(leaders, [n(1), n(2), n(3)]);
}

#[test]
fn the_first_primaries_of_a_topic_are_spread_over_the_nodes() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(6, 3);
    let mut leaders: Vec<NodeId> = groups.into_iter().map(|group| cluster.primary(group)).collect();
    leaders.sort();
    assert_eq!(leaders, [n(1), n(1), n(2), n(2), n(3), n(3)]);
}

#[test]
fn any_node_answers_for_the_map_and_names_the_primaries_it_knows() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(2, 3);
    for id in [1, 2, 3].map(NodeId::new) {
        let answer = cluster.call(id, request(GroupId::METADATA, &Request::GetMap));
        let Response::Map(map) = response(&answer) else { panic!("a map was asked for") };
        assert_eq!((map.nodes.len(), map.streams.len()), (3, 1));
        assert_eq!(map.streams[0].topics[0].partitions.len(), 2);
        for group in &groups {
            let hint = map.primaries.iter().find(|(hinted, _, _)| hinted == group).expect("there is a hint");
            assert_eq!(hint.2, cluster.primary(*group));
        }
    }
}

#[test]
fn a_change_at_a_backup_is_sent_on_to_the_primary() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.primary(GroupId::METADATA);
    let backup = [n(1), n(2), n(3)].into_iter().find(|id| *id != leader).expect("there are three");
    let operation = MetadataOp::CreateStream { stream: "s".to_owned() };
    let answer = cluster.call(backup, request(GroupId::METADATA, &Request::Change(operation)));
    let refused = refusal(&answer);
    assert!(matches!(refused, Refusal::NotPrimary { primary, .. } if primary == leader), "{refused:?}");
}

#[test]
fn a_refused_change_says_why() {
    let mut cluster = Cluster::start(3);
    let operation = MetadataOp::DeleteStream { stream: "absent".to_owned() };
    let refused = MetadataError::StreamUnknown("absent".to_owned());
    assert_eq!(cluster.change(operation), MetadataOutcome::Refused(refused));
}

#[test]
fn a_client_cannot_register_a_node() {
    let mut cluster = Cluster::start(1);
    let (address, directory) = ("elsewhere:1".to_owned(), DirectoryId::new(9));
    let operation =
        MetadataOp::RegisterNode { node: n(9), address, directory, versions: Versions::OF_THIS_RELEASE };
    let answer = cluster.call(n(1), request(GroupId::METADATA, &Request::Change(operation)));
    assert!(matches!(refusal(&answer), Refusal::Malformed { .. }));
    assert_eq!(cluster.node(n(1)).metadata().map().nodes.len(), 1);
}

#[test]
fn a_deleted_topic_leaves_no_replica_and_no_file() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["gone soon"]);
    let (stream, topic) = ("s".to_owned(), "t".to_owned());
    assert_eq!(cluster.change(MetadataOp::DeleteTopic { stream, topic }), MetadataOutcome::Done);
    cluster.run_for(std::time::Duration::from_millis(100));
    for id in [1, 2, 3].map(NodeId::new) {
        assert_eq!(cluster.status(id).groups.len(), 1, "only the metadata is left");
        let answer = cluster.call(id, request(group, &Request::GetOffsets));
        assert_eq!(refusal(&answer), Refusal::UnknownGroup { group });
        assert_eq!(cluster.group_dirs(id), ["0000000000"]);
    }
}

#[test]
fn a_deleted_group_is_not_taken_for_a_new_one_after_a_restart() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["gone soon"]);
    // So many ops later it is known from the log alone that the topic was created, and not that it was deleted.
    for _ in 0..70 {
        cluster.register_producer();
    }
    let (stream, topic) = ("s".to_owned(), "t".to_owned());
    cluster.change(MetadataOp::DeleteTopic { stream, topic });
    let all = [1, 2, 3].map(NodeId::new);
    cluster
        .run_until("the files are gone", |cluster| all.iter().all(|id| cluster.group_dirs(*id).len() == 1));
    all.into_iter().for_each(|id| cluster.kill(id));
    for id in all {
        cluster.boot(id);
        assert_eq!(cluster.status(id).groups.len(), 1, "alone and freshly started it knows of the deletion");
        cluster.kill(id);
    }
}
