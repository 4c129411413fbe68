//! Disks that are full: the node stays up, others lead, appends are refused in words, and all goes on when there is room.

use std::time::Duration;

use varve_protocol::client::{GroupStatus, Refusal, Role};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};
use varve_protocol::retention::Retention;
use varve_replica::DISK_FULL;
use varve_storage::Options;

use crate::cluster::{Cluster, append, n, refusal};

/// A cluster whose disks have a reserve.
fn start(nodes: u8) -> Cluster {
    Cluster::start_with(nodes, Options { reserve_bytes: 32 << 10, ..Options::default() })
}

/// Records of a size that no room ahead has place for.
fn large() -> String {
    "x".repeat(50_000)
}

fn is_full(cluster: &Cluster, node: NodeId, group: GroupId) -> bool {
    let status = cluster.status(node);
    let replica = status.groups.iter().find(|replica| replica.group == group);
    replica.is_some_and(|replica| replica.problem.as_deref() == Some(DISK_FULL))
}

#[test]
fn a_primary_whose_disk_is_full_lets_another_lead_and_holds_all_when_there_is_room() {
    let mut cluster = start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["first"]);
    let full = cluster.primary(group);
    let view = cluster.status(full).groups.iter().find(|replica| replica.group == group).unwrap().view;
    cluster.disk(full).set_capacity(Some(cluster.disk(full).used()));

    cluster.append(group, producer, 2, &[&large()]);
    cluster.run_until("another leads", |cluster| {
        cluster.role(full, group) != Some(Role::Primary) && is_full(cluster, full, group)
    });
    for request in 3..20 {
        cluster.append(group, producer, request, &[&large()]);
    }
    let behind = cluster.status(full).groups.iter().find(|replica| replica.group == group).unwrap().clone();
    assert!(
        behind.durable < behind.head && behind.view > view,
        "what it cannot store it does not hold: {behind:?}"
    );

    cluster.disk(full).set_capacity(None);
    cluster.run_until("it goes on", |cluster| {
        let status = cluster.status(full);
        let replica = status.groups.iter().find(|replica| replica.group == group).unwrap();
        replica.durable == replica.head && replica.problem.is_none()
    });
    assert_eq!(cluster.read_everywhere(group, 19).len(), 19);
}

#[test]
fn a_new_group_does_not_wait_for_a_primary_whose_disk_takes_no_metadata() {
    const ALL: [NodeId; 3] = [n(1), n(2), n(3)];
    let mut ignorant = 0;
    for room in (0..600).step_by(50) {
        let mut cluster = Cluster::unfounded(3);
        ALL.into_iter().for_each(|id| cluster.boot(id));
        cluster.disk(n(1)).set_capacity(Some(cluster.disk(n(1)).used() + room));
        cluster.run_until("it is founded", |cluster| {
            [n(2), n(3)].into_iter().any(|id| cluster.role(id, GroupId::METADATA) == Some(Role::Primary))
        });
        // Nodes register; of three partitions each is to lead one.
        cluster.run_for(Duration::from_secs(3));
        let groups = cluster.create_topic(3, 3);
        ignorant += usize::from(cluster.role(n(1), groups[0]).is_none());
        for group in &groups {
            cluster.append(*group, ProducerId::ZERO, 0, &["one"]);
        }
        cluster.run_for(Duration::from_secs(10));
        for id in [n(2), n(3)] {
            let status = cluster.status(id).groups;
            let is_calm = |replica: &GroupStatus| replica.view.as_raw() <= 2;
            assert!(status.iter().all(is_calm), "others lead in peace, room {room}: {status:?}");
        }
    }
    assert!(ignorant > 0, "with some room it knows of the cluster, and of no topic");
}

