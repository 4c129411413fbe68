//! Replicas whose disk has lost the end of their log.

use std::time::Duration;

use varve_consensus::Status;
use varve_consensus::event::Liveness;
use varve_protocol::id::{Op, View};
use varve_protocol::message::Message;

use super::{change_view_without, claim, quietly};
use crate::cluster::{Cluster, Envelope};

/// op1 is committed by r0 and r2; r1 has heard nothing.
fn commit_without_r1(cluster: &mut Cluster) {
    cluster.request(0);
    cluster.settle_without(&[1]);
}

#[test]
fn torn_replica_does_not_tell_its_log() {
    claim("torn_replica_does_not_tell_its_log", 3, |cluster| {
        quietly(cluster, "op1 commits at r0 and r2", commit_without_r1);
        cluster.crash(0, 0);
        cluster.tear(2, 1);
        cluster.restart(2);
        cluster.liveness(1, Liveness::Suspected);
        cluster.liveness(2, Liveness::Suspected);
        cluster.elapse(Duration::from_millis(500));
        cluster.settle_without(&[0]);
        assert!((1..3).all(|node| cluster.replica(node).status() != Status::Normal));
        cluster.restart(0);
        quietly(cluster, "r0 is back", |cluster| cluster.heal());
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(1)));
    });
}

#[test]
fn torn_replica_takes_no_older_start_view() {
    claim("torn_replica_takes_no_older_start_view", 3, |cluster| {
        let mut older = None;
        quietly(
            cluster,
            "r1 leads v1; a start_view to r2 is late; then op1 commits at r1 and r2",
            |cluster| {
                change_view_without(cluster, 0, |_| false);
                older = Some(Message::StartView {
                    view: View::new(1),
                    commit: cluster.replica(1).commit(),
                    head: Op::ZERO,
                    suffix: Vec::new(),
                    nonce: 0,
                });
                cluster.request(1);
                cluster.settle_without(&[0]);
            },
        );
        cluster.tear(2, 1);
        cluster.restart(2);
        let message = older.expect("the course above was taken");
        cluster.network.push(Envelope { from: 1, to: 2, message });
        cluster.pass(1, 2);
        cluster.sync(2);
        assert!(cluster.replica(2).is_torn(), "it may have held more than that");
        cluster.elapse(Duration::ZERO);
        cluster.settle_without(&[0]);
        assert!(!cluster.replica(2).is_torn());
        assert_eq!(cluster.replica(2).durable().op, Op::new(1));
    });
}

#[test]
fn torn_replica_is_whole_in_a_later_view() {
    claim("torn_replica_is_whole_in_a_later_view", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            cluster.settle();
        });
        cluster.tear(0, 1);
        change_view_without(cluster, 0, |_| false);
        cluster.restart(0);
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        assert!(!cluster.replica(0).is_torn());
        assert_eq!(cluster.replica(0).view(), View::new(1));
        assert_eq!(cluster.replica(0).durable().op, Op::new(1));
    });
}

#[test]
fn torn_replica_is_followed_to_its_view() {
    claim("torn_replica_is_followed_to_its_view", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere; r2 alone enters v1", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.liveness(2, Liveness::Suspected);
            cluster.liveness(1, Liveness::Suspected);
            cluster.lose(1, 0);
            cluster.pass(1, 2);
            cluster.sync(2);
            cluster.network.clear();
            cluster.liveness(1, Liveness::Heard);
        });
        assert_eq!(cluster.replica(2).view(), View::new(1));
        cluster.tear(2, 1);
        cluster.restart(2);
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        assert!((0..3).all(|node| cluster.replica(node).view() == View::new(1)));
        assert!((0..3).all(|node| cluster.replica(node).status() == Status::Normal));
        assert!(!cluster.replica(2).is_torn());
    });
}
