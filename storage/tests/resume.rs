//! Starts that go on from a resume point: what they show, what they do not look at, and when they read all of the log after all.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::{Op, Timestamp, View};
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::resume_point::ResumePoint;
use varve_storage::{
    Completion, Disk, DiskFile, Extent, Job, MemoryDisk, OpenMode, Options, Piece, ReadFrom, RecoveredGroup,
    Store,
};

use crate::support::{
    Branch, GROUP, IDENTITY, append, new_store, read, resume_point_of, snapshot_of, summarize,
};

const DIR: &str = "groups/0000000007";

/// Room for three or four of the prepares here.
const SEGMENTS: Options =
    Options { segment_size_bytes_max: 4096 + 700, reserve_bytes: 0, ..Options::DEFAULT };

/// A log in three segments, and a resume point in the second one.
struct Specimen {
    disk: MemoryDisk,
    log: Vec<Prepare>,
}

const RESUMED: usize = 5;

fn specimen() -> Specimen {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), SEGMENTS);
    let log = Branch::new(GROUP).seal_many(&[90, 0, 70, 120, 30, 20, 10, 4, 60, 50]);
    let told = store.execute(vec![append(GROUP, &log)]);
    let sealed = told.iter().filter(|one| matches!(one, Completion::Sealed { .. })).count();
    assert_eq!(sealed, 1, "a round tells of the newest segment it has filled");
    save(&mut store, &resume_point_of(&log[..RESUMED]));
    Specimen { disk, log }
}

fn save(store: &mut Store<MemoryDisk>, point: &ResumePoint) {
    let job = Job::SaveResumePoint { group: GROUP, point: Box::new(point.clone()) };
    assert_eq!(store.execute(vec![job]), []);
}

struct Opened {
    store: Store<MemoryDisk>,
    found: RecoveredGroup,
    resumed: Option<ResumePoint>,
    shown: Vec<Prepare>,
}

fn open_as(disk: &MemoryDisk, extent: Extent) -> Opened {
    let (mut resumed, mut shown) = (None, Vec::new());
    let options = Options { extent, ..SEGMENTS };
    let (store, mut recovered) = Store::open(disk.clone(), IDENTITY, options, &mut |_, piece| match piece {
        Piece::Root | Piece::Snapshot(_) => (resumed, shown) = (None, Vec::new()),
        Piece::ResumePoint(point) => (resumed, shown) = (Some(point.clone()), Vec::new()),
        Piece::Prepare(prepare) => shown.push(prepare.clone()),
    })
    .expect("nothing here makes a directory unreadable");
    Opened { store, found: recovered.remove(0), resumed, shown }
}

fn open(disk: &MemoryDisk) -> Opened {
    open_as(disk, Extent::Tail)
}

fn files(disk: &MemoryDisk, suffix: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.iter().filter(|name| name.ends_with(suffix)).map(|name| Path::new(DIR).join(name)).collect()
}

fn overwrite(disk: &MemoryDisk, path: &Path, position: u64, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Existing).unwrap();
    file.write_at(&[Bytes::copy_from_slice(bytes)], position).unwrap();
    file.sync().unwrap();
}

fn assert_read_from_its_beginning(opened: &Opened, log: &[Prepare]) {
    assert_eq!((&opened.resumed, opened.shown.as_slice()), (&None, log));
}

#[test]
fn what_is_before_a_resume_point_is_not_read() {
    let Specimen { disk, log } = specimen();
    assert_eq!(files(&disk, ".log").len(), 3);
    // Rot is where nobody looks.
    overwrite(&disk, &files(&disk, ".log")[0], 4096 + 150, b"rot");
    let mut opened = open(&disk);
    assert_eq!(opened.resumed, Some(resume_point_of(&log[..RESUMED])));
    assert_eq!(opened.shown, log[RESUMED..]);
    assert_eq!((opened.found.problem, opened.found.hole, opened.found.head), (None, None, log[9].id()));
    assert_eq!(read(&mut opened.store, ReadFrom::Op(Op::new(4))), log[3..], "what is sound can be read");
    let whole = open_as(&disk, Extent::Whole);
    assert!(whole.found.hole.is_some(), "who reads all of it finds it");
}

