//! Disks that are full: nothing is told that is not so, what finds no room waits, and goes on when there is some.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{GroupId, Op};
use varve_protocol::prepare::Prepare;
use varve_storage::{Completion, Disk, Job, MemoryDisk, OpenMode, Options, ReadFrom, Store};

use crate::support::{
    Branch, GROUP, RESERVE_BYTES, SMALL_SEGMENTS, append, durable, new_store, read, reopen, snapshot_of,
    summarize, superblock,
};

const SMALL_RESERVE: Options =
    Options { segment_size_bytes_max: 256 << 20, reserve_bytes: RESERVE_BYTES, ..Options::DEFAULT };

const FULL: Completion = Completion::DiskFull { group: GROUP };
const HAS_ROOM: Completion = Completion::DiskHasRoom { group: GROUP };

/// Whether the disk holds its reserve.
fn has_reserve(disk: &MemoryDisk) -> bool {
    disk.open("reserve".as_ref(), OpenMode::Existing).is_ok()
}

/// A store whose group holds these sizes, on a disk with so much room left.
fn filled(
    sizes: &[usize],
    room: u64,
    options: Options,
) -> (MemoryDisk, Store<MemoryDisk>, Branch, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options);
    let mut branch = Branch::new(GROUP);
    let prepares = branch.seal_many(sizes);
    store.execute(vec![append(GROUP, &prepares)]);
    disk.set_capacity(Some(disk.used() + room));
    (disk, store, branch, prepares)
}

/// What is told apart from what is durable here.
fn others(completions: &[Completion]) -> Vec<&Completion> {
    completions.iter().filter(|completion| !matches!(completion, Completion::Durable { .. })).collect()
}

#[test]
fn what_finds_no_room_waits_until_there_is_some() {
    for (first, size) in [(100, 3000), (100, 80_000), (100_000, 100), (100_000, 300_000), (61_000, 5000)] {
        for room in [0, 1, 700, 2999] {
            let (disk, mut store, mut branch, prepares) = filled(&[first, 0], room, SMALL_RESERVE);
            let waiting = branch.seal_many(&[size; 30]);
            let told = store.execute(vec![append(GROUP, &waiting)]);
            assert_eq!(told.last(), Some(&FULL), "{told:?}");
            assert!(!told.contains(&durable(GROUP, &waiting[29])), "what waits is not durable: {told:?}");
            assert_eq!(others(&store.execute(vec![Job::Resume])), [] as [&Completion; 0], "there is no room");
            let all = [&prepares[..], &waiting].concat();
            assert_eq!(read(&mut store, ReadFrom::Op(waiting[29].op())), waiting[29..], "it can be read");

            let (_, recovered, shown) = reopen(disk.fork(), SMALL_RESERVE);
            assert_eq!((&recovered[0].problem, recovered[0].hole), (&None, None));
            assert!(all.starts_with(&shown) && shown.starts_with(&prepares) && shown.len() < all.len());

            disk.set_capacity(None);
            assert_eq!(store.execute(vec![Job::Resume]), [durable(GROUP, &waiting[29]), HAS_ROOM]);
            let more = branch.seal_many(&[10]);
            assert_eq!(store.execute(vec![append(GROUP, &more)]), [durable(GROUP, &more[0])]);
            assert_eq!(reopen(disk.restart(), SMALL_RESERVE).2, [&all[..], &more].concat());
        }
    }
}

#[test]
fn view_changes_and_deletions_are_written_out_of_the_reserve() {
    let (disk, mut store, mut branch, prepares) = filled(&[100], 10, SMALL_RESERVE);
    let waiting = branch.seal_many(&[70_000]);
    assert_eq!(store.execute(vec![append(GROUP, &waiting)]).last(), Some(&FULL));
    assert!(has_reserve(&disk), "records are not written out of it");
    disk.set_capacity(Some(disk.used()));
    for view in 2..20 {
        let saved = superblock(GROUP, view);
        assert_eq!(store.execute(vec![Job::SaveSuperblock(saved)]), [Completion::SuperblockDurable(saved)]);
    }
    assert!(!has_reserve(&disk));
    let metadata = Branch::new(GroupId::METADATA).seal_many(&[300]);
    let made = superblock(GroupId::METADATA, 1);
    let told = store.execute(vec![Job::SaveSuperblock(made), append(GroupId::METADATA, &metadata)]);
    assert!(told.contains(&durable(GroupId::METADATA, &metadata[0])), "{told:?}");
    assert_eq!(reopen(disk.fork(), SMALL_RESERVE).1[1].head, prepares[0].id());
    let deleted = store.execute(vec![Job::DeleteGroup { group: GROUP }]);
    assert_eq!(deleted, [Completion::Deleted { group: GROUP }, HAS_ROOM]);
    assert_eq!(reopen(disk.restart(), SMALL_RESERVE).1.len(), 1);
}

#[test]
fn a_small_append_does_not_eat_what_the_reserve_gave_back() {
    let (disk, mut store, mut branch, _) = filled(&[100], 10, SMALL_RESERVE);
    store.execute(vec![Job::SaveSuperblock(superblock(GROUP, 2))]);
    assert!(!has_reserve(&disk));
    let small = branch.seal_many(&[50]);
    assert_eq!(store.execute(vec![append(GROUP, &small)]).last(), Some(&FULL));
    disk.set_capacity(Some(disk.used() + RESERVE_BYTES - 1));
    assert_eq!(others(&store.execute(vec![Job::Resume])), [] as [&Completion; 0]);
    disk.set_capacity(Some(disk.used() + RESERVE_BYTES));
    assert_eq!(store.execute(vec![Job::Resume]), [durable(GROUP, &small[0]), HAS_ROOM]);
    assert!(has_reserve(&disk));
}

