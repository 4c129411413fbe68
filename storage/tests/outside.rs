//! What can be told of a log without its key.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::Op;
use varve_protocol::prepare::Prepare;
use varve_storage::{
    Disk, DiskFile, Job, Keys, MemoryDisk, OpenMode, Options, OutsideDamage, look_from_outside,
};

use crate::support::{Branch, GROUP, SMALL_SEGMENTS, append, new_store, reopen, summarize};

const DIR: &str = "groups/0000000007";

fn options(is_sealed: bool) -> Options {
    let keys = if is_sealed { Keys::parse(&"5a".repeat(32), [7; 32]).unwrap() } else { Keys::NONE };
    Options { keys, ..SMALL_SEGMENTS }
}

/// A log in three segments, of which the newest is written over one that was let go of; opened once more, so that its newest
/// slot is at the end.
fn specimen(is_sealed: bool) -> (MemoryDisk, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options(is_sealed));
    let log = Branch::new(GROUP).seal_many(&[500; 11]);
    store.execute(vec![append(GROUP, &log[..9])]);
    store.execute(vec![Job::LetGo { group: GROUP, first: log[3].op(), summarize }]);
    store.execute(vec![append(GROUP, &log[9..])]);
    drop(store);
    let again = disk.fork().restart();
    drop(reopen(again.clone(), options(is_sealed)));
    // The start has cut off what was there before; this is how a node leaves it.
    let [left, settled] = [disk.restart(), again].map(|disk| {
        let file = disk.open(&newest(&disk), OpenMode::Existing).unwrap();
        (disk, file)
    });
    let mut slots = vec![0; 4096];
    settled.1.read_at(&mut slots, 0).unwrap();
    left.1.write_at(&[Bytes::from(slots)], 0).unwrap();
    left.1.sync().unwrap();
    (left.0, log[3..].to_vec())
}

fn newest(disk: &MemoryDisk) -> PathBuf {
    let names = disk.list(Path::new(DIR)).unwrap();
    Path::new(DIR).join(names.iter().rfind(|name| name.ends_with(".log")).unwrap())
}

#[test]
fn what_is_sound_is_counted_and_what_was_there_before_is_no_damage() {
    for is_sealed in [false, true] {
        let (disk, log) = specimen(is_sealed);
        let seen = look_from_outside(&disk, GROUP).unwrap();
        assert_eq!((seen.prepares, seen.damaged), (log.len() as u64, Vec::new()));
        let plain: u64 = log.iter().map(|prepare| prepare.header().total_size() as u64).sum();
        assert_eq!(seen.bytes > plain, is_sealed, "{} of {plain} bytes", seen.bytes);
        assert_eq!(log[7].op(), Op::new(11));
    }
}

#[test]
fn every_byte_of_what_was_durable_is_looked_at() {
    for is_sealed in [false, true] {
        let (disk, log) = specimen(is_sealed);
        let path = newest(&disk);
        let sound = look_from_outside(&disk, GROUP).unwrap();
        let each = sound.bytes / log.len() as u64;
        let file = disk.open(&path, OpenMode::Existing).unwrap();
        for at in (4096..4096 + 2 * each).step_by(7) {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[Bytes::from(vec![byte[0] ^ 4])], at).unwrap();
            let seen = look_from_outside(&disk, GROUP).unwrap();
            let [OutsideDamage { path: told, position }] = seen.damaged.as_slice() else {
                panic!("{at}: {:?}", seen.damaged)
            };
            assert!(told == &path && *position <= at && at < *position + each, "{at}: {position}");
            file.write_at(&[Bytes::copy_from_slice(&byte)], at).unwrap();
        }
        assert_eq!(look_from_outside(&disk, GROUP).unwrap(), sound);
    }
}
