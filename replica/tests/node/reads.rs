//! Reads: committed records only, at once or when they come.

use std::time::Duration;

use varve_protocol::client::{Refusal, Request, Response, Role};
use varve_protocol::frame::{Command, Frame};
use varve_protocol::id::{GroupId, NodeId, Offset, ProducerId, Timestamp};
use varve_protocol::metadata::MetadataOp;

use crate::cluster::{Cluster, append, fetch, n, payloads, refusal, request, response};

#[test]
fn a_long_poll_wakes_when_its_record_is_committed() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let reader = cluster.session();
    cluster.ask(leader, reader, fetch(group, 0, 10_000));
    cluster.run_for(std::time::Duration::from_millis(100));
    assert!(!cluster.has_answer(reader), "there is nothing to read yet");
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["news"]);
    assert_eq!(payloads(&cluster.answer(reader)), [(0, "news".to_owned())]);
}

#[test]
fn a_long_poll_ends_empty_when_its_time_is_up() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    let answer = cluster.call(n(1), fetch(group, 0, 300));
    assert_eq!((answer.header.command, payloads(&answer)), (Command::FetchOk, Vec::new()));
}

#[test]
fn the_offset_that_was_first_at_a_time_is_told_by_any_replica() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let mut times = Vec::new();
    for number in 0..5 {
        cluster.run_for(Duration::from_secs(10));
        times.push(cluster.wall());
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}"), "and another"]);
    }
    cluster.run_for(Duration::from_secs(10));
    times.push(cluster.wall());
    for id in [n(1), n(2), n(3)] {
        for (offset, time) in [0, 2, 4, 6, 8, 10].into_iter().zip(&times) {
            let answer = cluster.call(id, request(group, &Request::GetOffsetAt { time: *time }));
            assert_eq!(response(&answer), Response::OffsetAt(Offset::new(offset)), "{id} at {time:?}");
        }
        let time = Timestamp::ZERO;
        let answer = cluster.call(id, request(group, &Request::GetOffsetAt { time }));
        assert_eq!(response(&answer), Response::OffsetAt(Offset::ZERO));
    }
    let unknown = GroupId::new(99);
    let answer = cluster.call(n(1), request(unknown, &Request::GetOffsetAt { time: times[0] }));
    assert_eq!(refusal(&answer), Refusal::UnknownGroup { group: unknown });
}

#[test]
fn an_offset_that_no_record_can_have_is_refused_with_the_range() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["only"]);
    let refused = refusal(&cluster.call(n(1), fetch(group, 2, 1000)));
    assert_eq!(refused, Refusal::OffsetOutOfRange { earliest: Offset::ZERO, next: Offset::new(1) });
}

#[test]
fn nothing_is_readable_before_a_quorum_has_it() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    for other in [1, 2, 3].map(NodeId::new).into_iter().filter(|id| *id != leader) {
        cluster.cut(leader, other);
        cluster.cut(other, leader);
    }
    let writer = cluster.session();
    cluster.ask(leader, writer, append(group, ProducerId::ZERO, 0, &["unheard"]));
    let answer = cluster.call(leader, fetch(group, 0, 0));
    assert_eq!(payloads(&answer), []);
    assert!(!cluster.has_answer(writer), "it is not acknowledged either");
}

#[test]
fn records_that_have_left_memory_are_read_from_disk() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    let large = "x".repeat(900_000);
    for _ in 0..20 {
        cluster.append(group, ProducerId::ZERO, 0, &[&large]);
    }
    for offset in [0, 7, 19] {
        let answer = cluster.call(n(1), fetch(group, offset, 0));
        assert_eq!(payloads(&answer), [(offset, large.clone())], "offset {offset}");
    }
}

#[test]
fn a_consumer_that_goes_away_is_forgotten() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic(1, 1)[0];
    let reader = cluster.session();
    cluster.ask(n(1), reader, fetch(group, 0, 10_000));
    cluster.leave(n(1), reader);
    cluster.append(group, ProducerId::ZERO, 0, &["late"]);
    assert!(!cluster.has_answer(reader));
    assert_eq!(group, GroupId::new(1));
}

fn high_watermark(answer: &Frame) -> u64 {
    let Response::Offsets(offsets) = response(answer) else { panic!("the answer tells offsets") };
    offsets.high_watermark.as_raw()
}

#[test]
fn the_primary_tells_the_latest_end_when_a_quorum_has_confirmed_it() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["first", "second"]);
    let leader = cluster.primary(group);
    let answer = cluster.call(leader, request(group, &Request::GetLatestOffsets));
    assert_eq!(high_watermark(&answer), 2);
    for backup in [1, 2, 3].map(NodeId::new).into_iter().filter(|id| *id != leader) {
        let refused = refusal(&cluster.call(backup, request(group, &Request::GetLatestOffsets)));
        assert!(matches!(refused, Refusal::NotPrimary { primary, .. } if primary == leader));
    }
}

#[test]
fn a_primary_of_the_past_does_not_tell_the_latest_end() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let old = cluster.primary(group);
    let others: Vec<_> = [1, 2, 3].map(NodeId::new).into_iter().filter(|id| *id != old).collect();
    let asked = cluster.session();
    for other in &others {
        cluster.cut(old, *other);
        cluster.cut(*other, old);
    }
    cluster.ask(old, asked, request(group, &Request::GetLatestOffsets));
    assert!(!cluster.has_answer(asked), "nobody has confirmed it");
    let refused = refusal(&cluster.answer(asked));
    assert_eq!(refused, Refusal::NoPrimary { group });
    cluster.run_until("another node leads", |cluster| {
        others.iter().any(|id| cluster.role(*id, group) == Some(Role::Primary))
    });
    let new = others.into_iter().find(|id| cluster.role(*id, group) == Some(Role::Primary));
    let answer = cluster.call(new.expect("another node leads"), request(group, &Request::GetLatestOffsets));
    assert_eq!(high_watermark(&answer), 0);
    let stale = cluster.call(old, request(group, &Request::GetLatestOffsets));
    assert_eq!(refusal(&stale), Refusal::NoPrimary { group });
    assert_eq!(high_watermark(&cluster.call(old, request(group, &Request::GetOffsets))), 0);
}

#[test]
fn who_waits_for_the_end_of_a_partition_that_is_deleted_is_told() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(3, 3);
    let metadata = cluster.primary(GroupId::METADATA);
    let group = groups.into_iter().find(|group| cluster.primary(*group) != metadata);
    let group = group.expect("the groups are led by different nodes");
    let leader = cluster.primary(group);
    // It hears the others and is not heard.
    for other in [1, 2, 3].map(NodeId::new).into_iter().filter(|id| *id != leader) {
        cluster.cut(leader, other);
    }
    let asked = cluster.session();
    cluster.ask(leader, asked, request(group, &Request::GetLatestOffsets));
    let (stream, topic) = ("s".to_owned(), "t".to_owned());
    let deletion = Request::Change(MetadataOp::DeleteTopic { stream, topic });
    let deleting = cluster.session();
    cluster.ask(metadata, deleting, request(GroupId::METADATA, &deletion));
    assert_eq!(refusal(&cluster.answer(asked)), Refusal::UnknownGroup { group });
}
