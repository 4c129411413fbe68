//! Claims about retried requests.

use varve_consensus::event::Outcome;
use varve_protocol::id::{Op, RequestNumber};

use super::{change_view_without, claim, quietly};

#[test]
fn retry_returns_first_outcome() {
    claim("retry_returns_first_outcome", 3, |cluster| {
        let first = cluster.request_of(0, 9, 1);
        cluster.settle_without(&[2]);
        quietly(cluster, "r0 dies; r1 and r2 move to v1", |cluster| {
            cluster.crash(0, 0);
            change_view_without(cluster, 0, |_| false);
        });
        let again = cluster.request_of(1, 9, 1);
        assert_eq!(cluster.replies[&first], cluster.replies[&again]);
        assert_eq!(cluster.replica(1).head().op, Op::new(1));
    });
}

#[test]
fn retry_of_request_in_flight_waits_for_it() {
    claim("retry_of_request_in_flight_waits_for_it", 3, |cluster| {
        let first = cluster.request_of(0, 9, 1);
        let again = cluster.request_of(0, 9, 1);
        cluster.settle_without(&[2]);
        assert_eq!(cluster.replies[&first], cluster.replies[&again]);
        assert_eq!(cluster.replica(0).head().op, Op::new(1));
    });
}

#[test]
fn retry_of_inherited_request_waits_for_it() {
    claim("retry_of_inherited_request_waits_for_it", 3, |cluster| {
        let first = cluster.request_of(0, 9, 1);
        cluster.pass(0, 1);
        cluster.sync(1);
        quietly(
            cluster,
            "r0 dies before it commits; r1 leads v1, and r2 does not acknowledge yet",
            |cluster| {
                cluster.crash(0, 0);
                cluster.network.clear();
                change_view_without(cluster, 0, |cluster| cluster.replica(1).is_primary());
            },
        );
        let again = cluster.request_of(1, 9, 1);
        assert!(!cluster.replies.contains_key(&again));
        cluster.settle_without(&[0]);
        assert!(matches!(cluster.replies[&again], Outcome::Committed { op, .. } if op == Op::new(1)));
        assert!(!cluster.replies.contains_key(&first));
        assert_eq!(cluster.replica(1).head().op, Op::new(1));
    });
}

#[test]
fn skipped_requests_are_refused() {
    claim("skipped_requests_are_refused", 3, |cluster| {
        cluster.request_of(0, 9, 1);
        let skipped = cluster.request_of(0, 9, 3);
        let without_first = cluster.request_of(0, 8, 2);
        assert_eq!(cluster.replies[&skipped], Outcome::OutOfOrder { expected: RequestNumber::new(2) });
        assert_eq!(cluster.replies[&without_first], Outcome::OutOfOrder { expected: RequestNumber::new(1) });
        cluster.sessions.insert(9, 1);
        cluster.settle();
    });
}

#[test]
fn waiting_requests_are_told_that_the_view_ended() {
    claim("waiting_requests_are_told_that_the_view_ended", 3, |cluster| {
        let handle = cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.sync(0);
        quietly(cluster, "r1 and r2 move to v1", |cluster| change_view_without(cluster, 0, |_| false));
        cluster.pulse(1);
        cluster.pass(1, 0);
        cluster.settle();
        assert_eq!(cluster.replies[&handle], Outcome::ViewEnded);
    });
}
