//! Claims about logs that let go of what is old, and about replicas that lack it.

use std::time::Duration;

use varve_consensus::Status;
use varve_consensus::event::{Liveness, Outcome};
use varve_protocol::id::{Op, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::message::Message;

use super::{claim, quietly};
use crate::cluster::{Cluster, Envelope};

/// Ops 1 to 5 commit at all but r2, and the others let go of what is before op 5.
fn let_go_without(cluster: &mut Cluster) {
    quietly(cluster, "r2 hears nothing of op1 to op5; the others let go of what is before op5", |cluster| {
        for _ in 0..5 {
            cluster.request(0);
            cluster.settle_without(&[2]);
        }
        let moved = cluster.move_log_start(0, 1);
        cluster.settle_without(&[2]);
        cluster.pulse(0);
        cluster.settle_without(&[2]);
        assert!(matches!(cluster.replies[&moved], Outcome::Committed { .. }));
        let (commit, start) = (cluster.replica(0).commit().op, cluster.replica(1).log_start());
        assert_eq!(start.op, commit.previous());
    });
}

/// Everything arrives until a snapshot is under way.
fn until_snapshot(cluster: &mut Cluster) {
    cluster.settle_until(&[1], |cluster| {
        cluster.network.iter().any(|sent| matches!(sent.message, Message::Snapshot { .. }))
    });
    cluster.network.retain(|sent| matches!(sent.message, Message::Snapshot { .. }));
}

/// The primary tells r2 its commit, which is far from what r2 has, and sends it nothing more.
fn wake(cluster: &mut Cluster) {
    cluster.pulse(0);
    cluster.lose(0, 1);
    cluster.pass(0, 2);
    cluster.elapse(Duration::from_millis(800));
}

#[test]
fn log_start_moves_when_it_is_committed() {
    claim("log_start_moves_when_it_is_committed", 3, |cluster| {
        quietly(cluster, "op1 and op2 commit", |cluster| {
            cluster.request(0);
            cluster.request(0);
            cluster.settle();
        });
        cluster.move_log_start(0, 1);
        assert_eq!(cluster.replica(0).log_start(), LogStart::FIRST, "one replica wants it, no more");
        cluster.settle_without(&[2]);
        assert_eq!(cluster.replica(0).log_start().op, Op::new(2));
        assert_eq!(cluster.replica(1).log_start(), LogStart::FIRST, "it does not know of the commit");
        cluster.pulse(0);
        cluster.settle_without(&[2]);
        assert_eq!(cluster.replica(1).log_start(), cluster.replica(0).log_start());
    });
}

#[test]
fn log_start_never_goes_back() {
    claim("log_start_never_goes_back", 1, |cluster| {
        for _ in 0..3 {
            cluster.request(0);
            cluster.settle();
        }
        for kept in [1, 3] {
            cluster.move_log_start(0, kept);
            cluster.settle();
            assert_eq!(cluster.replica(0).log_start().op, Op::new(3), "an earlier start moves nothing");
        }
    });
}

#[test]
fn replica_that_lacks_what_was_let_go_takes_a_snapshot() {
    claim("replica_that_lacks_what_was_let_go_takes_a_snapshot", 3, |cluster| {
        let_go_without(cluster);
        wake(cluster);
        cluster.settle();
        assert_eq!(cluster.replica(2).commit(), cluster.replica(0).commit());
        assert_eq!(cluster.replica(2).log_start().op, Op::new(5));
    });
}

#[test]
fn snapshot_is_durable_before_anything_is_said_of_it() {
    claim("snapshot_is_durable_before_anything_is_said_of_it", 3, |cluster| {
        let_go_without(cluster);
        wake(cluster);
        until_snapshot(cluster);
        cluster.pass(0, 2);
        assert_eq!(cluster.replica(2).commit().op, Op::new(4));
        cluster.network.clear();
        let says = |cluster: &Cluster| {
            let of_r2 = cluster.network.iter().filter(|sent| sent.from == 2);
            of_r2.filter(|sent| matches!(sent.message, Message::PrepareOk { .. })).count()
        };
        let commit = cluster.replica(0).commit();
        let prepare = cluster.oracle.prepare(Op::new(4));
        let message = Message::Prepare { view: View::ZERO, commit, prepare };
        cluster.network.push(Envelope { from: 0, to: 2, message });
        cluster.pass(0, 2);
        assert_eq!(says(cluster), 0, "a crash would take it away");
        cluster.sync(2);
        assert_eq!(says(cluster), 1, "now it is there");
    });
}

#[test]
fn crash_before_a_snapshot_is_durable_leaves_the_old_log() {
    claim("crash_before_a_snapshot_is_durable_leaves_the_old_log", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            cluster.settle();
        });
        let_go_without(cluster);
        wake(cluster);
        until_snapshot(cluster);
        cluster.pass(0, 2);
        cluster.crash(2, 0);
        cluster.restart(2);
        assert_eq!(
            (cluster.replica(2).head().op, cluster.replica(2).status()),
            (Op::new(1), Status::Recovering)
        );
        quietly(cluster, "it takes a newer one", Cluster::heal);
        assert_eq!(cluster.replica(2).commit(), cluster.replica(0).commit());
    });
}

