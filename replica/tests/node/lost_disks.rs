//! How a cluster begins, and what becomes of a node whose disk is lost.

use std::time::Duration;

use varve_protocol::client::{Refusal, Request, Role};
use varve_protocol::id::{GroupId, NodeId, ProducerId};

use crate::cluster::{Cluster, n, refusal, request};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

/// Whether a replica of every group works on every node, with a voice.
fn is_whole(cluster: &Cluster) -> bool {
    let works = |role: &Role| matches!(role, Role::Primary | Role::Backup);
    let roles =
        |id: NodeId| cluster.status(id).groups.into_iter().map(|group| group.role).collect::<Vec<_>>();
    let counts: Vec<usize> = ALL.into_iter().map(|id| roles(id).len()).collect();
    counts.iter().all(|count| *count == counts[0]) && ALL.into_iter().all(|id| roles(id).iter().all(works))
}

#[test]
fn a_cluster_is_founded_by_all_its_nodes() {
    let mut cluster = Cluster::unfounded(3);
    [n(1), n(2)].into_iter().for_each(|id| cluster.boot(id));
    cluster.run_for(Duration::from_secs(5));
    let leads = |cluster: &Cluster, id| cluster.role(id, GroupId::METADATA) == Some(Role::Primary);
    assert!(![n(1), n(2)].into_iter().any(|id| leads(&cluster, id)), "two of three do not found it");
    let problem = cluster.status(n(1)).groups[0].problem.clone();
    assert!(
        problem.is_some_and(|problem| problem.ends_with("not heard yet: n3")),
        "and say what they wait for"
    );
    cluster.boot(n(3));
    cluster.run_until("it is founded", |cluster| leads(cluster, n(1)));
    assert_eq!(cluster.status(n(1)).groups[0].problem, None);
}

#[test]
fn from_then_on_a_majority_is_enough() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    ALL.into_iter().for_each(|id| cluster.kill(id));
    [n(1), n(2)].into_iter().for_each(|id| cluster.boot(id));
    cluster.append(group, ProducerId::ZERO, 0, &["two are enough"]);
}

#[test]
fn a_founder_whose_disk_hangs_is_not_waited_for() {
    let mut cluster = Cluster::unfounded(3);
    cluster.hang_disk(n(1));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    let leads = |cluster: &Cluster, id| cluster.role(id, GroupId::METADATA) == Some(Role::Primary);
    cluster.run_until("another leads the metadata", |cluster| leads(cluster, n(2)) || leads(cluster, n(3)));
}

#[test]
fn a_new_group_does_not_wait_for_a_primary_whose_disk_hangs() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.primary(GroupId::METADATA);
    let hung = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    cluster.hang_disk(hung);
    // Of three partitions it is to lead one.
    for group in cluster.create_topic(3, 3) {
        cluster.append(group, ProducerId::ZERO, 0, &["one"]);
    }
}

#[test]
fn a_node_that_was_replaced_before_the_cluster_was_founded_founds_it() {
    let mut cluster = Cluster::unfounded(3);
    [n(1), n(2)].into_iter().for_each(|id| cluster.boot(id));
    cluster.run_for(Duration::from_secs(1));
    cluster.kill(n(2));
    cluster.lose_disk(n(2));
    [n(2), n(3)].into_iter().for_each(|id| cluster.boot(id));
    cluster.run_until("it is founded", is_whole);
}

#[test]
fn a_node_that_lost_its_disk_is_let_in_again_and_holds_everything() {
    for lost in ALL {
        let mut cluster = Cluster::start(3);
        let groups = cluster.create_topic(3, 3);
        for (number, group) in groups.iter().enumerate() {
            cluster.append(*group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
        }
        cluster.kill(lost);
        cluster.lose_disk(lost);
        cluster.boot(lost);
        cluster.run_until("it is let in everywhere", is_whole);
        // Its voice counts: another can go now.
        let other = ALL.into_iter().find(|id| *id != lost).expect("there are three");
        cluster.kill(other);
        for group in &groups {
            cluster.append(*group, ProducerId::ZERO, 0, &["after it"]);
            cluster.run_until("it has both", |cluster| {
                let status = cluster.status(lost);
                status.groups.iter().any(|one| one.group == *group && one.high_watermark.as_raw() == 2)
            });
            assert_eq!(cluster.read_all(lost, *group).len(), 2);
        }
    }
}

#[test]
fn a_node_that_lost_its_disk_has_no_voice_while_a_quorum_lacks_it() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["on a quorum at least"]);
    [n(2), n(3)].into_iter().for_each(|id| cluster.kill(id));
    cluster.lose_disk(n(3));
    cluster.boot(n(3));
    cluster.run_for(Duration::from_secs(10));
    for (id, group) in
        [n(1), n(3)].into_iter().flat_map(|id| [GroupId::METADATA, group].map(|group| (id, group)))
    {
        assert_ne!(
            cluster.role(id, group),
            Some(Role::Primary),
            "{id} leads {group} with a voice that is lost"
        );
    }
    cluster.boot(n(2));
    cluster.run_until("it is let in everywhere", is_whole);
}

#[test]
fn who_has_not_heard_of_a_new_disk_does_not_bring_back_the_old_one() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    [GroupId::METADATA, group].into_iter().for_each(|group| hand_over(&mut cluster, group, n(3)));
    cluster.kill(n(2));
    cluster.lose_disk(n(2));
    cluster.cut(n(2), n(1));
    cluster.boot(n(2));
    cluster.run_until("it is let in everywhere", is_whole);
    // The last that n1 heard of n2 is that it had its first disk.
    hand_over(&mut cluster, GroupId::METADATA, n(1));
    cluster.run_for(Duration::from_secs(5));
    cluster.kill(n(3));
    cluster.heal();
    cluster.append(group, ProducerId::ZERO, 0, &["n1 and n2 are a quorum"]);
}

fn hand_over(cluster: &mut Cluster, group: GroupId, to: NodeId) {
    let leader = cluster.primary(group);
    cluster.call(leader, request(group, &Request::HandOver { to }));
    cluster.run_until("the group is handed over", |cluster| cluster.role(to, group) == Some(Role::Primary));
}

#[test]
fn every_disk_is_lost_once_and_nothing_with_them() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    for (number, lost) in ALL.into_iter().enumerate() {
        cluster.append(group, ProducerId::ZERO, 0, &[&format!("record {number}")]);
        cluster.kill(lost);
        cluster.lose_disk(lost);
        cluster.boot(lost);
        cluster.run_until("it is let in everywhere", is_whole);
    }
    assert_eq!(cluster.read_everywhere(group, 3), ["record 0", "record 1", "record 2"]);
}

#[test]
fn nothing_is_handed_over_to_a_node_without_a_voice() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let mut others = ALL.into_iter().filter(|id| *id != leader);
    let (lost, other) = (others.next().expect("there are three"), others.next().expect("there are three"));
    [lost, other].into_iter().for_each(|id| cluster.kill(id));
    cluster.lose_disk(lost);
    cluster.boot(lost);
    // Before the leader misses its quorum, it hears the node that has come back, whose place in the group is taken.
    cluster.run_for(Duration::from_millis(60));
    let answer = cluster.call(leader, request(group, &Request::HandOver { to: lost }));
    assert!(matches!(refusal(&answer), Refusal::NotPossible { .. } | Refusal::NoPrimary { .. }));
}
