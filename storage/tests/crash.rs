//! One workload, the power cut after every call to the disk, and many draws of what survives.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::View;
use varve_protocol::superblock::Superblock;
use varve_storage::{Job, MemoryDisk};

use crate::support::{
    Branch, GROUP, SMALL_SEGMENTS, answers, append, durable, new_store, reopen, superblock,
};
use crate::world::{Step, World};

/// Draws of what survives, for each call. More by environment, for long runs.
fn seeds() -> u64 {
    std::env::var("VARVE_CRASH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn appended(pick: usize, sizes: &[usize]) -> Step {
    Step::Append { pick, sizes: sizes.to_vec() }
}

fn written(pick: usize, sizes: &[usize]) -> Step {
    Step::Write { pick, sizes: sizes.to_vec() }
}

/// Rounds that create, append small and large, roll, cut, save and delete, alone and together.
fn workload() -> Vec<Vec<Step>> {
    let save = |pick| Step::Save { pick };
    let cut = |pick, back| Step::Truncate { pick, back };
    let let_go = |pick, kept| Step::LetGo { pick, kept };
    let mark = |pick, back| Step::Mark { pick, back };
    let take = |pick, ahead| Step::Take { pick, ahead };
    let fill = |room| Step::Fill { room };
    vec![
        vec![Step::Create],
        vec![Step::Create, Step::Create],
        vec![appended(0, &[100])],
        vec![appended(0, &[0, 200]), appended(1, &[700]), save(0)],
        vec![appended(0, &[500, 500]), appended(1, &[3000, 10])],
        vec![save(1), save(2), appended(2, &[1200; 4])],
        vec![cut(2, 2), appended(2, &[40, 50])],
        vec![appended(0, &[600, 600, 600]), save(0), cut(1, 1)],
        vec![cut(0, 5), appended(0, &[300])],
        vec![appended(0, &[900; 5]), cut(0, 3), appended(0, &[20]), save(0)],
        vec![appended(1, &[0]), appended(2, &[2500])],
        vec![Step::Delete { pick: 1 }, appended(0, &[30])],
        vec![appended(0, &[70_000])],
        vec![appended(0, &[10]), Step::Create, appended(1, &[100])],
        vec![cut(1, 99), appended(1, &[400])],
        vec![mark(0, 1), mark(2, 0)],
        vec![appended(0, &[700; 4]), mark(2, 3)],
        vec![mark(0, 0), appended(2, &[700])],
        vec![let_go(0, 2), appended(0, &[700; 4])],
        vec![let_go(0, 1), save(0), appended(0, &[50])],
        vec![take(2, 5), appended(2, &[800, 800, 800])],
        vec![take(0, 0), appended(0, &[800; 4]), save(0)],
        vec![let_go(0, 0), let_go(2, 1), appended(2, &[100])],
        vec![Step::Create, take(3, 40)],
        vec![appended(3, &[10]), cut(3, 9)],
        vec![
            Step::Create,
            appended(0, &[60]),
            appended(1, &[900]),
            appended(2, &[70]),
            appended(4, &[1500, 20]),
        ],
        vec![written(0, &[300, 20])],
        vec![written(0, &[900; 5]), written(1, &[10])],
        vec![Step::Sync { pick: 0 }],
        vec![save(0), written(0, &[50]), written(1, &[70])],
        vec![written(0, &[500])],
        vec![appended(0, &[60]), Step::Sync { pick: 1 }],
        vec![written(1, &[600; 3])],
        vec![cut(1, 2)],
        vec![fill(0), appended(0, &[30, 3000]), appended(1, &[900; 4]), save(0), Step::Create],
        vec![appended(0, &[10]), cut(0, 1), appended(4, &[100]), take(1, 3), save(2)],
        vec![mark(0, 0), Step::Free, appended(2, &[10])],
        vec![mark(0, 2), mark(2, 1), appended(0, &[900; 5])],
        vec![fill(5000), appended(0, &[900; 5]), let_go(0, 3), appended(3, &[2000])],
        vec![fill(20_000), appended(0, &[10]), Step::Delete { pick: 2 }],
        vec![fill(100), take(0, 2), save(0), save(1), save(2)],
        vec![appended(0, &[80])],
        vec![Step::Free],
    ]
}

/// The world with so many keys after the workload was cut by `calls` more calls to the disk; none if all of it was done.
fn cut_after(keys: u8, calls: u64) -> (World, bool) {
    let mut world = World::new(keys);
    world.disk.power_off_after(world.disk.calls() + calls);
    let is_done = workload().iter().all(|steps| world.run(steps));
    (world, is_done)
}

/// Runs `check` on the world cut after every call.
fn at_every_call(keys: u8, check: impl Fn(&World, u64)) {
    for calls in 0.. {
        let (world, is_done) = cut_after(keys, calls);
        check(&world, calls);
        if is_done {
            assert!(calls > 100, "the workload is not a short one");
            return;
        }
    }
}

fn go_on(world: &mut World) {
    for pick in 0..4 {
        assert!(world.run(&[appended(pick, &[100, 0, 900]), Step::Save { pick }]));
    }
}

#[test]
fn whatever_survives_a_crash_holds_all_that_was_acknowledged() {
    at_every_call(0, |world, calls| {
        for seed in 0..seeds() {
            let mut world = world.fork();
            world.crash(seed * 1000 + calls);
            go_on(&mut world);
            world.crash(seed);
        }
    });
}

#[test]
fn what_is_sealed_survives_a_crash_as_well() {
    at_every_call(1, |world, calls| {
        for seed in 0..seeds() {
            let mut world = world.fork();
            world.crash(seed * 1000 + calls);
            go_on(&mut world);
            world.add_key();
            world.crash(seed);
            go_on(&mut world);
            world.crash(seed);
        }
    });
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing() {
    at_every_call(0, |world, calls| {
        for seed in 0..seeds() {
            let mut world = world.fork();
            world.lose_power(seed * 1000 + calls);
            world.disk.power_off_after(world.disk.calls() + seed);
            if !world.try_open() {
                world.crash(seed);
            }
            world.crash(seed + 1);
            go_on(&mut world);
            world.crash(seed + 2);
        }
    });
}

#[test]
fn what_is_shown_after_a_killed_process_outlives_the_next_crash() {
    at_every_call(0, |world, calls| {
        for seed in 0..seeds() {
            let mut world = world.fork();
            world.restart();
            world.crash(seed * 1000 + calls);
            go_on(&mut world);
            world.crash(seed);
        }
    });
}

#[test]
fn one_seed_gives_one_outcome() {
    let run = || {
        let (mut world, _) = cut_after(1, 90);
        world.crash(5);
        let bytes = |disk: &MemoryDisk| (disk.used(), disk.calls());
        bytes(&world.disk)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_prepare_never_survives_without_the_superblock_handed_in_before_it() {
    let mut outcomes = [0_u64; 2];
    for calls in 0..40 {
        for seed in 0..seeds() {
            let disk = MemoryDisk::new();
            let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
            let mut branch = Branch { view: View::new(2), ..Branch::new(GROUP) };
            let round = vec![
                Job::SaveSuperblock(superblock(GROUP, 2)),
                append(GROUP, &branch.seal_many(&[100, 3000])),
            ];
            disk.power_off_after(disk.calls() + calls);
            store.execute(round);
            drop(store);
            let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
            let (_store, recovered, shown) = reopen(disk, SMALL_SEGMENTS);
            let view = recovered[0].superblock.view;
            assert!(shown.is_empty() || view == View::new(2), "{} prepares and {view}", shown.len());
            outcomes[usize::from(shown.is_empty())] += 1;
        }
    }
    assert!(
        outcomes.iter().all(|count| *count > 0),
        "the cuts are before, in and after the append: {outcomes:?}"
    );
}

#[test]
fn the_mark_of_unsynced_writes_outlives_what_was_written() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = MemoryDisk::new();
        let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
        let marked = Superblock { is_unsynced: true, ..superblock(GROUP, 1) };
        store.execute(vec![Job::SaveSuperblock(marked)]);
        let prepares = Branch::new(GROUP).seal_many(&[700; 6]);
        let (first, rest) = prepares.split_at(2);
        let synced = vec![Job::Write { group: GROUP, prepares: first.to_vec() }, Job::Sync { group: GROUP }];
        assert_eq!(store.execute(synced), [durable(GROUP, &first[1])]);
        assert_eq!(answers(&mut store, vec![Job::Write { group: GROUP, prepares: rest.to_vec() }]), []);
        drop(store);

        let killed = disk.fork().restart();
        let (_, recovered, shown) = reopen(killed, SMALL_SEGMENTS);
        assert!(recovered[0].superblock == marked && shown == prepares, "the kernel has it all");
        let crashed = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed));
        let (_, recovered, shown) = reopen(crashed, SMALL_SEGMENTS);
        assert_eq!(recovered[0].superblock, marked);
        assert!(shown.len() >= first.len() && prepares.starts_with(&shown), "what was synced is there");
        lost += usize::from(shown.len() < prepares.len());
    }
    assert!(lost > 0, "what was not synced is lost in some crash");
}
