//! Topics that acknowledge from memory: fast while all goes well, silent after an unclean stop, and never guessing.

use std::time::Duration;

use varve_protocol::client::{Doubt, Refusal, Request, Response, Role};
use varve_protocol::durability::Durability;
use varve_protocol::id::{GroupId, NodeId, ProducerId};

use crate::cluster::{Cluster, append, n, refusal, request, response};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

fn start() -> (Cluster, GroupId) {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic_with(1, 3, Durability::QuorumMemory)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["first"]);
    (cluster, group)
}

fn doubt(cluster: &mut Cluster, node: NodeId, group: GroupId, asked: &Request) -> Doubt {
    let answer = cluster.call(node, request(group, asked));
    let Response::Doubt(doubt) = response(&answer) else { panic!("it tells what it holds") };
    doubt
}

fn problem(cluster: &Cluster, node: NodeId, group: GroupId) -> Option<String> {
    let status = cluster.status(node);
    status.groups.into_iter().find(|one| one.group == group).and_then(|one| one.problem)
}

#[test]
fn an_append_waits_for_no_sync() {
    let (mut cluster, group) = start();
    let offset = cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    assert_eq!(offset.as_raw(), 1);
    let status = cluster.status(n(1));
    let replica = status.groups.iter().find(|one| one.group == group).expect("it holds one");
    assert!(replica.durable < replica.head, "it is not synced yet");
    cluster.run_for(Duration::from_millis(200));
    let status = cluster.status(n(1));
    let replica = status.groups.iter().find(|one| one.group == group).expect("it holds one");
    assert_eq!(replica.durable, replica.head, "it is synced within a bounded time");
}

#[test]
fn who_stopped_uncleanly_is_told_the_log_by_its_primary() {
    let (mut cluster, group) = start();
    let leader = cluster.primary(group);
    let backup = ALL.into_iter().find(|id| *id != leader).expect("there are three");
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    cluster.kill(backup);
    cluster.boot(backup);
    cluster.run_until("it works again", |cluster| cluster.role(backup, group) == Some(Role::Backup));
    assert_eq!(problem(&cluster, backup, group), None);
    cluster.read_everywhere(group, 2);
}

#[test]
fn a_primary_that_stops_uncleanly_loses_nothing() {
    let (mut cluster, group) = start();
    let leader = cluster.primary(group);
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    cluster.kill(leader);
    cluster.boot(leader);
    cluster.append(group, ProducerId::ZERO, 0, &["third"]);
    let records = cluster.read_everywhere(group, 3);
    assert_eq!(records, ["first", "second", "third"]);
}

#[test]
fn a_stop_in_order_of_all_loses_nothing() {
    let (mut cluster, group) = start();
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    for id in ALL {
        cluster.stop(id);
        cluster.run_until("it may stop", |cluster| cluster.node(id).may_stop());
    }
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    assert!(ALL.into_iter().all(|id| problem(&cluster, id, group).is_none()));
    assert_eq!(cluster.read_everywhere(group, 2), ["first", "second"]);
}

#[test]
fn a_group_at_rest_loses_nothing_when_the_power_fails() {
    let (mut cluster, group) = start();
    cluster.run_for(Duration::from_secs(5));
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    assert_eq!(cluster.read_everywhere(group, 2), ["first", "second"]);
}

#[test]
fn a_power_failure_of_all_waits_for_an_operator() {
    let (mut cluster, group) = start();
    cluster.run_for(Duration::from_millis(200));
    // This one is synced nowhere.
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    ALL.into_iter().for_each(|id| cluster.kill(id));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    cluster.run_for(Duration::from_secs(10));
    for id in ALL {
        let why = problem(&cluster, id, group).expect("it says why it takes no part");
        assert!(why.starts_with("unsafe restart"), "{why}");
        let answer = cluster.call(id, append(group, ProducerId::ZERO, 0, &["x"]));
        assert!(
            matches!(refusal(&answer), Refusal::Storage { reason } if reason.starts_with("unsafe restart"))
        );
    }
    let mut silent: Vec<(Doubt, NodeId)> =
        ALL.map(|id| (doubt(&mut cluster, id, group, &Request::GetDoubt), id)).to_vec();
    assert!(silent.iter().all(|(doubt, _)| doubt.is_in_doubt && !doubt.is_normal));
    silent.sort_by_key(|(doubt, _)| (doubt.log_view, doubt.head));
    let longest = silent[2].0.log_end.as_raw();
    assert!(longest >= 1, "what was synced is there");
    for (_, id) in &silent[1..] {
        assert!(!doubt(&mut cluster, *id, group, &Request::ForceRecover).is_in_doubt);
    }
    assert_eq!(
        cluster.append(group, ProducerId::ZERO, 0, &["third"]).as_raw(),
        longest,
        "it goes on where the longest ends"
    );
    let count = usize::try_from(longest).expect("there are few") + 1;
    let records = cluster.read_everywhere(group, count);
    assert_eq!((records[0].as_str(), records[count - 1].as_str()), ("first", "third"));
}

