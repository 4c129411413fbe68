//! A scenario in a file is the same universe as the seed that drew it.

use std::process::Command;

use simulator::case::{Case, CaseError, Likeness};
use simulator::run::{play, play_scenario};
use simulator::scenario::{Scenario, World};
use simulator::trace::Printing;

#[test]
fn every_scenario_survives_its_file() {
    let dir = tempfile::tempdir().expect("there is room for a file");
    let file = dir.path().join("case.json");
    for seed in 0..300 {
        for world in [World::Fast, World::Quic] {
            let scenario = Scenario::draw(seed, world);
            let case = Case { outcome: "pass".to_owned(), trace: "0123456789abcdef".to_owned(), scenario };
            case.write(&file).expect("it can be written");
            assert_eq!(Case::read(&file).expect("it can be read"), case);
        }
    }
}

#[test]
fn a_file_is_the_same_universe_as_its_seed() {
    let dir = tempfile::tempdir().expect("there is room for a file");
    let file = dir.path().join("case.json");
    for (world, seed) in [(World::Fast, 0), (World::Fast, 3), (World::Fast, 7), (World::Quic, 0)] {
        let report = play(world, seed, Printing::Off);
        let case = Case::new(Scenario::draw(seed, world), &report);
        case.write(&file).expect("it can be written");
        let (again, likeness) = Case::read(&file).expect("it can be read").play(Printing::Off);
        assert_eq!(again, report, "{} seed {seed}", world.name());
        assert_eq!(likeness, Likeness::Same);
    }
}

#[test]
fn another_process_plays_a_file_and_knows_it_again() {
    let dir = tempfile::tempdir().expect("there is room for a file");
    let file = dir.path().join("case.json");
    let mut scenario = Scenario::draw(1, World::Fast);
    scenario.strikes.truncate(2);
    let report = play_scenario(scenario.clone(), Printing::Off);
    let mut case = Case::new(scenario, &report);
    let replay = |case: &Case| {
        case.write(&file).expect("it can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
        let done = command.arg("replay").arg(&file).output().expect("it runs");
        assert!(done.status.success());
        String::from_utf8(done.stdout).expect("it prints text")
    };
    let told = replay(&case);
    assert!(told.contains(&format!("trace {:016x}", report.trace)), "{told}");
    assert!(told.contains("the same universe as when the file was written"), "{told}");
    case.scenario.strikes.truncate(1);
    let told = replay(&case);
    assert!(told.contains("not the universe of when the file was written"), "{told}");
}

#[test]
fn a_file_that_is_no_case_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("there is room for a file");
    let file = dir.path().join("case.json");
    assert!(matches!(Case::read(&file), Err(CaseError::Read { .. })));
    let report = play(World::Fast, 0, Printing::Off);
    let mut case = Case::new(Scenario::draw(0, World::Fast), &report);
    case.scenario.nodes = 0;
    case.write(&file).expect("it can be written");
    assert!(matches!(Case::read(&file), Err(CaseError::Unsound { .. })));
    case.scenario.nodes = 3;
    case.write(&file).expect("it can be written");
    let text = std::fs::read_to_string(&file).expect("it can be read");
    std::fs::write(&file, text.replace("\"nodes\"", "\"knots\"")).expect("it can be written");
    assert!(matches!(Case::read(&file), Err(CaseError::Parse { .. })));
}
