//! Replicas that come, and those that leave.

use std::time::Duration;

use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};

use crate::cluster::{Cluster, n};

const GROUP_DIR: &str = "0000000001";

/// Five nodes, and a partition with two records on the first so many of them.
fn start(replicas: u8) -> (Cluster, GroupId) {
    let mut cluster = Cluster::start(5);
    let group = cluster.create_topic(1, replicas)[0];
    for number in 0..2 {
        append(&mut cluster, group, &format!("record {number}"));
    }
    (cluster, group)
}

fn append(cluster: &mut Cluster, group: GroupId, text: &str) {
    cluster.append(group, ProducerId::ZERO, 0, &[text]);
}

fn wish(cluster: &mut Cluster, group: GroupId, from: NodeId, to: NodeId) {
    let outcome = cluster.change(MetadataOp::MoveReplica { group, from, to });
    assert_eq!(outcome, MetadataOutcome::Done);
}

fn add(cluster: &mut Cluster, group: GroupId, to: NodeId) {
    wish(cluster, group, NodeId::ZERO, to);
    cluster.run_until("it has come", |cluster| {
        let works = matches!(cluster.role(to, group), Some(Role::Primary | Role::Backup));
        works && is_settled(cluster, group)
    });
}

fn remove(cluster: &mut Cluster, group: GroupId, from: NodeId) {
    wish(cluster, group, from, NodeId::ZERO);
    cluster.run_until("it has left", |cluster| is_gone(cluster, group, from) && is_settled(cluster, group));
}

fn is_gone(cluster: &Cluster, group: GroupId, node: NodeId) -> bool {
    cluster.role(node, group).is_none() && !cluster.group_dirs(node).iter().any(|name| name == GROUP_DIR)
}

fn is_settled(cluster: &Cluster, group: GroupId) -> bool {
    let up = cluster.up().into_iter().map(|node| cluster.node(node).metadata());
    let newest = up.max_by_key(|metadata| metadata.applied()).expect("somebody is up");
    newest.partition(group).is_some_and(|partition| partition.moving.is_none())
}

fn holds_all(cluster: &mut Cluster, group: GroupId, node: NodeId, records: u64) {
    cluster.run_until("it has all", |cluster| {
        let status = cluster.status(node);
        status.groups.iter().any(|one| one.group == group && one.high_watermark.as_raw() == records)
    });
}

#[test]
fn a_single_replica_gets_company_and_can_be_lost() {
    let (mut cluster, group) = start(1);
    add(&mut cluster, group, n(2));
    add(&mut cluster, group, n(3));
    append(&mut cluster, group, "with three");
    cluster.kill(n(1));
    append(&mut cluster, group, "without the first");
    holds_all(&mut cluster, group, n(2), 4);
    let expected = ["record 0", "record 1", "with three", "without the first"];
    assert_eq!(cluster.read_all(n(2), group), expected);
}

#[test]
fn of_five_replicas_two_can_be_lost() {
    let (mut cluster, group) = start(3);
    add(&mut cluster, group, n(4));
    add(&mut cluster, group, n(5));
    append(&mut cluster, group, "with five");
    cluster.kill(n(1));
    cluster.kill(n(2));
    append(&mut cluster, group, "with three of five");
    holds_all(&mut cluster, group, n(5), 4);
}

#[test]
fn of_four_replicas_two_are_not_enough() {
    let (mut cluster, group) = start(3);
    add(&mut cluster, group, n(4));
    // The metadata keep their quorum.
    cluster.kill(n(1));
    cluster.kill(n(2));
    cluster.run_for(Duration::from_secs(5));
    let takes =
        |cluster: &Cluster| [n(3), n(4)].iter().any(|node| cluster.role(*node, group) == Some(Role::Primary));
    assert!(!takes(&cluster), "they were a quorum of nothing");
    cluster.boot(n(1));
    append(&mut cluster, group, "three of four are");
}

#[test]
fn who_leaves_is_needed_no_more() {
    for leaver in [n(1), n(2), n(3)] {
        let (mut cluster, group) = start(3);
        remove(&mut cluster, group, leaver);
        append(&mut cluster, group, "with two");
        add(&mut cluster, group, n(4));
        cluster.kill(leaver);
        let other = [n(1), n(2), n(3)].into_iter().find(|node| *node != leaver).expect("there are two");
        cluster.kill(other);
        append(&mut cluster, group, "with two of three");
        holds_all(&mut cluster, group, n(4), 4);
    }
}

