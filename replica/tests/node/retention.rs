//! Records that are not kept for ever, and nodes that lack what the others have let go.

use std::path::Path;
use std::time::Duration;

use varve_protocol::client::{Refusal, Request, Response, Role};
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, Offset, ProducerId};
use varve_protocol::retention::Retention;
use varve_replica::Timing;
use varve_storage::{Disk, Options};

use crate::cluster::{Cluster, fetch, n, payloads, refusal, request, response};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

/// Room for a few dozen records.
const SMALL_SEGMENTS: Options =
    Options { segment_size_bytes_max: 8 << 10, reserve_bytes: 0, ..Options::DEFAULT };

const LITTLE: Retention = Retention { bytes: Some(4_000), age_ms: None };

/// A cluster with small segments, and a group of a topic that keeps little.
fn start(retention: Retention) -> (Cluster, GroupId) {
    let mut cluster = Cluster::start_with(3, SMALL_SEGMENTS);
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    (cluster, group)
}

/// Appends records from a number up to another, and lets so much time pass that old ones are looked for.
fn fill(cluster: &mut Cluster, group: GroupId, producer: ProducerId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let request = if producer == ProducerId::ZERO { 0 } else { number + 1 };
        let offset = cluster.append(group, producer, request, &[&format!("record {number}")]);
        assert_eq!(offset, Offset::new(number));
    }
    cluster.run_for(Duration::from_secs(25));
}

/// The first offset that a node still has; none if it has all.
fn earliest(cluster: &mut Cluster, id: NodeId, group: GroupId) -> Option<u64> {
    let answer = cluster.call(id, fetch(group, 0, 0));
    (answer.header.command == Command::Refused).then(|| {
        let refusal = refusal(&answer);
        let Refusal::OffsetOutOfRange { earliest, .. } = refusal else { panic!("{id}: {refusal:?}") };
        earliest.as_raw()
    })
}

#[test]
fn all_replicas_let_go_of_the_same_old_records() {
    let (mut cluster, group) = start(LITTLE);
    fill(&mut cluster, group, ProducerId::ZERO, 0..200);
    let first = earliest(&mut cluster, n(1), group).expect("something was let go");
    assert!((1..180).contains(&first), "4,000 bytes are kept: {first}");
    for id in ALL {
        assert_eq!(earliest(&mut cluster, id, group), Some(first));
        let read = payloads(&cluster.call(id, fetch(group, first, 0)));
        assert_eq!(read[0], (first, format!("record {first}")));
        let dir = cluster.group_dirs(id).into_iter().find(|dir| dir.ends_with("1")).expect("its directory");
        let files = cluster.disk(id).list(&Path::new("groups").join(dir)).expect("it can be listed");
        assert_eq!(files.iter().filter(|name| name.ends_with(".snapshot")).count(), 1, "{files:?}");
    }
}

#[test]
fn nothing_is_let_go_of_a_topic_that_keeps_everything() {
    let (mut cluster, group) = start(Retention::FOREVER);
    fill(&mut cluster, group, ProducerId::ZERO, 0..200);
    assert_eq!(ALL.map(|id| earliest(&mut cluster, id, group)), [None; 3]);
}

#[test]
fn records_that_are_too_old_are_let_go() {
    let (mut cluster, group) = start(Retention { bytes: None, age_ms: Some(60_000) });
    fill(&mut cluster, group, ProducerId::ZERO, 0..100);
    assert_eq!(earliest(&mut cluster, n(1), group), None, "they are half a minute old");
    cluster.run_for(Duration::from_secs(60));
    assert!(earliest(&mut cluster, n(1), group).is_some());
    // Nothing is appended any more, and nothing is left.
    cluster.run_for(Duration::from_secs(60));
    assert_eq!(ALL.map(|id| earliest(&mut cluster, id, group)), [Some(100); 3]);
    for id in ALL {
        let dir = cluster.group_dirs(id).into_iter().find(|dir| dir.ends_with('1')).expect("its directory");
        let files = cluster.disk(id).list(&Path::new("groups").join(dir)).expect("it can be listed");
        assert_eq!(files.len(), 2, "a snapshot, and the segment that the entry began: {files:?}");
    }
    cluster.append(group, ProducerId::ZERO, 0, &["the next one"]);
    assert_eq!(cluster.read_from(n(1), group, 100), ["the next one"]);
}

