//! The same seed gives the same universe: two processes print the same trace, event by event.

use std::process::Command;

fn play(world: &str, seed: u64) -> String {
    let seed = seed.to_string();
    let arguments = ["--world", world, "--seed", &seed, "--marks"];
    let done = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
    let text = String::from_utf8(done.stdout).expect("it prints text");
    assert!(done.status.success(), "{text}");
    // The last line tells the speed, which is this machine's and not the seed's.
    let told: Vec<&str> =
        text.lines().filter(|line| !line.contains("simulated seconds per second")).collect();
    assert!(told.iter().any(|line| line.contains("ViewEntered")), "{text}");
    assert!(told.iter().any(|line| line.trim_start().starts_with("trace ")), "{text}");
    told.join("\n")
}

#[test]
fn two_processes_see_the_same_fast_world() {
    let first: Vec<String> = (0..6).map(|seed| play("fast", seed)).collect();
    let second: Vec<String> = (0..6).map(|seed| play("fast", seed)).collect();
    assert_eq!(first, second);
    assert_ne!(first[0], first[1], "another seed is another universe");
}

#[test]
fn two_processes_see_the_same_quic_world() {
    let first: Vec<String> = (0..6).map(|seed| play("quic", seed)).collect();
    let second: Vec<String> = (0..6).map(|seed| play("quic", seed)).collect();
    assert_eq!(first, second);
    assert_ne!(first[0], first[1], "another seed is another universe");
}
