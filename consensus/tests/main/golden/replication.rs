//! Claims about normal operation: who is counted, when something is committed, how a gap is closed.

use std::time::Duration;

use varve_consensus::event::Outcome;
use varve_protocol::id::{Op, View};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::message::Message;

use super::{another_history, change_view_without, claim, quietly};
use crate::cluster::{Cluster, Envelope};

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
fn prepare_ok_of_another_prepare_ignored() {
    claim("prepare_ok_of_another_prepare_ignored", 3, |cluster| {
        cluster.request(0);
        cluster.lose(0, 1);
        cluster.lose(0, 2);
        cluster.sync(0);
        let mut id = cluster.replica(0).head();
        id.checksum ^= 1;
        cluster.network.push(Envelope {
            from: 1,
            to: 0,
            message: Message::PrepareOk { view: View::ZERO, id },
        });
        cluster.pass(1, 0);
        assert_eq!(cluster.replica(0).commit().op, Op::ZERO);
    });
}

#[test]
fn prepare_ok_of_old_view_ignored() {
    claim("prepare_ok_of_old_view_ignored", 3, |cluster| {
        let late = cluster.request(0);
        cluster.settle_without(&[2]);
        assert!(cluster.replies.contains_key(&late));
        quietly(cluster, "r0 dies; r1 leads v1, and r2 does not acknowledge yet", |cluster| {
            cluster.crash(0, 0);
            change_view_without(cluster, 0, |cluster| cluster.replica(1).is_primary());
        });
        let id = cluster.replica(1).head();
        cluster
            .network
            .insert(0, Envelope { from: 0, to: 1, message: Message::PrepareOk { view: View::ZERO, id } });
        cluster.pass(0, 1);
        assert_eq!(cluster.replica(1).commit().op, Op::ZERO);
        cluster.settle_without(&[0]);
        assert_eq!(cluster.replica(1).commit().op, Op::new(1));
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

#[test]
fn prepare_of_another_parent_is_not_taken() {
    claim("prepare_of_another_parent_is_not_taken", 3, |cluster| {
        quietly(cluster, "op1 and op2 are stored by r0 and r1, op1 by r2", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.request(0);
            cluster.settle_without(&[2]);
        });
        let mut stranger = Cluster::new(3);
        stranger.request_of(0, 5, 1);
        stranger.request(0);
        let place = stranger.network.iter().position(|sent| {
            matches!(&sent.message, Message::Prepare { prepare, .. } if prepare.op() == Op::new(2))
                && sent.to == 2
        });
        cluster.network.push(stranger.network.remove(place.unwrap()));
        cluster.pass(0, 2);
        assert_eq!(cluster.replica(2).head().op, Op::new(1));
        cluster.settle();
        assert_eq!(cluster.replica(2).head(), cluster.replica(0).head());
    });
}

#[test]
fn prepare_in_the_place_of_another_overwrites_nothing() {
    claim("prepare_in_the_place_of_another_overwrites_nothing", 3, |cluster| {
        quietly(cluster, "op1 is committed, op2 is stored by r2 and not acknowledged yet", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.request(0);
            cluster.pass(0, 2);
            cluster.sync(2);
            cluster.network.clear();
        });
        let own = cluster.replica(2).head();
        let (view, commit) = (View::ZERO, cluster.replica(2).commit());
        let message = Message::Prepare { view, commit, prepare: another_history().remove(1) };
        cluster.network.push(Envelope { from: 0, to: 2, message });
        cluster.pass(0, 2);
        assert_eq!(cluster.replica(2).head(), own);
        cluster.settle();
        assert_eq!(cluster.replica(2).head(), own);
    });
}

#[test]
fn repair_with_another_prepare_is_not_taken() {
    claim("repair_with_another_prepare_is_not_taken", 3, |cluster| {
        quietly(cluster, "op1 and op2 are committed, op1 is stored by r2", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.request(0);
            cluster.settle_without(&[2]);
        });
        cluster.pulse(0);
        cluster.lose(0, 1);
        cluster.pass(0, 2);
        cluster.elapse(Duration::from_millis(800));
        cluster.pass(2, 0);
        cluster.pass(0, 2);
        let message = Message::RepairPrepare { view: View::ZERO, prepare: another_history().remove(1) };
        cluster.network.push(Envelope { from: 0, to: 2, message });
        cluster.pass(0, 2);
        assert_eq!(cluster.replica(2).head().op, Op::new(1));
        cluster.settle();
        assert_eq!(cluster.replica(2).head(), cluster.replica(0).head());
    });
}

