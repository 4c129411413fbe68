//! Logs that rot while their nodes run: found by looking, or by a reader who meets it, and mended while everybody works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use varve_protocol::client::{Refusal, Role};
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::prepare::{PREPARE_HEADER_SIZE, PrepareHeader};
use varve_protocol::retention::Retention;
use varve_replica::{ROTTEN, Timing};
use varve_storage::{Disk, DiskFile, OpenMode, Options};

use crate::cluster::{Cluster, fetch, n, payloads, refusal};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];
const SMALL_SEGMENTS: Options =
    Options { segment_size_bytes_max: 8 << 10, reserve_bytes: 0, ..Options::DEFAULT };
const BLOCK: u64 = 4096;

/// Nodes that look at everything all the time.
pub(crate) fn eager() -> Timing {
    Timing {
        scrub_bytes_per_second: 1 << 30,
        scrub_pass_every: Duration::from_millis(100),
        ..Timing::default()
    }
}

/// Nodes that look at nothing that nobody has missed.
pub(crate) fn lazy() -> Timing {
    Timing { scrub_bytes_per_second: 0, ..Timing::default() }
}

fn start(timing: Timing, replication_factor: u8) -> (Cluster, GroupId) {
    let mut cluster = Cluster::start_timed_with(3, timing, SMALL_SEGMENTS);
    let group = cluster.create_topic(1, replication_factor)[0];
    fill(&mut cluster, group, 1..=100);
    (cluster, group)
}

fn fill(cluster: &mut Cluster, group: GroupId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
    }
}

pub(crate) fn segments(cluster: &Cluster, id: NodeId, group: GroupId) -> Vec<PathBuf> {
    let dir = Path::new("groups").join(format!("{:010}", group.as_raw()));
    let names = cluster.disk(id).list(&dir).expect("the group has files");
    names.iter().filter(|name| name.ends_with(".log")).map(|name| dir.join(name)).collect()
}

fn bytes_of(cluster: &Cluster, id: NodeId, path: &Path) -> Vec<u8> {
    let file = cluster.disk(id).open(path, OpenMode::Existing).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.size().expect("it has a size")).expect("it is small")];
    file.read_at(&mut bytes, 0).expect("a disk in memory works");
    bytes
}

/// The prepares in a log, without the local blocks and what is behind the end.
fn log_of(cluster: &Cluster, id: NodeId, group: GroupId) -> Vec<u8> {
    let mut log = Vec::new();
    for path in segments(cluster, id, group) {
        log.extend_from_slice(&bytes_of(cluster, id, &path)[4096..]);
        log.truncate(log.len() - log.iter().rev().take_while(|byte| **byte == 0).count());
    }
    log
}

/// Makes prepares of a log unreadable.
pub(crate) fn rot(cluster: &Cluster, id: NodeId, group: GroupId, ops: &[u64]) {
    let mut harmed = 0;
    for path in segments(cluster, id, group) {
        let file = cluster.disk(id).open(&path, OpenMode::Existing).expect("the file is there");
        let mut position = BLOCK;
        loop {
            let mut bytes = [0; PREPARE_HEADER_SIZE];
            file.read_at(&mut bytes, position).expect("a disk in memory works");
            let Ok(header) = PrepareHeader::decode(&bytes) else { break };
            if ops.contains(&header.op().as_raw()) {
                let rotten = Bytes::from(vec![0xa5; header.total_size()]);
                file.write_at(&[rotten], position).expect("a disk in memory works");
                harmed += 1;
            }
            position += header.total_size() as u64;
        }
        file.sync().expect("a disk in memory works");
    }
    assert_eq!(harmed, ops.len(), "{ops:?} are in the log");
}

pub(crate) fn problem(cluster: &Cluster, id: NodeId, group: GroupId) -> Option<String> {
    let status = cluster.status(id);
    status.groups.iter().find(|one| one.group == group).and_then(|one| one.problem.clone())
}

pub(crate) fn damages(cluster: &Cluster, id: NodeId) -> (u64, u64) {
    let scrub = cluster.status(id).scrub;
    (scrub.damages_found, scrub.damages_mended)
}

pub(crate) fn view(cluster: &Cluster, id: NodeId, group: GroupId) -> u64 {
    let status = cluster.status(id);
    status.groups.iter().find(|one| one.group == group).expect("it is here").view.as_raw()
}

