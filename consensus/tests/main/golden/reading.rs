//! Claims about reads that must not be late.

use std::time::Duration;

use varve_consensus::event::{Liveness, Outcome, ReadOutcome};
use varve_protocol::id::{Op, View};
use varve_protocol::message::Message;

use super::{change_view_without, claim, quietly};
use crate::cluster::Cluster;

/// One more copy of a message that is under way between two nodes.
fn repeat(cluster: &mut Cluster, from: usize, to: usize) {
    let sent = cluster.network.iter().find(|sent| (sent.from, sent.to) == (from, to));
    let copy = sent.expect("a message is under way").clone();
    cluster.network.push(copy);
}

#[test]
fn read_is_confirmed_by_a_quorum() {
    claim("read_is_confirmed_by_a_quorum", 3, |cluster| {
        quietly(cluster, "op1 is committed", |cluster| {
            cluster.request(0);
            cluster.settle();
        });
        let read = cluster.read(0);
        assert!(!cluster.reads.contains_key(&read), "nobody has confirmed anything");
        cluster.pass(0, 1);
        cluster.pass(1, 0);
        assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed);
        assert_eq!(cluster.replica(0).next_timeout(), None, "nobody waits any more");
        let elsewhere = cluster.read(2);
        assert_eq!(cluster.reads[&elsewhere], ReadOutcome::NotPrimary);
    });
}

#[test]
fn read_of_a_single_replica_is_answered_at_once() {
    claim("read_of_a_single_replica_is_answered_at_once", 1, |cluster| {
        cluster.request(0);
        cluster.settle();
        let read = cluster.read(0);
        assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed);
    });
}

#[test]
fn reads_that_come_during_a_round_ride_on_the_next() {
    claim("reads_that_come_during_a_round_ride_on_the_next", 3, |cluster| {
        let first = cluster.read(0);
        cluster.pass(0, 1);
        let later = [cluster.read(0), cluster.read(0)];
        cluster.pass(1, 0);
        assert_eq!(cluster.reads[&first], ReadOutcome::Confirmed);
        assert!(
            later.iter().all(|read| !cluster.reads.contains_key(read)),
            "the answer is older than they are"
        );
        cluster.settle_without(&[2]);
        assert!(later.iter().all(|read| cluster.reads[read] == ReadOutcome::Confirmed));
    });
}

#[test]
fn answer_to_an_older_round_does_not_count() {
    claim("answer_to_an_older_round_does_not_count", 3, |cluster| {
        cluster.read(0);
        cluster.pass(0, 1);
        cluster.pass(0, 2);
        cluster.pass(1, 0);
        let later = cluster.read(0);
        cluster.pass(2, 0);
        assert!(!cluster.reads.contains_key(&later), "r2 answered what was asked before");
        cluster.settle();
        assert_eq!(cluster.reads[&later], ReadOutcome::Confirmed);
    });
}

#[test]
fn answer_that_comes_twice_counts_once() {
    claim("answer_that_comes_twice_counts_once", 5, |cluster| {
        let read = cluster.read(0);
        cluster.pass(0, 1);
        repeat(cluster, 1, 0);
        cluster.pass(1, 0);
        cluster.pass(1, 0);
        assert!(!cluster.reads.contains_key(&read), "two of five are no quorum");
        cluster.pass(0, 3);
        cluster.pass(3, 0);
        assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed);
    });
}

#[test]
fn primary_that_was_replaced_confirms_nothing() {
    claim("primary_that_was_replaced_confirms_nothing", 3, |cluster| {
        quietly(cluster, "r0 is cut off; the others go on without it, and it does not know", |cluster| {
            change_view_without(cluster, 0, |_| false);
            cluster.request(1);
            cluster.settle_without(&[0]);
            cluster.network.clear();
        });
        assert_eq!((cluster.replica(1).commit().op, cluster.replica(0).is_primary()), (Op::new(1), true));
        let read = cluster.read(0);
        cluster.lose(0, 1);
        cluster.elapse(Duration::from_millis(75));
        cluster.pass(0, 2);
        cluster.pass(0, 2);
        assert!(!cluster.reads.contains_key(&read), "r2 has left that view");
        cluster.pass(2, 0);
        cluster.pass(0, 1);
        cluster.settle();
        assert_eq!(cluster.reads[&read], ReadOutcome::NotPrimary);
        let elsewhere = cluster.read(1);
        cluster.settle();
        assert_eq!(cluster.reads[&elsewhere], ReadOutcome::Confirmed);
    });
}

