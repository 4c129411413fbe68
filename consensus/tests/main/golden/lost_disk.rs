//! Claims about replicas that have lost their disks.

use std::time::Duration;

use varve_consensus::event::{Liveness, Outcome, ReadOutcome};
use varve_consensus::{Input, Status};
use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::message::Message;

use super::{claim, quietly};
use crate::cluster::{Cluster, Envelope};

/// Op 1 commits everywhere, a replica loses its disk, and is started again.
fn lose(cluster: &mut Cluster, node: usize) {
    quietly(cluster, &format!("op1 commits everywhere, r{node} loses its disk"), |cluster| {
        cluster.request(0);
        cluster.settle();
        cluster.pulse(0);
        cluster.settle();
        cluster.crash(node, 0);
        cluster.lose_disk(node);
        cluster.restart(node);
    });
}

/// Time passes and everything arrives until the replica holds op 1 again, without a voice.
fn catch_up(cluster: &mut Cluster, node: usize) {
    cluster.elapse(Duration::ZERO);
    cluster.settle();
    assert_eq!(cluster.replica(node).durable().op, Op::new(1));
    assert!(!cluster.replica(node).is_admitted());
}

/// The primary lets it in, and it hears so.
fn let_in(cluster: &mut Cluster, node: usize) {
    let primary = cluster.primary();
    let asked = cluster.let_in(primary, node);
    cluster.settle();
    cluster.pulse(primary);
    cluster.settle();
    assert!(matches!(cluster.replies[&asked], Outcome::Committed { .. }));
}

#[test]
fn lost_disk_takes_the_log_and_acknowledges_nothing() {
    claim("lost_disk_takes_the_log_and_acknowledges_nothing", 3, |cluster| {
        lose(cluster, 2);
        catch_up(cluster, 2);
        let waiting = cluster.request(0);
        cluster.settle_without(&[1]);
        assert_eq!(cluster.replica(2).durable().op, Op::new(2), "it holds it");
        assert!(!cluster.replies.contains_key(&waiting), "and that does not count");
        quietly(cluster, "r1 hears of it, and r2 is let in", |cluster| {
            cluster.elapse(Duration::from_millis(200));
            cluster.settle();
            let_in(cluster, 2);
        });
    });
}

#[test]
fn lost_disk_confirms_no_view() {
    claim("lost_disk_confirms_no_view", 3, |cluster| {
        quietly(cluster, "r2 loses its disk and holds op1 again", |cluster| {
            lose(cluster, 2);
            catch_up(cluster, 2);
        });
        let read = cluster.read(0);
        cluster.settle_without(&[1]);
        assert!(
            !cluster.reads.contains_key(&read),
            "it may have told its log for a later view, and forgotten that"
        );
        cluster.elapse(Duration::from_millis(75));
        cluster.pass(0, 1);
        cluster.pass(1, 0);
        assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed);
    });
}

#[test]
fn lost_disk_is_let_in_by_the_others_and_votes() {
    claim("lost_disk_is_let_in_by_the_others_and_votes", 3, |cluster| {
        lose(cluster, 2);
        quietly(cluster, "it holds op1 again", |cluster| catch_up(cluster, 2));
        let_in(cluster, 2);
        assert!(cluster.replica(2).is_admitted());
        let asked = cluster.request(0);
        cluster.settle_without(&[1]);
        assert!(matches!(cluster.replies[&asked], Outcome::Committed { .. }), "its voice counts");
    });
}

#[test]
fn lost_disk_has_no_say_in_who_leads() {
    claim("lost_disk_has_no_say_in_who_leads", 3, |cluster| {
        lose(cluster, 2);
        quietly(cluster, "it holds op1 again, and r0 is gone", |cluster| {
            catch_up(cluster, 2);
            cluster.crash(0, 0);
        });
        for node in [1, 2] {
            cluster.liveness(node, Liveness::Suspected);
        }
        cluster.settle_without(&[0]);
        assert_eq!(cluster.replica(1).view(), View::ZERO, "one voice is no quorum");
        quietly(cluster, "r0 comes back, and lets r2 in", |cluster| {
            cluster.heal();
            let_in(cluster, 2);
        });
    });
}

#[test]
fn lost_disk_gives_up_the_view_it_led() {
    claim("lost_disk_gives_up_the_view_it_led", 3, |cluster| {
        lose(cluster, 0);
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        cluster.elapse(Duration::from_millis(100));
        cluster.settle();
        assert_eq!((cluster.primary(), cluster.replica(1).view()), (1, View::new(1)));
        quietly(cluster, "it is let in", |cluster| let_in(cluster, 0));
    });
}

