//! Groups that acknowledge from memory, and what becomes of replicas that stop uncleanly in them.

use std::time::Duration;

use varve_consensus::Status;
use varve_consensus::event::Liveness;
use varve_protocol::durability::Durability;
use varve_protocol::id::{Op, View};
use varve_protocol::message::Message;

use super::{change_view_without, claim_with, quietly};
use crate::cluster::{Cluster, Envelope};

fn claim(name: &str, story: impl FnOnce(&mut Cluster)) {
    claim_with(name, 3, Durability::QuorumMemory, story);
}

/// op1 is committed, and so everybody has said on its disk that it acknowledges early.
fn commit_first(cluster: &mut Cluster) {
    cluster.request(0);
    cluster.settle();
    cluster.pulse(0);
    cluster.settle();
}

/// One more commits in the memories of these alone.
fn commit_without(cluster: &mut Cluster, without: usize) {
    let primary = cluster.primary();
    cluster.request(primary);
    cluster.settle_without(&[without]);
}

#[test]
fn memory_commits_before_any_sync() {
    claim("memory_commits_before_any_sync", |cluster| {
        quietly(cluster, "op1 commits, and everybody has its mark", commit_first);
        cluster.request(0);
        cluster.settle();
        assert_eq!(cluster.replica(0).commit().op, Op::new(2));
        assert!((0..3).all(|node| cluster.replica(node).durable().op == Op::ZERO));
        cluster.elapse(Duration::from_millis(100));
        cluster.settle();
        assert!((0..3).all(|node| cluster.replica(node).durable().op == Op::new(2)));
    });
}

#[test]
fn memory_acknowledges_nothing_before_its_mark() {
    claim("memory_acknowledges_nothing_before_its_mark", |cluster| {
        cluster.request(0);
        cluster.pass(0, 1);
        cluster.lose(0, 2);
        assert!(
            cluster.network.is_empty(),
            "nothing is acknowledged before the disk says that it may be lost"
        );
        cluster.sync(1);
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO, "nor does the primary count itself");
        cluster.sync(0);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
    });
}

#[test]
fn memory_replica_is_silent_after_an_unclean_stop() {
    claim("memory_replica_is_silent_after_an_unclean_stop", |cluster| {
        quietly(cluster, "op2 commits in the memories of r0 and r2; then r0 is cut off", |cluster| {
            commit_first(cluster);
            commit_without(cluster, 1);
        });
        cluster.crash(2, 0);
        cluster.restart(2);
        cluster.liveness(1, Liveness::Suspected);
        cluster.elapse(Duration::from_millis(500));
        cluster.settle_without(&[0]);
        assert!(cluster.replica(2).is_torn() && cluster.replica(2).status() != Status::Normal);
        assert!(!cluster.replica(1).is_primary() && !cluster.replica(2).is_primary());
        quietly(cluster, "r0 is heard again", Cluster::heal);
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(2)));
    });
}

#[test]
fn memory_replica_is_told_the_log_by_its_primary() {
    claim("memory_replica_is_told_the_log_by_its_primary", |cluster| {
        let mut older = None;
        quietly(cluster, "a start_view of v0 to r2 is late; op2 commits at r0 and r2", |cluster| {
            commit_first(cluster);
            older = Some(Message::StartView {
                view: View::ZERO,
                commit: cluster.replica(0).commit(),
                head: Op::new(1),
                suffix: vec![*cluster.oracle.committed.first().expect("op1 is committed")],
                nonce: 0,
            });
            commit_without(cluster, 1);
        });
        cluster.crash(2, 0);
        cluster.restart(2);
        let message = older.expect("the course above was taken");
        cluster.network.push(Envelope { from: 0, to: 2, message });
        cluster.pass(0, 2);
        cluster.sync(2);
        assert!(cluster.replica(2).is_torn(), "it may have acknowledged more than that");
        cluster.elapse(Duration::ZERO);
        cluster.settle_without(&[1]);
        assert!(!cluster.replica(2).is_torn());
        assert_eq!(
            cluster.replica(2).durable().op,
            Op::new(2),
            "what it is told it syncs before it has a voice"
        );
    });
}

