//! Logs that let go of their oldest segments, and those that go on behind another replica's snapshot.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{Offset, Op, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::snapshot::Snapshot;
use varve_storage::{Completion, Disk, DiskFile, Job, MemoryDisk, OpenMode, ReadFrom, Store};

use crate::support::{
    Branch, GROUP, SMALL_SEGMENTS, answers, append, durable, new_store, read, reopen, snapshot_of, summarize,
    superblock,
};

const DIR: &str = "groups/0000000007";

/// A log of twelve prepares, three to a segment, the last three in one that is not full.
fn twelve() -> (MemoryDisk, Store<MemoryDisk>, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
    let prepares = Branch::new(GROUP).seal_many(&[500; 12]);
    for prepare in &prepares {
        store.execute(vec![append(GROUP, std::slice::from_ref(prepare))]);
    }
    (disk, store, prepares)
}

/// The files of the log, but those that were put by.
fn names(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| !name.ends_with(".tmp"));
    names
}

fn let_go(store: &mut Store<MemoryDisk>, first: u64) -> LogStart {
    let job = Job::LetGo { group: GROUP, first: Op::new(first), summarize };
    match store.execute(vec![job]).as_slice() {
        [Completion::LetGo { group: GROUP, start }] => *start,
        other => panic!("{other:?}"),
    }
}

fn snapshot(store: &mut Store<MemoryDisk>) -> Option<Snapshot> {
    match store.execute(vec![Job::ReadSnapshot { group: GROUP, token: 5 }]).pop() {
        Some(Completion::Snapshot { group: GROUP, token: 5, result }) => result.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_segments_go_and_a_snapshot_stays() {
    let (disk, mut store, prepares) = twelve();
    let cases = [(1, 1), (3, 1), (4, 4), (9, 7), (7, 7), (99, 10)];
    for (first, starts) in cases {
        let start = let_go(&mut store, first);
        assert_eq!(start, LogStart { op: Op::new(starts), offset: Offset::new((starts - 1) * 3) });
        let gone = usize::try_from(starts).unwrap() - 1;
        assert_eq!(snapshot(&mut store), (gone > 0).then(|| snapshot_of(&prepares[..gone])));
        assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), prepares[gone..], "what is there is read");
    }
    let names = names(&disk);
    assert_eq!(names, ["00000000000000000009.snapshot", "00000000000000000027-00000000000000000010.log"]);
    drop(store);
    let (mut store, recovered, shown) = reopen(disk, SMALL_SEGMENTS);
    assert_eq!((shown.as_slice(), recovered[0].head), (&prepares[9..], prepares[11].id()));
    assert_eq!(recovered[0].snapshot, Some(snapshot_of(&prepares[..9])));
    let next = Branch::behind(&prepares[11]).seal(100);
    let told = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&next))]);
    assert_eq!(told, [durable(GROUP, &next)]);
}

#[test]
fn a_survey_names_the_full_segments() {
    let (_, mut store, prepares) = twelve();
    let_go(&mut store, 4);
    let completions = store.execute(vec![Job::Survey { group: GROUP }]);
    let [Completion::Surveyed { group: GROUP, sealed, active }] = completions.as_slice() else {
        panic!("{completions:?}")
    };
    let size = 3 * prepares[0].header().total_size() as u64;
    let nexts: Vec<_> = sealed.iter().map(|segment| segment.next.op.as_raw()).collect();
    assert_eq!(nexts, [7, 10]);
    assert_eq!((active.bytes, active.head, active.has_records), (size, Op::new(12), true));
    assert!(sealed.iter().all(|segment| segment.bytes == size));
    assert_eq!(sealed[1].newest, prepares[8].header().timestamp());
}

#[test]
fn an_entry_that_lets_go_of_all_before_it_begins_a_segment() {
    let (disk, mut store, prepares) = twelve();
    let mut branch = Branch::behind(&prepares[11]);
    let entry = branch.seal_log_start(LogStart { op: Op::new(13), offset: Offset::new(36) });
    let more = branch.seal(100);
    let told = answers(&mut store, vec![append(GROUP, &[entry.clone(), more.clone()])]);
    assert_eq!(told, [durable(GROUP, &more)]);
    assert_eq!(let_go(&mut store, 13), LogStart { op: Op::new(13), offset: Offset::new(36) });
    assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), [entry, more]);
    let names = names(&disk);
    assert_eq!(names, ["00000000000000000012.snapshot", "00000000000000000036-00000000000000000013.log"]);
}