#[test]
fn what_rots_in_a_backup_and_in_a_primary_is_found_and_mended_while_both_work() {
    let (mut cluster, group) = start(eager(), 3);
    let leader = cluster.primary(group);
    let backup = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    let sound = log_of(&cluster, leader, group);
    let view_before = view(&cluster, leader, group);
    for harmed in [backup, leader] {
        rot(&cluster, harmed, group, &[3, 4, 40, 80, 99, 100]);
        assert!(log_of(&cluster, harmed, group) != sound);
    }
    let role = cluster.role(backup, group);
    cluster.run_until("all is mended", |cluster| {
        assert_eq!((cluster.role(leader, group), cluster.role(backup, group)), (Some(Role::Primary), role));
        [backup, leader].into_iter().all(|id| {
            let (found, mended) = damages(cluster, id);
            found > 0 && found == mended && log_of(cluster, id, group) == sound
        })
    });
    assert_eq!(view(&cluster, leader, group), view_before, "nobody had to lead instead");
    assert_eq!(problem(&cluster, leader, group), None);
    fill(&mut cluster, group, 101..=101);
    assert_eq!(cluster.read_everywhere(group, 101).len(), 101);
}

#[test]
fn the_newest_round_of_a_log_that_is_in_use_is_mended_too() {
    let (mut cluster, group) = start(eager(), 3);
    let leader = cluster.primary(group);
    let head = cluster.status(leader).groups.iter().find(|one| one.group == group).expect("it is here").head;
    let sound = log_of(&cluster, leader, group);
    rot(&cluster, leader, group, &[head]);
    cluster.run_until("it is mended", |cluster| damages(cluster, leader) == (1, 1));
    assert!(log_of(&cluster, leader, group) == sound);
}

#[test]
fn files_that_are_gone_and_local_blocks_that_rot_are_made_whole() {
    let (mut cluster, group) = start(eager(), 3);
    let leader = cluster.primary(group);
    let sound = log_of(&cluster, leader, group);
    let files = segments(&cluster, leader, group);
    assert!(files.len() > 2, "there are sealed segments: {files:?}");
    cluster.disk(leader).remove(&files[0]).expect("it is there");
    let second = cluster.disk(leader).open(&files[1], OpenMode::Existing).expect("it is there");
    second.write_at(&[Bytes::from_static(&[0xa5; 1200])], 10).expect("a disk in memory works");
    cluster.run_until("all is mended", |cluster| damages(cluster, leader) == (3, 3));
    assert!(log_of(&cluster, leader, group) == sound);
    cluster.kill(leader);
    cluster.boot(leader);
    cluster.run_until("it takes part", |cluster| {
        matches!(cluster.role(leader, group), Some(Role::Primary | Role::Backup))
    });
    assert_eq!(cluster.read_everywhere(group, 100).len(), 100);
}

#[test]
fn a_reader_who_meets_damage_is_refused_and_has_it_mended() {
    let (mut cluster, group) = start(lazy(), 3);
    let leader = cluster.primary(group);
    let harmed = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    // What is read of a log that was just opened comes from the disk.
    cluster.kill(harmed);
    cluster.boot(harmed);
    cluster.run_until("it takes part", |cluster| cluster.role(harmed, group) == Some(Role::Backup));
    rot(&cluster, harmed, group, &[50]);
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(damages(&cluster, harmed), (0, 0), "nobody looks");
    let answer = cluster.call(harmed, fetch(group, 49, 0));
    let Refusal::Storage { reason } = refusal(&answer) else { panic!("it cannot be read: {answer:?}") };
    assert!(reason.contains("cannot be read"), "{reason}");
    cluster.run_until("it is mended", |cluster| damages(cluster, harmed) == (1, 1));
    assert_eq!(cluster.read_all(harmed, group).len(), 100);
}

