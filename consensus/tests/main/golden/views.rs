//! Claims about leaving a view and starting the next.

use std::time::Duration;

use varve_consensus::Status;
use varve_consensus::event::{Liveness, Outcome};
use varve_protocol::id::{Op, View};
use varve_protocol::message::Message;

use super::{another_history, change_view_without, claim, quietly};
use crate::cluster::Envelope;

#[test]
fn old_view_prepare_ignored() {
    claim("old_view_prepare_ignored", 3, |cluster| {
        cluster.request(0);
        quietly(
            cluster,
            "r1 and r2 miss their primary and move to v1 before its prepare arrives",
            |cluster| {
                let late = std::mem::take(&mut cluster.network);
                change_view_without(cluster, 0, |_| false);
                cluster.network = late;
            },
        );
        cluster.pass(0, 2);
        cluster.pass(0, 1);
        assert_eq!(cluster.replica(1).head().op, Op::ZERO);
        cluster.settle();
        assert_eq!(cluster.replica(0).view(), View::new(1));
    });
}

#[test]
fn newer_view_prepare_takes_nothing() {
    claim("newer_view_prepare_takes_nothing", 3, |cluster| {
        quietly(cluster, "r1 and r2 move to v1", |cluster| change_view_without(cluster, 0, |_| false));
        cluster.request(1);
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).head().op, Op::ZERO);
        cluster.settle();
        assert_eq!(cluster.replica(0).head().op, Op::new(1));
    });
}

#[test]
fn new_primary_keeps_committed_op() {
    claim("new_primary_keeps_committed_op", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.settle_without(&[1]);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
        cluster.crash(0, 0);
        cluster.liveness(1, Liveness::Suspected);
        cluster.liveness(2, Liveness::Suspected);
        cluster.settle_without(&[0]);
        assert_eq!(cluster.replica(1).commit().op, Op::new(1));
    });
}

#[test]
fn view_change_is_promised_on_disk_first() {
    claim("view_change_is_promised_on_disk_first", 3, |cluster| {
        cluster.liveness(2, Liveness::Suspected);
        cluster.liveness(1, Liveness::Suspected);
        cluster.lose(1, 0);
        cluster.lose(2, 0);
        cluster.pass(1, 2);
        assert_eq!(cluster.replica(2).status(), Status::ViewChange);
        assert!(cluster.network.iter().all(|sent| sent.from != 2 || sent.message.view() == View::new(1)));
        cluster.sync(2);
        cluster.lose(2, 0);
        cluster.settle_without(&[0]);
    });
}

#[test]
fn isolated_backup_cannot_unseat_primary() {
    claim("isolated_backup_cannot_unseat_primary", 3, |cluster| {
        cluster.liveness(2, Liveness::Suspected);
        cluster.lose(2, 0);
        cluster.lose(2, 1);
        cluster.trace.note("the network is whole again");
        cluster.elapse(Duration::from_millis(80));
        cluster.pass(2, 0);
        cluster.pass(2, 1);
        assert_eq!(cluster.replica(0).view(), View::ZERO);
        assert_eq!(cluster.replica(1).view(), View::ZERO);
        cluster.liveness(2, Liveness::Heard);
        cluster.request(0);
        cluster.settle();
        assert_eq!(cluster.replica(2).next_timeout(), None);
    });
}

#[test]
fn repeated_proposal_counts_once() {
    claim("repeated_proposal_counts_once", 5, |cluster| {
        cluster.liveness(1, Liveness::Suspected);
        cluster.liveness(2, Liveness::Suspected);
        for backup in [1, 2] {
            for other in [0, 3, 4] {
                cluster.lose(backup, other);
            }
        }
        let again = cluster.network[0].clone();
        cluster.network.push(again);
        cluster.pass(1, 2);
        cluster.pass(1, 2);
        assert_eq!(cluster.replica(2).status(), Status::Normal);
    });
}

#[test]
fn uncommitted_conflict_is_cut() {
    claim("uncommitted_conflict_is_cut", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.sync(0);
        quietly(cluster, "r1 and r2 move to v1 and commit another op1", |cluster| {
            change_view_without(cluster, 0, |_| false);
            cluster.request(1);
            cluster.settle_without(&[0]);
        });
        assert_eq!(cluster.replica(0).head().view, View::ZERO);
        cluster.pulse(1);
        cluster.lose(1, 2);
        cluster.settle();
        assert_eq!(cluster.replica(0).head(), cluster.replica(1).head());
    });
}

