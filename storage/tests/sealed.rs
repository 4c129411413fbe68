//! Directories that are sealed with keys: nothing in them can be read without, and keys come and go while the log goes on.

use std::path::{Path, PathBuf};

use varve_protocol::prepare::Prepare;
use varve_storage::{Disk, DiskFile, Job, Keys, MemoryDisk, OpenMode, Options, StorageError};

use crate::support::{
    Branch, GROUP, SMALL_SEGMENTS, answers, append, durable, keys, new_store, reopen, resume_point_of,
    snapshot_of, summarize,
};

const DIR: &str = "groups/0000000007";

fn with_keys(count: u8) -> Options {
    Options { keys: keys(count), ..SMALL_SEGMENTS }
}

fn files(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let read = |name: &String| {
        let path = Path::new(DIR).join(name);
        let file = disk.open(&path, OpenMode::Existing).unwrap();
        let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        (path, bytes)
    };
    names.iter().map(read).collect()
}

fn segments(disk: &MemoryDisk) -> usize {
    files(disk).iter().filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "log")).count()
}

/// What can be found of the log in the files: checksums, headers or bodies.
fn traces(disk: &MemoryDisk, log: &[Prepare]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, bytes) in files(disk) {
        for prepare in log {
            let header = prepare.header().as_bytes();
            // A local block names the prepare before the segment.
            let is_segment = path.extension().is_some_and(|suffix| suffix == "log" || suffix == "tmp");
            let from = if is_segment { 4096 } else { 0 };
            for trace in [&header[..4], &prepare.body()[..prepare.body().len().min(20)]] {
                if !trace.is_empty() && bytes[from..].windows(trace.len()).any(|window| window == trace) {
                    found.push(format!("{} has something of {}", path.display(), prepare.id()));
                }
            }
        }
    }
    found
}

/// A directory with everything that may lie in one, and its log.
fn specimen(options: Options) -> (MemoryDisk, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options);
    let log = Branch::new(GROUP).seal_many(&[700; 12]);
    store.execute(vec![append(GROUP, &log)]);
    store.execute(vec![Job::LetGo { group: GROUP, first: log[4].op(), summarize }]);
    store.execute(vec![Job::SaveResumePoint { group: GROUP, point: resume_point_of(&log[..8]).into() }]);
    (disk, log)
}

#[test]
fn nothing_that_was_stored_can_be_read_without_the_key() {
    let (plain, log) = specimen(with_keys(0));
    let traces_in = |suffix: &str| traces(&plain, &log).iter().any(|trace| trace.contains(suffix));
    assert!(
        [".log", ".index", ".snapshot", ".resume"].into_iter().all(traces_in),
        "there is something to hide"
    );
    let (disk, log) = specimen(with_keys(1));
    assert_eq!(traces(&disk, &log), Vec::<String>::new());
    assert_eq!(files(&disk).len(), files(&plain).len(), "all of it is there");
}

#[test]
fn segments_end_with_the_same_prepares_whether_they_are_sealed_or_not() {
    let names = |keys| {
        let disk = MemoryDisk::new();
        let log = Branch::new(GROUP).seal_many(&[150; 40]);
        new_store(disk.clone(), with_keys(keys)).execute(vec![append(GROUP, &log)]);
        disk.list(Path::new(DIR)).unwrap()
    };
    assert_eq!(names(1), names(0));
    assert!(names(0).len() > 6, "there are several");
}

#[test]
fn what_was_sealed_is_what_was_stored() {
    let (disk, log) = specimen(with_keys(1));
    let (_, recovered, shown) = reopen(disk.restart(), with_keys(1));
    assert_eq!((&recovered[0].problem, recovered[0].head), (&None, log[11].id()));
    assert_eq!(
        recovered[0].snapshot.as_ref().map(varve_protocol::snapshot::Snapshot::id),
        Some(snapshot_of(&log[..4]).id())
    );
    assert!(shown == log[8..], "it goes on from the resume point");
}

#[test]
fn a_key_that_is_missing_is_named_and_nothing_is_touched() {
    let (disk, log) = specimen(with_keys(1));
    let log_files = |disk: &MemoryDisk| {
        let mut files = files(disk);
        // What was put by is of no log any more.
        files.retain(|(path, _)| path.extension().is_none_or(|suffix| suffix != "tmp"));
        files
    };
    let before = log_files(&disk);
    let other = Keys::parse(&"ab".repeat(32), [9; 32]).unwrap();
    for keys in [Keys::NONE, other] {
        let disk = disk.restart();
        let (_, recovered, shown) = reopen(disk.clone(), Options { keys, ..SMALL_SEGMENTS });
        let Some(StorageError::KeyMissing { path, key }) = &recovered[0].problem else {
            panic!("the key is missing: {:?}", recovered[0].problem)
        };
        assert!(path.starts_with(DIR) && Some(*key) == keys_newest(1));
        assert_eq!((shown.len(), recovered[0].superblock.is_torn), (0, false));
        assert!(log_files(&disk) == before);
    }
    let (_, recovered, shown) = reopen(disk.restart(), with_keys(1));
    assert_eq!((&recovered[0].problem, &shown[..]), (&None, &log[8..]), "with the key back it goes on");
}

fn keys_newest(count: u8) -> Option<varve_storage::KeyId> {
    keys(count).newest()
}

#[test]
fn what_is_written_after_a_new_key_is_sealed_with_it() {
    for (first, second) in [(0, 1), (1, 2)] {
        let disk = MemoryDisk::new();
        let mut store = new_store(disk.clone(), with_keys(first));
        let mut branch = Branch::new(GROUP);
        let mut log = branch.seal_many(&[100, 100]);
        store.execute(vec![append(GROUP, &log)]);
        drop(store);
        let disk = disk.restart();
        let (mut store, _, shown) = reopen(disk.clone(), with_keys(second));
        assert!(shown == log && segments(&disk) == 1);
        let more = branch.seal_many(&[90]);
        assert_eq!(answers(&mut store, vec![append(GROUP, &more)]), [durable(GROUP, &more[0])]);
        drop(store);
        log.extend(more);
        let disk = disk.restart();
        assert_eq!(segments(&disk), 2, "it begins a segment");
        assert_eq!(traces(&disk, &log[2..]), Vec::<String>::new());
        assert_eq!(reopen(disk.restart(), with_keys(second)).2, log);
        let (_, recovered, _) = reopen(disk.restart(), with_keys(first));
        assert!(matches!(recovered[0].problem, Some(StorageError::KeyMissing { .. })));
    }
}

#[test]
fn a_segment_in_which_nothing_is_yet_is_made_anew_for_a_new_key() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), with_keys(0));
    let mut branch = Branch::new(GROUP);
    let log = branch.seal_many(&[100, 100]);
    store.execute(vec![append(GROUP, &log)]);
    store.execute(vec![Job::Truncate { group: GROUP, keep: varve_protocol::id::Op::ZERO }]);
    drop(store);
    let disk = disk.restart();
    let (mut store, _, shown) = reopen(disk.clone(), with_keys(1));
    assert_eq!(shown, []);
    assert_eq!(answers(&mut store, vec![append(GROUP, &log)]), [durable(GROUP, &log[1])]);
    drop(store);
    let disk = disk.restart();
    assert_eq!((segments(&disk), traces(&disk, &log)), (1, vec![]));
    assert_eq!(reopen(disk, with_keys(1)).2, log);
}
