//! Rolling upgrades: two releases in one cluster, and a version that is raised when all nodes know it.

use std::time::Duration;

use varve_protocol::client::Request;
use varve_protocol::frame::Command;
use varve_protocol::id::{GroupId, NodeId, ProducerId};
use varve_protocol::metadata::{MetadataError, MetadataOp, MetadataOutcome};
use varve_protocol::prepare::Prepare;
use varve_protocol::version::{Version, Versions};
use varve_replica::Recovery;
use varve_storage::Identity;

use crate::cluster::{CLUSTER, Cluster, append, fetch, n, refusal, request};

const SECOND: Version = Versions::OF_THE_NEXT_RELEASE.newest;

/// Stops a node and starts it with another release.
fn restart_with(cluster: &mut Cluster, id: NodeId, release: Versions) {
    cluster.kill(id);
    cluster.release = release;
    cluster.boot(id);
    cluster.run_for(Duration::from_secs(1));
}

fn raise(cluster: &mut Cluster) -> MetadataOutcome {
    cluster.change(MetadataOp::RaiseVersion { to: SECOND })
}

/// The version that the record at an offset is written in, on one node.
fn version_at(cluster: &mut Cluster, id: NodeId, group: GroupId, offset: u64) -> Version {
    let answer = cluster.call(id, fetch(group, offset, 0));
    assert_eq!(answer.header.command, Command::FetchOk, "{answer:?}");
    Prepare::decode(&answer.body.to_bytes()).expect("a fetched prepare is sound").header().version()
}

#[test]
fn a_cluster_goes_on_when_all_nodes_know_the_next_version() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    for id in [n(1), n(2)] {
        restart_with(&mut cluster, id, Versions::OF_THE_NEXT_RELEASE);
        let unknown =
            MetadataError::VersionUnknown { to: SECOND, node: n(3), versions: Versions::OF_THIS_RELEASE };
        let refused = raise(&mut cluster);
        assert!(matches!(refused, MetadataOutcome::Refused(MetadataError::VersionUnknown { .. })));
        assert!(id == n(1) || refused == MetadataOutcome::Refused(unknown));
    }
    cluster.append(group, ProducerId::ZERO, 0, &["before"]);
    restart_with(&mut cluster, n(3), Versions::OF_THE_NEXT_RELEASE);
    assert_eq!(cluster.node(n(3)).version(), Version::FIRST, "nobody goes on by himself");
    assert_eq!(raise(&mut cluster), MetadataOutcome::Done);
    let reached = MetadataOutcome::Refused(MetadataError::VersionReached(SECOND));
    assert_eq!(raise(&mut cluster), reached);
    cluster.run_for(Duration::from_millis(200));
    cluster.append(group, ProducerId::ZERO, 0, &["after"]);
    assert_eq!(cluster.read_everywhere(group, 2), ["before", "after"]);
    for id in [1, 2, 3].map(n) {
        assert_eq!(cluster.node(id).version(), SECOND);
        assert_eq!(version_at(&mut cluster, id, group, 0), Version::FIRST);
        assert_eq!(version_at(&mut cluster, id, group, 1), SECOND);
    }
    let identity = Identity { cluster: CLUSTER, node: n(3) };
    cluster.kill(n(3));
    let (_, found) = Recovery::open(cluster.disk(n(3)).clone(), identity, cluster.options.clone())
        .expect("what a node wrote it can read again");
    assert_eq!(
        found.check_release(Versions::OF_THIS_RELEASE),
        Err("the cluster is at version 2, and this release knows version 1: start a newer release here"
            .to_owned())
    );
    assert_eq!(found.check_release(Versions::OF_THE_NEXT_RELEASE), Ok(()));
}

#[test]
fn an_upgrade_can_be_taken_back_until_the_version_is_raised() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    for (release, what) in [(Versions::OF_THE_NEXT_RELEASE, "forth"), (Versions::OF_THIS_RELEASE, "and back")]
    {
        for id in [1, 2, 3].map(n) {
            restart_with(&mut cluster, id, release);
        }
        cluster.append(group, ProducerId::ZERO, 0, &[what]);
    }
    assert_eq!(cluster.read_everywhere(group, 2), ["forth", "and back"]);
    let refused = raise(&mut cluster);
    assert!(matches!(refused, MetadataOutcome::Refused(MetadataError::VersionUnknown { .. })), "{refused:?}");
}

#[test]
fn a_new_cluster_begins_with_the_newest_version_that_all_its_nodes_know() {
    let mut cluster = Cluster::unfounded(3);
    cluster.release = Versions::OF_THE_NEXT_RELEASE;
    [1, 2, 3].map(n).into_iter().for_each(|id| cluster.boot(id));
    cluster.run_until("all are at the second version", |cluster| {
        [1, 2, 3].map(n).into_iter().all(|id| cluster.node(id).version() == SECOND)
    });
    let group = cluster.create_topic(1, 3)[0];
    cluster.append(group, ProducerId::ZERO, 0, &["first"]);
    assert_eq!(version_at(&mut cluster, n(1), group, 0), SECOND);
}

#[test]
fn who_goes_back_too_late_is_not_listened_to() {
    let mut cluster = Cluster::start(3);
    let group = cluster.create_topic(1, 3)[0];
    for id in [1, 2, 3].map(n) {
        restart_with(&mut cluster, id, Versions::OF_THE_NEXT_RELEASE);
    }
    cluster.kill(n(3));
    assert_eq!(raise(&mut cluster), MetadataOutcome::Done);
    cluster.append(group, ProducerId::ZERO, 0, &["without it"]);
    let dropped = |cluster: &Cluster| [1, 2].map(|id| cluster.status(n(id)).frames_dropped);
    assert_eq!(dropped(&cluster), [0, 0]);
    // What it has on its disk is of before.
    restart_with(&mut cluster, n(3), Versions::OF_THIS_RELEASE);
    assert!(
        dropped(&cluster).into_iter().all(|count| count > 0),
        "it wants another primary, and nobody joins it"
    );
    restart_with(&mut cluster, n(3), Versions::OF_THE_NEXT_RELEASE);
    assert_eq!(cluster.read_everywhere(group, 1), ["without it"]);
}

#[test]
fn a_release_that_does_not_know_the_version_is_left_out_and_told_so() {
    let mut cluster = Cluster::unfounded(3);
    cluster.release = Versions::OF_THE_NEXT_RELEASE;
    [1, 2, 3].map(n).into_iter().for_each(|id| cluster.boot(id));
    cluster.run_for(Duration::from_secs(1));
    let group = cluster.create_topic(1, 3)[0];
    cluster.kill(n(3));
    cluster.lose_disk(n(3));
    cluster.release = Versions::OF_THIS_RELEASE;
    cluster.boot(n(3));
    cluster.run_for(Duration::from_secs(1));
    cluster.append(group, ProducerId::ZERO, 0, &["without it"]);
    assert!(!cluster.status(n(1)).hears.contains(&n(3)));
    let answer = cluster.call(n(3), append(group, ProducerId::ZERO, 0, &["x"]));
    assert!(refusal(&answer).is_retryable(), "{answer:?}");
    assert!(cluster.status(n(3)).frames_dropped > 0);
    assert!(cluster.change(MetadataOp::CreateStream { stream: "more".to_owned() }) == MetadataOutcome::Done);
    restart_with(&mut cluster, n(3), Versions::OF_THE_NEXT_RELEASE);
    assert_eq!(cluster.read_everywhere(group, 1), ["without it"]);
    let answer = cluster.call(n(3), request(group, &Request::GetOffsets));
    assert_eq!(answer.header.command, Command::Response);
}
