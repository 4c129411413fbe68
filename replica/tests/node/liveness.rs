//! Who is suspected, and who is not.

use std::time::Duration;

use varve_protocol::client::{Refusal, Role};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::metadata::MetadataOp;
use varve_protocol::retention::Retention;

use crate::cluster::{Cluster, append, n, refusal};

fn others(of: NodeId) -> impl Iterator<Item = NodeId> {
    [1, 2, 3].map(NodeId::new).into_iter().filter(move |id| *id != of)
}

#[test]
fn an_idle_cluster_sends_pulses_and_nothing_else() {
    let mut cluster = Cluster::start(3);
    cluster.create_topic(50, 3);
    cluster.run_for(Duration::from_secs(2));
    cluster.sent.clear();
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.sent.keys().copied().collect::<Vec<_>>(), [Command::Pulse]);
}

#[test]
fn a_dead_primary_is_replaced_within_half_a_second() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    cluster.run_for(Duration::from_secs(1));
    let leader = cluster.primary(group);
    cluster.kill(leader);
    cluster.run_for(Duration::from_millis(500));
    let leads = |id: NodeId| {
        let status = cluster.status(id);
        status.groups.iter().any(|one| one.group == group && one.role == Role::Primary)
    };
    assert_eq!(others(leader).filter(|id| leads(*id)).count(), 1);
}

#[test]
fn a_node_that_led_a_thousand_groups_is_replaced_in_all_of_them_at_once() {
    let mut cluster = Cluster::start(3);
    cluster.create_topic(1000, 3);
    cluster.run_for(Duration::from_secs(1));
    let led = |cluster: &Cluster, id: NodeId| cluster.node(id).vitals().counts.primary;
    let lost = led(&cluster, n(1));
    cluster.kill(n(1));
    cluster.sent.clear();
    cluster.run_for(Duration::from_millis(500));
    assert_eq!(others(n(1)).map(|id| led(&cluster, id)).sum::<u32>(), 1001);
    // Each step of a view change is said once to each peer by each survivor: nothing had to be said again.
    let said = |command: Command| cluster.sent.get(&command).copied().unwrap_or(0);
    for command in [Command::StartViewChange, Command::DoViewChange, Command::StartView] {
        assert!(said(command) <= u64::from(4 * lost), "{command:?}: {} for {lost} groups", said(command));
    }
}

#[test]
fn a_primary_that_can_send_and_not_receive_is_replaced() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    cluster.run_for(Duration::from_secs(1));
    let deaf = cluster.primary(group);
    for other in others(deaf) {
        cluster.cut(other, deaf);
    }
    let view = |cluster: &Cluster, id: NodeId| {
        let status = cluster.status(id);
        status.groups.iter().find(|one| one.group == group).expect("it holds a replica").view
    };
    let before = view(&cluster, deaf);
    cluster.run_until("the others have a primary of their own", |cluster| {
        others(deaf).all(|id| view(cluster, id) > before && !cluster.status(id).hears.contains(&deaf))
    });
    cluster.heal();
    cluster.run_until("it follows them", |cluster| view(cluster, deaf) > before);
}

#[test]
fn a_backup_that_comes_back_unseats_nobody() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    cluster.run_for(Duration::from_secs(1));
    let leader = cluster.primary(group);
    let away = others(leader).next().expect("there are two backups");
    for other in others(away) {
        cluster.cut(away, other);
        cluster.cut(other, away);
    }
    cluster.run_for(Duration::from_secs(3));
    cluster.heal();
    cluster.run_for(Duration::from_secs(3));
    for id in [1, 2, 3].map(NodeId::new) {
        let status = cluster.status(id);
        let here = status.groups.iter().find(|one| one.group == group).expect("it holds a replica");
        assert_eq!((here.view.as_raw(), here.primary), (0, leader), "{id}");
    }
}

#[test]
fn a_cluster_of_one_leads_itself() {
    let mut cluster = Cluster::start(1);
    assert_eq!(cluster.primary(GroupId::METADATA), n(1));
    assert_eq!(cluster.status(n(1)).hears, [n(1)]);
}

