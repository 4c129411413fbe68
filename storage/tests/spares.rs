//! Segments that are written over those that were let go of.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{GroupId, Op};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::Prepare;
use varve_storage::{Completion, Disk, DiskFile, Job, Keys, MemoryDisk, OpenMode, Options, ReadFrom, Store};

use crate::support::{
    Branch, GROUP, RESERVE_BYTES, SMALL_SEGMENTS, answers, append, durable, new_store, read, reopen,
    summarize, superblock,
};

const DIR: &str = "groups/0000000007";

/// The files of the group that were put by.
fn spares(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| name.ends_with(".spare.tmp"));
    names
}

fn size_of(disk: &MemoryDisk, path: &Path) -> u64 {
    disk.open(path, OpenMode::Existing).unwrap().size().unwrap()
}

/// The newest segment file, and its size.
fn newest(disk: &MemoryDisk) -> (PathBuf, u64) {
    let names = disk.list(Path::new(DIR)).unwrap();
    let name = names.iter().rfind(|name| name.ends_with(".log")).unwrap();
    let path = Path::new(DIR).join(name);
    let size = size_of(disk, &path);
    (path, size)
}

/// A log of twelve prepares, three to a segment, of which the first two are let go of.
fn six_of_twelve(options: Options) -> (MemoryDisk, Store<MemoryDisk>, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options);
    let prepares = Branch::new(GROUP).seal_many(&[500; 12]);
    store.execute(vec![append(GROUP, &prepares)]);
    let_go(&mut store, 7);
    (disk, store, prepares)
}

fn let_go(store: &mut Store<MemoryDisk>, first: u64) {
    let told = store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(first), summarize }]);
    assert!(matches!(told.as_slice(), [Completion::LetGo { group: GROUP, .. }]), "{told:?}");
}

#[test]
fn the_next_segment_is_as_long_as_the_one_it_is_written_over() {
    let (disk, mut store, prepares) = six_of_twelve(SMALL_SEGMENTS);
    assert_eq!(spares(&disk).len(), 2);
    let full = 4096 + 3 * prepares[0].header().total_size() as u64;
    let mut branch = Branch::behind(&prepares[11]);
    let mut all = prepares[6..].to_vec();
    for (left, size) in [(1, 100), (1, 500), (1, 100), (0, 900)] {
        let next = branch.seal(size);
        let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&next))]);
        assert_eq!(told, [durable(GROUP, &next)]);
        all.push(next);
        assert_eq!(spares(&disk).len(), left, "a spare is used for each segment");
        assert!(newest(&disk).1 >= full, "nothing of it has to be made longer");
        assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), all);
        let (mut again, recovered, shown) = reopen(disk.fork().restart(), SMALL_SEGMENTS);
        assert_eq!((&recovered[0].problem, recovered[0].hole, &shown[..]), (&None, None, &all[..]));
        let more = Branch::behind(all.last().unwrap()).seal(10);
        let told = answers(&mut again, vec![append(GROUP, std::slice::from_ref(&more))]);
        assert_eq!(told, [durable(GROUP, &more)], "it goes on behind what was there before");
    }
}

#[test]
fn whatever_survives_a_crash_in_a_segment_that_is_written_over_holds_what_was_acknowledged() {
    for calls in 0..60 {
        for seed in 0..20 {
            let (disk, mut store, prepares) = six_of_twelve(SMALL_SEGMENTS);
            let mut branch = Branch::behind(&prepares[11]);
            disk.power_off_after(disk.calls() + calls);
            let mut all = prepares[6..].to_vec();
            let mut acked = all.len();
            // Each as long as those of before, so that what was before stands where the next would.
            for size in [500, 500, 20, 500, 500, 500] {
                let next = branch.seal(size);
                let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&next))]);
                let is_acked = told == [durable(GROUP, &next)];
                all.push(next);
                acked = if is_acked { all.len() } else { acked };
            }
            drop(store);
            let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
            let (mut store, recovered, shown) = reopen(disk, SMALL_SEGMENTS);
            assert_eq!((&recovered[0].problem, recovered[0].hole), (&None, None), "{calls} {seed}");
            assert!(!recovered[0].superblock.is_torn, "{calls} {seed}: nothing that was synced is lost");
            assert!(all.starts_with(&shown) && shown.len() >= acked, "{calls} {seed}: {} shown", shown.len());
            let more = Branch::behind(shown.last().unwrap()).seal(700);
            let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&more))]);
            assert_eq!(told, [durable(GROUP, &more)]);
        }
    }
}