#[test]
fn a_single_replica_says_what_is_damaged_and_serves_the_rest() {
    let (mut cluster, group) = start(eager(), 1);
    let only = cluster.primary(group);
    cluster.kill(only);
    cluster.boot(only);
    cluster.run_until("it leads", |cluster| cluster.role(only, group) == Some(Role::Primary));
    rot(&cluster, only, group, &[50]);
    cluster.run_until("it is found", |cluster| damages(cluster, only) == (1, 0));
    let told = problem(&cluster, only, group).expect("it says what is the matter");
    assert_eq!(
        told,
        format!(
            "its log {ROTTEN}, op50 to op50: there is no other replica to mend it from; the rest can be read and written"
        )
    );
    let answer = cluster.call(only, fetch(group, 49, 0));
    assert_eq!(refusal(&answer), Refusal::Storage { reason: told });
    fill(&mut cluster, group, 101..=105);
    assert_eq!(cluster.read_from(only, group, 50).len(), 55, "what is behind it can be read");
    assert_eq!(payloads(&cluster.call(only, fetch(group, 48, 0))).len(), 1, "and what is before it");
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(damages(&cluster, only), (1, 0), "it is one damage, however often it is seen");
    assert_eq!(cluster.role(only, group), Some(Role::Primary));
}

#[test]
fn what_has_rotted_everywhere_is_not_made_up() {
    let (mut cluster, group) = start(eager(), 3);
    for id in ALL {
        // What was just appended is still in memory.
        cluster.kill(id);
        cluster.boot(id);
        cluster.run_until("it takes part", |cluster| cluster.role(id, group) == Some(Role::Backup));
    }
    let leader = cluster.primary(group);
    for (id, op) in [(n(1), 20), (n(2), 30), (n(3), 40)] {
        rot(&cluster, id, group, &[7, op]);
    }
    cluster.run_until("all is mended that somebody has", |cluster| {
        ALL.into_iter().all(|id| damages(cluster, id) == (2, 1))
    });
    cluster.run_for(Duration::from_secs(10));
    for id in ALL {
        assert_eq!(damages(&cluster, id), (2, 1));
        assert!(problem(&cluster, id, group).is_some_and(|problem| problem.contains("op7 to op7")), "{id}");
        assert!(cluster.role(id, group).is_some_and(|role| role != Role::Faulty), "{id}");
    }
    fill(&mut cluster, group, 101..=101);
    assert_eq!(cluster.primary(group), leader);
}

#[test]
fn what_could_not_be_let_go_goes_when_it_is_mended() {
    let mut cluster = Cluster::start_timed_with(3, lazy(), SMALL_SEGMENTS);
    let retention = Retention { bytes: Some(4_000), age_ms: None };
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    fill(&mut cluster, group, 1..=100);
    let leader = cluster.primary(group);
    let harmed = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    let first = segments(&cluster, harmed, group)[0].clone();
    rot(&cluster, harmed, group, &[5]);
    cluster.run_until("something is let go", |cluster| segments(cluster, leader, group)[0] != first);
    cluster.run_until("here as well", |cluster| segments(cluster, harmed, group)[0] != first);
    assert_eq!(problem(&cluster, harmed, group), None);
    fill(&mut cluster, group, 101..=101);
}

#[test]
fn what_a_look_has_found_in_a_log_that_another_takes_the_place_of_is_no_damage() {
    let mut cluster = Cluster::start_timed_with(3, eager(), SMALL_SEGMENTS);
    let group = cluster.create_topic_keeping(1, 3, Retention { bytes: Some(4_000), age_ms: None })[0];
    fill(&mut cluster, group, 1..=20);
    let leader = cluster.primary(group);
    let behind = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    for other in ALL.into_iter().filter(|id| *id != behind) {
        cluster.cut(other, behind);
        cluster.cut(behind, other);
    }
    rot(&cluster, behind, group, &[5]);
    for _ in 0..1000 {
        cluster.hold_looks(behind);
        cluster.run_for(Duration::from_millis(100));
        if cluster.holds_finding(behind, group) {
            break;
        }
        cluster.release_looks(behind);
    }
    assert!(cluster.holds_finding(behind, group), "a look has found it, and nobody knows yet");
    let first = segments(&cluster, leader, group)[0].clone();
    fill(&mut cluster, group, 21..=150);
    cluster.run_until("the others let go of what is missing there", |cluster| {
        segments(cluster, leader, group)[0] != first
    });
    cluster.heal();
    cluster.run_until("it goes on behind their snapshot", |cluster| {
        segments(cluster, behind, group)[0] == segments(cluster, leader, group)[0]
    });
    let (found, mended) = damages(&cluster, behind);
    cluster.release_looks(behind);
    assert_eq!(damages(&cluster, behind), (found, mended));
    assert_eq!((problem(&cluster, behind, group), found), (None, mended));
}

