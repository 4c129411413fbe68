//! Stories named after claims, compared letter by letter with `tests/golden/<claim>.txt`. `UPDATE_GOLDEN=1` writes them anew;
//! then read the difference as a reviewer would. Messages are drawn where they arrive, a lost one ends in a cross.

use std::path::PathBuf;
use std::time::Duration;

use varve_consensus::Status;
use varve_consensus::event::{Liveness, Outcome};
use varve_protocol::id::{Op, RequestNumber, View};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;

use crate::cluster::Cluster;

fn claim(name: &str, count: usize, story: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::new(count);
    cluster.trace.unmute();
    story(&mut cluster);
    cluster.trace.mute();
    let rendered = cluster.trace.render();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        golden_write(&path, &rendered);
    }
    let golden = golden_read(&path);
    assert_eq!(rendered, golden, "the story `{name}` goes differently:\n{rendered}");
    super::schedule::heal_and_work(&mut cluster);
}

#[expect(clippy::disallowed_methods, reason = "the tests, not the core, keep files")]
fn golden_write(path: &PathBuf, rendered: &str) {
    std::fs::write(path, rendered).unwrap();
}

fn golden_read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn quietly(cluster: &mut Cluster, note: &str, course: impl FnOnce(&mut Cluster)) {
    cluster.trace.note(note);
    cluster.trace.mute();
    course(cluster);
    cluster.trace.unmute();
}

/// The nodes other than the primary of view 0 move to view 1.
fn change_view_without(cluster: &mut Cluster, without: usize) {
    let others: Vec<_> = (0..cluster.count()).filter(|node| *node != without).collect();
    for node in others {
        cluster.liveness(node, Liveness::Suspected);
    }
    cluster.settle_without(&[without]);
}

#[test]
fn commit_waits_for_durable_quorum() {
    claim("commit_waits_for_durable_quorum", 3, |cluster| {
        cluster.request(0);
        cluster.pass(0, 1);
        cluster.pass(0, 2);
        cluster.sync(0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO);
        cluster.sync(1);
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
        cluster.sync(2);
        cluster.pass(2, 0);
    });
}

#[test]
fn own_vote_waits_for_own_disk() {
    claim("own_vote_waits_for_own_disk", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 2);
        cluster.pass(0, 1);
        cluster.sync(1);
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO);
        cluster.sync(0);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
    });
}

#[test]
fn slow_own_disk_does_not_slow_the_quorum() {
    claim("slow_own_disk_does_not_slow_the_quorum", 3, |cluster| {
        cluster.request(0);
        for backup in [1, 2] {
            cluster.pass(0, backup);
            cluster.sync(backup);
            cluster.pass(backup, 0);
        }
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
        assert_eq!(cluster.replica(0).durable().op, Op::ZERO);
        cluster.sync(0);
    });
}

#[test]
fn duplicate_prepare_ok_counts_once() {
    claim("duplicate_prepare_ok_counts_once", 5, |cluster| {
        cluster.request(0);
        cluster.sync(0);
        cluster.pass(0, 1);
        cluster.sync(1);
        let again = cluster.network.iter().position(|sent| sent.to == 0).unwrap();
        let copy = cluster.network[again].clone();
        cluster.network.push(copy);
        cluster.pass(1, 0);
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO);
        cluster.pass(0, 2);
        cluster.sync(2);
        cluster.pass(2, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
    });
}