#[test]
fn a_primary_without_a_quorum_takes_no_appends_until_it_is_back() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let away: Vec<NodeId> = others(leader).collect();
    for id in &away {
        cluster.kill(*id);
    }
    cluster.run_for(Duration::from_secs(1));
    let answer = cluster.call(leader, append(group, ProducerId::ZERO, 0, &["x"]));
    assert_eq!(refusal(&answer), Refusal::NoPrimary { group });
    assert!(cluster.status(leader).groups.iter().all(|one| one.role != Role::Primary));
    cluster.boot(away[0]);
    cluster.append(group, ProducerId::ZERO, 0, &["y"]);
}

#[test]
fn vitals_are_the_status_in_short() {
    let mut cluster = Cluster::start(3);
    cluster.create_topic(5, 3);
    cluster.run_for(Duration::from_millis(200));
    for id in [1, 2, 3].map(n) {
        let vitals = cluster.node(id).vitals();
        assert_eq!(vitals, cluster.status(id).vitals());
        assert_eq!(vitals.map_op, cluster.node(id).metadata().map().op);
        let counts = vitals.counts;
        assert_eq!(counts.primary + counts.backup, 6, "five partitions and the metadata");
    }
}

#[test]
fn a_peer_that_was_suspected_and_never_gone_is_given_more_time() {
    let mut cluster = Cluster::start(3);
    cluster.run_for(Duration::from_secs(1));
    let is_suspected_after = |cluster: &mut Cluster, silence: u64| {
        cluster.cut(n(1), n(2));
        cluster.run_for(Duration::from_millis(silence));
        let is_suspected = !cluster.node(n(2)).vitals().hears.contains(&n(1));
        cluster.heal();
        cluster.run_for(Duration::from_millis(400));
        assert!(cluster.node(n(2)).vitals().hears.contains(&n(1)), "it is heard again");
        is_suspected
    };
    assert!(is_suspected_after(&mut cluster, 250));
    assert!(!is_suspected_after(&mut cluster, 250));
    assert!(is_suspected_after(&mut cluster, 500));
    cluster.run_for(Duration::from_secs(11));
    assert!(is_suspected_after(&mut cluster, 250), "after a calm while the usual silence is enough");
}

#[test]
fn a_primary_that_begins_its_view_only_after_a_restart_is_believed() {
    let mut cluster = Cluster::start(3);
    let (late, others) = (n(2), [n(1), n(3)]);
    for other in others {
        cluster.cut(late, other);
        cluster.cut(other, late);
    }
    // The second partition is the late one's to lead, who does not hear of it.
    cluster.change(MetadataOp::CreateStream { stream: "s".to_owned() });
    let topic = MetadataOp::CreateTopic {
        stream: "s".to_owned(),
        topic: "t".to_owned(),
        partitions: 2,
        replication_factor: Some(3),
        durability: Durability::QuorumDisk,
        retention: Retention::FOREVER,
        compression: Compression::None,
    };
    cluster.change(topic);
    let group = GroupId::new(2);
    assert_eq!(cluster.node(n(1)).metadata().partition(group).map(|entry| entry.places[0]), Some(late));
    cluster.run_until("one of them has opened it", |cluster| cluster.role(n(1), group).is_some());
    cluster.cut(n(1), n(3));
    cluster.cut(n(3), n(1));
    cluster.run_for(Duration::from_millis(500));
    cluster.kill(late);
    cluster.boot(late);
    cluster.heal();
    for other in [n(1), late] {
        cluster.cut(other, n(3));
        cluster.cut(n(3), other);
    }
    cluster.run_until("it leads", |cluster| cluster.role(late, group) == Some(Role::Primary));
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.role(n(1), group), Some(Role::Backup));
    let refused = refusal(&cluster.call(n(1), append(group, ProducerId::ZERO, 0, &["x"])));
    assert!(matches!(refused, Refusal::NotPrimary { primary, .. } if primary == late), "{refused:?}");
}