#[test]
fn who_is_down_can_be_removed_and_learns_of_it() {
    let (mut cluster, group) = start(3);
    cluster.kill(n(2));
    wish(&mut cluster, group, n(2), NodeId::ZERO);
    cluster.run_until("it has left", |cluster| is_settled(cluster, group));
    append(&mut cluster, group, "with two of two");
    cluster.boot(n(2));
    cluster.run_until("its files are gone", |cluster| is_gone(cluster, group, n(2)));
    append(&mut cluster, group, "still");
}

#[test]
fn who_has_left_comes_again_as_another() {
    let (mut cluster, group) = start(3);
    for _ in 0..2 {
        remove(&mut cluster, group, n(2));
        append(&mut cluster, group, "without it");
        add(&mut cluster, group, n(2));
        append(&mut cluster, group, "with it");
    }
    holds_all(&mut cluster, group, n(2), 6);
    cluster.kill(n(1));
    append(&mut cluster, group, "its word counts");
    for node in [n(2), n(3), n(4), n(5)] {
        cluster.kill(node);
    }
    for node in 1..=5 {
        cluster.boot(n(node));
    }
    append(&mut cluster, group, "after a restart of all");
}

#[test]
fn a_wish_is_given_up_by_its_opposite() {
    let (mut cluster, group) = start(3);
    cluster.kill(n(4));
    wish(&mut cluster, group, NodeId::ZERO, n(4));
    cluster.run_for(Duration::from_secs(3));
    append(&mut cluster, group, "nobody waits for who is down");
    wish(&mut cluster, group, n(4), NodeId::ZERO);
    cluster.run_until("it is given up", |cluster| is_settled(cluster, group));
    cluster.boot(n(4));
    cluster.run_for(Duration::from_secs(2));
    assert!(is_gone(&cluster, group, n(4)));

    // Alone they are no quorum, so it cannot be done before it is given up.
    cluster.kill(n(3));
    wish(&mut cluster, group, n(2), NodeId::ZERO);
    cluster.run_for(Duration::from_secs(2));
    wish(&mut cluster, group, NodeId::ZERO, n(2));
    cluster.run_until("it is given up", |cluster| is_settled(cluster, group));
    append(&mut cluster, group, "as before");
    cluster.boot(n(3));
    cluster.kill(n(1));
    append(&mut cluster, group, "the word of node 2 counts");
}

#[test]
fn the_others_must_be_a_quorum_before_anybody_leaves() {
    let (mut cluster, group) = start(3);
    cluster.kill(n(3));
    wish(&mut cluster, group, n(2), NodeId::ZERO);
    cluster.run_for(Duration::from_secs(3));
    append(&mut cluster, group, "node 1 alone would be no quorum of two");
    assert!(!is_settled(&cluster, group));
    cluster.boot(n(3));
    cluster.run_until("it has left", |cluster| is_gone(cluster, group, n(2)) && is_settled(cluster, group));
}

#[test]
fn who_is_seated_does_not_count_before_it_has_a_voice() {
    let (mut cluster, group) = start(3);
    wish(&mut cluster, group, NodeId::ZERO, n(4));
    cluster.run_until("it has the log, as a listener", |cluster| {
        let holds = |node| {
            let status = cluster.status(node);
            status.groups.iter().find(|one| one.group == group).map(|one| one.durable)
        };
        holds(n(4)).is_some() && holds(n(4)) == holds(n(1))
    });
    assert_eq!(cluster.role(n(4), group), Some(Role::Learner));
    // From now on it can save nothing, so it stays mute, seated as it may be.
    cluster.hang_disk(n(4));
    cluster.run_for(Duration::from_secs(3));
    assert!(!is_settled(&cluster, group));
    cluster.kill(n(2));
    append(&mut cluster, group, "two of three are enough");
}

#[test]
fn a_primary_that_has_missed_a_later_wish_undoes_nothing() {
    let (mut cluster, group) = start(3);
    cluster.lead(GroupId::METADATA, n(5));
    cluster.lead(group, n(1));
    cluster.deafen(n(1));
    wish(&mut cluster, group, n(3), NodeId::ZERO);
    cluster.run_for(Duration::from_millis(200));
    cluster.deafen(n(2));
    wish(&mut cluster, group, NodeId::ZERO, n(3));
    // The primary learns both at once: node 3 is to stay, and the log says so.
    cluster.undeafen(n(1));
    cluster.run_for(Duration::from_secs(1));
    // This one knows of the first wish only.
    cluster.lead(group, n(2));
    cluster.run_for(Duration::from_secs(1));
    cluster.heal();
    cluster.run_until("all know", |cluster| is_settled(cluster, group));
    cluster.kill(n(1));
    append(&mut cluster, group, "the word of node 3 counts");
}
