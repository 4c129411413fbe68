//! Three mutants, one in each room, are found within a few seeds. All of them: the command `mutants`.

use std::process::Command;

#[test]
fn a_mutant_of_each_room_is_killed() {
    for name in ["own-vote-before-sync", "superblock-not-synced", "files-deleted-early"] {
        let arguments = ["mutants", "--only", name, "--runs", "40"];
        let done = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && told.contains("killed"), "{told}");
    }
}

#[test]
fn an_unknown_mutant_is_an_error() {
    let arguments = ["--mutant", "no-such-mutant"];
    let done = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().expect("it runs");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && told.contains("own-vote-before-sync"), "{told}");
}
