//! Arbitrary schedules: messages in any order, lost and repeated, disks at any pace, crashes at any point, suspicion at any
//! time. Safety is judged after every action; in the end everything heals and the group must be whole and work.

use std::time::Duration;

use proptest::prelude::*;
use varve_consensus::event::{Liveness, Outcome, ReadOutcome};
use varve_protocol::durability::Durability::{self, QuorumDisk, QuorumMemory};

use crate::cluster::{Cluster, replica_index};

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Deliver one of the messages under way.
    Deliver(usize),
    Drop(usize),
    Duplicate(usize),
    /// Complete the oldest disk job of a node.
    Disk(usize),
    /// Crash a node; this many of its jobs under way still make it to the disk.
    Crash(usize, usize),
    /// Crash a node whose disk then loses this many prepares, and knows it.
    Tear(usize, usize),
    Restart(usize),
    /// Have the next life of a node read no more than it must.
    SaveResumePoint(usize),
    Suspect(usize),
    Hear(usize),
    /// The primary among the nodes, if this one is it, tells its commit.
    Pulse(usize),
    Elapse(u64),
    /// The operator wants another primary.
    HandOver(usize, usize),
    /// A producer (zero: nobody) asks a node: its next request, or this many before that again.
    Request {
        node: usize,
        producer: u64,
        back: u64,
    },
    /// Somebody asks a node where the log ends now.
    Read(usize),
    /// A node without a replica comes to listen.
    Come(usize),
    /// The newest primary is to let one join that listens.
    Join(usize),
    /// The newest primary is to let one leave.
    Leave(usize),
    /// One that has left forgets its replica.
    Go(usize),
    /// Ask the newest primary to append this many without sessions.
    Load(usize),
    /// The newest primary lets go of all but this many of what is committed.
    LetGo(u64),
    /// Deliver and sync everything, except to and from one node.
    SettleWithout(usize),
    Settle,
}

fn action(count: usize) -> impl Strategy<Value = Action> {
    let node = move || 0..count;
    prop_oneof![
        20 => any::<usize>().prop_map(Action::Deliver),
        2 => any::<usize>().prop_map(Action::Drop),
        2 => any::<usize>().prop_map(Action::Duplicate),
        12 => node().prop_map(Action::Disk),
        2 => (node(), 0_usize..4).prop_map(|(node, jobs)| Action::Crash(node, jobs)),
        1 => (node(), 0_usize..40).prop_map(|(node, lost)| Action::Tear(node, lost)),
        3 => node().prop_map(Action::Restart),
        2 => node().prop_map(Action::SaveResumePoint),
        4 => node().prop_map(Action::Suspect),
        1 => node().prop_map(Action::Hear),
        1 => node().prop_map(Action::Pulse),
        3 => (0_u64..400).prop_map(Action::Elapse),
        1 => (4000_u64..9000).prop_map(Action::Elapse),
        2 => (node(), node()).prop_map(|(node, to)| Action::HandOver(node, to)),
        4 => (node(), 0_u64..3, 0_u64..3).prop_map(|(node, producer, back)| Action::Request { node, producer, back }),
        4 => node().prop_map(Action::Read),
        2 => (1_usize..5).prop_map(Action::Load),
        1 => (20_usize..90).prop_map(Action::Load),
        2 => (0_u64..60).prop_map(Action::LetGo),
        2 => node().prop_map(Action::SettleWithout),
        1 => Just(Action::Settle),
    ]
}

/// The same for a group that has so many places, without disks that lose what they had.
fn action_of_change(places: usize) -> impl Strategy<Value = Action> {
    let node = move || 0..places;
    let spared = |action| if let Action::Tear(node, _) = action { Action::Crash(node, 0) } else { action };
    prop_oneof![
        60 => action(places).prop_map(spared),
        2 => node().prop_map(Action::Come),
        3 => node().prop_map(Action::Join),
        3 => node().prop_map(Action::Leave),
        2 => node().prop_map(Action::Go),
    ]
}

