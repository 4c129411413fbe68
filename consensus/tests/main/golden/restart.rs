//! Claims about coming back.

use std::time::Duration;

use varve_consensus::Status;
use varve_protocol::id::{Op, View};
use varve_protocol::message::Message;

use super::{change_view_without, claim, quietly};
use crate::cluster::Envelope;

#[test]
fn restarted_primary_does_not_resume() {
    claim("restarted_primary_does_not_resume", 3, |cluster| {
        cluster.request(0);
        cluster.pass(0, 1);
        cluster.lose(0, 2);
        cluster.crash(0, 0);
        cluster.sync(1);
        cluster.restart(0);
        assert_eq!(cluster.replica(0).status(), Status::Recovering);
        cluster.settle();
        assert_eq!(cluster.replica(0).view(), View::new(1));
        assert_eq!(cluster.replica(1).commit().op, Op::new(1));
    });
}

#[test]
fn restarted_backup_is_told_the_view() {
    claim("restarted_backup_is_told_the_view", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.pulse(0);
            cluster.settle();
        });
        cluster.crash(2, 0);
        cluster.restart(2);
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        assert_eq!(cluster.replica(2).status(), Status::Normal);
        assert_eq!(cluster.replica(2).commit().op, Op::new(1));
    });
}

#[test]
fn old_start_view_cuts_nothing() {
    claim("old_start_view_cuts_nothing", 3, |cluster| {
        quietly(cluster, "r1 and r2 move to v1; a start_view to r2 is late", |cluster| {
            change_view_without(cluster, 0, |_| false);
            cluster.restart(0);
            let message = Message::StartView {
                view: View::new(1),
                commit: cluster.replica(1).commit(),
                head: Op::ZERO,
                suffix: Vec::new(),
                nonce: 0,
            };
            cluster.network.push(Envelope { from: 1, to: 2, message });
            let late = std::mem::take(&mut cluster.network);
            cluster.request(1);
            cluster.settle_without(&[0]);
            cluster.network = late;
        });
        cluster.crash(2, 0);
        cluster.restart(2);
        cluster.pass(1, 2);
        assert_eq!(cluster.replica(2).head().op, Op::new(1));
        cluster.settle_without(&[0]);
    });
}

#[test]
fn whole_cluster_restart_recovers() {
    claim("whole_cluster_restart_recovers", 3, |cluster| {
        quietly(cluster, "op1 commits at r0; then all die", |cluster| {
            cluster.request(0);
            cluster.settle();
        });
        for node in 0..3 {
            cluster.crash(node, 0);
        }
        for node in 0..3 {
            cluster.restart(node);
        }
        cluster.settle();
        assert!((0..3).all(|node| cluster.replica(node).status() == Status::Normal));
        assert_eq!(cluster.replica(1).commit().op, Op::new(1));
    });
}