/// Makes the snapshot that a log builds on unreadable.
pub(crate) fn rot_snapshot(cluster: &Cluster, id: NodeId, group: GroupId) {
    let dir = Path::new("groups").join(format!("{:010}", group.as_raw()));
    let names = cluster.disk(id).list(&dir).expect("the group has files");
    let name = names.iter().find(|name| name.ends_with(".snapshot")).expect("something was let go");
    let file = cluster.disk(id).open(&dir.join(name), OpenMode::Existing).expect("the file is there");
    file.write_at(&[Bytes::from_static(&[0xa5; 9])], 40).expect("a disk in memory works");
    file.sync().expect("a disk in memory works");
}

#[test]
fn a_rotten_snapshot_is_given_back_by_whoever_has_it() {
    let mut cluster = Cluster::start_timed_with(3, eager(), SMALL_SEGMENTS);
    let retention = Retention { bytes: Some(4_000), age_ms: None };
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    fill(&mut cluster, group, 1..=100);
    cluster.run_for(Duration::from_secs(60));
    for (round, harmed) in (1..).zip(ALL) {
        rot_snapshot(&cluster, harmed, group);
        cluster.run_until("it is found and mended", |cluster| damages(cluster, harmed) == (1, 1));
        assert_eq!(problem(&cluster, harmed, group), None);
        // Others can take it from here, so it is there.
        fill(&mut cluster, group, 100 + round..=100 + round);
    }
    cluster.kill(n(1));
    cluster.boot(n(1));
    cluster.run_until("it takes part", |cluster| cluster.role(n(1), group) == Some(Role::Backup));
    assert_eq!(problem(&cluster, n(1), group), None);
}

#[test]
fn a_rotten_snapshot_is_asked_for_until_somebody_answers() {
    let mut cluster = Cluster::start_timed_with(3, eager(), SMALL_SEGMENTS);
    let retention = Retention { bytes: Some(4_000), age_ms: None };
    let group = cluster.create_topic_keeping(1, 3, retention)[0];
    fill(&mut cluster, group, 1..=100);
    cluster.run_for(Duration::from_secs(60));
    let harmed = cluster.primary(group);
    for other in ALL.into_iter().filter(|id| *id != harmed) {
        cluster.kill(other);
    }
    rot_snapshot(&cluster, harmed, group);
    cluster.run_until("it is found", |cluster| damages(cluster, harmed) == (1, 0));
    let told = problem(&cluster, harmed, group).expect("it is told");
    assert!(told.contains("is being mended from the other replicas"), "{told}");
    cluster.run_for(Duration::from_secs(10));
    assert_eq!(damages(&cluster, harmed), (1, 0), "it is one damage, however often it is seen");
    for other in ALL.into_iter().filter(|id| *id != harmed) {
        cluster.boot(other);
    }
    cluster.run_until("it is mended", |cluster| damages(cluster, harmed) == (1, 1));
    assert_eq!(problem(&cluster, harmed, group), None);
    fill(&mut cluster, group, 101..=101);
}

#[test]
fn a_node_tells_what_it_has_looked_at() {
    let (mut cluster, group) = start(eager(), 3);
    cluster.run_until("there were passes", |cluster| {
        ALL.into_iter().all(|id| cluster.status(id).scrub.passes >= 3)
    });
    let scrub = cluster.status(n(1)).scrub;
    assert!(scrub.bytes > log_of(&cluster, n(1), group).len() as u64);
    assert!(scrub.last_pass_ended.as_raw() > 1_790_000_000_000_000, "it is a time of the wall clock");
    assert_eq!((scrub.damages_found, scrub.damages_mended), (0, 0));
    assert_eq!(cluster.node(n(1)).vitals().scrub, scrub);
    let idle = Cluster::start_timed(1, lazy());
    assert_eq!(idle.status(n(1)).scrub.bytes, 0);
    let answer = cluster.call(n(1), fetch(group, 0, 0));
    assert_eq!(answer.header.command, Command::FetchOk);
}