pub(crate) fn perform(cluster: &mut Cluster, action: &Action) {
    let under_way = cluster.network.len();
    match *action {
        Action::Deliver(place) if under_way > 0 => cluster.deliver(place % under_way),
        Action::Drop(place) if under_way > 0 => cluster.drop(place % under_way),
        Action::Duplicate(place) if under_way > 0 => {
            let copy = cluster.network[place % under_way].clone();
            cluster.network.push(copy);
        }
        Action::Deliver(_) | Action::Drop(_) | Action::Duplicate(_) => {}
        Action::Disk(node) => {
            cluster.complete_job(node);
        }
        Action::Crash(node, jobs) => cluster.crash(node, jobs),
        Action::Tear(node, lost) => cluster.tear(node, lost),
        Action::HandOver(node, to) => cluster.hand_over(node, to),
        Action::Restart(node) => cluster.restart(node),
        Action::SaveResumePoint(node) => cluster.save_resume_point(node),
        Action::Suspect(node) => cluster.liveness(node, Liveness::Suspected),
        Action::Hear(node) => cluster.liveness(node, Liveness::Heard),
        Action::Pulse(node) => cluster.pulse(node),
        Action::Elapse(millis) => cluster.elapse(Duration::from_millis(millis)),
        Action::Request { node, producer, back } => ask(cluster, node, producer, back),
        Action::Read(node) if cluster.is_up(node) => {
            cluster.read(node);
        }
        Action::Read(_) => {}
        Action::Come(node) => cluster.come(node),
        Action::Go(node) => cluster.go(node),
        Action::Join(node) => {
            // Whoever stands in a place is not let into it: that is the driver's business.
            let primary =
                cluster.newest_primary().filter(|_| cluster.is_here(node) && !cluster.has_left(node));
            let is_new = |primary: &usize| !cluster.replica(*primary).is_member(replica_index(node));
            let has_voice = cluster.is_up(node) && cluster.replica(node).is_admitted();
            let may_join = |primary: &usize| has_voice || !cluster.is_seated(*primary, node);
            primary.filter(is_new).filter(may_join).map(|primary| cluster.join(primary, node));
        }
        Action::Leave(node) => {
            let primary = cluster.newest_primary();
            let is_left = |primary: &usize| cluster.replica(*primary).may_leave(replica_index(node));
            primary.filter(is_left).map(|primary| cluster.leave(primary, node));
        }
        Action::Load(requests) => {
            let primary =
                (0..cluster.count()).find(|node| cluster.is_up(*node) && cluster.replica(*node).is_primary());
            for _ in 0..requests {
                primary.map(|node| cluster.request(node));
            }
        }
        Action::LetGo(kept) => {
            let primary =
                (0..cluster.count()).find(|node| cluster.is_up(*node) && cluster.replica(*node).is_primary());
            primary.map(|node| cluster.move_log_start(node, kept));
        }
        Action::SettleWithout(node) => cluster.settle_without(&[node]),
        Action::Settle => cluster.settle(),
    }
    cluster.assert_safe();
}

fn ask(cluster: &mut Cluster, node: usize, producer: u64, back: u64) {
    if !cluster.is_up(node) {
        return;
    }
    if producer == 0 {
        cluster.request(node);
        return;
    }
    let newest = cluster.sessions.entry(producer).or_default();
    let number = (*newest + 1).saturating_sub(back).max(1);
    *newest = number.max(*newest);
    cluster.request_of(node, producer, number);
}

/// Everything heals; then each producer can go on, and something new commits everywhere.
pub(crate) fn heal_and_work(cluster: &mut Cluster) {
    cluster.heal();
    let primary = cluster.primary();
    let handle = cluster.request(primary);
    let read = cluster.read(primary);
    cluster.heal();
    assert!(matches!(cluster.replies[&handle], Outcome::Committed { .. }), "a healed group works");
    assert_eq!(cluster.reads[&read], ReadOutcome::Confirmed, "a healed group confirms reads");
    let sessions = cluster.sessions.clone();
    for (producer, newest) in sessions {
        // Whatever was lost is tried again from the start, in order: each request happens exactly once.
        for number in newest.saturating_sub(20).max(1)..=newest {
            cluster.request_of(primary, producer, number);
        }
    }
    cluster.heal();
    let unanswered = cluster.replies.len();
    assert!(unanswered > 0, "requests are answered");
}

fn run(count: usize, durability: Durability, actions: &[Action]) {
    play(Cluster::with_durability(count, durability), actions);
}

fn play(mut cluster: Cluster, actions: &[Action]) {
    for action in actions {
        perform(&mut cluster, action);
    }
    heal_and_work(&mut cluster);
}

/// A mutant is to be found, not to be understood: its failures are neither shrunk nor kept.
fn config() -> ProptestConfig {
    let config = ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() };
    if cfg!(feature = "mutants") {
        ProptestConfig { max_shrink_iters: 0, failure_persistence: None, ..config }
    } else {
        config
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn three_replicas_survive_any_schedule(actions in prop::collection::vec(action(3), 1..150)) {
        run(3, QuorumDisk, &actions);
    }

    #[test]
    fn five_replicas_survive_any_schedule(actions in prop::collection::vec(action(5), 1..150)) {
        run(5, QuorumDisk, &actions);
    }

    #[test]
    fn a_single_replica_survives_any_schedule(actions in prop::collection::vec(action(1), 1..60)) {
        run(1, QuorumDisk, &actions);
    }

    #[test]
    fn a_group_of_three_that_grows_and_shrinks_survives_any_schedule(
        actions in prop::collection::vec(action_of_change(6), 1..200)
    ) {
        play(Cluster::with_room(3, 6), &actions);
    }

    #[test]
    fn a_single_replica_that_gets_company_survives_any_schedule(
        actions in prop::collection::vec(action_of_change(3), 1..200)
    ) {
        play(Cluster::with_room(1, 3), &actions);
    }

    #[test]
    fn three_replicas_that_acknowledge_from_memory_survive_any_schedule(
        actions in prop::collection::vec(action(3), 1..150)
    ) {
        run(3, QuorumMemory, &actions);
    }

    #[test]
    fn five_replicas_that_acknowledge_from_memory_survive_any_schedule(
        actions in prop::collection::vec(action(5), 1..150)
    ) {
        run(5, QuorumMemory, &actions);
    }
}