#[test]
fn a_file_that_is_put_aside_behind_a_resume_point_is_a_hole() {
    let Specimen { disk, log } = specimen();
    let mut store = open(&disk).store;
    let more = Branch::behind(&log[9]).seal_many(&[90; 9]);
    store.execute(vec![append(GROUP, &more)]);
    drop(store);
    let segments = files(&disk, ".log");
    assert!(segments.len() >= 5, "{segments:?}");
    // Nothing says what the third one goes on from: neither the end of the second, nor itself.
    let file = disk.open(&segments[1], OpenMode::Existing).unwrap();
    file.set_size(file.size().unwrap() - 1).unwrap();
    file.sync().unwrap();
    overwrite(&disk, &segments[2], 0, &[0; 4096 + 128]);
    let tail = disk.fork();
    for (disk, extent) in [(tail, Extent::Tail), (disk, Extent::Whole)] {
        let Opened { found, resumed, shown, .. } = open_as(&disk, extent);
        assert_eq!((found.problem, resumed, found.head), (None, None, more[8].id()), "{extent:?}");
        let hole = found.hole.unwrap();
        assert!(
            hole.after.op >= log[RESUMED].op() && shown.len() as u64 == hole.after.op.as_raw(),
            "{hole:?}"
        );
        assert_eq!(files(&disk, ".log").len(), segments.len() - 1, "it is put aside");
        assert_eq!(files(&disk, ".unreadable").len(), 1);
    }
}

#[test]
fn a_start_says_what_the_next_one_would_have_to_read_again() {
    let Specimen { disk, log } = specimen();
    let end_of_sealed = open(&disk).found.unmarked.expect("the second segment was read");
    assert!(end_of_sealed > log[RESUMED].op() && end_of_sealed < log[9].op(), "{end_of_sealed}");
    let mut store = open(&disk).store;
    let passed = usize::try_from(end_of_sealed.as_raw()).unwrap();
    save(&mut store, &resume_point_of(&log[..passed]));
    drop(store);
    let opened = open(&disk);
    assert_eq!((opened.found.unmarked, opened.shown.as_slice()), (None, &log[passed..]));
    assert_eq!(files(&disk, ".resume").len(), 1, "only the newest one is kept");
}

#[test]
fn a_log_without_a_sound_resume_point_is_read_from_its_beginning() {
    let Specimen { disk, log } = specimen();
    overwrite(&disk, &files(&disk, ".resume")[0], 40, b"rot");
    assert_read_from_its_beginning(&open(&disk), &log);
}

#[test]
fn a_resume_point_that_is_not_of_this_log_counts_for_nothing() {
    let Specimen { disk, log } = specimen();
    let other = Branch::new(GROUP).seal_many(&[1; RESUMED]);
    save(&mut open(&disk).store, &resume_point_of(&other));
    let mut opened = open(&disk);
    assert_read_from_its_beginning(&opened, &log);
    save(&mut opened.store, &resume_point_of(&log[..6]));
    assert_eq!(open(&disk).shown, log[6..]);
}

#[test]
fn an_index_that_is_missing_or_rotten_is_made_again() {
    for harm in ["missing", "rotten", "of another size"] {
        let Specimen { disk, log } = specimen();
        let index = files(&disk, ".index").remove(0);
        match harm {
            "missing" => disk.remove(&index).unwrap(),
            "rotten" => overwrite(&disk, &index, 90, b"rot"),
            _ => overwrite(&disk, &files(&disk, ".log")[0], 4096 + 700, b"more than there was"),
        }
        assert_read_from_its_beginning(&open(&disk), &log);
        assert_eq!(open(&disk).shown, log[RESUMED..], "{harm}: from then on it need not be");
    }
}

