//! Replicas that come back after more prepares than a message, a window or the core's memory holds.

use varve_consensus::Status;
use varve_consensus::event::Liveness;
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
fn a_new_primary_far_behind_catches_up_before_it_leads() {
    let mut cluster = Cluster::new(3);
    leave_behind(&mut cluster, 1);
    cluster.crash(0, 0);
    cluster.liveness(2, Liveness::Suspected);
    for _ in 0..100 {
        cluster.elapse(std::time::Duration::from_millis(20));
        cluster.settle();
        cluster.liveness(2, Liveness::Suspected);
        if cluster.replica(1).status() == Status::Normal {
            break;
        }
    }
    assert_eq!(cluster.replica(1).commit().op, Op::new(FAR), "{}", cluster.state(1));
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