#[test]
fn a_backup_that_is_restarted_meanwhile_does_not_wait_for_it_either() {
    for restarted in [&[n(2)][..], &[n(3)], &[n(2), n(3)]] {
        let mut cluster = Cluster::unfounded(3);
        [n(1), n(2), n(3)].into_iter().for_each(|id| cluster.boot(id));
        cluster.disk(n(1)).set_capacity(Some(cluster.disk(n(1)).used() + 100));
        cluster.run_until("it is founded", |cluster| {
            [n(2), n(3)].into_iter().any(|id| cluster.role(id, GroupId::METADATA) == Some(Role::Primary))
        });
        cluster.run_for(Duration::from_secs(3));
        cluster.change(MetadataOp::CreateStream { stream: "s".to_owned() });
        cluster.change(MetadataOp::CreateTopic {
            stream: "s".to_owned(),
            topic: "t".to_owned(),
            partitions: 3,
            replication_factor: Some(3),
            durability: Durability::QuorumDisk,
            retention: Retention::FOREVER,
            compression: Compression::None,
        });
        cluster.run_for(Duration::from_secs(2));
        let groups: Vec<GroupId> =
            cluster.node(n(2)).metadata().partitions().map(|partition| partition.group).collect();
        assert!(groups.len() == 3 && cluster.role(n(1), groups[0]).is_none());
        assert_eq!(cluster.role(n(2), groups[0]), Some(Role::Backup), "nobody leads it yet");
        for id in restarted {
            cluster.kill(*id);
            cluster.boot(*id);
        }
        for group in groups {
            cluster.append(group, ProducerId::ZERO, 0, &["one"]);
        }
    }
}

#[test]
fn appends_are_refused_while_the_only_disk_is_full() {
    let mut cluster = start(1);
    let group = cluster.create_topic(1, 1)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["first"]);
    cluster.disk(n(1)).set_capacity(Some(cluster.disk(n(1)).used()));
    let session = cluster.session();
    cluster.ask(n(1), session, append(group, producer, 2, &[&large()]));
    cluster.run_until("the disk is full", |cluster| is_full(cluster, n(1), group));
    for request in [2, 3] {
        let answer = cluster.call(n(1), append(group, producer, request, &["more"]));
        assert_eq!(refusal(&answer), Refusal::DiskFull { node: n(1) });
        assert!(refusal(&answer).is_retryable());
    }
    assert_eq!(cluster.read_all(n(1), group), ["first"], "what is there can be read");
    assert!(!cluster.has_answer(session), "nothing is acknowledged that is not synced");

    cluster.disk(n(1)).set_capacity(None);
    cluster.run_for(Duration::from_secs(1));
    assert!(cluster.has_answer(session), "what waited is done");
    cluster.append(group, producer, 3, &["third"]);
    assert_eq!(cluster.read_all(n(1), group), ["first", &large(), "third"]);
}

#[test]
fn a_topic_can_be_deleted_while_all_disks_are_full_and_that_makes_room() {
    let mut cluster = start(3);
    let groups = cluster.create_topic(2, 3);
    let producer = cluster.register_producer();
    for group in &groups {
        for request in 1..10 {
            cluster.append(*group, producer, request, &[&large()]);
        }
    }
    for node in (1..=3).map(n) {
        cluster.disk(node).set_capacity(Some(cluster.disk(node).used()));
    }
    let leader = cluster.primary(groups[0]);
    let session = cluster.session();
    cluster.ask(leader, session, append(groups[0], producer, 10, &[&"x".repeat(1_000_000)]));
    cluster
        .run_until("all disks are full", |cluster| (1..=3).all(|node| is_full(cluster, n(node), groups[0])));
    for _ in 0..20 {
        cluster.register_producer();
    }
    let (stream, topic) = ("s".to_owned(), "t".to_owned());
    assert_eq!(cluster.change(MetadataOp::DeleteTopic { stream, topic }), MetadataOutcome::Done);
    cluster.run_until("there is room again", |cluster| {
        (1..=3).all(|node| cluster.status(n(node)).groups.iter().all(|replica| replica.problem.is_none()))
    });
}