#[test]
fn a_segment_that_does_not_say_whose_it_is_or_that_it_is_full_is_read_and_says_so_again() {
    let (header, slots) = ([40].as_slice(), [512, 1024].as_slice());
    for rotten in [header, slots] {
        let Specimen { disk, log } = specimen();
        for position in rotten {
            overwrite(&disk, &files(&disk, ".log")[0], *position, b"rot");
        }
        assert_read_from_its_beginning(&open(&disk), &log);
        assert_eq!(open(&disk).shown, log[RESUMED..]);
    }
}

/// The same sizes, the same places, and an index that fits: only what the next segment names as its parent tells them apart.
#[test]
fn a_segment_of_another_branch_is_not_passed_over() {
    let Specimen { disk, log } = specimen();
    save(&mut open(&disk).store, &resume_point_of(&log[..9]));
    assert!(open(&disk).found.unmarked.is_none(), "two segments are passed over");
    let other = MemoryDisk::new();
    let mut branch = Branch::new(GROUP);
    branch.view = View::new(2);
    let sizes: Vec<usize> = log.iter().map(|prepare| prepare.body().len()).collect();
    new_store(other.clone(), SEGMENTS).execute(vec![append(GROUP, &branch.seal_many(&sizes))]);
    for suffix in [".log", ".index"] {
        let path = files(&other, suffix).remove(0);
        let file = other.open(&path, OpenMode::Existing).unwrap();
        let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        overwrite(&disk, &path, 0, &bytes);
    }
    let opened = open(&disk);
    assert!(opened.resumed.is_none() && opened.found.problem.is_some(), "{:?}", opened.found);
}

#[test]
fn damage_behind_a_resume_point_is_judged_as_ever() {
    let Specimen { disk, log } = specimen();
    let second = &files(&disk, ".log")[1];
    let op = log.iter().position(|prepare| prepare.op() > log[RESUMED].op()).unwrap();
    let file = disk.open(second, OpenMode::Existing).unwrap();
    let size = usize::try_from(file.size().unwrap()).unwrap();
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0).unwrap();
    let header = &log[op].chunks()[0];
    let at = bytes.windows(header.len()).position(|window| window == header).expect("it is in there");
    overwrite(&disk, second, at as u64 + 8, b"rot");
    let opened = open(&disk);
    assert_read_from_its_beginning(&opened, &log[..op]);
    assert_eq!(opened.found.hole.map(|hole| (hole.after, hole.last)), Some((log[op - 1].id(), log[op].id())));
}

#[test]
fn a_log_that_builds_on_a_later_snapshot_begins_there() {
    let Specimen { disk, log } = specimen();
    let mut store = open(&disk).store;
    store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(9), summarize }]);
    drop(store);
    let opened = open(&disk);
    let base = opened.found.snapshot.as_ref().expect("something was let go").op();
    let gone = usize::try_from(base.as_raw()).unwrap();
    assert!(gone > RESUMED);
    assert_eq!(opened.found.snapshot, Some(snapshot_of(&log[..gone])));
    assert_read_from_its_beginning(&opened, &log[gone..]);
    assert_eq!(
        files(&disk, ".index").len(),
        files(&disk, ".log").len() - 1,
        "indexes go with their segments"
    );
}

/// The entry that has let go of it may be behind the resume point, where nobody knows that it is committed.
#[test]
fn what_was_let_go_before_a_resume_point_is_not_said_to_be_there() {
    let Specimen { disk, log } = specimen();
    let mut store = open(&disk).store;
    store.execute(vec![Job::LetGo { group: GROUP, first: Op::new(5), summarize }]);
    drop(store);
    let Opened { found, resumed, shown, .. } = open(&disk);
    let snapshot = found.snapshot.expect("the first segment was let go");
    assert_eq!(resumed.map(|point| point.log_start), Some(snapshot.log_start()));
    assert_eq!(shown, log[RESUMED..]);
}

