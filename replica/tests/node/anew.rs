//! Logs of which something has rotted that the others have let go of, while segments end with other prepares on each node.

use std::time::Duration;

use varve_protocol::client::Role;
use varve_protocol::frame::{Command, Voice};
use varve_protocol::id::{GroupId, NodeId, Op, ProducerId, ReplicaIndex, View};
use varve_protocol::message::Message;
use varve_protocol::retention::Retention;
use varve_replica::Timing;
use varve_storage::Options;

use crate::cluster::{CLUSTER, Cluster, n};
use crate::scrub::{damages, eager, lazy, problem, rot, rot_snapshot, segments, view};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];
const LITTLE: Retention = Retention { bytes: Some(3_000), age_ms: None };

/// Segments with room for so many bytes of prepares.
fn sized(bytes: u64) -> Options {
    Options { segment_size_bytes_max: 4096 + bytes, reserve_bytes: 0, ..Options::DEFAULT }
}

fn fill(cluster: &mut Cluster, group: GroupId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
    }
}

/// A cluster whose nodes have segments of these sizes, and a group of a topic that keeps little.
fn start(sizes: [u64; 3], timing: Timing) -> (Cluster, GroupId) {
    let mut cluster = Cluster::start_timed_with(3, timing, sized(sizes[0]));
    for (id, size) in ALL.into_iter().zip(sizes) {
        cluster.kill(id);
        cluster.options = sized(size);
        cluster.boot(id);
    }
    let group = cluster.create_topic_keeping(1, 3, LITTLE)[0];
    (cluster, group)
}

/// The same, and all nodes but this one have let go of a part of what is in its first segment; who leads the group is told, too.
fn start_with_large_segments_on(large: NodeId) -> (Cluster, GroupId, NodeId) {
    let (mut cluster, group) = start(ALL.map(|id| if id == large { 1 << 20 } else { 2_000 }), eager());
    let leader = ALL.into_iter().find(|id| *id != large).expect("there are three");
    cluster.lead(group, leader);
    fill(&mut cluster, group, 1..=1);
    let first = segments(&cluster, large, group)[0].clone();
    fill(&mut cluster, group, 2..=60);
    cluster.run_until("the others have let go of something", |cluster| {
        ALL.into_iter().all(|id| id == large || segments(cluster, id, group)[0] != first)
    });
    assert_eq!(segments(&cluster, large, group), [first], "the third one has let go of nothing");
    (cluster, group, leader)
}

/// Whether a replica is what it was, with nothing in its log that cannot be read.
fn is_well(cluster: &Cluster, id: NodeId, group: GroupId) -> bool {
    let (found, mended) = damages(cluster, id);
    found > 0
        && found == mended
        && cluster.role(id, group) == Some(Role::Backup)
        && problem(cluster, id, group).is_none()
}

#[test]
fn a_replica_that_nothing_makes_whole_begins_anew_when_the_others_work_without_it() {
    let (mut cluster, group, leader) = start_with_large_segments_on(n(3));
    let asked = cluster.sent.get(&Command::GetHeaders).copied().unwrap_or_default();
    let segments_before = segments(&cluster, n(3), group);
    rot(&cluster, n(3), group, &[5]);
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)).0 == 1);
    cluster.run_for(Duration::from_secs(4));
    assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "something may still come that fits");
    assert_eq!(segments(&cluster, n(3), group), segments_before);
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
    assert_ne!(segments(&cluster, n(3), group), segments_before);
    let asked = cluster.sent[&Command::GetHeaders] - asked;
    assert!(asked < 40, "{asked} questions in less than ten seconds");
    assert_eq!(cluster.role(leader, group), Some(Role::Primary));
    let before = view(&cluster, leader, group);
    // It holds what the others hold, and its voice counts.
    cluster.kill(n(2));
    fill(&mut cluster, group, 61..=62);
    assert_eq!(view(&cluster, leader, group), before);
    cluster.run_for(Duration::from_millis(200));
    let kept = cluster.read_from(leader, group, 50);
    assert_eq!(cluster.read_from(n(3), group, 50), kept);
    assert_eq!(kept.len(), 12);
}

#[test]
fn it_stays_as_long_as_somebody_is_needed_who_is_away() {
    let (mut cluster, group, _) = start_with_large_segments_on(n(3));
    cluster.kill(n(2));
    rot(&cluster, n(3), group, &[5]);
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)).0 == 1);
    let asked = cluster.sent[&Command::GetHeaders];
    for _ in 0..30 {
        cluster.run_for(Duration::from_secs(1));
        assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "the group would stand still");
    }
    let asked = cluster.sent[&Command::GetHeaders] - asked;
    assert!(asked < 60, "{asked} questions in half a minute");
    fill(&mut cluster, group, 61..=61);
    cluster.boot(n(2));
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
}

