//! Replicas that come back after more prepares than a message, a window or the core's memory holds.

use varve_consensus::event::{Liveness, Outcome};
use varve_protocol::id::{Op, View};
use varve_protocol::limits::HEADERS_PER_MESSAGE_MAX;

use crate::cluster::Cluster;
use crate::schedule::heal_and_work;

const FAR: u64 = 2 * HEADERS_PER_MESSAGE_MAX as u64 + 100;

/// `node` is down while the others commit a long way.
fn leave_behind(cluster: &mut Cluster, node: usize) {
    cluster.crash(node, 0);
    for _ in 0..FAR {
        cluster.request(0);
        cluster.settle();
    }
    assert_eq!(cluster.replica(0).commit().op, Op::new(FAR));
    cluster.restart(node);
}

#[test]
fn a_backup_far_behind_catches_up() {
    let mut cluster = Cluster::new(3);
    leave_behind(&mut cluster, 2);
    heal_and_work(&mut cluster);
    assert_eq!(cluster.replica(0).view(), View::ZERO);
}

#[test]
fn a_new_primary_far_behind_forfeits_to_one_that_holds_the_log() {
    let mut cluster = Cluster::new(3);
    leave_behind(&mut cluster, 1);
    cluster.crash(0, 0);
    cluster.liveness(1, Liveness::Suspected);
    cluster.liveness(2, Liveness::Suspected);
    cluster.settle_until(&[0], |cluster| cluster.replica(2).is_primary());
    assert_eq!(cluster.replica(2).view(), View::new(2), "{}", cluster.state(2));
    assert_eq!(cluster.replica(1).commit().op, Op::ZERO, "nobody waits for the one that is behind");
    heal_and_work(&mut cluster);
}

#[test]
fn a_group_restarts_with_a_long_log() {
    let mut cluster = Cluster::new(3);
    leave_behind(&mut cluster, 2);
    for node in 0..3 {
        cluster.crash(node, 0);
    }
    heal_and_work(&mut cluster);
}

/// Requests keep coming, and one disk does not answer.
fn hang(cluster: &mut Cluster, hanging: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for _ in 0..FAR {
        let handle = cluster.request(0);
        for _ in 0..6 {
            while !cluster.network.is_empty() {
                cluster.deliver(0);
            }
            for node in (0..3).filter(|node| *node != hanging) {
                cluster.sync(node);
            }
        }
        outcomes.extend(cluster.replies.get(&handle));
    }
    assert_eq!(cluster.replica(hanging).durable().op, Op::ZERO);
    assert!(cluster.replica(hanging).head().op <= Op::new(HEADERS_PER_MESSAGE_MAX as u64));
    outcomes
}

#[test]
fn a_primary_whose_disk_hangs_is_busy_before_its_memory_fills() {
    let mut cluster = Cluster::new(3);
    let outcomes = hang(&mut cluster, 0);
    assert_eq!(outcomes.last(), Some(&Outcome::Busy));
    assert!(matches!(outcomes[HEADERS_PER_MESSAGE_MAX - 1], Outcome::Committed { .. }));
    heal_and_work(&mut cluster);
}

#[test]
fn a_backup_whose_disk_hangs_slows_nobody() {
    let mut cluster = Cluster::new(3);
    let outcomes = hang(&mut cluster, 2);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed { .. })));
    heal_and_work(&mut cluster);
}

#[test]
fn a_backup_far_behind_a_log_that_was_let_go_takes_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.crash(2, 0);
    for request in 0..FAR {
        cluster.request_of(0, 1 + request % 3, 1 + request / 3);
        cluster.settle();
    }
    cluster.move_log_start(0, 10);
    cluster.settle();
    cluster.restart(2);
    heal_and_work(&mut cluster);
    assert_eq!(cluster.replica(2).log_start(), cluster.replica(0).log_start());
    assert_eq!(cluster.replica(2).log_start().op, Op::new(FAR - 9));
    // It leads, and knows which requests it has answered before.
    cluster.hand_over(0, 2);
    cluster.heal();
    assert_eq!(cluster.primary(), 2);
    let retried = cluster.request_of(2, 1, 1 + (FAR - 1) / 3);
    cluster.settle();
    assert!(matches!(cluster.replies[&retried], Outcome::Committed { op, .. } if op <= Op::new(FAR)));
}
