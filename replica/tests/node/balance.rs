//! Who leads what: handovers that clients ask for, and preferred primaries that come back.

use std::time::Duration;

use varve_protocol::client::{Refusal, Request, Response, Role};
use varve_protocol::id::{GroupId, NodeId, ProducerId};

use crate::cluster::{Cluster, append, n, refusal, request, response};

const ALL: [NodeId; 3] = [n(1), n(2), n(3)];

fn leads(cluster: &Cluster, id: NodeId, group: GroupId) -> bool {
    cluster.role(id, group) == Some(Role::Primary)
}

#[test]
fn a_handover_loses_and_refuses_nothing() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    let from = cluster.primary(group);
    let to = ALL.into_iter().find(|id| *id != from).expect("there are three");
    let session = cluster.session();
    cluster.ask(from, session, append(group, ProducerId::ZERO, 0, &["sealed before"]));
    let answer = cluster.call(from, request(group, &Request::HandOver { to }));
    assert_eq!(response(&answer), Response::HandingOver);
    assert!(cluster.answer(session).header.command == varve_protocol::frame::Command::AppendOk);
    cluster.run_until("the other one leads", |cluster| leads(cluster, to, group));
    cluster.append(group, ProducerId::ZERO, 0, &["after"]);
    assert_eq!(cluster.read_everywhere(group, 2), ["sealed before", "after"]);
}

#[test]
fn a_handover_that_cannot_be_says_why() {
    let mut cluster = Cluster::start(5);
    let group = cluster.create_topic(1, 3)[0];
    let leader = cluster.primary(group);
    let holds = |cluster: &Cluster, id: &NodeId| cluster.role(*id, group).is_some();
    let members: Vec<NodeId> = (1..=5).map(n).filter(|id| holds(&cluster, id)).collect();
    let stranger = (1..=5).map(n).find(|id| !members.contains(id)).expect("two hold no replica");
    let mut backups = members.into_iter().filter(|id| *id != leader);
    let (dead, other) = (backups.next().expect("a backup"), backups.next().expect("another"));
    cluster.kill(dead);
    cluster.run_for(Duration::from_millis(500));
    for to in [stranger, dead] {
        let answer = cluster.call(leader, request(group, &Request::HandOver { to }));
        assert!(matches!(refusal(&answer), Refusal::NotPossible { .. }), "{to}: {:?}", refusal(&answer));
    }
    let answer = cluster.call(other, request(group, &Request::HandOver { to: leader }));
    assert!(matches!(refusal(&answer), Refusal::NotPrimary { primary, .. } if primary == leader));
    assert!(leads(&cluster, leader, group));
}

#[test]
fn a_node_that_came_back_leads_again_after_a_while() {
    let mut cluster = Cluster::start(3);
    let groups = cluster.create_topic(6, 3);
    let first: Vec<NodeId> = groups.iter().map(|group| cluster.primary(*group)).collect();
    let gone = n(2);
    assert_eq!(first.iter().filter(|id| **id == gone).count(), 2, "primaries are spread evenly");
    cluster.kill(gone);
    for group in &groups {
        cluster.primary(*group);
    }
    cluster.boot(gone);
    cluster.run_for(Duration::from_secs(8));
    assert!(groups.iter().all(|group| !leads(&cluster, gone, *group)), "it must stay for a while first");
    let is_restored =
        |cluster: &Cluster| groups.iter().zip(&first).all(|(group, id)| leads(cluster, *id, *group));
    cluster.run_until("all lead what they led before", is_restored);
}
