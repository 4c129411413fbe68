//! Three mutants, one in each room, are found within a few seeds. All of them: the command `mutants`.

use std::process::Command;

use simulator::case::Case;
use simulator::scenario::{Scenario, World};

#[test]
fn a_mutant_of_each_room_is_killed() {
    for name in ["own-vote-before-sync", "superblock-not-synced", "files-deleted-early"] {
        let arguments = ["mutants", "--only", name, "--runs", "40"];
        let done = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && told.contains("killed"), "{told}");
    }
}

/// The first seed that the mutant fails is made smaller, written, and played again by another process.
#[test]
fn a_failing_seed_becomes_a_short_story() {
    const MUTANT: &str = "cut-too-far";
    let dir = tempfile::tempdir().expect("there is room for a file");
    let file = dir.path().join("case.json");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
        let done = command.args(arguments).arg(&file).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let minimize = |seed: u64| {
        let seed = seed.to_string();
        run(&["minimize", "--seed", &seed, "--mutant", MUTANT, "--tries", "150", "--out"])
    };
    let stories = (0..20).map(|seed| (seed, minimize(seed)));
    let (seed, (_, story)) =
        stories.into_iter().find(|(_, (code, _))| *code == Some(0)).expect("a seed fails");
    let drawn = Scenario::draw(seed, World::Fast);
    let case = Case::read(&file).expect("a case was written");
    let left = &case.scenario;
    assert!(2 * left.strikes.len() < drawn.strikes.len(), "less than half of the faults is left: {story}");
    assert!(left.safety < drawn.safety && left.load.window <= drawn.load.window, "{story}");
    assert!(story.contains("a promise is broken: ") && story.contains("───▶"), "{story}");
    assert!(story.contains(&format!("-- replay --mutant {MUTANT} {}", file.display())), "{story}");
    let (code, told) = run(&["replay", "--mutant", MUTANT]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&case.outcome) && told.contains("the same universe as when"), "{told}");
    let (code, told) = run(&["replay"]);
    assert_eq!(code, Some(0), "it is the mutant that fails, not the code: {told}");
}

#[test]
fn an_unknown_mutant_is_an_error() {
    let arguments = ["--mutant", "no-such-mutant"];
    let done = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && told.contains("own-vote-before-sync"), "{told}");
}