#[test]
fn lost_disk_gives_up_a_view_that_it_is_asked_for() {
    claim("lost_disk_gives_up_a_view_that_it_is_asked_for", 3, |cluster| {
        quietly(
            cluster,
            "r1 and r2 are in v1, which r1 leads; it loses its disk; r0 was away, and is in v0",
            |cluster| {
                [1, 2].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
                cluster.settle_without(&[0]);
                assert_eq!(cluster.primary(), 1);
                cluster.crash(1, 0);
                cluster.lose_disk(1);
                cluster.restart(1);
                cluster.network.clear();
            },
        );
        // r2 follows r1 in v1, and tells r0 so; r1 is asked for it.
        cluster.liveness(0, Liveness::Suspected);
        cluster.lose(0, 1);
        cluster.pass(0, 2);
        cluster.pass(2, 0);
        cluster.pass(0, 1);
        cluster.settle();
        assert_eq!((cluster.primary(), cluster.replica(0).view()), (2, View::new(2)));
        quietly(cluster, "it is let in", |cluster| let_in(cluster, 1));
    });
}

#[test]
fn lost_disk_goes_on_with_the_others_only() {
    claim("lost_disk_goes_on_with_the_others_only", 5, |cluster| {
        quietly(cluster, "r0 loses its disk; r1 and r2 miss it meanwhile", |cluster| {
            lose(cluster, 0);
            [1, 2].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
            cluster.network.retain(|sent| (sent.from, sent.to) != (1, 2) && (sent.from, sent.to) != (2, 1));
            cluster.elapse(Duration::ZERO);
        });
        // With its own it would have three votes of five, and nobody else would.
        for from in [1, 2] {
            cluster.pass(from, 0);
            cluster.lose(0, from);
        }
        assert_eq!(cluster.replica(0).view(), View::ZERO);
        quietly(cluster, "nobody misses it any more, and it asks again", |cluster| {
            [1, 2].into_iter().for_each(|node| cluster.liveness(node, Liveness::Heard));
            cluster.network.clear();
            cluster.elapse(Duration::from_millis(100));
            cluster.settle();
            assert_eq!((cluster.primary(), cluster.replica(0).view()), (1, View::new(1)));
        });
    });
}

#[test]
fn lost_disk_gives_up_a_later_view_it_led() {
    claim("lost_disk_gives_up_a_later_view_it_led", 3, |cluster| {
        quietly(cluster, "r1 leads", |cluster| {
            cluster.hand_over(0, 1);
            cluster.settle();
        });
        quietly(cluster, "r1 loses its disk, and nobody has missed it", |cluster| {
            cluster.crash(1, 0);
            cluster.lose_disk(1);
            cluster.restart(1);
        });
        cluster.elapse(Duration::ZERO);
        cluster.settle();
        cluster.elapse(Duration::from_millis(100));
        cluster.settle();
        assert_eq!((cluster.primary(), cluster.replica(2).view()), (2, View::new(2)));
        quietly(cluster, "it is let in", |cluster| let_in(cluster, 1));
    });
}

#[test]
fn voice_is_saved_before_it_is_used() {
    claim("voice_is_saved_before_it_is_used", 3, |cluster| {
        lose(cluster, 2);
        quietly(cluster, "it holds op1 again", |cluster| catch_up(cluster, 2));
        cluster.let_in(0, 2);
        cluster.settle_until(&[], |cluster| cluster.replica(0).commit().op == Op::new(2));
        cluster.pulse(0);
        while !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        assert_eq!(cluster.replica(2).commit().op, Op::new(2), "it knows that it is let in");
        assert!(!cluster.replica(2).is_admitted(), "and would not, after a restart");
        cluster.settle();
        assert!(cluster.replica(2).is_admitted());
        cluster.crash(2, 0);
        cluster.restart(2);
        assert!(cluster.replica(2).is_admitted(), "it is, for good");
    });
}

#[test]
fn replicas_are_replaced_one_after_the_other() {
    claim("replicas_are_replaced_one_after_the_other", 5, |cluster| {
        for node in [3, 4] {
            quietly(cluster, &format!("r{node} loses its disk"), |cluster| {
                cluster.crash(node, 0);
                cluster.lose_disk(node);
                cluster.restart(node);
                cluster.elapse(Duration::ZERO);
                cluster.settle();
            });
        }
        cluster.let_in(0, 3);
        let early = cluster.let_in(0, 4);
        assert_eq!(cluster.replies[&early], Outcome::Busy);
        quietly(cluster, "r3 is let in, then r4", |cluster| {
            cluster.settle();
            cluster.pulse(0);
            cluster.settle();
            let_in(cluster, 4);
        });
        assert!([3, 4].into_iter().all(|node| cluster.replica(node).is_admitted()));
    });
}

