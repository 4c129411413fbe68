//! Logs that rot on disk, and what becomes of their replicas.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use varve_protocol::client::Role;
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, Offset, Op, ProducerId};
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, PrepareHeader};
use varve_protocol::retention::Retention;
use varve_storage::{Disk, DiskFile, OpenMode, Options};

use crate::cluster::{Cluster, fetch, n};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

/// The newest segment of a log.
fn log_of(cluster: &Cluster, id: NodeId, group: GroupId) -> PathBuf {
    let dir = Path::new("groups").join(format!("{:010}", group.as_raw()));
    let mut names = cluster.disk(id).list(&dir).expect("the group has files");
    names.retain(|name| name.ends_with(".log"));
    dir.join(names.iter().max().expect("the log has a file"))
}

/// The first op of the newest segment of a log.
fn first_op(cluster: &Cluster, id: NodeId, group: GroupId) -> u64 {
    let file = cluster.disk(id).open(&log_of(cluster, id, group), OpenMode::Existing).expect("it is there");
    let mut bytes = [0; PREPARE_HEADER_SIZE];
    file.read_at(&mut bytes, 4096).expect("a disk in memory works");
    PrepareHeader::decode(&bytes).expect("it has a prepare").op().as_raw()
}

/// Makes prepares of a log on a disk unreadable.
fn rot(cluster: &Cluster, id: NodeId, group: GroupId, ops: std::ops::RangeInclusive<u64>) {
    let path = log_of(cluster, id, group);
    let file = cluster.disk(id).open(&path, OpenMode::Existing).expect("the file is there");
    let mut position = 4096;
    loop {
        let mut bytes = [0; PREPARE_HEADER_SIZE];
        file.read_at(&mut bytes, position).expect("a disk in memory works");
        let header = PrepareHeader::decode(&bytes).expect("the op is in the log");
        if ops.contains(&header.op().as_raw()) {
            file.write_at(&[Bytes::from(vec![0xa5; header.total_size()])], position)
                .expect("a disk in memory works");
        }
        if header.op() == Op::new(*ops.end()) {
            return file.sync().expect("a disk in memory works");
        }
        position += header.total_size() as u64;
    }
}

fn problem(cluster: &Cluster, id: NodeId, group: GroupId) -> Option<String> {
    let status = cluster.status(id);
    status.groups.iter().find(|one| one.group == group).and_then(|one| one.problem.clone())
}

fn fill(cluster: &mut Cluster, group: GroupId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
    }
}

fn works(cluster: &Cluster, id: NodeId, group: GroupId) -> bool {
    matches!(cluster.role(id, group), Some(Role::Primary | Role::Backup))
}

#[test]
fn a_hole_of_many_prepares_is_mended_while_the_others_work() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    fill(&mut cluster, group, 1..=1500);
    let leader = cluster.primary(group);
    let harmed = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    cluster.kill(harmed);
    rot(&cluster, harmed, group, 100..=1300);
    rot(&cluster, harmed, group, 3..=3);
    cluster.boot(harmed);
    fill(&mut cluster, group, 1501..=1510);
    cluster.run_until("it takes part again", |cluster| works(cluster, harmed, group));
    assert_eq!(cluster.read_everywhere(group, 1510).len(), 1510);
}

#[test]
fn two_replicas_with_holes_in_different_places_mend_each_other() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    fill(&mut cluster, group, 1..=100);
    ALL.into_iter().for_each(|id| cluster.kill(id));
    rot(&cluster, n(1), group, 30..=35);
    rot(&cluster, n(2), group, 60..=61);
    rot(&cluster, n(1), GroupId::METADATA, 2..=2);
    cluster.boot(n(1));
    let told = problem(&cluster, n(1), GroupId::METADATA).expect("it cannot be mended alone");
    assert_eq!(told, "its log has a hole, op2 to op2, and is being mended from the other replicas");
    assert_eq!(cluster.role(n(1), GroupId::METADATA), Some(Role::Faulty));
    cluster.boot(n(2));
    cluster.run_until("both take part", |cluster| works(cluster, n(1), group) && works(cluster, n(2), group));
    fill(&mut cluster, group, 101..=101);
    cluster.boot(n(3));
    assert_eq!(cluster.read_everywhere(group, 101).len(), 101);
}