#[test]
fn memory_replica_believes_no_primary_of_an_older_view() {
    claim("memory_replica_believes_no_primary_of_an_older_view", |cluster| {
        quietly(
            cluster,
            "r1 leads v1 and commits op2 with r2; r0 is cut off and leads v0 still",
            |cluster| {
                commit_first(cluster);
                change_view_without(cluster, 0, |_| false);
                commit_without(cluster, 0);
            },
        );
        assert!(cluster.replica(0).is_primary() && cluster.replica(0).view() == View::ZERO);
        cluster.crash(2, 0);
        cluster.restart(2);
        cluster.elapse(Duration::ZERO);
        cluster.lose(2, 1);
        cluster.pass(2, 0);
        assert_eq!(
            cluster.replica(0).view(),
            View::new(1),
            "the question tells the old primary that it is one"
        );
        cluster.settle_without(&[1]);
        assert!(cluster.replica(2).is_torn() && cluster.replica(0).status() != Status::Normal);
        quietly(cluster, "r1 is heard again", Cluster::heal);
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(2)));
    });
}

#[test]
fn memory_primary_comes_back_as_a_backup() {
    claim("memory_primary_comes_back_as_a_backup", |cluster| {
        quietly(cluster, "op2 commits in the memories of r0 and r2", |cluster| {
            commit_first(cluster);
            commit_without(cluster, 1);
        });
        cluster.crash(0, 0);
        cluster.restart(0);
        quietly(cluster, "r1 and r2 miss it", |cluster| change_view_without(cluster, 0, |_| false));
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        assert!(!cluster.replica(0).is_torn() && !cluster.replica(0).is_primary());
        assert_eq!(cluster.replica(0).durable().op, Op::new(2));
    });
}

#[test]
fn memory_stop_in_order_leaves_no_doubt() {
    claim("memory_stop_in_order_leaves_no_doubt", |cluster| {
        quietly(cluster, "op1 and op2 commit in memory", |cluster| {
            commit_first(cluster);
            commit_without(cluster, 1);
        });
        for node in 0..3 {
            cluster.stop(node);
        }
        for node in 0..3 {
            cluster.restart(node);
            assert!(!cluster.replica(node).is_torn());
        }
        quietly(cluster, "the group comes back by itself", Cluster::heal);
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(2)));
    });
}

#[test]
fn memory_at_rest_survives_a_power_failure() {
    claim("memory_at_rest_survives_a_power_failure", |cluster| {
        quietly(cluster, "op1 commits in memory", commit_first);
        cluster.elapse(Duration::from_millis(100));
        cluster.settle();
        cluster.elapse(Duration::from_millis(300));
        cluster.settle();
        cluster.crash_all();
        for node in 0..3 {
            cluster.restart(node);
            assert!(!cluster.replica(node).is_torn(), "all is synced, and the disk says so");
        }
        quietly(cluster, "the group comes back by itself", Cluster::heal);
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(1)));
    });
}

#[test]
fn memory_mark_stays_while_something_is_not_synced() {
    claim("memory_mark_stays_while_something_is_not_synced", |cluster| {
        quietly(cluster, "op1 commits in memory, and no disk takes anything from then on", commit_first);
        cluster.elapse(Duration::from_millis(400));
        cluster.elapse(Duration::from_millis(400));
        assert!((0..3).all(|node| cluster.replica(node).durable().op == Op::ZERO));
        cluster.crash(2, 99);
        cluster.restart(2);
        assert!(cluster.replica(2).is_torn(), "what became of the sync it cannot know");
        quietly(cluster, "the others tell it", Cluster::heal);
        assert!(!cluster.replica(2).is_torn());
    });
}

#[test]
fn memory_power_failure_of_all_waits_for_an_operator() {
    claim("memory_power_failure_of_all_waits_for_an_operator", |cluster| {
        quietly(cluster, "op1 commits in memory; only r1 has synced it", |cluster| {
            commit_first(cluster);
            cluster.elapse(Duration::from_millis(100));
            cluster.sync(1);
        });
        cluster.crash_all();
        quietly(cluster, "they start again, and ask each other for a while", |cluster| {
            for node in 0..3 {
                cluster.restart(node);
            }
            for _ in 0..20 {
                cluster.settle();
                cluster.elapse(Duration::from_millis(300));
            }
        });
        for node in 0..3 {
            assert!(cluster.replica(node).is_restart_unsafe(), "r{node} says why it waits");
            assert_ne!(cluster.replica(node).status(), Status::Normal);
        }
        cluster.network.clear();
        cluster.force(1);
        cluster.force(0);
        quietly(cluster, "the group goes on with what r0 and r1 have", Cluster::heal);
        assert!((0..3).all(|node| cluster.replica(node).commit().op == Op::new(1)));
    });
}
