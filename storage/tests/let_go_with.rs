//! Logs that let go of what cannot be read with the snapshot of another replica, whose segments end elsewhere, and those that nothing
//! fits and that are given up.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{Op, View};
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_storage::{Completion, Disk, DiskFile, Job, MemoryDisk, OpenMode, Options, Store};

use crate::support::{
    Branch, GROUP, append, durable, keys, new_store, reopen, resume_point_of, snapshot_of, summarize,
    superblock,
};

/// With so many keys, and segments that take three of the prepares.
fn options(count: u8) -> Options {
    Options { segment_size_bytes_max: 4096 + 680, reserve_bytes: 0, keys: keys(count), ..Options::DEFAULT }
}

/// A store that is in use, with the ops 1 to 3, 4 to 6 and 7 to 9 in its segments.
fn specimen(keys: u8) -> (MemoryDisk, Store<MemoryDisk>, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options(keys));
    let log = Branch::new(GROUP).seal_many(&[90, 0, 70, 120, 30, 20, 10, 4, 60]);
    for round in [&log[..3], &log[3..5], &log[5..6], &log[6..7], &log[7..]] {
        store.execute(vec![append(GROUP, round)]);
    }
    let firsts: Vec<bool> =
        segments(&disk).iter().zip([1, 4, 7]).map(|(path, op)| named_after(path, op)).collect();
    assert_eq!(firsts, [true; 3], "the segments are as the tests take them to be");
    (disk, store, log)
}

fn named_after(path: &Path, op: u64) -> bool {
    path.display().to_string().ends_with(&format!("-{op:020}.log"))
}

fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    let dir = Path::new("groups/0000000007");
    let names = disk.list(dir).unwrap();
    names.iter().filter(|name| name.ends_with(".log")).map(|name| dir.join(name)).collect()
}

/// Makes an op unreadable.
fn rot(disk: &MemoryDisk, log: &[Prepare], op: usize, overhead: usize) {
    let place = (op - 1) / 3;
    let before = log[place * 3..op - 1].iter().map(|prepare| prepare.header().total_size() + overhead);
    let position = 4096 + before.sum::<usize>() as u64;
    let file = disk.open(&segments(disk)[place], OpenMode::Existing).unwrap();
    file.write_at(&[vec![0xee; 20].into()], position + 7).unwrap();
    file.sync().unwrap();
}

/// Bytes that sealing a prepare adds.
fn overhead(disk: &MemoryDisk, log: &[Prepare]) -> usize {
    let size = disk.open(&segments(disk)[0], OpenMode::Existing).unwrap().size().unwrap();
    let plain: usize = log[..3].iter().map(|prepare| prepare.header().total_size()).sum();
    (usize::try_from(size).unwrap() - 4096 - plain) / 3
}

fn let_go_with(snapshot: Snapshot, first: u64) -> Job {
    Job::LetGoWith { group: GROUP, first: Op::new(first), snapshot, summarize }
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The log starts with this op.
    Starts(u64),
    /// This op cannot be read.
    Cannot(u64),
    Nothing,
    NoneFits,
}