#[test]
fn what_could_not_be_let_go_at_once_is_let_go_later() {
    let retention_check = Duration::from_millis(100);
    let mut cluster = Cluster::start_timed(3, Timing { retention_check, ..Timing::default() });
    let retention = Retention { bytes: None, age_ms: Some(3_000) };
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    let leader = cluster.primary(group);
    let successor = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    // The successor never gets what it needs to take over: the primary waits for it, and takes nothing else meanwhile.
    cluster.hang_disk(successor);
    cluster.append(group, ProducerId::ZERO, 0, &["the only record"]);
    cluster.run_for(Duration::from_millis(2_700));
    let answer = cluster.call(leader, request(group, &Request::HandOver { to: successor }));
    assert_eq!(response(&answer), Response::HandingOver);
    cluster.run_for(Duration::from_millis(700));
    assert_eq!(earliest(&mut cluster, leader, group), None, "it is too old, but nothing is taken");
    cluster.run_for(Duration::from_secs(3));
    assert_eq!(cluster.primary(group), leader);
    assert_eq!(earliest(&mut cluster, leader, group), Some(1));
}

#[test]
fn a_record_that_is_let_go_while_it_is_read_is_out_of_range() {
    let (mut cluster, group) = start(LITTLE);
    let leader = cluster.primary(group);
    // Enough that the oldest are not in memory any more.
    for _ in 0..12 {
        cluster.append(group, ProducerId::ZERO, 0, &[&"x".repeat(900 << 10)]);
    }
    cluster.hold_reads(leader);
    let session = cluster.session();
    cluster.ask(leader, session, fetch(group, 0, 0));
    assert!(!cluster.has_answer(session), "it has to be read from the disk");
    cluster.run_for(Duration::from_secs(25));
    let first = earliest(&mut cluster, leader, group).expect("something was let go");
    cluster.release_reads(leader);
    let refused = refusal(&cluster.answer(session));
    let Refusal::OffsetOutOfRange { earliest, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(earliest.as_raw(), first);
}

#[test]
fn a_restarted_node_knows_where_the_log_starts_and_what_it_built_on() {
    let (mut cluster, group) = start(LITTLE);
    let producer = cluster.register_producer();
    fill(&mut cluster, group, producer, 0..200);
    let first = earliest(&mut cluster, n(1), group);
    assert!(first.is_some());
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    let primary = cluster.primary(group);
    assert_eq!(earliest(&mut cluster, primary, group), first);
    // The last request of the session is told its first outcome, the next one is the next.
    assert_eq!(cluster.append(group, producer, 200, &["record 199"]), Offset::new(199));
    assert_eq!(cluster.append(group, producer, 201, &["record 200"]), Offset::new(200));
}

#[test]
fn a_node_that_lacks_what_was_let_go_takes_a_snapshot_and_can_lead() {
    let (mut cluster, group) = start(LITTLE);
    let producer = cluster.register_producer();
    let leader = cluster.primary(group);
    let absent = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    fill(&mut cluster, group, producer, 0..5);
    cluster.kill(absent);
    fill(&mut cluster, group, producer, 5..200);
    let first = earliest(&mut cluster, leader, group).expect("something was let go");
    assert!(first > 5);
    cluster.boot(absent);
    cluster.run_until("it has caught up", |cluster| {
        let status = cluster.status(absent);
        status.groups.iter().any(|one| one.group == group && one.high_watermark.as_raw() == 200)
    });
    assert_eq!(earliest(&mut cluster, absent, group), Some(first));
    assert_eq!(cluster.read_from(absent, group, first).len() as u64, 200 - first);
    // It is a quorum together with either of the others, and knows the sessions.
    cluster.kill(leader);
    assert_eq!(cluster.append(group, producer, 200, &["record 199"]), Offset::new(199));
    assert_eq!(cluster.append(group, producer, 201, &["record 200"]), Offset::new(200));
    // After a restart it still has all of that.
    cluster.kill(absent);
    cluster.boot(absent);
    cluster.run_until("it works", |cluster| {
        let status = cluster.status(absent);
        status.groups.iter().any(|one| one.group == group && one.high_watermark.as_raw() == 201)
    });
    assert_eq!(cluster.read_from(absent, group, first).len() as u64, 201 - first);
}

#[test]
fn a_node_that_lost_its_disk_comes_back_with_what_is_kept() {
    let (mut cluster, group) = start(LITTLE);
    fill(&mut cluster, group, ProducerId::ZERO, 0..200);
    let leader = cluster.primary(group);
    let first = earliest(&mut cluster, leader, group).expect("something was let go");
    let lost = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    cluster.kill(lost);
    cluster.lose_disk(lost);
    cluster.boot(lost);
    cluster.run_until("it is let in", |cluster| cluster.role(lost, group) == Some(Role::Backup));
    cluster.run_until("it has everything", |cluster| {
        let status = cluster.status(lost);
        status.groups.iter().any(|one| one.group == group && one.high_watermark.as_raw() == 200)
    });
    assert_eq!(cluster.read_from(lost, group, first).len() as u64, 200 - first);
    cluster.kill(leader);
    cluster.append(group, ProducerId::ZERO, 0, &["its voice counts"]);
}