#[test]
fn a_snapshot_of_another_replica_takes_the_place_of_all_of_that() {
    let Specimen { disk, log } = specimen();
    let mut store = open(&disk).store;
    let snapshot = snapshot_of(&Branch::behind(&log[9]).seal_many(&[10; 3]));
    store.execute(vec![Job::TakeSnapshot { group: GROUP, snapshot }]);
    assert_eq!((files(&disk, ".index").len(), files(&disk, ".resume").len()), (0, 0));
}

/// Whatever bit of whatever file flips: no prepare is altered, and what is not seen at the start is seen by who reads it.
#[test]
fn no_flipped_bit_is_shown_or_read() {
    let Specimen { disk, log } = specimen();
    let names = [".log", ".index", ".resume"].into_iter().flat_map(|suffix| files(&disk, suffix));
    let end = |shown: &[Prepare], before: PrepareId| shown.last().map_or(before, Prepare::id);
    for path in names {
        let size = disk.open(&path, OpenMode::Existing).unwrap().size().unwrap();
        for position in (0..size).filter(|at| *at < 130 || *at > 4090 || at % 97 == 0) {
            let what = format!("{} at {position}", path.display());
            let copy = disk.fork();
            let mut byte = [0];
            copy.open(&path, OpenMode::Existing).unwrap().read_at(&mut byte, position).unwrap();
            overwrite(&copy, &path, position, &[byte[0] ^ (1 << (position % 8))]);
            let Opened { mut store, found, resumed, shown } = open(&copy);
            assert_eq!(found.problem, None, "{what}");
            let passed = resumed.as_ref().map_or(0, |point| {
                assert_eq!(*point, resume_point_of(&log[..RESUMED]), "{what}");
                RESUMED
            });
            assert!(log[passed..].starts_with(&shown), "{what}: no prepare is altered");
            let before = passed.checked_sub(1).map_or(PrepareId::ROOT, |last| log[last].id());
            assert!(found.hole.is_some() || found.head == end(&shown, before), "{what}");
            for prepare in &log {
                let from = ReadFrom::Op(prepare.op());
                let job = Job::Read { group: GROUP, token: 1, from, bytes_max: 0, last: prepare.op() };
                let told = store.execute(vec![job]);
                let [Completion::Read { result, .. }] = told.as_slice() else { panic!("{what}: {told:?}") };
                match result {
                    Ok(found) => assert!(found.iter().all(|found| log.contains(found)), "{what}"),
                    Err(error) => assert!(error.is_repairable(), "{what}: {error}"),
                }
            }
        }
    }
}

#[test]
fn what_was_appended_at_a_time_is_found() {
    let Specimen { disk, log } = specimen();
    for extent in [Extent::Tail, Extent::Whole] {
        let mut store = open_as(&disk, extent).store;
        for (at, prepare) in log.iter().enumerate() {
            let time = prepare.header().timestamp();
            assert_eq!(read(&mut store, ReadFrom::Time(time)), log[at..]);
            let later = Timestamp::new(time.as_raw() + 1);
            assert_eq!(read(&mut store, ReadFrom::Time(later)), log[at + 1..]);
        }
        assert_eq!(read(&mut store, ReadFrom::Time(Timestamp::ZERO)), log);
    }
}

#[test]
fn a_segment_that_is_old_enough_is_full() {
    let disk = MemoryDisk::new();
    let options = Options { segment_age_ms_max: 0, reserve_bytes: 0, ..Options::DEFAULT };
    let mut store = new_store(disk.clone(), options);
    // Their timestamps are a microsecond apart, so all are of one millisecond.
    let log = Branch::new(GROUP).seal_many(&[10; 1001]);
    store.execute(vec![append(GROUP, &log)]);
    let names = files(&disk, ".log");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].to_string_lossy().ends_with("00000000000000001001.log"));
}