fn outcome(completions: &[Completion]) -> Outcome {
    match completions {
        [Completion::CannotLetGo { op, .. }, Completion::LetGo { start, .. }] if start.op == Op::new(1) => {
            Outcome::Cannot(op.as_raw())
        }
        [Completion::NoneFits { .. }, Completion::LetGo { start, .. }] if start.op == Op::new(1) => {
            Outcome::NoneFits
        }
        [Completion::LetGo { start, .. }] if start.op == Op::new(1) => Outcome::Nothing,
        [Completion::LetGo { start, .. }] => Outcome::Starts(start.op.as_raw()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_fits_that_ends_anywhere_before_the_end_of_a_segment_that_goes() {
    use Outcome::{Cannot, NoneFits, Nothing, Starts};
    // What is rotten, where the snapshot ends, and the first op to keep.
    let cases = [
        // At the end of a segment, and within one: before, in and behind the damage.
        (1, 3, 7, Starts(7)),
        (1, 2, 7, Starts(7)),
        (1, 1, 7, Starts(7)),
        (2, 2, 7, Starts(7)),
        (2, 1, 7, Cannot(2)),
        (3, 1, 7, Cannot(3)),
        (3, 2, 7, Cannot(3)),
        (4, 3, 7, Cannot(4)),
        (4, 2, 7, Cannot(4)),
        (4, 4, 7, Starts(7)),
        (4, 5, 7, Starts(7)),
        (4, 6, 7, Starts(7)),
        (5, 5, 7, Starts(7)),
        (6, 5, 8, Cannot(6)),
        // Only what lies wholly before it goes.
        (1, 2, 6, Starts(4)),
        (1, 3, 4, Starts(4)),
        (5, 3, 6, Starts(4)),
        // Behind the last segment that goes.
        (1, 4, 6, NoneFits),
        (1, 5, 6, NoneFits),
        (1, 1, 3, NoneFits),
        (4, 7, 9, NoneFits),
        (4, 8, 9, NoneFits),
        // What is to be kept as far as is known here.
        (1, 6, 6, Nothing),
        (1, 7, 7, Nothing),
        (1, 9, 4, Nothing),
    ];
    for keys in [0, 1] {
        for (rotten, at, first, expected) in cases {
            let (disk, mut store, log) = specimen(keys);
            rot(&disk, &log, rotten, overhead(&disk, &log));
            let answers = store.execute(vec![let_go_with(snapshot_of(&log[..at]), first)]);
            let case = format!("op{rotten} is rotten, a snapshot of op{at}, op{first} to keep, {keys} keys");
            assert_eq!(outcome(&answers), expected, "{case}");
            if let Starts(start) = expected {
                let gone = usize::try_from(start).unwrap() - 1;
                let (mut store, recovered, shown) = reopen(disk.fork(), options(keys));
                let found = &recovered[0];
                assert_eq!((&found.problem, found.head), (&None, log[8].id()), "{case}");
                assert_eq!(found.snapshot, Some(snapshot_of(&log[..gone])), "{case}");
                let sound = log[gone..].iter().take_while(|prepare| prepare.op().as_raw() != rotten as u64);
                assert!(shown.iter().eq(sound), "{case}");
                drop(store.execute(Vec::new()));
            }
        }
    }
}

#[test]
fn a_snapshot_of_another_log_is_of_no_use() {
    let (disk, mut store, log) = specimen(0);
    let other = Branch { view: View::new(9), ..Branch::new(GROUP) }.seal_many(&[90; 9]);
    for at in 1..=6 {
        let answers = store.execute(vec![let_go_with(snapshot_of(&other[..at]), 7)]);
        assert_eq!(outcome(&answers), Outcome::Nothing, "one of op{at}");
    }
    let (_, recovered, shown) = reopen(disk, options(0));
    assert!(recovered[0].snapshot.is_none() && shown == log);
}

#[test]
fn a_snapshot_that_ends_where_the_own_one_does_takes_its_place() {
    let (disk, mut store, log) = specimen(0);
    store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(4), summarize }]);
    let own = Path::new("groups/0000000007/00000000000000000003.snapshot");
    disk.open(own, OpenMode::Existing).unwrap().write_at(&[vec![0xee; 9].into()], 30).unwrap();
    let older = store.execute(vec![let_go_with(snapshot_of(&log[..2]), 7)]);
    assert!(matches!(older[..], [Completion::LetGo { start, .. }] if start.op == Op::new(4)), "{older:?}");
    let answers = store.execute(vec![let_go_with(snapshot_of(&log[..3]), 7)]);
    assert_eq!(outcome(&answers), Outcome::Starts(7));
    drop(store);
    let (_, recovered, shown) = reopen(disk.clone(), options(0));
    assert_eq!(recovered[0].snapshot, Some(snapshot_of(&log[..6])));
    assert!(shown == log[6..] && disk.open(own, OpenMode::Existing).is_err());
}

