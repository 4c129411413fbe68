//! Any sequence of jobs, crashes, kills and power cuts, against a model of vectors.

use proptest::prelude::*;

use crate::world::{Step, World};

#[derive(Clone, Debug)]
enum Event {
    Round(Vec<Step>),
    Crash(u64),
    Restart,
    /// A restart with one more key.
    Rekey,
    /// The power goes off after so many calls; the seed of the crash that follows.
    PowerOffAfter(u64, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..300_usize, 2 => 300..2500_usize, 1 => 60_000..80_000_usize];
    prop_oneof![
        1 => Just(Step::Create),
        8 => (any::<usize>(), prop::collection::vec(size, 1..5)).prop_map(|(pick, sizes)| Step::Append { pick, sizes }),
        3 => (any::<usize>(), 0..12_usize).prop_map(|(pick, back)| Step::Truncate { pick, back }),
        2 => any::<usize>().prop_map(|pick| Step::Save { pick }),
        3 => (any::<usize>(), 0..6_usize).prop_map(|(pick, kept)| Step::LetGo { pick, kept }),
        1 => (any::<usize>(), 0..70_usize).prop_map(|(pick, ahead)| Step::Take { pick, ahead }),
        3 => (any::<usize>(), 0..6_usize).prop_map(|(pick, back)| Step::Mark { pick, back }),
        1 => any::<usize>().prop_map(|pick| Step::Delete { pick }),
        1 => prop_oneof![0..300_u64, 0..9000_u64].prop_map(|room| Step::Fill { room }),
        2 => Just(Step::Free),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => prop::collection::vec(any_step(), 1..5).prop_map(Event::Round),
        1 => any::<u64>().prop_map(Event::Crash),
        1 => Just(Event::Restart),
        1 => Just(Event::Rekey),
        2 => (0..30_u64, any::<u64>()).prop_map(|(calls, seed)| Event::PowerOffAfter(calls, seed)),
    ]
}

/// What a group that waits for room has durable is where it was, and so is a log that is cut behind it: whoever is told the one in a round
/// that fails has not been told the other.
#[test]
fn the_power_fails_at_a_cut_behind_what_has_waited() {
    let sizes = vec![0, 1032, 224, 233];
    let last = vec![Step::Append { pick: 0, sizes }, Step::Free, Step::Truncate { pick: 0, back: 4 }];
    for (calls, seed) in (0..40).flat_map(|calls| (0..5).map(move |seed| (calls, seed))) {
        run(&[
            Event::Round(vec![Step::Create]),
            Event::Round(vec![Step::Delete { pick: 0 }]),
            Event::Round(vec![Step::Fill { room: 0 }]),
            Event::Round(vec![Step::Create]),
            Event::PowerOffAfter(calls, seed),
            Event::Round(vec![Step::Truncate { pick: 0, back: 0 }]),
            Event::Round(last.clone()),
        ]);
    }
}

fn run(events: &[Event]) {
    let mut world = World::new(0);
    let mut next_seed = 0;
    for event in events {
        match event {
            Event::Round(steps) => {
                if !world.run(steps) {
                    world.crash(next_seed);
                }
            }
            Event::Crash(seed) => world.crash(*seed),
            Event::Restart => world.restart(),
            Event::Rekey => {
                world.add_key();
                world.restart();
            }
            Event::PowerOffAfter(calls, seed) => {
                world.disk.power_off_after(world.disk.calls() + calls);
                next_seed = *seed;
            }
        }
    }
    world.crash(next_seed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_vector_that_survives(events in prop::collection::vec(any_event(), 1..40)) {
        run(&events);
    }
}
