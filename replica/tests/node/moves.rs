//! Replicas that go from one node to another.

use std::time::Duration;

use varve_protocol::client::Role;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome, Move};

use crate::cluster::{Cluster, n};

const GROUP_DIR: &str = "0000000001";

const ALL: [NodeId; 5] = [n(1), n(2), n(3), n(4), n(5)];

/// Five nodes, and a partition with three records on the first three of them.
fn start() -> (Cluster, GroupId) {
    let mut cluster = Cluster::start(5);
    let group = cluster.create_topic(1, 3)[0];
    for number in 0..3 {
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
    }
    (cluster, group)
}

fn begin(cluster: &mut Cluster, group: GroupId, from: NodeId, to: NodeId) {
    let outcome = cluster.change(MetadataOp::MoveReplica { group, from, to });
    assert_eq!(outcome, MetadataOutcome::Done);
}

fn wanted_on(cluster: &Cluster, group: GroupId, witness: NodeId) -> (Vec<NodeId>, Option<Move>) {
    let partition = cluster.node(witness).metadata().partition(group).expect("it is there").clone();
    (partition.replicas(), partition.moving)
}

/// Whether `to` works in the group in place of `from`, whose files are gone.
fn has_moved(cluster: &Cluster, group: GroupId, from: NodeId, to: NodeId) -> bool {
    let (replicas, moving) = wanted_on(cluster, group, to);
    let works = matches!(cluster.role(to, group), Some(Role::Primary | Role::Backup));
    let is_gone =
        cluster.role(from, group).is_none() && !cluster.group_dirs(from).iter().any(|name| name == GROUP_DIR);
    moving.is_none() && replicas.contains(&to) && !replicas.contains(&from) && works && is_gone
}

#[test]
fn a_replica_of_any_place_goes_to_another_node() {
    for from in [n(1), n(2), n(3)] {
        let (mut cluster, group) = start();
        begin(&mut cluster, group, from, n(4));
        cluster.run_until("it has moved", |cluster| has_moved(cluster, group, from, n(4)));
        // Its voice counts: another can go now.
        let other = [n(1), n(2), n(3)].into_iter().find(|id| *id != from).expect("there are three");
        cluster.kill(other);
        cluster.append(group, ProducerId::ZERO, 0, &["after it"]);
        cluster.run_until("it has all", |cluster| {
            let status = cluster.status(n(4));
            status.groups.iter().any(|one| one.group == group && one.high_watermark.as_raw() == 4)
        });
        assert_eq!(cluster.read_all(n(4), group), ["record 0", "record 1", "record 2", "after it"]);
    }
}

#[test]
fn a_replica_comes_back_to_where_it_was() {
    let (mut cluster, group) = start();
    for (from, to) in [(n(1), n(4)), (n(4), n(1)), (n(2), n(4)), (n(4), n(2))] {
        begin(&mut cluster, group, from, to);
        cluster.run_until("it has moved", |cluster| has_moved(cluster, group, from, to));
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("on {to}")]);
    }
    assert_eq!(cluster.read_everywhere_of(&[n(1), n(2), n(3)], group, 7).len(), 7);
    for id in ALL {
        cluster.kill(id);
    }
    ALL.into_iter().for_each(|id| cluster.boot(id));
    cluster.append(group, ProducerId::ZERO, 0, &["after a restart of all"]);
}

#[test]
fn who_is_cut_off_while_his_replica_goes_is_heard_no_more() {
    let (mut cluster, group) = start();
    for other in [n(1), n(2), n(4), n(5)] {
        cluster.cut(n(3), other);
        cluster.cut(other, n(3));
    }
    cluster.run_for(Duration::from_secs(2));
    begin(&mut cluster, group, n(3), n(4));
    cluster.run_until("it has moved", |cluster| wanted_on(cluster, group, n(1)).1.is_none());
    cluster.append(group, ProducerId::ZERO, 0, &["without him"]);
    assert!(cluster.role(n(3), group).is_some(), "he does not know");
    cluster.heal();
    cluster.run_until("he has learnt of it", |cluster| has_moved(cluster, group, n(3), n(4)));
    assert_eq!(cluster.read_all(n(4), group).len(), 4);
}

#[test]
fn who_is_to_come_and_is_down_is_waited_for_until_that_is_given_up() {
    let (mut cluster, group) = start();
    cluster.kill(n(4));
    begin(&mut cluster, group, n(2), n(4));
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(wanted_on(&cluster, group, n(1)).0, [n(1), n(2), n(3)]);
    cluster.append(group, ProducerId::ZERO, 0, &["meanwhile"]);
    cluster.change(MetadataOp::CancelMove { group });
    let as_before = (vec![n(1), n(2), n(3)], None);
    cluster.run_until("it is given up", |cluster| wanted_on(cluster, group, n(1)) == as_before);
    cluster.boot(n(4));
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.role(n(4), group), None);
    // Everybody has the voice he had.
    cluster.kill(n(1));
    cluster.append(group, ProducerId::ZERO, 0, &["with the others"]);
}

