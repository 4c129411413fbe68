//! Appends: acknowledged once, in order, whatever the client repeats.

use std::time::Duration;

use varve_protocol::client::{Refusal, Role};
use varve_protocol::compression::Compression;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, GroupId, NodeId, Offset, ProducerId, RequestNumber};
use varve_protocol::prepare::Prepare;
use varve_protocol::record::{BatchBuilder, Record};

use crate::cluster::{CLUSTER, Cluster, append, append_batch, fetch, n, refusal};

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
fn a_backup_that_is_cut_off_names_no_primary() {
    let mut cluster = Cluster::start(5);
    let group = cluster.create_topic(1, 5)[0];
    let leader = cluster.primary(group);
    let nodes = [1, 2, 3, 4, 5].map(NodeId::new);
    let deaf: Vec<NodeId> = nodes.into_iter().filter(|id| *id != leader).take(2).collect();
    for id in &deaf {
        nodes.into_iter().filter(|other| other != id).for_each(|other| cluster.cut(other, *id));
    }
    cluster.run_for(Duration::from_secs(1));
    for id in &deaf {
        assert_eq!(cluster.role(*id, group), Some(Role::Backup), "it enters no view on its own");
        let answer = cluster.call(*id, append(group, ProducerId::ZERO, 0, &["x"]));
        assert_eq!(refusal(&answer), Refusal::NoPrimary { group });
    }
    cluster.heal();
    cluster.run_for(Duration::from_secs(1));
    let leader = cluster.primary(group);
    for id in deaf.into_iter().filter(|id| *id != leader) {
        let refused = refusal(&cluster.call(id, append(group, ProducerId::ZERO, 0, &["x"])));
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

/// Text that gets smaller, in a batch.
fn compressed(compression: Compression, text: &str) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for _ in 0..3 {
        let payload = text.repeat(50).into();
        builder.push(&Record { payload, ..Record::default() }).expect("the records fit");
    }
    builder.finish_compressed(compression)
}

#[test]
fn batches_of_any_compression_are_taken_and_kept_as_they_are() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    for (number, compression) in (0..).zip(Compression::ALL) {
        let batch = compressed(*compression, "all alike ");
        let answer = cluster.call(leader, append_batch(group, ProducerId::ZERO, 0, batch.clone()));
        assert_eq!(answer.header.command, Command::AppendOk, "{compression}");
        let fetched = cluster.call(leader, fetch(group, 3 * number, 0));
        let prepare = Prepare::decode(&fetched.body.to_bytes()).expect("a fetched prepare is sound");
        assert_eq!(*prepare.body(), batch, "{compression}");
    }
    let read = cluster.read_everywhere(group, 9);
    assert!(read.len() == 9 && read.iter().all(|text| *text == "all alike ".repeat(50)));
}

#[test]
fn what_consumers_could_not_decompress_is_refused_by_the_name_of_its_codec() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    for compression in [Compression::Lz4, Compression::Zstd] {
        let good = compressed(compression, "all alike ").to_vec();
        let cut = good[..good.len() - 1].to_vec();
        let (mut bomb, mut unknown) = (good.clone(), good.clone());
        bomb[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        unknown[9] = 7;
        // One record more than there are.
        let mut counted = good.clone();
        counted[0] += 1;
        let table = [
            (cut, compression.name()),
            (bomb, "its limit is"),
            (unknown, "compression 7 is unknown"),
            (counted, "out of bounds"),
        ];
        for (batch, says) in table {
            let answer = cluster.call(n(1), append_batch(group, ProducerId::ZERO, 0, batch.into()));
            let refused = refusal(&answer);
            assert!(matches!(refused, Refusal::BadBatch { .. }), "{compression}: {refused:?}");
            assert!(refused.to_string().contains(says), "{compression}: {refused}");
        }
        let answer = cluster.call(n(1), append_batch(group, ProducerId::ZERO, 0, good.into()));
        assert_eq!(answer.header.command, Command::AppendOk, "the node serves on");
    }
}