#[test]
fn cut_waits_for_writes_under_way() {
    claim("cut_waits_for_writes_under_way", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        quietly(cluster, "r1 and r2 move to v1; the disk of r0 hangs", |cluster| {
            change_view_without(cluster, 0, |_| false)
        });
        cluster.pulse(1);
        for (from, to) in [(1, 0), (0, 1), (1, 0)] {
            cluster.pass(from, to);
        }
        assert_eq!(cluster.replica(0).head().op, Op::new(1));
        cluster.complete_job(0);
        assert_eq!(cluster.replica(0).head().op, Op::ZERO);
        cluster.settle();
    });
}

#[test]
fn acknowledgement_waits_for_the_log_view() {
    claim("acknowledgement_waits_for_the_log_view", 3, |cluster| {
        quietly(cluster, "op1 is everywhere; r0 dies and r1 leads v1", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.crash(0, 0);
            change_view_without(cluster, 0, |cluster| cluster.replica(1).is_primary());
            cluster.network.retain(|sent| sent.to != 0);
        });
        cluster.pass(1, 2);
        let (view, commit) = (cluster.replica(1).view(), cluster.replica(1).commit());
        let message = Message::Prepare { view, commit, prepare: another_history().remove(0) };
        cluster.network.push(Envelope { from: 1, to: 2, message });
        cluster.pass(1, 2);
        assert!(cluster.network.iter().all(|sent| sent.from != 2), "nothing is promised yet");
        cluster.sync(2);
        cluster.settle_without(&[0]);
        assert_eq!(cluster.replica(2).log_view(), View::new(1));
    });
}

#[test]
fn log_view_waits_for_whole_log() {
    claim("log_view_waits_for_whole_log", 3, |cluster| {
        quietly(cluster, "r0 and r1 commit two ops without r2; then r0 dies and r2 follows r1", |cluster| {
            cluster.request(0);
            cluster.request(0);
            cluster.settle_without(&[2]);
            cluster.crash(0, 0);
            cluster.liveness(1, Liveness::Suspected);
            cluster.liveness(2, Liveness::Suspected);
            while cluster.replica(1).log_view() == View::ZERO {
                cluster.network.retain(|sent| sent.to != 0);
                if cluster.network.is_empty() {
                    cluster.sync(1);
                    cluster.sync(2);
                } else {
                    cluster.deliver(0);
                }
            }
            cluster.network.retain(|sent| sent.to != 0);
        });
        cluster.pass(1, 2);
        for (from, to) in [(2, 1), (1, 2)] {
            cluster.pass(from, to);
        }
        cluster.sync(2);
        assert_eq!(cluster.replica(2).log_view(), View::ZERO);
        cluster.settle_without(&[0]);
        assert_eq!(cluster.replica(2).log_view(), View::new(1));
    });
}

#[test]
fn prepare_of_old_view_of_same_primary_ignored() {
    claim("prepare_of_old_view_of_same_primary_ignored", 3, |cluster| {
        cluster.request(0);
        let late = cluster.network.remove(0);
        cluster.network.clear();
        quietly(
            cluster,
            "its op1 is cut in v1; two view changes later r0 leads again, with an empty log",
            |cluster| {
                change_view_without(cluster, 0, |_| false);
                cluster.pulse(1);
                cluster.settle();
                for (first, second) in [(0, 2), (0, 1)] {
                    cluster.liveness(first, Liveness::Suspected);
                    cluster.liveness(second, Liveness::Suspected);
                    cluster.settle();
                }
            },
        );
        assert_eq!(cluster.primary(), 0);
        cluster.network.push(late);
        cluster.pass(0, 1);
        assert_eq!(cluster.replica(1).head().op, Op::ZERO);
        cluster.sync(1);
        cluster.settle();
    });
}

#[test]
fn stale_primary_joins_a_later_proposal() {
    claim("stale_primary_joins_a_later_proposal", 3, |cluster| {
        quietly(
            cluster,
            "r1 and r2 move to v1 without r0, which hears both again; then r1 dies",
            |cluster| {
                change_view_without(cluster, 0, |_| false);
                cluster.crash(1, 0);
            },
        );
        cluster.liveness(2, Liveness::Suspected);
        cluster.settle_without(&[1]);
        assert_eq!(cluster.replica(0).view(), View::new(2));
        assert_eq!(cluster.primary(), 2);
    });
}