#[test]
fn what_was_put_by_makes_room_before_the_reserve_does() {
    let options = Options { reserve_bytes: RESERVE_BYTES, ..SMALL_SEGMENTS };
    let (disk, mut store, prepares) = six_of_twelve(options);
    disk.set_capacity(Some(disk.used()));
    let next = Branch::behind(&prepares[11]).seal(6000);
    // It is written over one of them, and needs more room than that has; the other one makes it.
    let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&next))]);
    assert_eq!(told, [durable(GROUP, &next)]);
    assert_eq!(spares(&disk), [""; 0]);
    assert!(disk.open("reserve".as_ref(), OpenMode::Existing).is_ok(), "the reserve is whole");
    let too_much = Branch::behind(&next).seal(usize::try_from(RESERVE_BYTES).unwrap());
    let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&too_much))]);
    assert_eq!(told.last(), Some(&Completion::DiskFull { group: GROUP }));
    assert!(!told.contains(&durable(GROUP, &too_much)), "{told:?}");
}

#[test]
fn what_was_put_by_goes_with_its_log_and_at_the_next_start() {
    let (disk, store, prepares) = six_of_twelve(SMALL_SEGMENTS);
    drop(store);
    let disk = disk.restart();
    let (mut store, _, shown) = reopen(disk.clone(), SMALL_SEGMENTS);
    assert_eq!((shown, spares(&disk)), (prepares[6..].to_vec(), Vec::new()));
    let_go(&mut store, 10);
    store.execute(vec![Job::DeleteGroup { group: GROUP }]);
    assert!(disk.list(Path::new(DIR)).is_err(), "nothing is left");
    // Another one under the same number finds nothing to write over.
    let first = superblock(GROUP, 1);
    store.execute(vec![Job::SaveSuperblock(first)]);
    let log = Branch::new(GROUP).seal_many(&[500; 4]);
    assert_eq!(answers(&mut store, vec![append(GROUP, &log)]), [durable(GROUP, &log[3])]);
    assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), log);
}

#[test]
fn what_nothing_is_written_over_goes() {
    let (disk, mut store, prepares) = six_of_twelve(SMALL_SEGMENTS);
    let before = spares(&disk);
    let_go(&mut store, 10);
    let after = spares(&disk);
    assert!(after.len() == 1 && !before.contains(&after[0]), "{before:?} went, {after:?} came");
    // Nothing is appended any more but the entry that lets go of all that is before it.
    let mut branch = Branch::behind(&prepares[11]);
    let start = LogStart { op: Op::new(13), offset: prepares[11].header().next_offset() };
    store.execute(vec![append(GROUP, &[branch.seal_log_start(start)])]);
    let_go(&mut store, 13);
    assert_eq!(spares(&disk), [""; 0], "no record that is too old stays on the disk");
}

#[test]
fn what_was_not_sealed_with_the_newest_key_is_not_kept() {
    let (disk, store, prepares) = six_of_twelve(SMALL_SEGMENTS);
    drop(store);
    let keys = Keys::parse(&"5a".repeat(32), [7; 32]).unwrap();
    let sealed = Options { keys, ..SMALL_SEGMENTS };
    let (mut store, ..) = reopen(disk.clone(), sealed.clone());
    let mut branch = Branch::behind(&prepares[11]);
    let next = branch.seal_many(&[500; 8]);
    assert_eq!(answers(&mut store, vec![append(GROUP, &next)]), [durable(GROUP, &next[7])]);
    let_go(&mut store, 13);
    assert_eq!(spares(&disk), [""; 0], "it can be read without the key");
    let_go(&mut store, 16);
    assert_eq!(spares(&disk).len(), 1);
    let more = branch.seal_many(&[500; 3]);
    assert_eq!(answers(&mut store, vec![append(GROUP, &more)]), [durable(GROUP, &more[2])]);
    assert_eq!(spares(&disk), [""; 0], "it is used");
    let all = [&next[3..], &more].concat();
    assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), all);
    drop(store);
    let (_, recovered, shown) = reopen(disk.restart(), sealed);
    assert_eq!((&recovered[0].problem, recovered[0].hole, shown), (&None, None, all));
}

#[test]
fn a_group_takes_nothing_of_another_one() {
    let (disk, mut store, _) = six_of_twelve(SMALL_SEGMENTS);
    let other = GroupId::new(8);
    store.execute(vec![Job::SaveSuperblock(superblock(other, 1))]);
    let log = Branch::new(other).seal_many(&[500; 7]);
    assert_eq!(answers(&mut store, vec![append(other, &log)]), [durable(other, &log[6])]);
    assert_eq!(spares(&disk).len(), 2);
}
