//! Bounded sets of seeds, and the seeds that once failed. A run in which nothing happened does not count as passed.

use simulator::report::{Statistics, Verdict};
use simulator::run::{AfterFailure, Outcome, Plan, play, play_all};
use simulator::scenario::World;
use simulator::trace::Printing;

fn play_seeds(world: World, seeds: u64) -> Statistics {
    let plan = Plan {
        worlds: vec![world],
        start: 0,
        seeds: Some(seeds),
        deadline: None,
        jobs: 2,
        after_failure: AfterFailure::Stop,
        printing: Printing::Off,
    };
    let Outcome { mut sums, failures } = play_all(&plan, |_| {});
    assert!(failures.is_empty(), "{failures:?}");
    sums.remove(&world).expect("the world was played")
}

#[test]
fn seeds_of_the_fast_world_keep_all_promises() {
    let sum = play_seeds(World::Fast, 24);
    assert!(sum.acked_under_faults > 1000 && sum.crashes > 50 && sum.network_partitions > 50, "{sum}");
    assert!(sum.ends_confirmed > 1000, "{sum}");
    assert!(sum.view_changes > 50 && sum.truncations > 5 && sum.repairs > 100, "{sum}");
}

#[test]
fn seeds_of_the_quic_world_keep_all_promises() {
    let sum = play_seeds(World::Quic, 12);
    assert!(sum.acked_under_faults > 1000 && sum.crashes > 5 && sum.view_changes > 5, "{sum}");
    assert!(sum.packets_harmed > 100 && sum.ends_confirmed > 100, "{sum}");
}

#[test]
fn seeds_that_once_failed_pass() {
    let listed: toml::Table = include_str!("../seeds/regressions.toml").parse().expect("the list is TOML");
    let seeds = listed["seed"].as_array().expect("the list has seeds");
    for entry in seeds {
        let world = match entry["world"].as_str() {
            Some("fast") => World::Fast,
            Some("quic") => World::Quic,
            other => panic!("{other:?} is no world"),
        };
        let seed =
            entry["seed"].as_integer().and_then(|seed| u64::try_from(seed).ok()).expect("a seed is a number");
        assert!(entry["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "seed {seed} has a cause");
        assert_eq!(play(world, seed, Printing::Off).verdict, Verdict::Pass, "{} seed {seed}", world.name());
    }
}
