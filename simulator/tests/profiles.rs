//! Profiles: each universe is about what its profile says, and what goes beyond all promises is never wrong.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use simulator::report::{Report, Verdict};
use simulator::run::play_scenario;
use simulator::scenario::{Fault, Profile, Rot, Scenario, Strike, Victim, World, is_metadata_spared};
use simulator::trace::Printing;
use varve_protocol::durability::Durability;
use varve_protocol::id::NodeId;
use varve_protocol::mark::Mark;

fn drawn(profile: Profile) -> impl Iterator<Item = Scenario> {
    (0..100).map(move |seed| Scenario::draw_as(profile, seed, World::Fast))
}

fn knows(scenario: &Scenario, is_it: impl Fn(Fault) -> bool) -> bool {
    scenario.strikes.iter().any(|strike| is_it(strike.fault))
}

#[test]
fn clusters_of_all_sizes_are_drawn() {
    let sizes = drawn(Profile::Swarm).map(|drawn| (drawn.nodes, drawn.replication_factor));
    let sizes: BTreeSet<(u8, u8)> = sizes.collect();
    let wanted = [(1, 1), (3, 1), (3, 3), (5, 1), (5, 3), (5, 5), (7, 7)];
    assert!(wanted.iter().all(|size| sizes.contains(size)), "{sizes:?}");
}

#[test]
fn universes_are_about_what_their_profile_says() {
    let is_calm =
        |drawn: &Scenario| drawn.strikes.is_empty() && drawn.left_behind.is_empty() && drawn.rot == Rot::NONE;
    assert!(drawn(Profile::Calm).all(|drawn| is_calm(&drawn)));
    let is_cut = |fault| matches!(fault, Fault::Isolate(..) | Fault::Halves { .. } | Fault::OneWay { .. });
    let cut = drawn(Profile::Network).filter(|drawn| knows(drawn, is_cut)).count();
    assert!(cut > 80, "{cut} are cut");
    let dies = |fault| matches!(fault, Fault::DieInWrites { .. });
    let stop = drawn(Profile::Crashes).filter(|drawn| knows(drawn, dies)).count();
    assert!(stop > 90, "{stop} stop in writes");
    assert!(drawn(Profile::Disks).all(|drawn| drawn.rot != Rot::NONE && drawn.replication_factor >= 3));
    let is_memory = |drawn: &Scenario| drawn.durability == Durability::QuorumMemory;
    assert!(drawn(Profile::Memory).all(|drawn| is_memory(&drawn)));
    assert!(drawn(Profile::Moves).all(|drawn| drawn.load.moves && drawn.load.balances));
    assert!(drawn(Profile::Upgrades).all(|drawn| !drawn.rollouts.is_empty() && drawn.load.tinkers));
    assert!(drawn(Profile::Beyond).all(|drawn| drawn.is_beyond() && !drawn.load.moves && !is_memory(&drawn)));
}

/// Three nodes that lose so many disks, one after the other, and nothing else that goes wrong.
fn lost_disks(count: u8) -> Report {
    let mut scenario = (0..)
        .map(|seed| Scenario::draw_as(Profile::Beyond, seed, World::Fast))
        .find(|drawn| drawn.nodes == 3 && !drawn.load.tinkers && !is_metadata_spared(drawn.seed))
        .expect("some have three nodes");
    scenario.partitions = 1;
    scenario.safety = Duration::from_secs(12);
    scenario.rot = Rot::NONE;
    let strike = |node: u8| Strike {
        at: Duration::from_secs(4) + u32::from(node) * Duration::from_millis(10),
        lasts: Duration::from_millis(500),
        fault: Fault::LoseDisk(Victim::Node(NodeId::new(node))),
    };
    scenario.strikes = (1..=count).map(strike).collect();
    play_scenario(scenario, Printing::Off)
}

#[test]
fn a_majority_without_its_disks_is_unavailable_and_never_wrong() {
    let acked = |count: u8, lost: u64| {
        let Report { verdict, statistics, marks, .. } = lost_disks(count);
        assert_eq!((verdict, statistics.disks_lost), (Verdict::Pass, lost), "{count} disks");
        assert!(marks.of(Mark::ClusterFounded) > 0, "{count} disks");
        statistics.tally.acked
    };
    let [survived, one, two] = [(0, 0), (1, 1), (2, 2)].map(|(count, lost)| acked(count, lost));
    // With two of three gone nothing is acknowledged any more: a third of the time is left.
    assert!(2 * two < survived && 3 * one > 2 * survived, "{survived}, {one} and {two} were acknowledged");
    // The third one keeps its disk: where nobody remembers the cluster, there is another one.
    assert!(2 * acked(3, 2) < survived);
}

#[test]
fn what_goes_beyond_has_one_world() {
    let arguments = ["--profile", "beyond", "--world", "both", "--seed", "1"];
    let told = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
    let words = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(2), "{words}");
    assert!(words.contains("--profile beyond cannot be played in the quic world"), "{words}");
}
