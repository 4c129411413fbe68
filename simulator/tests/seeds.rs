//! Bounded sets of seeds, and the seeds that once failed. A run in which nothing happened does not count as passed.

use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use simulator::marks::why_beyond;
use simulator::report::{Statistics, Verdict};
use simulator::run::{AfterFailure, Outcome, Plan, play_all, play_scenario};
use simulator::scenario::{Profile, Scenario, World};
use simulator::trace::Printing;
use varve_protocol::mark::Mark;

/// Marks that three in ten universes hit, or more.
const OFTEN_FAST: &[Mark] = &[
    Mark::PrimarySuspected,
    Mark::PrimaryDoubtful,
    Mark::ProposalJoined,
    Mark::ProposalIgnored,
    Mark::ProposalWithdrawn,
    Mark::ViewEntered,
    Mark::ViewGivenUp,
    Mark::LogChosen,
    Mark::SuffixCut,
    Mark::LaterViewHeard,
    Mark::PrepareAside,
    Mark::PreparesRepeated,
    Mark::HeadersLearned,
    Mark::PrepareRepaired,
    Mark::RepairRepeated,
    Mark::BackupRestarted,
    Mark::PrimaryRestarted,
    Mark::ChangeRestarted,
    Mark::HandoverBegun,
    Mark::ReadConfirmed,
    Mark::ReadRepeated,
    Mark::RequestKnown,
    Mark::RequestInFlight,
    Mark::AbsentPassedOver,
    Mark::SegmentSealed,
    Mark::ResumePointSaved,
    Mark::ResumePointMet,
    Mark::SegmentPassedOver,
    Mark::SegmentsLetGo,
    Mark::ReserveRestored,
    Mark::ClusterFounded,
    Mark::FounderLate,
    Mark::PatienceGrown,
    Mark::RebirthNoticed,
    Mark::PrimaryRestored,
    Mark::OldestLetGo,
    Mark::GroupDeleted,
];

/// Marks that half of the universes hit, or more.
const OFTEN_QUIC: &[Mark] = &[
    Mark::PrimarySuspected,
    Mark::ProposalJoined,
    Mark::ProposalIgnored,
    Mark::ProposalWithdrawn,
    Mark::ViewEntered,
    Mark::LogChosen,
    Mark::LaterViewHeard,
    Mark::PreparesRepeated,
    Mark::HeadersLearned,
    Mark::PrepareRepaired,
    Mark::PrimaryRestarted,
    Mark::ReadConfirmed,
    Mark::AbsentPassedOver,
    Mark::ClusterFounded,
];

fn play_seeds(world: World, seeds: u64, often: &[Mark]) -> Statistics {
    let plan = Plan {
        worlds: vec![world],
        profile: Profile::Swarm,
        start: 0,
        seeds: Some(seeds),
        deadline: None,
        jobs: 2,
        after_failure: AfterFailure::Stop,
        printing: Printing::Off,
    };
    let Outcome { mut sums, coverage, failures } = play_all(&plan, |_| {});
    assert!(failures.is_empty(), "{failures:?}");
    let missing: Vec<Mark> = coverage.missing(world).filter(|mark| often.contains(mark)).collect();
    assert!(missing.is_empty(), "{seeds} seeds of the {} world never hit {missing:?}", world.name());
    let is_hit = |mark: &&Mark| coverage.universes(world, **mark) > 0;
    let reached: Vec<_> =
        Mark::ALL.iter().filter(is_hit).filter(|mark| why_beyond(world, **mark).is_some()).collect();
    assert!(reached.is_empty(), "said to be beyond the {} world, and hit: {reached:?}", world.name());
    sums.remove(&world).expect("the world was played")
}

#[test]
fn seeds_of_the_fast_world_keep_all_promises() {
    let sum = play_seeds(World::Fast, 24, OFTEN_FAST);
    assert!(sum.acked_under_faults > 1000 && sum.crashes > 50 && sum.network_partitions > 50, "{sum}");
    assert!(sum.ends_confirmed > 1000, "{sum}");
    assert!(sum.view_changes > 50 && sum.truncations > 5 && sum.repairs > 100, "{sum}");
}

#[test]
fn seeds_of_the_quic_world_keep_all_promises() {
    let sum = play_seeds(World::Quic, 12, OFTEN_QUIC);
    assert!(sum.acked_under_faults > 1000 && sum.crashes > 5 && sum.view_changes > 5, "{sum}");
    assert!(sum.packets_harmed > 100 && sum.ends_confirmed > 100, "{sum}");
}

/// The seeds of the list, each as its profile and its world draw it.
fn listed() -> Vec<Scenario> {
    let listed: toml::Table = include_str!("../seeds/regressions.toml").parse().expect("the list is TOML");
    let seeds = listed["seed"].as_array().expect("the list has seeds");
    let read = |entry: &toml::Value| {
        let world = match entry["world"].as_str() {
            Some("fast") => World::Fast,
            Some("quic") => World::Quic,
            other => panic!("{other:?} is no world"),
        };
        let seed =
            entry["seed"].as_integer().and_then(|seed| u64::try_from(seed).ok()).expect("a seed is a number");
        assert!(entry["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "seed {seed} has a cause");
        let profile = entry.get("profile").and_then(toml::Value::as_str).unwrap_or("swarm");
        let profile = Profile::from_str(profile, false).expect("a profile that there is");
        Scenario::draw_as(profile, seed, world)
    };
    seeds.iter().map(read).collect()
}

#[test]
fn seeds_that_once_failed_pass() {
    let listed = listed();
    let next = AtomicUsize::new(0);
    let play_some = || {
        while let Some(scenario) = listed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (world, seed) = (scenario.world, scenario.seed);
            let verdict = play_scenario(scenario.clone(), Printing::Off).verdict;
            assert_eq!(verdict, Verdict::Pass, "{} seed {seed}", world.name());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(play_some);
        }
    });
}
