//! Plays the corpus of each target, and copies of every input with a few mistakes in it.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Copies of each input. More by environment, for long runs.
fn copies() -> u64 {
    std::env::var("VARVE_FUZZ_COPIES").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn play(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("each target has a corpus") {
        let input =
            std::fs::read(entry.expect("the folder can be read").path()).expect("an input can be read");
        run(&input);
        count += 1;
        let mut rng = ChaCha8Rng::seed_from_u64(count);
        for _ in 0..copies() {
            run(&changed(input.clone(), &mut rng));
        }
    }
    assert!(count > 3, "{target} has {count} inputs");
}

fn changed(mut input: Vec<u8>, rng: &mut ChaCha8Rng) -> Vec<u8> {
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.random()),
            2 => input.extend_from_within(at..),
            _ if at < input.len() => input[at] = rng.random(),
            _ => {}
        }
    }
    input
}

#[test]
fn messages() {
    play("message", fuzz::message);
}

#[test]
fn batches() {
    play("batch", fuzz::batch);
}

#[test]
fn what_is_stored() {
    play("stored", fuzz::stored);
}

#[test]
fn data_directories() {
    play("data_dir", fuzz::data_dir);
}