#[test]
fn a_log_that_builds_on_a_snapshot_is_mended_and_still_knows_what_was_let_go() {
    let small_segments = Options { segment_size_bytes_max: 8 << 10, reserve_bytes: 0, ..Options::DEFAULT };
    let mut cluster = Cluster::start_with(3, small_segments);
    let retention = Retention { bytes: Some(4_000), age_ms: None };
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    let producer = cluster.register_producer();
    cluster.append(group, producer, 1, &["of a session that is let go"]);
    fill(&mut cluster, group, 1..=200);
    cluster.run_for(Duration::from_secs(25));
    let leader = cluster.primary(group);
    let harmed = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    let answer = cluster.call(harmed, fetch(group, 0, 0));
    assert_eq!(answer.header.command, Command::Refused, "something was let go");
    fill(&mut cluster, group, 201..=205);
    cluster.kill(harmed);
    let op = first_op(&cluster, harmed, group) + 1;
    rot(&cluster, harmed, group, op..=op);
    let sent = cluster.sent.get(&Command::RepairPrepare).copied();
    cluster.boot(harmed);
    cluster.run_until("it takes part again", |cluster| works(cluster, harmed, group));
    assert!(cluster.sent.get(&Command::RepairPrepare).copied() > sent, "it got what was missing from others");
    cluster.lead(group, harmed);
    let again = cluster.append(group, producer, 1, &["of a session that is let go"]);
    assert_eq!(again, Offset::ZERO, "it was appended long ago");
}

#[test]
fn what_a_dead_replica_alone_holds_is_waited_for() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    fill(&mut cluster, group, 1..=50);
    let leader = cluster.primary(group);
    let mut others = ALL.into_iter().filter(|id| *id != leader);
    let (harmed, behind) = (others.next().expect("there are three"), others.next().expect("there are three"));
    cluster.kill(behind);
    fill(&mut cluster, group, 51..=100);
    cluster.kill(leader);
    cluster.kill(harmed);
    rot(&cluster, harmed, group, 80..=80);
    cluster.boot(harmed);
    cluster.boot(behind);
    cluster.run_for(Duration::from_secs(10));
    assert!(
        !works(&cluster, harmed, group) && !works(&cluster, behind, group),
        "nobody guesses what is lost"
    );
    cluster.boot(leader);
    cluster.run_until("all take part", |cluster| ALL.into_iter().all(|id| works(cluster, id, group)));
    assert_eq!(cluster.read_everywhere(group, 100).len(), 100);
}

#[test]
fn logs_that_are_gone_come_back() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    fill(&mut cluster, group, 1..=100);
    let leader = cluster.primary(group);
    for harmed in [leader, ALL.into_iter().find(|id| *id != leader).expect("there are three")] {
        cluster.kill(harmed);
        for id in [group, GroupId::METADATA] {
            let path = log_of(&cluster, harmed, id);
            cluster.disk(harmed).remove(&path).unwrap();
            cluster.disk(harmed).sync_dir(path.parent().unwrap()).unwrap();
        }
        cluster.boot(harmed);
        cluster.run_until("it takes part again", |cluster| {
            works(cluster, harmed, group) && works(cluster, harmed, GroupId::METADATA)
        });
        assert_eq!(problem(&cluster, harmed, group), None);
    }
    assert_eq!(cluster.read_everywhere(group, 100).len(), 100);
}

#[test]
fn a_damaged_log_without_another_replica_says_so() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 1)[0];
    let only = cluster.primary(group);
    cluster.append(group, ProducerId::ZERO, 0, &["the only copy"]);
    cluster.append(group, ProducerId::ZERO, 0, &["another"]);
    cluster.kill(only);
    rot(&cluster, only, group, 1..=1);
    cluster.boot(only);
    cluster.run_until("its log is opened", |cluster| cluster.role(only, group).is_some());
    assert_eq!(cluster.role(only, group), Some(Role::Faulty));
    let told = problem(&cluster, only, group).expect("it says what is the matter");
    assert!(told.contains("there is no other replica"), "{told}");
}

#[test]
fn a_primary_that_is_back_and_mends_its_metadata_is_not_waited_for() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(3, 3);
    let leader = cluster.primary(GroupId::METADATA);
    let led = *groups.iter().find(|group| cluster.primary(**group) == leader).expect("it leads one of three");
    fill(&mut cluster, led, 1..=3);
    // It is back before anybody has missed it, and is heard; but it gets back nothing of what is missing.
    cluster.kill(leader);
    rot(&cluster, leader, GroupId::METADATA, 3..=3);
    cluster.deafen(leader);
    let others: Vec<NodeId> = ALL.into_iter().filter(|id| *id != leader).collect();
    let (one, other) = (others[0], others[1]);
    cluster.cut(one, other);
    cluster.cut(other, one);
    cluster.boot(leader);
    cluster.run_for(Duration::from_millis(500));
    // Silent for a while, it is heard again; only then can the others agree to go on without it.
    cluster.cut(leader, one);
    cluster.cut(leader, other);
    cluster.run_for(Duration::from_secs(1));
    for (from, to) in [(leader, one), (leader, other), (one, other), (other, one)] {
        cluster.mend_link(from, to);
    }
    cluster.run_for(Duration::from_secs(2));
    assert!(problem(&cluster, leader, GroupId::METADATA).is_some_and(|problem| problem.contains("hole")));
    assert!(!works(&cluster, leader, led));
    fill(&mut cluster, led, 4..=5);
    cluster.heal();
    cluster.run_until("it takes part again", |cluster| works(cluster, leader, led));
}