#[test]
fn snapshot_takes_the_place_of_what_conflicts_with_it() {
    claim("snapshot_takes_the_place_of_what_conflicts_with_it", 3, |cluster| {
        quietly(
            cluster,
            "r0 seals op1 to op6 alone; r1 leads, and lets go of others in their place",
            |cluster| {
                for _ in 0..6 {
                    cluster.request(0);
                }
                cluster.network.clear();
                cluster.sync(0);
                [1, 2].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
                cluster.settle_without(&[0]);
                assert_eq!(cluster.primary(), 1);
                for _ in 0..5 {
                    cluster.request(1);
                    cluster.settle_without(&[0]);
                }
                cluster.move_log_start(1, 1);
                cluster.settle_without(&[0]);
            },
        );
        cluster.pulse(1);
        cluster.lose(1, 2);
        cluster.settle();
        assert_eq!(cluster.replica(0).view(), View::new(1));
        assert_eq!(cluster.replica(0).head(), cluster.replica(1).head());
        assert_eq!(cluster.replica(0).log_start().op, Op::new(5));
    });
}

#[test]
fn snapshot_of_what_is_here_is_ignored() {
    claim("snapshot_of_what_is_here_is_ignored", 3, |cluster| {
        let_go_without(cluster);
        wake(cluster);
        until_snapshot(cluster);
        let late = cluster.network[0].clone();
        quietly(cluster, "r2 catches up", |cluster| {
            cluster.settle();
            cluster.elapse(Duration::from_millis(200));
            cluster.settle();
        });
        let before = cluster.replica(2).head();
        cluster.network.push(late);
        cluster.settle();
        assert_eq!(cluster.replica(2).head(), before);
        assert_eq!(cluster.replica(2).commit(), before);
    });
}

#[test]
fn log_start_of_an_entry_that_was_cut_moves_nothing() {
    claim("log_start_of_an_entry_that_was_cut_moves_nothing", 3, |cluster| {
        quietly(
            cluster,
            "op1 and op2 commit; r0 alone wants to let go of op1; r1 leads others in place of that",
            |cluster| {
                cluster.request(0);
                cluster.request(0);
                cluster.settle();
                cluster.move_log_start(0, 1);
                cluster.network.clear();
                cluster.sync(0);
                [1, 2].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
                cluster.settle_without(&[0]);
                cluster.request(1);
                cluster.settle_without(&[0]);
                assert_eq!((cluster.primary(), cluster.replica(0).head().op), (1, Op::new(3)));
            },
        );
        cluster.pulse(1);
        cluster.lose(1, 2);
        cluster.settle();
        assert_eq!(cluster.replica(0).commit(), cluster.replica(1).commit());
        assert_eq!(cluster.replica(0).log_start(), LogStart::FIRST, "nobody has committed that");
    });
}