#[test]
fn who_has_taken_the_place_before_that_was_given_up_leaves_it() {
    let (mut cluster, group) = start();
    // The primary of the metadata hears nothing of node 4, and so not that it has its voice.
    let leader = cluster.primary(GroupId::METADATA);
    assert_eq!(leader, n(1));
    cluster.kill(n(4));
    begin(&mut cluster, group, n(3), n(4));
    cluster.boot(n(4));
    let has_voice = |cluster: &Cluster| cluster.role(n(4), group) == Some(Role::Backup);
    for _ in 0..10_000 {
        if has_voice(&cluster) {
            break;
        }
        cluster.run_for(Duration::from_millis(1));
    }
    assert!(has_voice(&cluster));
    assert!(wanted_on(&cluster, group, n(1)).1.is_some(), "the metadata has not heard of it");
    cluster.change(MetadataOp::CancelMove { group });
    cluster.append(group, ProducerId::ZERO, 0, &["while it goes back"]);
    cluster.run_until("node 4 has left", |cluster| cluster.role(n(4), group).is_none());
    assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "not before node 3 is back");
    cluster.kill(n(2));
    cluster.append(group, ProducerId::ZERO, 0, &["node 3 has its voice again"]);
    assert_eq!(wanted_on(&cluster, group, n(1)), (vec![n(1), n(2), n(3)], None));
}

#[test]
fn who_comes_has_no_voice_before_he_has_his_place() {
    let (mut cluster, group) = start();
    // Without node 2 the entry does not commit.
    cluster.kill(n(2));
    begin(&mut cluster, group, n(3), n(4));
    cluster.run_for(Duration::from_secs(3));
    assert_eq!(cluster.role(n(4), group), Some(Role::Learner));
    // Node 4 has it all, and is not enough for anything.
    cluster.kill(n(3));
    cluster.run_for(Duration::from_secs(3));
    assert_ne!(cluster.role(n(1), group), Some(Role::Primary), "node 1 is alone with one who has no voice");
    cluster.boot(n(2));
    cluster.run_until("it goes on", |cluster| wanted_on(cluster, group, n(1)).1.is_none());
    cluster.append(group, ProducerId::ZERO, 0, &["with node 4"]);
}

#[test]
fn a_move_outlives_crashes_of_all_who_have_to_do_with_it() {
    for (victim, after_ms) in
        [1, 2, 3, 4].into_iter().flat_map(|id| [5, 20, 30, 60, 120].map(|after| (n(id), after)))
    {
        let (mut cluster, group) = start();
        begin(&mut cluster, group, n(2), n(4));
        cluster.run_for(Duration::from_millis(after_ms));
        cluster.kill(victim);
        cluster.run_for(Duration::from_secs(1));
        cluster.boot(victim);
        cluster.run_until("it has moved", |cluster| has_moved(cluster, group, n(2), n(4)));
        cluster.append(group, ProducerId::ZERO, 0, &["after it"]);
        assert_eq!(cluster.read_everywhere_of(&[n(1), n(3), n(4)], group, 4).len(), 4);
    }
}

#[test]
fn who_hears_in_one_go_that_it_went_and_came_again_comes_as_another() {
    let (mut cluster, group) = start();
    cluster.lead(GroupId::METADATA, n(5));
    cluster.deafen(n(3));
    begin(&mut cluster, group, n(3), n(4));
    cluster.run_until("it has gone", |cluster| wanted_on(cluster, group, n(5)).1.is_none());
    begin(&mut cluster, group, n(4), n(3));
    assert_eq!(cluster.role(n(3), group), Some(Role::Backup), "it knows of nothing");
    cluster.heal();
    let knows = |cluster: &Cluster| wanted_on(cluster, group, n(3)).1.is_some_and(|moving| moving.to == n(3));
    cluster.run_until("it knows of both", knows);
    let role = cluster.role(n(3), group);
    assert!(matches!(role, None | Some(Role::Learner)), "what it promised was in another's name: {role:?}");
    cluster.run_until("it has moved", |cluster| has_moved(cluster, group, n(4), n(3)));
}

#[test]
fn a_voice_of_before_does_not_end_a_move_that_was_turned_round() {
    let (mut cluster, group) = start();
    cluster.lead(GroupId::METADATA, n(5));
    // That node 4 has the place is not heard where it would be noted.
    cluster.cut(n(4), n(5));
    begin(&mut cluster, group, n(3), n(4));
    cluster.run_until("node 4 has the place", |cluster| cluster.role(n(4), group) == Some(Role::Backup));
    // Node 3 hears nobody who has the log.
    for id in [n(1), n(2), n(4)] {
        cluster.cut(id, n(3));
    }
    begin(&mut cluster, group, n(4), n(3));
    cluster.append(group, ProducerId::ZERO, 0, &["without node 3"]);
    cluster.run_for(Duration::from_secs(2));
    let (_, moving) = wanted_on(&cluster, group, n(5));
    assert!(moving.is_some_and(|moving| moving.to == n(3)), "it has not taken the place again");
    cluster.heal();
    cluster.run_until("it has moved", |cluster| has_moved(cluster, group, n(4), n(3)));
    cluster.kill(n(1));
    cluster.append(group, ProducerId::ZERO, 0, &["its word counts"]);
}
