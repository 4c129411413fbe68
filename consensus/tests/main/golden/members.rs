//! Claims about replicas that join a group, and leave it.

use std::time::Duration;

use varve_consensus::event::{Liveness, Outcome};
use varve_protocol::id::{Op, ReplicaIndex, View};

use super::{change_view_without, claim_of, quietly};
use crate::cluster::Cluster;

/// Op 1 commits everywhere, and another replica comes, takes the log, and is seated.
fn seat(cluster: &mut Cluster, node: usize) {
    quietly(cluster, &format!("op1 commits, r{node} comes, and is seated by op2"), |cluster| {
        cluster.request(0);
        cluster.settle();
        cluster.come(node);
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        cluster.join(0, node);
        settle_and_tell(cluster);
    });
    assert!(cluster.replica(node).is_admitted(), "it has a voice");
    assert!(
        !cluster.replica(0).is_member(ReplicaIndex::new(u8::try_from(node).unwrap())),
        "which does not count"
    );
}

/// The same, and it counts.
fn join(cluster: &mut Cluster, node: usize) {
    seat(cluster, node);
    quietly(cluster, "from op3 on it counts", |cluster| {
        cluster.join(0, node);
        settle_and_tell(cluster);
    });
}

/// A replica leaves, and all know.
fn leave(cluster: &mut Cluster, node: usize) {
    quietly(cluster, &format!("op1 commits, r{node} leaves by op2"), |cluster| {
        cluster.request(0);
        cluster.settle();
        cluster.leave(0, node);
        settle_and_tell(cluster);
    });
}

fn settle_and_tell(cluster: &mut Cluster) {
    cluster.settle();
    cluster.pulse(0);
    cluster.settle();
}

#[test]
fn who_joins_says_nothing_on_the_entry_that_lets_it() {
    claim_of("who_joins_says_nothing_on_the_entry_that_lets_it", Cluster::with_room(4, 5), |cluster| {
        seat(cluster, 4);
        let counted = cluster.join(0, 4);
        cluster.settle_without(&[2, 3]);
        assert_eq!(cluster.replica(4).durable().op, Op::new(3), "it holds it");
        assert!(!cluster.replies.contains_key(&counted), "three of five, but two of the four before it");
        quietly(cluster, "r2 hears of it", |cluster| {
            cluster.elapse(Duration::from_millis(200));
            cluster.settle_without(&[3]);
        });
        assert!(matches!(cluster.replies[&counted], Outcome::Committed { .. }), "r0, r1 and r2 are enough");
    });
}

#[test]
fn behind_its_entry_who_has_joined_counts() {
    claim_of("behind_its_entry_who_has_joined_counts", Cluster::with_room(3, 5), |cluster| {
        join(cluster, 3);
        let two = cluster.request(0);
        cluster.settle_without(&[1, 2]);
        assert!(!cluster.replies.contains_key(&two), "two of four");
        quietly(cluster, "r1 hears of it", |cluster| {
            cluster.elapse(Duration::from_millis(200));
            cluster.settle_without(&[2]);
        });
        assert!(matches!(cluster.replies[&two], Outcome::Committed { .. }), "three of four, r3 among them");
    });
}

#[test]
fn nothing_is_sealed_behind_a_change_that_is_pending() {
    claim_of("nothing_is_sealed_behind_a_change_that_is_pending", Cluster::with_room(3, 5), |cluster| {
        seat(cluster, 3);
        cluster.join(0, 3);
        let early = cluster.request(0);
        assert_eq!(cluster.replies[&early], Outcome::Busy);
        quietly(cluster, "the change commits", Cluster::settle);
        let later = cluster.request(0);
        quietly(cluster, "and goes on", Cluster::settle);
        assert!(matches!(cluster.replies[&later], Outcome::Committed { .. }));
    });
}

#[test]
fn who_leaves_has_a_word_in_it_and_those_who_stay_hold_it() {
    claim_of("who_leaves_has_a_word_in_it_and_those_who_stay_hold_it", Cluster::with_room(3, 3), |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            settle_and_tell(cluster);
        });
        let left = cluster.leave(0, 2);
        cluster.settle_without(&[1]);
        assert_eq!(cluster.replica(2).durable().op, Op::new(2));
        assert!(!cluster.replies.contains_key(&left), "two of three, and one of the two that stay");
        quietly(cluster, "r1 hears of it", |cluster| {
            cluster.elapse(Duration::from_millis(200));
            cluster.settle_without(&[2]);
        });
        assert!(matches!(cluster.replies[&left], Outcome::Committed { .. }), "both that stay hold it");
    });
}

#[test]
fn who_has_left_starts_no_view() {
    claim_of("who_has_left_starts_no_view", Cluster::with_room(3, 3), |cluster| {
        leave(cluster, 2);
        change_view_without(cluster, 0, |_| false);
        assert_eq!(cluster.replica(1).view(), View::ZERO, "one of two agrees, whatever r2 says");
    });
}

#[test]
fn views_pass_over_vacant_places() {
    claim_of("views_pass_over_vacant_places", Cluster::with_room(3, 5), |cluster| {
        leave(cluster, 1);
        quietly(cluster, "something is committed behind it, and r1 goes", |cluster| {
            cluster.request(0);
            settle_and_tell(cluster);
            cluster.go(1);
        });
        quietly(cluster, "r0 doubts itself", |cluster| {
            cluster.liveness(0, Liveness::Suspected);
            cluster.liveness(2, Liveness::Suspected);
        });
        cluster.settle();
        assert_eq!(cluster.replica(2).view(), View::new(2), "view 1 would be that of r1");
        assert!(cluster.replica(2).is_primary());
    });
}

#[test]
fn a_view_that_starts_behind_a_change_knows_it_to_be_committed() {
    let name = "a_view_that_starts_behind_a_change_knows_it_to_be_committed";
    claim_of(name, Cluster::with_room(1, 3), |cluster| {
        quietly(cluster, "r1 is seated by op1, and counts by op2", |cluster| {
            cluster.come(1);
            cluster.elapse(Duration::ZERO);
            cluster.settle();
            cluster.join(0, 1);
            settle_and_tell(cluster);
            cluster.join(0, 1);
            cluster.settle();
        });
        let waiting = cluster.request(0);
        quietly(cluster, "op3 is sealed by r0 and synced nowhere else; both start anew", |cluster| {
            cluster.sync(0);
            cluster.lose(0, 1);
            cluster.crash(0, 0);
            cluster.crash(1, 0);
            cluster.restart(0);
            cluster.restart(1);
        });
        assert!(!cluster.replies.contains_key(&waiting));
        cluster.elapse(Duration::from_millis(400));
        cluster.settle();
        assert_eq!(cluster.replica(1).head().op, Op::new(3), "r0 and r1 start with all that r0 holds");
    });
}
