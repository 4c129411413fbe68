//! Appends: acknowledged once, in order, whatever the client repeats.

use varve_protocol::client::Refusal;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, ProducerId, RequestNumber};

use crate::cluster::{CLUSTER, Cluster, append, n, refusal};

#[test]
fn records_get_dense_offsets_and_are_the_same_on_all_replicas() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    assert_eq!(cluster.append(group, producer, 1, &["a", "b", "c"]), Offset::new(0));
    assert_eq!(cluster.append(group, producer, 2, &["d"]), Offset::new(3));
    assert_eq!(cluster.read_everywhere(group, 4), ["a", "b", "c", "d"]);
}

#[test]
fn a_retry_gets_the_first_outcome_and_appends_nothing() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    let first = cluster.append(group, producer, 1, &["once"]);
    cluster.append(group, producer, 2, &["next"]);
    assert_eq!(cluster.append(group, producer, 1, &["once"]), first);
    assert_eq!(cluster.read_everywhere(group, 2), ["once", "next"]);
}

#[test]
fn a_retry_at_the_next_primary_gets_the_first_outcome_too() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    let first = cluster.append(group, producer, 1, &["once"]);
    let leader = cluster.primary(group);
    cluster.kill(leader);
    assert_eq!(cluster.append(group, producer, 1, &["once"]), first);
    assert_eq!(cluster.read_everywhere(group, 1), ["once"]);
}

#[test]
fn a_skipped_request_number_is_refused_with_the_one_expected() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["one"]);
    let leader = cluster.primary(group);
    let answer = cluster.call(leader, append(group, producer, 3, &["three"]));
    assert_eq!(refusal(&answer), Refusal::OutOfOrder { expected: RequestNumber::new(2) });
}

#[test]
fn a_session_the_group_has_never_seen_does_not_start_in_the_middle() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let answer = cluster.call(leader, append(group, ProducerId::new(77), 5, &["five"]));
    assert_eq!(refusal(&answer), Refusal::OutOfOrder { expected: RequestNumber::new(1) });
}

#[test]
fn an_append_to_a_backup_names_the_primary() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    for backup in [1, 2, 3].map(NodeId::new).into_iter().filter(|id| *id != leader) {
        let answer = cluster.call(backup, append(group, ProducerId::new(1), 1, &["x"]));
        let refused = refusal(&answer);
        assert!(matches!(refused, Refusal::NotPrimary { primary, .. } if primary == leader), "{refused:?}");
    }
}

#[test]
fn what_cannot_be_appended_is_refused_and_says_why() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    let good = append(group, ProducerId::ZERO, 0, &["x"]);

    let absent = GroupId::new(99);
    let answer = cluster.call(n(1), append(absent, ProducerId::ZERO, 0, &["x"]));
    assert_eq!(refusal(&answer), Refusal::UnknownGroup { group: absent });

    let answer = cluster.call(n(1), append(GroupId::METADATA, ProducerId::ZERO, 0, &["x"]));
    assert!(matches!(refusal(&answer), Refusal::UnknownGroup { .. } | Refusal::NoPrimary { .. }));

    let broken = Frame { body: bytes::Bytes::from_static(b"no batch").into(), ..good.clone() };
    assert!(matches!(refusal(&cluster.call(n(1), broken)), Refusal::BadBatch { .. }));

    let header = FrameHeader { cluster: ClusterId::new(0xbad), ..good.header };
    assert_eq!(refusal(&cluster.call(n(1), Frame { header, ..good.clone() })), Refusal::WrongCluster);

    let senseless = Frame::bare(FrameHeader::new(Command::PrepareOk, CLUSTER));
    assert!(matches!(refusal(&cluster.call(n(1), senseless)), Refusal::Malformed { .. }));

    assert_eq!(cluster.call(n(1), good).header.command, Command::AppendOk, "the node serves on");
}