#[test]
fn old_view_prepare_ignored() {
    claim("old_view_prepare_ignored", 3, |cluster| {
        cluster.request(0);
        quietly(
            cluster,
            "r1 and r2 miss their primary and move to v1 before its prepare arrives",
            |cluster| {
                let late = std::mem::take(&mut cluster.network);
                change_view_without(cluster, 0);
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
        quietly(cluster, "r1 and r2 move to v1", |cluster| change_view_without(cluster, 0));
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
fn gap_is_repaired() {
    claim("gap_is_repaired", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 2);
        cluster.request(0);
        cluster.pass(0, 2);
        assert_eq!(cluster.replica(2).head().op, Op::ZERO);
        for (from, to) in [(2, 0), (0, 2), (2, 0), (0, 2)] {
            cluster.pass(from, to);
        }
        assert_eq!(cluster.replica(2).head().op, Op::new(2));
        cluster.settle();
    });
}

#[test]
fn missed_tail_is_repaired_after_a_pulse() {
    claim("missed_tail_is_repaired_after_a_pulse", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 2);
        cluster.settle();
        assert_eq!(cluster.replica(0).next_timeout(), None);
        cluster.pulse(0);
        cluster.lose(0, 1);
        cluster.settle();
        assert_eq!(cluster.replica(2).commit().op, Op::new(1));
    });
}

#[test]
fn silent_backup_is_told_again() {
    claim("silent_backup_is_told_again", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.pulse(0);
            cluster.settle();
        });
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.elapse(Duration::from_millis(150));
        cluster.settle();
        assert_eq!(cluster.replica(0).commit().op, Op::new(2));
    });
}

#[test]
fn retry_returns_first_outcome() {
    claim("retry_returns_first_outcome", 3, |cluster| {
        let first = cluster.request_of(0, 9, 1);
        cluster.settle_without(&[2]);
        quietly(cluster, "r0 dies; r1 and r2 move to v1", |cluster| {
            cluster.crash(0, 0);
            change_view_without(cluster, 0);
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
fn skipped_and_unknown_requests_are_refused() {
    claim("skipped_and_unknown_requests_are_refused", 3, |cluster| {
        cluster.request_of(0, 9, 1);
        let skipped = cluster.request_of(0, 9, 3);
        let unknown = cluster.request_of(0, 8, 2);
        assert_eq!(cluster.replies[&skipped], Outcome::OutOfOrder { expected: RequestNumber::new(2) });
        assert_eq!(cluster.replies[&unknown], Outcome::UnknownOutcome);
        cluster.sessions.insert(9, 1);
        cluster.settle();
    });
}

#[test]
fn full_window_answers_busy() {
    claim("full_window_answers_busy", 3, |cluster| {
        quietly(cluster, "a whole window of requests, none acknowledged", |cluster| {
            for _ in 0..PREPARES_IN_FLIGHT_MAX {
                cluster.request(0);
            }
            cluster.network.clear();
        });
        let handle = cluster.request(0);
        assert_eq!(cluster.replies[&handle], Outcome::Busy);
        let handle = cluster.request(1);
        assert_eq!(cluster.replies[&handle], Outcome::NotPrimary);
    });
}

#[test]
fn waiting_requests_are_told_that_the_view_ended() {
    claim("waiting_requests_are_told_that_the_view_ended", 3, |cluster| {
        let handle = cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.sync(0);
        quietly(cluster, "r1 and r2 move to v1", |cluster| change_view_without(cluster, 0));
        cluster.pulse(1);
        cluster.pass(1, 0);
        cluster.settle();
        assert_eq!(cluster.replies[&handle], Outcome::ViewEnded);
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
            change_view_without(cluster, 0);
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
            change_view_without(cluster, 0)
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
fn old_start_view_cuts_nothing() {
    claim("old_start_view_cuts_nothing", 3, |cluster| {
        quietly(cluster, "r1 and r2 move to v1; a start_view to r2 is late", |cluster| {
            change_view_without(cluster, 0);
            cluster.restart(0);
            let message = varve_protocol::message::Message::StartView {
                view: View::new(1),
                commit: cluster.replica(1).commit(),
                head: Op::ZERO,
                suffix: Vec::new(),
            };
            cluster.network.push(crate::cluster::Envelope { from: 1, to: 2, message });
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

#[test]
fn single_replica_commits_alone() {
    claim("single_replica_commits_alone", 1, |cluster| {
        cluster.request(0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO);
        cluster.sync(0);
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
        cluster.crash(0, 0);
        cluster.restart(0);
        cluster.settle();
        assert!(cluster.replica(0).is_primary());
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
    });
}
