//! The simulated disk breaks what a kernel does not promise, and keeps the rest.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_storage::{Disk, DiskFile, MemoryDisk, MemoryFile, OpenMode, SyncFault};

const PATH: &str = "file";

fn synced_file(disk: &MemoryDisk, bytes: &[u8]) -> MemoryFile {
    let file = disk.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
    file.write_at(&[Bytes::copy_from_slice(bytes)], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file
}

fn contents(disk: &MemoryDisk) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(PATH), OpenMode::Existing).ok()?;
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// All outcomes of a crash, over many seeds.
fn outcomes(disk: &MemoryDisk) -> BTreeSet<Option<Vec<u8>>> {
    let crash = |seed| contents(&disk.fork().crash(&mut ChaCha8Rng::seed_from_u64(seed)));
    (0..500).map(crash).collect()
}

#[test]
fn synced_bytes_survive() {
    let disk = MemoryDisk::new();
    let _file = synced_file(&disk, &[1; 3000]);
    assert_eq!(outcomes(&disk), [Some(vec![1; 3000])].into());
}

#[test]
fn unsynced_sectors_survive_in_every_subset() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, &[1; 2048]);
    file.write_at(&[vec![2; 2048].into()], 0).unwrap();
    let sectors = outcomes(&disk).into_iter().map(|bytes| {
        let bytes = bytes.unwrap();
        assert!(
            bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "sectors are whole"
        );
        [bytes[0], bytes[512], bytes[1024], bytes[1536]]
    });
    assert_eq!(sectors.collect::<BTreeSet<_>>().len(), 16);
}

#[test]
fn a_sync_of_everything_saves_bytes_sizes_and_names() {
    let disk = MemoryDisk::new();
    let file = disk.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
    file.write_at(&[vec![1; 3000].into()], 0).unwrap();
    disk.sync_all().unwrap();
    assert_eq!(outcomes(&disk), [Some(vec![1; 3000])].into());
    file.write_at(&[vec![2; 3000].into()], 0).unwrap();
    disk.set_sync_fault(SyncFault::Once);
    assert!(disk.sync_all().is_err());
    disk.sync_all().unwrap();
    assert_eq!(outcomes(&disk), [Some(vec![1; 3000])].into(), "a later sync saves nothing of a failed one");
}

#[test]
fn a_sector_comes_back_as_any_of_its_versions() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, &[0; 512]);
    for version in 1..4 {
        file.write_at(&[vec![version; 512].into()], 0).unwrap();
    }
    assert_eq!(outcomes(&disk), (0..4).map(|version| Some(vec![version; 512])).collect());
}

#[test]
fn sizes_need_a_sync() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, &[1; 600]);
    file.set_size(100).unwrap();
    file.write_at(&[vec![2; 100].into()], 2000).unwrap();
    let sizes: BTreeSet<_> = outcomes(&disk).into_iter().map(|bytes| bytes.unwrap().len()).collect();
    assert_eq!(sizes, [100, 600, 2100].into());
    file.sync().unwrap();
    assert_eq!(outcomes(&disk).len(), 1);
}

#[test]
fn names_need_a_sync_of_their_directory() {
    let disk = MemoryDisk::new();
    let file = disk.open(Path::new("other"), OpenMode::CreateNew).unwrap();
    file.write_at(&["new".into()], 0).unwrap();
    file.sync().unwrap();
    disk.rename(Path::new("other"), Path::new(PATH)).unwrap();
    assert_eq!(outcomes(&disk), [None, Some(b"new".to_vec())].into());
    disk.sync_dir(Path::new("")).unwrap();
    disk.remove(Path::new(PATH)).unwrap();
    assert_eq!(outcomes(&disk), [None, Some(b"new".to_vec())].into());
}

#[test]
fn a_replacing_rename_is_atomic() {
    let disk = MemoryDisk::new();
    let _file = synced_file(&disk, b"old");
    let file = disk.open(Path::new("other"), OpenMode::CreateNew).unwrap();
    file.write_at(&["new".into()], 0).unwrap();
    file.sync().unwrap();
    disk.rename(Path::new("other"), Path::new(PATH)).unwrap();
    assert_eq!(outcomes(&disk), [Some(b"old".to_vec()), Some(b"new".to_vec())].into());
}

#[test]
fn what_a_failed_sync_was_to_save_is_never_saved() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, &[1; 512]);
    file.write_at(&[vec![2; 512].into()], 0).unwrap();
    disk.set_sync_fault(SyncFault::Once);
    assert!(file.sync().is_err());
    assert_eq!(contents(&disk), Some(vec![2; 512]), "it is still read back");
    file.sync().unwrap();
    assert_eq!(outcomes(&disk), [Some(vec![1; 512])].into());
    file.write_at(&[vec![3; 512].into()], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk), [Some(vec![3; 512])].into(), "written again, it is");
}

#[test]
fn handles_from_before_a_crash_fail() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, b"text");
    let next = disk.crash(&mut ChaCha8Rng::seed_from_u64(1));
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.sync().is_err());
    assert!(disk.list(Path::new("")).is_err());
    assert_eq!(contents(&next), Some(b"text".to_vec()));
    assert!(next.restart().list(Path::new("")).is_ok());
    assert!(next.list(Path::new("")).is_err());
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    let disk = MemoryDisk::new();
    let file = synced_file(&disk, &[1; 100]);
    disk.set_capacity(Some(150));
    let refused = file.write_at(&[vec![2; 60].into()], 100).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert!(disk.used() <= 150);
    file.set_size(100).unwrap();
    file.write_at(&[vec![2; 50].into()], 100).unwrap();
    file.write_at(&[vec![3; 150].into()], 0).unwrap();
    assert!(file.set_size(151).is_err());
}
