//! Blackouts: the power of everybody fails while a topic acknowledges from memory, and an operator has it go on.

use std::collections::BTreeSet;
use std::time::Duration;

use simulator::fast::chronicle::{Changes, Process};
use simulator::fast::run_with_chronicle;
use simulator::report::{Report, Verdict};
use simulator::run::play_scenario;
use simulator::scenario::{Fault, Rot, Scenario, Strike, World};
use simulator::trace::Printing;
use varve_protocol::durability::Durability;
use varve_protocol::mark::Mark;

/// When the power fails.
const AT: Duration = Duration::from_secs(4);

/// Three nodes, one partition, a steady load, and nothing that goes wrong but one blackout.
fn scenario(seed: u64, durability: Durability) -> Scenario {
    let mut scenario = (100 * seed..)
        .map(|seed| Scenario::draw(seed, World::Fast))
        .find(|drawn| drawn.nodes == 3 && drawn.replication_factor == 3 && !drawn.load.moves)
        .expect("most have three nodes");
    scenario.durability = durability;
    scenario.partitions = 1;
    scenario.safety = Duration::from_secs(7);
    scenario.strikes = vec![Strike { at: AT, lasts: Duration::from_millis(700), fault: Fault::Blackout }];
    (scenario.left_behind, scenario.rot) = (Vec::new(), Rot::NONE);
    scenario.load.think = Duration::from_millis(5);
    scenario
}

fn play(scenario: Scenario) -> Report {
    let report = play_scenario(scenario, Printing::Off);
    assert_eq!(report.verdict, Verdict::Pass, "seed {}", report.seed);
    report
}

#[test]
fn a_topic_that_acknowledges_from_memory_waits_for_its_operator_and_may_lose_its_end() {
    let (mut forced, mut lost) = (0, 0);
    for seed in 0..12 {
        let report = play(scenario(seed, Durability::QuorumMemory));
        let hits = [Mark::RestartUnsafe, Mark::ForcedOn].map(|mark| report.marks.of(mark) > 0);
        assert_eq!(hits, [report.statistics.forced > 0; 2], "seed {seed}");
        forced += report.statistics.forced;
        lost += report.statistics.tally.lost;
    }
    assert!(forced > 6 && lost > 6, "{forced} forced, {lost} lost");
}

#[test]
fn a_topic_that_acknowledges_from_disk_needs_nobody() {
    for seed in 0..6 {
        let Report { statistics, .. } = play(scenario(seed, Durability::QuorumDisk));
        assert_eq!((statistics.power_failures, statistics.forced, statistics.tally.lost), (1, 0, 0));
    }
}

#[test]
fn computers_go_down_at_once_and_come_back_one_by_one() {
    let (report, chronicle) = run_with_chronicle(scenario(1, Durability::QuorumDisk));
    assert_eq!(report.verdict, Verdict::Pass);
    // Of the first start and of the end of the blackout.
    let starts = |changes: &Changes<Process>| {
        changes.iter().filter(|(_, process)| *process == Process::Running).map(|(at, _)| *at).nth(1)
    };
    let downs = |changes: &Changes<Process>| {
        changes.iter().find(|(at, process)| *process == Process::Down && *at > AT / 2).map(|(at, _)| *at)
    };
    let downs: BTreeSet<_> = chronicle.processes.values().map(downs).collect();
    let starts: BTreeSet<_> = chronicle.processes.values().map(starts).collect();
    assert_eq!((downs.len(), starts.len()), (1, 3), "{downs:?}, {starts:?}");
    assert!(!downs.contains(&None) && !starts.contains(&None));
}

#[test]
fn seeds_draw_blackouts() {
    let drawn = (0..400)
        .map(|seed| Scenario::draw(seed, World::Fast))
        .filter(|drawn| drawn.strikes.iter().any(|strike| strike.fault == Fault::Blackout));
    let (memory, disk): (Vec<_>, Vec<_>) = drawn.partition(Scenario::has_rescuer);
    assert!(memory.len() > 20 && disk.len() > 20, "{} and {}", memory.len(), disk.len());
}