#[test]
fn it_stays_until_a_quorum_of_the_others_holds_what_is_committed() {
    let (mut cluster, group, leader) = start_with_large_segments_on(n(3));
    rot(&cluster, n(3), group, &[5]);
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)).0 == 1);
    // It says that it has let go of what is missing, and gets no prepares.
    cluster.cut(leader, n(2));
    fill(&mut cluster, group, 61..=70);
    for _ in 0..30 {
        cluster.run_for(Duration::from_millis(500));
        assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "it has one of two copies");
    }
    cluster.heal();
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
    assert_eq!(cluster.read_from(n(3), group, 60), cluster.read_from(leader, group, 60));
}

/// A cluster in which these nodes build on other snapshots than the first one, which leads the group; all have let go of something.
fn start_with_other_bases_on(others: &[NodeId]) -> (Cluster, GroupId) {
    let (mut cluster, group) = start(ALL.map(|id| if others.contains(&id) { 2_900 } else { 2_000 }), eager());
    cluster.lead(group, n(1));
    fill(&mut cluster, group, 1..=1);
    let firsts = ALL.map(|id| segments(&cluster, id, group)[0].clone());
    fill(&mut cluster, group, 2..=80);
    cluster.run_until("all have let go of something", |cluster| {
        ALL.into_iter().zip(&firsts).all(|(id, first)| segments(cluster, id, group)[0] != *first)
    });
    cluster.run_for(Duration::from_secs(30));
    for other in others {
        let bases = [n(1), *other].map(|id| segments(&cluster, id, group)[0].clone());
        assert_ne!(bases[0], bases[1], "they build on different snapshots");
    }
    (cluster, group)
}

#[test]
fn a_replica_whose_snapshot_has_rotted_and_that_no_other_one_fits_begins_anew() {
    let (mut cluster, group) = start_with_other_bases_on(&[n(3)]);
    rot_snapshot(&cluster, n(3), group);
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)) == (1, 0));
    cluster.run_for(Duration::from_secs(4));
    assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "something may still come that fits");
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
    cluster.kill(n(2));
    fill(&mut cluster, group, 81..=82);
}

#[test]
fn who_has_just_asked_whether_the_others_do_without_it_vouches_for_nobody() {
    let (mut cluster, group) = start_with_other_bases_on(&[n(3)]);
    // One of two others is away, so it goes on asking.
    cluster.kill(n(2));
    rot_snapshot(&cluster, n(3), group);
    let led_in = view(&cluster, n(1), group);
    let voice = Voice { replica: ReplicaIndex::new(u8::try_from(led_in % 7).unwrap()), generation: Op::ZERO };
    let question = Message::GetHeaders { view: View::new(led_in), first: Op::new(81), last: Op::new(81) };
    fill(&mut cluster, group, 81..=82);
    let mut answered = Vec::new();
    for _ in 0..200 {
        cluster.run_for(Duration::from_millis(50));
        let before = cluster.sent.get(&Command::Headers).copied().unwrap_or_default();
        cluster.say(n(1), n(3), &question.to_frame(CLUSTER, group, voice));
        answered.push(cluster.sent.get(&Command::Headers).copied().unwrap_or_default() > before);
    }
    let count = answered.iter().filter(|is_answered| !**is_answered).count();
    assert!(answered[..100].iter().all(|is_answered| *is_answered), "nothing has been asked yet");
    // After each question for half a second.
    assert!((10..=20).contains(&count), "{count} of 100 were not answered");
    assert_eq!(cluster.role(n(3), group), Some(Role::Backup));
}

#[test]
fn two_replicas_whose_snapshots_have_rotted_begin_anew_one_after_the_other() {
    let (mut cluster, group) = start_with_other_bases_on(&[n(2), n(3)]);
    for id in [n(2), n(3)] {
        rot_snapshot(&cluster, id, group);
    }
    let leader = n(1);
    let before = view(&cluster, leader, group);
    let counts = |cluster: &Cluster, id| cluster.role(id, group) == Some(Role::Backup);
    for _ in 0..600 {
        if [n(2), n(3)].into_iter().all(|id| is_well(&cluster, id, group)) {
            break;
        }
        cluster.run_for(Duration::from_millis(100));
        assert!(counts(&cluster, n(2)) || counts(&cluster, n(3)), "the group would stand still");
    }
    for id in [n(2), n(3)] {
        assert!(is_well(&cluster, id, group), "{id}: {:?}", problem(&cluster, id, group));
    }
    fill(&mut cluster, group, 81..=81);
    assert_eq!(view(&cluster, leader, group), before);
}