#[test]
fn superblocks_wait_when_the_reserve_is_used_up() {
    let none = Options { reserve_bytes: 0, ..SMALL_RESERVE };
    for room in [0, 63, 64, 100, 127] {
        let (disk, mut store, mut branch, prepares) = filled(&[100], room, none.clone());
        let second = Job::SaveSuperblock(superblock(GROUP, 2));
        assert_eq!(store.execute(vec![second, append(GROUP, &branch.seal_many(&[10]))]).last(), Some(&FULL));
        let (_, recovered, shown) = reopen(disk.fork(), none.clone());
        assert_eq!((recovered[0].superblock, shown), (superblock(GROUP, 1), prepares.clone()));
        store.execute(vec![Job::SaveSuperblock(superblock(GROUP, 3))]);
        disk.set_capacity(None);
        let told = store.execute(vec![Job::Resume]);
        let saved = [2, 3].map(|view| Completion::SuperblockDurable(superblock(GROUP, view)));
        assert!(saved.iter().all(|saved| told.contains(saved)) && told.contains(&HAS_ROOM), "{told:?}");
        let (_, recovered, shown) = reopen(disk.restart(), none.clone());
        assert_eq!((recovered[0].superblock, shown.len()), (superblock(GROUP, 3), 2));
    }
}

#[test]
fn a_power_failure_while_superblocks_are_taken_back_leaves_a_whole_one() {
    let none = Options { reserve_bytes: 0, ..SMALL_RESERVE };
    for (room, calls) in [64, 90, 127].into_iter().flat_map(|room| (0..16).map(move |calls| (room, calls))) {
        for seed in 0..20 {
            let (disk, mut store, ..) = filled(&[100], room, none.clone());
            disk.power_off_after(disk.calls() + calls);
            store.execute(vec![Job::SaveSuperblock(superblock(GROUP, 2))]);
            let survivor = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed));
            survivor.set_capacity(None);
            let view = reopen(survivor, none.clone()).1[0].superblock.view.as_raw();
            assert!((1..=2).contains(&view), "neither was told: {view}");
        }
    }
}

#[test]
fn what_waits_is_cut_with_its_log() {
    let (disk, mut store, mut branch, prepares) = filled(&[100, 200], 0, SMALL_RESERVE);
    let mut later = Branch::behind(&prepares[0]);
    assert_eq!(store.execute(vec![append(GROUP, &branch.seal_many(&[70_000]))]).last(), Some(&FULL));
    let told = store.execute(vec![Job::Truncate { group: GROUP, keep: Op::new(1) }]);
    assert_eq!(told, [durable(GROUP, &prepares[0]), HAS_ROOM]);
    let waiting = later.seal_many(&[70_000, 10]);
    store.execute(vec![append(GROUP, &waiting), Job::Truncate { group: GROUP, keep: Op::new(2) }]);
    disk.set_capacity(None);
    assert_eq!(store.execute(vec![Job::Resume]), [durable(GROUP, &waiting[0]), HAS_ROOM]);
    assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), [&prepares[..1], &waiting[..1]].concat());
}

#[test]
fn what_is_let_go_gives_room_to_what_waits() {
    let (disk, mut store, mut branch, prepares) = filled(&[700; 8], 0, SMALL_SEGMENTS);
    let waiting = branch.seal_many(&[900; 3]);
    assert_eq!(store.execute(vec![append(GROUP, &waiting)]).last(), Some(&FULL));
    store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(7), summarize }]);
    assert_eq!(store.execute(vec![Job::Resume]).last(), Some(&HAS_ROOM));
    let (_, recovered, shown) = reopen(disk.restart(), SMALL_SEGMENTS);
    let gone = usize::try_from(recovered[0].snapshot.as_ref().unwrap().op().as_raw()).unwrap();
    assert!(gone > 0 && shown == [&prepares[gone..], &waiting].concat(), "{gone}");
}

#[test]
fn a_snapshot_that_finds_no_room_waits_and_nothing_is_said_of_the_log_before() {
    let none = Options { reserve_bytes: 0, ..SMALL_RESERVE };
    let (disk, mut store, mut branch, _) = filled(&[100; 4], 0, none.clone());
    let ahead = [vec![], branch.seal_many(&[10; 40])].concat();
    let snapshot = snapshot_of(&ahead);
    let behind = branch.seal_many(&[50]);
    let told = store.execute(vec![
        Job::TakeSnapshot { group: GROUP, snapshot: snapshot.clone() },
        append(GROUP, &behind),
    ]);
    assert_eq!(told, [FULL]);
    disk.set_capacity(None);
    assert_eq!(store.execute(vec![Job::Resume]), [durable(GROUP, &behind[0]), HAS_ROOM]);
    let (_, recovered, shown) = reopen(disk.restart(), none.clone());
    assert_eq!((recovered[0].snapshot.as_ref(), shown), (Some(&snapshot), behind));
}