#[test]
fn who_has_lost_its_disk_is_no_help_when_the_power_of_all_fails() {
    let (mut cluster, group) = start();
    cluster.run_for(Duration::from_millis(200));
    ALL.into_iter().for_each(|id| cluster.kill(id));
    cluster.lose_disk(n(3));
    ALL.into_iter().for_each(|id| cluster.boot(id));
    cluster.run_for(Duration::from_secs(10));
    let said = ALL.map(|id| doubt(&mut cluster, id, group, &Request::GetDoubt));
    assert_eq!(said.map(|doubt| doubt.has_voice), [true, true, false]);
    assert_eq!(said.map(|doubt| doubt.is_in_doubt), [true, true, false]);
    for id in [n(1), n(2)] {
        doubt(&mut cluster, id, group, &Request::ForceRecover);
    }
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    assert_eq!(cluster.read_everywhere(group, 2), ["first", "second"], "it has a voice again");
}

#[test]
fn a_single_replica_that_stops_uncleanly_waits_for_an_operator() {
    let mut cluster = Cluster::start(1);
    let group = cluster.create_topic_with(1, 1, Durability::QuorumMemory)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["first"]);
    cluster.kill(n(1));
    cluster.boot(n(1));
    cluster.run_for(Duration::from_secs(3));
    assert!(problem(&cluster, n(1), group).is_some_and(|why| why.starts_with("unsafe restart")));
    doubt(&mut cluster, n(1), group, &Request::ForceRecover);
    cluster.append(group, ProducerId::ZERO, 0, &["second"]);
    assert_eq!(problem(&cluster, n(1), group), None);
    cluster.stop(n(1));
    cluster.kill(n(1));
    cluster.boot(n(1));
    cluster.append(group, ProducerId::ZERO, 0, &["third"]);
}

/// Has as many replicas as a majority needs go on with what they hold, the newest logs first.
fn force(cluster: &mut Cluster, group: GroupId) {
    let mut silent = ALL.map(|id| (doubt(cluster, id, group, &Request::GetDoubt), id)).to_vec();
    silent.sort_by_key(|(doubt, _)| (doubt.log_view, doubt.head));
    for (found, id) in &silent[1..] {
        if found.is_in_doubt {
            doubt(cluster, *id, group, &Request::ForceRecover);
        }
    }
}

#[test]
fn no_power_failure_takes_more_than_what_was_not_synced() {
    let (mut cluster, group) = start();
    let mut records = vec!["first".to_owned()];
    let (mut forced, mut lost) = (0, 0);
    for round in 0..60 {
        for number in 0..round % 5 + 1 {
            let record = format!("{round}.{number}");
            cluster.append(group, ProducerId::ZERO, 0, &[&record]);
            records.push(record);
            cluster.run_for(Duration::from_millis(7 * (round % 8)));
        }
        let heads = |one: &varve_protocol::client::GroupStatus| {
            (one.group == group).then_some((one.durable, one.head))
        };
        let synced = ALL.map(|id| cluster.status(id).groups.iter().find_map(heads).expect("it holds one"));
        let unsynced = synced.iter().map(|(durable, head)| head - durable).min().expect("there are three");
        ALL.into_iter().for_each(|id| cluster.kill(id));
        ALL.into_iter().for_each(|id| cluster.boot(id));
        cluster.run_for(Duration::from_secs(2));
        if ALL.into_iter().all(|id| problem(&cluster, id, group).is_some()) {
            forced += 1;
            force(&mut cluster, group);
        }
        let primary = cluster.primary(group);
        cluster.run_for(Duration::from_secs(1));
        let left = cluster.read_all(primary, group);
        assert_eq!(left[..], records[..left.len()], "what is left is a piece of what was there");
        assert!((records.len() - left.len()) as u64 <= unsynced, "what any disk had synced is there");
        lost += records.len() - left.len();
        records = left;
        cluster.read_everywhere(group, records.len());
    }
    assert!(forced > 5 && lost > 0, "the power failed at bad moments: {forced} forced, {lost} lost");
}