#[test]
fn what_is_heard_of_before_it_comes_is_waited_for() {
    claim("what_is_heard_of_before_it_comes_is_waited_for", 3, |cluster| {
        quietly(
            cluster,
            "op1 is stored by all, op2 and op3 by r0 and r1; they are on their way to r2",
            |cluster| {
                cluster.request(0);
                cluster.settle();
                cluster.request(0);
                cluster.request(0);
                let late: Vec<_> = cluster.network.extract_if(.., |sent| sent.to == 2).collect();
                cluster.settle();
                cluster.network.extend(late);
            },
        );
        cluster.pulse(0);
        cluster.lose(0, 1);
        let word = cluster.network.pop().unwrap();
        cluster.network.insert(0, word);
        cluster.pass(0, 2);
        cluster.elapse(Duration::from_millis(400));
        assert!(cluster.network.iter().all(|sent| sent.from != 2), "it asks for nothing");
        cluster.pass(0, 2);
        cluster.elapse(Duration::from_millis(400));
        assert!(cluster.network.iter().all(|sent| is_prepare_ok(sent) || sent.from != 2), "one came lately");
        cluster.lose(0, 2);
        cluster.elapse(Duration::from_millis(400));
        assert!(
            cluster.network.iter().any(|sent| sent.from == 2 && !is_prepare_ok(sent)),
            "nothing more comes"
        );
        cluster.settle();
        assert_eq!(cluster.replica(2).head(), cluster.replica(0).head());
    });
}

#[test]
fn commits_that_are_slow_are_waited_for() {
    claim("commits_that_are_slow_are_waited_for", 3, |cluster| {
        quietly(cluster, "op1 takes a second", |cluster| {
            cluster.request(0);
            cluster.network.clear();
            cluster.elapse(Duration::from_secs(1));
            cluster.settle();
        });
        assert_eq!(cluster.replica(0).commit().op, Op::new(1));
        cluster.request(0);
        cluster.network.clear();
        cluster.elapse(Duration::from_millis(1900));
        assert!(cluster.network.is_empty(), "op2 may take as long");
        cluster.elapse(Duration::from_millis(1200));
        cluster.settle();
        assert_eq!(cluster.replica(0).commit().op, Op::new(2));
    });
}

#[test]
fn what_was_lost_is_repeated_until_all_is_there() {
    claim("what_was_lost_is_repeated_until_all_is_there", 3, |cluster| {
        quietly(cluster, "op1 is stored by all, op2 to op21 are lost on the way to r1 and r2", |cluster| {
            cluster.request(0);
            cluster.settle();
            for _ in 0..20 {
                cluster.request(0);
            }
            cluster.network.clear();
            cluster.sync(0);
        });
        cluster.elapse(Duration::from_millis(150));
        assert_eq!(cluster.network.len(), 2, "one to each: it may have been only slow");
        cluster.settle();
        assert_eq!(cluster.replica(0).commit().op, Op::new(21), "no time passes");
    });
}

#[test]
fn a_primary_that_does_not_answer_is_asked_ever_more_rarely() {
    claim("a_primary_that_does_not_answer_is_asked_ever_more_rarely", 3, |cluster| {
        quietly(cluster, "op1 and op2 are committed, op1 is stored by r2", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.request(0);
            cluster.settle_without(&[2]);
        });
        cluster.pulse(0);
        cluster.lose(0, 1);
        cluster.pass(0, 2);
        cluster.elapse(Duration::from_millis(800));
        let mut questions = 0;
        for _ in 0..20 {
            questions += cluster.network.iter().filter(|sent| sent.from == 2).count();
            cluster.lose(2, 0);
            cluster.elapse(Duration::from_millis(80));
        }
        assert!((3..=6).contains(&questions), "{questions} questions in 1.6 s");
        cluster.settle();
        cluster.heal();
        assert_eq!(cluster.replica(2).head(), cluster.replica(0).head());
    });
}

fn is_prepare_ok(sent: &Envelope) -> bool {
    matches!(sent.message, Message::PrepareOk { .. })
}