#[test]
fn a_crash_while_it_is_let_go_of_leaves_the_log_before_or_after() {
    let mut outcomes = [0_u64; 2];
    for calls in 0..60 {
        for seed in 0..4 {
            let (disk, mut store, log) = specimen(0);
            disk.power_off_after(disk.calls() + calls);
            store.execute(vec![let_go_with(snapshot_of(&log[..2]), 7)]);
            drop(store);
            let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
            let (mut store, recovered, shown) = reopen(disk, options(0));
            let found = &recovered[0];
            assert_eq!((&found.problem, found.hole, found.superblock.is_torn), (&None, None, false));
            let gone = if found.snapshot.is_some() { 6 } else { 0 };
            assert_eq!(found.snapshot, (gone > 0).then(|| snapshot_of(&log[..gone])));
            assert!(shown == log[gone..], "cut after {calls} calls");
            outcomes[gone / 6] += 1;
            let next = Branch::behind(&log[8]).seal(5);
            assert_eq!(
                store.execute(vec![append(GROUP, std::slice::from_ref(&next))]).pop(),
                Some(durable(GROUP, &next))
            );
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "the cuts are before and behind it: {outcomes:?}");
}

/// Puts a snapshot in the place of a log that was given up, and goes on behind it.
fn go_on(store: &mut Store<MemoryDisk>, log: &[Prepare]) {
    let snapshot = snapshot_of(&log[..7]);
    store.execute(vec![Job::TakeSnapshot { group: GROUP, snapshot }]);
    let answers = store.execute(vec![append(GROUP, &log[7..])]);
    assert_eq!(answers.last(), Some(&durable(GROUP, &log[8])));
}

#[test]
fn nothing_is_left_of_a_log_that_is_given_up() {
    for lost in [None, Some(0), Some(1), Some(2)] {
        let (disk, mut store, log) = specimen(0);
        store.execute(vec![Job::SaveResumePoint { group: GROUP, point: resume_point_of(&log[..7]).into() }]);
        if let Some(lost) = lost {
            disk.remove(&segments(&disk)[lost]).unwrap();
        }
        let next = Branch::behind(&log[8]).seal(5);
        let jobs = vec![
            Job::Write { group: GROUP, prepares: vec![next] },
            Job::SaveSuperblock(superblock(GROUP, 2)),
            Job::GiveUpLog { group: GROUP },
        ];
        let saved = Completion::SuperblockDurable(superblock(GROUP, 2));
        assert_eq!(store.execute(jobs), [saved, Completion::Mended { group: GROUP, hole: None }]);
        let names = disk.list(Path::new("groups/0000000007")).unwrap();
        assert_eq!(names, ["00000000000000000000-00000000000000000001.log"]);
        let (_, recovered, shown) = reopen(disk.fork(), options(0));
        let found = &recovered[0];
        assert_eq!((found.head, &found.problem, found.hole), (PrepareId::ROOT, &None, None));
        assert!(found.superblock.is_torn && found.superblock.view == View::new(2), "{:?}", found.superblock);
        assert!(shown.is_empty() && found.snapshot.is_none());
        go_on(&mut store, &log);
    }
}

#[test]
fn what_was_appended_to_a_log_before_it_is_given_up_is_not_answered() {
    let (_, mut store, log) = specimen(0);
    let next = Branch::behind(&log[8]).seal(5);
    let jobs = vec![append(GROUP, std::slice::from_ref(&next)), Job::GiveUpLog { group: GROUP }];
    assert_eq!(store.execute(jobs), [Completion::Mended { group: GROUP, hole: None }]);
    go_on(&mut store, &log);
}

#[test]
fn a_crash_while_a_log_is_given_up_leaves_all_of_it_or_says_that_its_end_is_lost() {
    let mut outcomes = [0_u64; 3];
    for (calls, seed) in (0..80).flat_map(|calls| (0..4).map(move |seed| (calls, seed))) {
        let (disk, mut store, log) = specimen(0);
        store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(4), summarize }]);
        store.execute(vec![Job::SaveResumePoint { group: GROUP, point: resume_point_of(&log[..7]).into() }]);
        disk.power_off_after(disk.calls() + calls);
        store.execute(vec![Job::GiveUpLog { group: GROUP }]);
        drop(store);
        let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
        let (mut store, recovered, _) = reopen(disk, options(0));
        let found = &recovered[0];
        assert_eq!((&found.problem, found.hole), (&None, None), "cut after {calls} calls");
        let is_whole = found.head == log[8].id();
        assert!(is_whole || found.superblock.is_torn, "cut after {calls} calls: {found:?}");
        let known = found.head == PrepareId::ROOT || log.iter().any(|prepare| prepare.id() == found.head);
        assert!(known, "what is left is of that log");
        let place = match (is_whole, found.head == PrepareId::ROOT) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        outcomes[place] += 1;
        go_on(&mut store, &log);
    }
    assert!(outcomes.iter().all(|count| *count > 0), "the cuts are before, in and behind it: {outcomes:?}");
}

#[test]
fn a_log_is_given_up_when_there_is_room_to_say_so() {
    let (disk, mut store, log) = specimen(0);
    disk.set_capacity(Some(disk.used()));
    let mut answers = Vec::new();
    for view in 2..200 {
        // Until the superblocks find no room.
        answers = store.execute(vec![Job::SaveSuperblock(superblock(GROUP, view))]);
        if answers == [Completion::DiskFull { group: GROUP }] {
            break;
        }
    }
    assert_eq!(answers, [Completion::DiskFull { group: GROUP }]);
    assert_eq!(store.execute(vec![Job::GiveUpLog { group: GROUP }]), [], "it waits");
    assert_eq!(segments(&disk).len(), 3, "nothing is gone of which it is not said that it is");
    disk.set_capacity(None);
    let again = store.execute(vec![Job::GiveUpLog { group: GROUP }]);
    assert_eq!(again, [], "the superblock that waits must not be saved behind it");
    let answers = store.execute(vec![Job::Resume]);
    assert!(answers.contains(&Completion::Mended { group: GROUP, hole: None }), "{answers:?}");
    assert_eq!(answers.last(), Some(&Completion::DiskHasRoom { group: GROUP }));
    assert_eq!(segments(&disk).len(), 1);
    let (_, recovered, _) = reopen(disk.fork(), options(0));
    assert!(recovered[0].superblock.is_torn && recovered[0].superblock.view > View::new(1));
    go_on(&mut store, &log);
}
