//! Reads: committed records only, at once or when they come.

use varve_protocol::client::Refusal;
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, Offset, ProducerId};

use crate::cluster::{Cluster, append, fetch, n, payloads, refusal};

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