#[test]
fn healthy_primary_does_not_join_the_next_view() {
    claim("healthy_primary_does_not_join_the_next_view", 3, |cluster| {
        cluster.liveness(1, Liveness::Suspected);
        cluster.pass(1, 0);
        cluster.lose(1, 2);
        assert!(cluster.network.is_empty());
        assert_eq!(cluster.replica(0).view(), View::ZERO);
        cluster.liveness(1, Liveness::Heard);
    });
}

#[test]
fn suspicion_outlives_the_view_change() {
    claim("suspicion_outlives_the_view_change", 3, |cluster| {
        quietly(cluster, "r1 and r2 move to v1, r2 up to its last write", |cluster| {
            change_view_without(cluster, 0, |cluster| cluster.replica(1).is_primary());
            while cluster.replica(2).status() == Status::ViewChange && !cluster.network.is_empty() {
                cluster.deliver(0);
            }
        });
        assert_eq!(cluster.replica(2).status(), Status::ViewChange);
        cluster.liveness(2, Liveness::Suspected);
        cluster.crash(1, 0);
        cluster.sync(2);
        assert_eq!((cluster.replica(2).status(), cluster.replica(2).view()), (Status::Normal, View::new(1)));
        cluster.settle_without(&[1]);
        assert_eq!(cluster.primary(), 2);
    });
}

#[test]
fn primary_without_a_quorum_takes_nothing() {
    claim("primary_without_a_quorum_takes_nothing", 3, |cluster| {
        let waiting = cluster.request(0);
        for backup in [1, 2] {
            cluster.lose(0, backup);
        }
        cluster.liveness(0, Liveness::Suspected);
        for backup in [1, 2] {
            cluster.lose(0, backup);
        }
        assert_eq!(cluster.replies[&waiting], Outcome::ViewEnded);
        let refused = cluster.request(0);
        assert_eq!(cluster.replies[&refused], Outcome::NotPrimary);
        assert!(cluster.replica(0).is_primary() && !cluster.replica(0).takes_requests());
        cluster.trace.note("the network is whole again");
        cluster.liveness(0, Liveness::Heard);
        let taken = cluster.request(0);
        cluster.settle();
        assert!(matches!(cluster.replies[&taken], Outcome::Committed { op, .. } if op == Op::new(2)));
    });
}

#[test]
fn primary_that_gives_up_is_followed_at_once() {
    claim("primary_that_gives_up_is_followed_at_once", 3, |cluster| {
        cluster.liveness(0, Liveness::Suspected);
        cluster.settle();
        assert_eq!(cluster.primary(), 1);
    });
}

#[test]
fn later_view_is_asked_for_until_it_is_told() {
    claim("later_view_is_asked_for_until_it_is_told", 3, |cluster| {
        quietly(cluster, "r1 and r2 move to v1 without r0", |cluster| {
            change_view_without(cluster, 0, |_| false)
        });
        cluster.pulse(1);
        cluster.lose(1, 2);
        cluster.pass(1, 0);
        cluster.lose(0, 1);
        cluster.trace.note("nobody says anything any more");
        cluster.elapse(Duration::from_millis(500));
        cluster.settle();
        assert_eq!(cluster.replica(0).view(), View::new(1));
        assert_eq!(cluster.replica(0).next_timeout(), None);
    });
}

#[test]
fn proposal_that_is_not_repeated_counts_no_more() {
    claim("proposal_that_is_not_repeated_counts_no_more", 5, |cluster| {
        cluster.liveness(2, Liveness::Suspected);
        cluster.liveness(3, Liveness::Suspected);
        cluster.pass(2, 3);
        cluster.network.clear();
        cluster.liveness(2, Liveness::Heard);
        quietly(cluster, "r3 repeats its proposal for a second, and nobody hears it", |cluster| {
            for _ in 0..20 {
                cluster.elapse(Duration::from_millis(100));
                cluster.network.clear();
            }
        });
        cluster.liveness(4, Liveness::Suspected);
        cluster.pass(4, 3);
        cluster.network.clear();
        assert_eq!(
            cluster.replica(3).view(),
            View::ZERO,
            "two want another primary, which is no quorum of five"
        );
        cluster.liveness(3, Liveness::Heard);
        cluster.liveness(4, Liveness::Heard);
    });
}