#[test]
fn replica_that_changes_views_confirms_nothing() {
    claim("replica_that_changes_views_confirms_nothing", 3, |cluster| {
        let read = cluster.read(0);
        quietly(cluster, "r1 and r2 leave view 0 before they are asked", |cluster| {
            let asked = std::mem::take(&mut cluster.network);
            change_view_without(cluster, 0, |cluster| {
                [1, 2].iter().all(|node| cluster.replica(*node).view() == View::new(1))
            });
            cluster.network = asked;
        });
        cluster.pass(0, 1);
        cluster.pass(0, 2);
        assert!(cluster.network.is_empty(), "nobody answers");
        assert!(!cluster.reads.contains_key(&read));
    });
}

#[test]
fn read_is_refused_when_nobody_confirms_it() {
    claim("read_is_refused_when_nobody_confirms_it", 3, |cluster| {
        let read = cluster.read(0);
        quietly(cluster, "all that r0 asks is lost", |cluster| {
            for _ in 0..10 {
                cluster.network.clear();
                cluster.elapse(Duration::from_millis(75));
            }
        });
        assert_eq!(cluster.reads[&read], ReadOutcome::NotPrimary);
        assert_eq!(cluster.replica(0).next_timeout(), None, "nobody waits any more");
        let again = cluster.read(0);
        cluster.settle();
        assert_eq!(cluster.reads[&again], ReadOutcome::Confirmed);
    });
}

#[test]
fn read_is_refused_by_a_primary_without_a_quorum() {
    claim("read_is_refused_by_a_primary_without_a_quorum", 3, |cluster| {
        let read = cluster.read(0);
        let waiting = cluster.read(0);
        cluster.liveness(0, Liveness::Suspected);
        assert_eq!(cluster.reads[&read], ReadOutcome::NotPrimary);
        assert_eq!(cluster.reads[&waiting], ReadOutcome::NotPrimary);
        let later = cluster.read(0);
        assert_eq!(cluster.reads[&later], ReadOutcome::NotPrimary);
        cluster.liveness(0, Liveness::Heard);
        cluster.pass(0, 1);
        cluster.pass(1, 0);
    });
}

#[test]
fn read_is_refused_when_the_view_ends() {
    claim("read_is_refused_when_the_view_ends", 3, |cluster| {
        let read = cluster.read(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        change_view_without(cluster, 0, |cluster| {
            cluster
                .network
                .iter()
                .any(|sent| sent.to == 0 && matches!(sent.message, Message::DoViewChange { .. }))
        });
        while cluster.replica(0).view() == View::ZERO {
            cluster.deliver(0);
        }
        assert_eq!(cluster.reads[&read], ReadOutcome::NotPrimary);
    });
}

#[test]
fn read_waits_for_the_log_that_the_view_started_with() {
    claim("read_waits_for_the_log_that_the_view_started_with", 3, |cluster| {
        let handle = cluster.request(0);
        cluster.pass(0, 1);
        cluster.pass(0, 2);
        cluster.sync(0);
        cluster.sync(1);
        cluster.sync(2);
        cluster.pass(1, 0);
        assert!(matches!(cluster.replies[&handle], Outcome::Committed { .. }));
        quietly(
            cluster,
            "r0 is gone with that; r1 leads, and does not know that op1 is committed",
            |cluster| {
                cluster.network.clear();
                change_view_without(cluster, 0, |cluster| cluster.replica(2).log_view() == View::new(1));
            },
        );
        assert!(cluster.replica(1).is_primary() && cluster.replica(1).commit().op == Op::ZERO);
        cluster.lose(2, 1);
        let read = cluster.read(1);
        assert!(!cluster.reads.contains_key(&read) && cluster.network.iter().all(|sent| sent.from != 1));
        cluster.elapse(Duration::from_millis(150));
        cluster.settle_without(&[0]);
        assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed);
        assert_eq!(cluster.replica(1).commit().op, Op::new(1));
    });
}

#[test]
fn reads_beyond_the_limit_are_busy() {
    claim("reads_beyond_the_limit_are_busy", 3, |cluster| {
        quietly(cluster, "1024 reads wait", |cluster| {
            for _ in 0..1024 {
                cluster.read(0);
            }
        });
        let refused = cluster.read(0);
        assert_eq!(cluster.reads[&refused], ReadOutcome::Busy);
        quietly(cluster, "and are answered after two rounds", Cluster::settle);
        assert_eq!(
            cluster.reads.values().filter(|outcome| **outcome == ReadOutcome::Confirmed).count(),
            1024
        );
    });
}
