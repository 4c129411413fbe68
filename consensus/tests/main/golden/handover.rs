//! Claims about primaries that go: at the operator's wish, or because nothing moves.

use std::time::Duration;

use varve_consensus::event::Outcome;
use varve_protocol::id::{Op, View};

use super::{claim, quietly};

#[test]
fn handover_waits_for_the_window_and_skips_views() {
    claim("handover_waits_for_the_window_and_skips_views", 3, |cluster| {
        let waiting = cluster.request(0);
        cluster.hand_over(0, 2);
        let refused = cluster.request(0);
        assert_eq!(cluster.replies[&refused], Outcome::Busy);
        cluster.settle();
        assert!(matches!(cluster.replies[&waiting], Outcome::Committed { .. }));
        assert_eq!((cluster.primary(), cluster.replica(2).view()), (2, View::new(2)));
    });
}

#[test]
fn handover_is_joined_by_a_quorum_of_five() {
    claim("handover_is_joined_by_a_quorum_of_five", 5, |cluster| {
        cluster.hand_over(0, 3);
        cluster.settle();
        assert_eq!((cluster.primary(), cluster.replica(3).view()), (3, View::new(3)));
    });
}

#[test]
fn handover_answers_retries_meanwhile() {
    claim("handover_answers_retries_meanwhile", 3, |cluster| {
        cluster.request_of(0, 9, 1);
        cluster.settle();
        let waiting = cluster.request_of(0, 9, 2);
        cluster.hand_over(0, 1);
        let again = [1, 2].map(|request| cluster.request_of(0, 9, request));
        assert!(matches!(cluster.replies[&again[0]], Outcome::Committed { op, .. } if op == Op::new(1)));
        cluster.settle();
        assert_eq!(cluster.replies[&again[1]], cluster.replies[&waiting]);
        assert_eq!(cluster.primary(), 1);
    });
}

#[test]
fn handover_that_nobody_takes_is_given_up() {
    claim("handover_that_nobody_takes_is_given_up", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.hand_over(0, 1);
        cluster.settle_without(&[1]);
        let refused = cluster.request(0);
        assert_eq!(cluster.replies[&refused], Outcome::Busy);
        cluster.elapse(Duration::from_millis(1500));
        let taken = cluster.request(0);
        cluster.settle_without(&[1]);
        assert!(matches!(cluster.replies[&taken], Outcome::Committed { .. }));
        assert_eq!(cluster.replica(0).view(), View::ZERO);
    });
}

#[test]
fn handover_to_one_far_behind_is_refused() {
    claim("handover_to_one_far_behind_is_refused", 3, |cluster| {
        quietly(cluster, "r2 misses 65 ops", |cluster| {
            for _ in 0..65 {
                cluster.request(0);
                cluster.settle_without(&[2]);
            }
        });
        cluster.hand_over(0, 2);
        let taken = cluster.request(0);
        assert!(!cluster.replies.contains_key(&taken), "it is sealed, not refused");
        cluster.settle_without(&[2]);
        assert_eq!(cluster.replica(0).commit().op, Op::new(66));
    });
}

#[test]
fn primary_whose_disk_hangs_gives_way() {
    claim("primary_whose_disk_hangs_gives_way", 3, |cluster| {
        quietly(cluster, "r0 cannot write; r1 and r2 commit without it", |cluster| {
            cluster.request(0);
            while !cluster.replica(2).commit().op.eq(&Op::new(1)) {
                while !cluster.network.is_empty() {
                    cluster.deliver(0);
                }
                cluster.sync(1);
                cluster.sync(2);
                cluster.pulse(0);
            }
            cluster.network.clear();
        });
        cluster.elapse(Duration::from_secs(8));
        let refused = cluster.request(0);
        assert_eq!(cluster.replies[&refused], Outcome::NotPrimary);
        cluster.pass(0, 1);
        cluster.pass(0, 2);
        cluster.pass(1, 2);
        cluster.sync(1);
        cluster.sync(2);
        cluster.settle_without(&[0]);
        assert!(cluster.replica(1).is_primary());
    });
}

#[test]
fn primary_whose_prepares_vanish_gives_way() {
    claim("primary_whose_prepares_vanish_gives_way", 3, |cluster| {
        let handle = cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.sync(0);
        quietly(cluster, "all that r0 repeats is lost, for seconds", |cluster| {
            for _ in 0..80 {
                cluster.elapse(Duration::from_millis(100));
                cluster.network.clear();
            }
        });
        assert_eq!(cluster.replies[&handle], Outcome::ViewEnded);
        cluster.elapse(Duration::from_millis(100));
        cluster.settle();
        assert_eq!(cluster.primary(), 1);
    });
}