#[test]
fn two_replicas_with_the_same_damage_both_stay() {
    let (mut cluster, group) = start([2_000, 1 << 20, 1 << 20], eager());
    cluster.lead(group, n(1));
    fill(&mut cluster, group, 1..=1);
    let first = segments(&cluster, n(1), group)[0].clone();
    fill(&mut cluster, group, 2..=60);
    cluster.run_until("one lets go of it", |cluster| segments(cluster, n(1), group)[0] != first);
    // What was just appended is still in memory.
    for id in [n(2), n(3)] {
        cluster.options = sized(1 << 20);
        cluster.kill(id);
        cluster.boot(id);
        cluster.run_until("it takes part", |cluster| cluster.role(id, group) == Some(Role::Backup));
    }
    for id in [n(2), n(3)] {
        rot(&cluster, id, group, &[5]);
    }
    cluster
        .run_until("it is found", |cluster| [n(2), n(3)].into_iter().all(|id| damages(cluster, id).0 == 1));
    for _ in 0..60 {
        cluster.run_for(Duration::from_millis(500));
        for id in [n(2), n(3)] {
            assert_eq!(cluster.role(id, group), Some(Role::Backup), "{id}: the group would stand still");
        }
    }
    assert_eq!([n(2), n(3)].map(|id| damages(&cluster, id)), [(1, 0); 2]);
    fill(&mut cluster, group, 61..=61);
}

#[test]
fn a_primary_hands_over_before_it_begins_anew() {
    let (mut cluster, group, _) = start_with_large_segments_on(n(3));
    cluster.lead(group, n(3));
    rot(&cluster, n(3), group, &[5]);
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
    assert_ne!(cluster.primary(group), n(3));
    fill(&mut cluster, group, 61..=61);
}

#[test]
fn consumers_are_not_told_of_less_than_before() {
    let (mut cluster, group, _) = start_with_large_segments_on(n(3));
    let mark = |cluster: &Cluster| {
        let status = cluster.status(n(3));
        status.groups.iter().find(|one| one.group == group).map(|one| one.high_watermark.as_raw())
    };
    assert_eq!(mark(&cluster), Some(60));
    // A consumer waits for more all the time.
    rot(&cluster, n(3), group, &[5]);
    let mut refused = 0;
    while !is_well(&cluster, n(3), group) {
        let session = cluster.session();
        cluster.ask(n(3), session, crate::cluster::fetch(group, 60, 100));
        let answer = cluster.answer(session);
        if answer.header.command == Command::FetchOk {
            assert_eq!(answer.header.commit, 60, "the high watermark does not go back");
        } else {
            assert_eq!(answer.header.command, Command::Refused);
            refused += 1;
        }
    }
    assert!(refused > 0, "there is no replica for a while");
}

#[test]
fn a_snapshot_that_ends_within_a_segment_here_lets_go_of_what_has_rotted() {
    let (mut cluster, group) = start([2_000, 3_000, 3_500], lazy());
    cluster.lead(group, n(1));
    fill(&mut cluster, group, 1..=10);
    rot(&cluster, n(3), group, &[3]);
    let asked = cluster.sent.get(&Command::GetStartView).copied();
    let first = segments(&cluster, n(3), group)[0].clone();
    let mut number = 10;
    while segments(&cluster, n(3), group)[0] == first {
        number += 1;
        assert!(number < 100, "it is let go of at last");
        fill(&mut cluster, group, number..=number);
        cluster.run_for(Duration::from_secs(4));
    }
    assert!(is_well(&cluster, n(3), group));
    assert_eq!(cluster.sent.get(&Command::RepairPrepare), None, "nobody had it any more");
    assert_eq!(cluster.sent.get(&Command::GetStartView).copied(), asked, "it has worked all the time");
}

#[test]
fn damage_of_which_the_others_have_let_go_of_a_part_only_is_no_reason_to_wait_for_ever() {
    let (mut cluster, group) = start([2_000, 3_000, 3_500], lazy());
    cluster.lead(group, n(1));
    fill(&mut cluster, group, 1..=40);
    // All of the first segment but its beginning, and the others have a part of that.
    let second = segments(&cluster, n(3), group)[1].display().to_string();
    let next: u64 =
        second[second.len() - 24..second.len() - 4].parse().expect("a segment is named by its first op");
    rot(&cluster, n(3), group, &(3..next).collect::<Vec<_>>());
    let asked = cluster.sent.get(&Command::GetStartView).copied();
    cluster.run_until("it is found", |cluster| damages(cluster, n(3)).0 > 0);
    // Whoever led has let go of all that goes. It comes back with what the other one has, which ends within the damage.
    cluster.kill(n(1));
    cluster.lose_disk(n(1));
    cluster.boot(n(1));
    cluster.run_until("it is let in", |cluster| cluster.role(n(1), group) == Some(Role::Backup));
    cluster.run_until("it is there again", |cluster| is_well(cluster, n(3), group));
    assert!(cluster.sent.get(&Command::GetStartView).copied() > asked, "it has begun anew");
}