#[test]
fn a_snapshot_takes_the_place_of_a_log_with_more_in_it() {
    let (disk, mut store, prepares) = twelve();
    let mut branch = Branch::behind(&prepares[1]);
    branch.view = branch.view.next();
    let others = [&prepares[..2], &branch.seal_many(&[10; 3])].concat();
    let taken = snapshot_of(&others);
    let job = Job::TakeSnapshot { group: GROUP, snapshot: taken.clone() };
    assert_eq!(store.execute(vec![job]), [Completion::Durable { group: GROUP, id: taken.id() }]);
    let next = branch.seal_many(&[10, 20]);
    assert_eq!(store.execute(vec![append(GROUP, &next)]), [durable(GROUP, &next[1])]);
    drop(store);
    let (_, recovered, shown) = reopen(disk, SMALL_SEGMENTS);
    assert_eq!((&recovered[0].problem, recovered[0].snapshot.as_ref(), shown), (&None, Some(&taken), next));
}

#[test]
fn a_rotten_snapshot_is_a_lost_log() {
    let (disk, mut store, prepares) = twelve();
    let_go(&mut store, 7);
    drop(store);
    let path = Path::new(DIR).join("00000000000000000006.snapshot");
    let size = disk.open(&path, OpenMode::Existing).unwrap().size().unwrap();
    for position in (0..size).step_by(7) {
        let disk = disk.fork();
        let file = disk.open(&path, OpenMode::Existing).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, position).unwrap();
        file.write_at(&[vec![byte[0] ^ 4].into()], position).unwrap();
        file.sync().unwrap();
        let (mut store, recovered, shown) = reopen(disk.clone(), SMALL_SEGMENTS);
        let found = &recovered[0];
        assert_eq!((found.head, &found.problem, shown.len()), (PrepareId::ROOT, &None, 0), "byte {position}");
        assert!(found.superblock.is_torn, "it tells nobody what it holds");
        // It goes on with another replica's.
        let taken = snapshot_of(&prepares[..8]);
        store.execute(vec![Job::TakeSnapshot { group: GROUP, snapshot: taken }]);
        assert_eq!(store.execute(vec![append(GROUP, &prepares[8..9])]), [durable(GROUP, &prepares[8])]);
    }
}

#[test]
fn what_is_damaged_is_not_let_go() {
    let (disk, mut store, _) = twelve();
    let path = Path::new(DIR).join("00000000000000000009-00000000000000000004.log");
    let file = disk.open(&path, OpenMode::Existing).unwrap();
    file.write_at(&[vec![0; 64].into()], 4096).unwrap();
    let job = Job::LetGo { group: GROUP, first: Op::new(7), summarize };
    let unreadable = Completion::CannotLetGo { group: GROUP, op: Op::new(4) };
    let nothing = Completion::LetGo { group: GROUP, start: LogStart::FIRST };
    assert_eq!(store.execute(vec![job]), [unreadable, nothing], "it is there to be mended");
    assert_eq!(snapshot(&mut store), None);
}

#[test]
fn a_snapshot_never_survives_without_the_superblock_handed_in_before_it() {
    let mut outcomes = [0_u64; 2];
    for calls in 0..40 {
        for seed in 0..6 {
            let disk = MemoryDisk::new();
            let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
            let mut branch = Branch { view: View::new(2), ..Branch::new(GROUP) };
            let taken = snapshot_of(&branch.seal_many(&[10; 5]));
            disk.power_off_after(disk.calls() + calls);
            store.execute(vec![
                Job::SaveSuperblock(superblock(GROUP, 2)),
                Job::TakeSnapshot { group: GROUP, snapshot: taken },
            ]);
            drop(store);
            let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
            let (_, recovered, _) = reopen(disk, SMALL_SEGMENTS);
            let (view, snapshot) = (recovered[0].superblock.view, &recovered[0].snapshot);
            assert!(snapshot.is_none() || view == View::new(2), "{snapshot:?} and {view}");
            outcomes[usize::from(snapshot.is_none())] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "the cuts are before, in and after it: {outcomes:?}");
}