#[test]
fn tale_told_before_the_disk_was_lost_counts_for_nothing() {
    claim("tale_told_before_the_disk_was_lost_counts_for_nothing", 3, |cluster| {
        quietly(cluster, "op1 commits everywhere", |cluster| {
            cluster.request(0);
            cluster.settle();
            cluster.pulse(0);
            cluster.settle();
        });
        cluster.trace.note("a proposal of r0 and its own make r2 leave v0; what it says to r1 is late");
        let message = Message::StartViewChange { view: View::new(1), current: View::ZERO };
        cluster.step(2, Input::Message { from: ReplicaIndex::ZERO, message });
        cluster.liveness(2, Liveness::Suspected);
        cluster.sync(2);
        let late: Vec<_> =
            std::mem::take(&mut cluster.network).into_iter().filter(|sent| sent.to == 1).collect();
        quietly(cluster, "r2 loses its disk, and is let in again", |cluster| {
            cluster.crash(2, 0);
            cluster.lose_disk(2);
            cluster.restart(2);
            catch_up(cluster, 2);
            let_in(cluster, 2);
        });
        let asked = cluster.request(0);
        cluster.settle_without(&[1]);
        assert!(matches!(cluster.replies[&asked], Outcome::Committed { .. }), "committed by r0 and r2");
        cluster.trace.note("now r1 hears what r2 said before it lost its disk");
        let count = late.len();
        cluster.network = late;
        for _ in 0..count {
            cluster.deliver(0);
        }
        cluster.sync(1);
        cluster.network.clear();
        assert_eq!(cluster.replica(1).status(), Status::ViewChange, "r1 is alone with it");
        assert!(cluster.replica(1).head().op < cluster.replica(0).commit().op);
    });
}

#[test]
fn older_tale_does_not_take_the_place_of_a_newer_one() {
    claim("older_tale_does_not_take_the_place_of_a_newer_one", 5, |cluster| {
        let tale_of = |cluster: &mut Cluster, from: usize| {
            let is_tale = |sent: &Envelope| {
                (sent.from, sent.to) == (from, 1) && matches!(sent.message, Message::DoViewChange { .. })
            };
            cluster.settle_until(&[0, 4], |cluster| cluster.network.iter().any(is_tale));
            cluster.network.iter().find(|sent| is_tale(sent)).expect("it tells its log").clone()
        };
        let mut old = None;
        quietly(
            cluster,
            "r2 alone enters v1 and tells its log, which is late; it loses its disk, and is let in",
            |cluster| {
                [2, 3, 4].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
                cluster.pass(3, 2);
                cluster.pass(4, 2);
                cluster.network.clear();
                [3, 4].into_iter().for_each(|node| cluster.liveness(node, Liveness::Heard));
                cluster.sync(2);
                old = cluster.network.iter().find(|sent| sent.to == 1).cloned();
                cluster.network.clear();
                cluster.crash(2, 0);
                cluster.lose_disk(2);
                cluster.restart(2);
                cluster.heal();
                let_in(cluster, 2);
                [0, 4].into_iter().for_each(|node| cluster.crash(node, 0));
                [1, 2, 3].into_iter().for_each(|node| cluster.liveness(node, Liveness::Suspected));
            },
        );
        let last = tale_of(cluster, 3);
        cluster.network.retain(|sent| (sent.from, sent.to) != (3, 1));
        cluster.settle_without(&[0, 3, 4]);
        cluster.network.extend([old.take().expect("it told its log"), last]);
        cluster.settle_without(&[0, 4]);
        assert_eq!(
            (cluster.primary(), cluster.replica(1).view()),
            (1, View::new(1)),
            "three of five have told"
        );
    });
}

#[test]
fn replaced_replica_does_not_count_for_its_own_entry() {
    claim("replaced_replica_does_not_count_for_its_own_entry", 3, |cluster| {
        // As when a move is given up: r2 is well, and is put in its place anew.
        let asked = cluster.let_in(0, 2);
        cluster.settle_without(&[1]);
        assert_eq!(cluster.replica(2).durable().op, Op::new(1), "it holds the entry");
        assert!(!cluster.replies.contains_key(&asked), "and that does not count");
        quietly(cluster, "r1 hears of it", |cluster| {
            cluster.elapse(Duration::from_millis(200));
            cluster.settle();
            assert!(matches!(cluster.replies[&asked], Outcome::Committed { .. }));
        });
    });
}
