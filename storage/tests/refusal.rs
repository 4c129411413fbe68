//! A data directory that is not this node's is refused, each time with what to do about it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use varve_protocol::checksum::checksum;
use varve_protocol::id::{ClusterId, GroupId, NodeId};
use varve_protocol::version::Version;
use varve_storage::{
    Completion, Disk, DiskFile, FileDisk, Identity, Job, MemoryDisk, OpenMode, Options, StorageError, Store,
};

use crate::support::{
    Branch, DIRECTORY, GROUP, IDENTITY, SMALL_SEGMENTS, answers, append, keys, new_store, superblock,
};

fn refusal(disk: &MemoryDisk, identity: Identity) -> StorageError {
    Store::open(disk.clone(), identity, Options::default(), &mut |_, _| {}).err().expect("it is refused")
}

fn formatted() -> MemoryDisk {
    let disk = MemoryDisk::new();
    Store::format(&disk, IDENTITY, DIRECTORY).unwrap();
    disk
}

#[test]
fn another_cluster_is_refused() {
    let cluster = ClusterId::new(9);
    let error = refusal(&formatted(), Identity { cluster, ..IDENTITY });
    assert_eq!(error, StorageError::WrongCluster { found: IDENTITY.cluster, expected: cluster });
    assert!(error.to_string().contains("check the configured directory and cluster id"));
}

#[test]
fn another_node_is_refused() {
    let node = NodeId::new(9);
    let error = refusal(&formatted(), Identity { node, ..IDENTITY });
    assert_eq!(error, StorageError::WrongNode { found: IDENTITY.node, expected: node });
    assert!(error.to_string().contains("check the configured directory and node id"));
}

#[test]
fn another_version_is_refused() {
    let disk = formatted();
    let file = disk.open(Path::new("identity"), OpenMode::Existing).unwrap();
    let mut bytes = [0; 64];
    file.read_at(&mut bytes, 0).unwrap();
    bytes[8] = 1;
    let sum = checksum(&bytes[4..]).to_le_bytes();
    bytes[..4].copy_from_slice(&sum);
    file.write_at(&[bytes.to_vec().into()], 0).unwrap();
    let path = "identity".into();
    assert_eq!(refusal(&disk, IDENTITY), StorageError::WrongVersion { path, found: 1, expected: 6 });
}

#[test]
fn an_identity_has_these_bytes() {
    let file = formatted().open(Path::new("identity"), OpenMode::Existing).unwrap();
    let mut bytes = [0; 64];
    file.read_at(&mut bytes, 0).unwrap();
    let mut expected = [0; 64];
    expected[4..8].copy_from_slice(b"VRVI");
    expected[8] = 6;
    expected[12] = 3;
    expected[16..24].copy_from_slice(&[0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01]);
    expected[32..34].copy_from_slice(&[0xed, 0x5e]);
    assert_eq!(bytes[4..], expected[4..]);
}

#[test]
fn an_empty_directory_is_refused_until_it_is_formatted() {
    let disk = MemoryDisk::new();
    assert_eq!(refusal(&disk, IDENTITY), StorageError::NotFormatted);
    Store::format(&disk, IDENTITY, DIRECTORY).unwrap();
    assert!(Store::open(disk, IDENTITY, Options::default(), &mut |_, _| {}).is_ok());
}

#[test]
fn rotten_founders_are_refused() {
    let disk = formatted();
    let (mut store, _) = Store::open(disk.clone(), IDENTITY, Options::default(), &mut |_, _| {}).unwrap();
    let founders = [(NodeId::new(1), DIRECTORY)].into();
    assert_eq!(store.execute(vec![Job::SaveFounders(founders)]), [Completion::FoundersDurable]);
    let file = disk.open(Path::new("founders"), OpenMode::Existing).unwrap();
    file.write_at(&[vec![7].into()], 9).unwrap();
    let path = "founders".into();
    assert_eq!(refusal(&disk, IDENTITY), StorageError::IdentityDamaged { path });
}

#[test]
fn nothing_is_formatted_twice() {
    let disk = formatted();
    let found = "identity".into();
    assert_eq!(Store::format(&disk, IDENTITY, DIRECTORY), Err(StorageError::AlreadyFormatted { found }));
    disk.remove(Path::new("identity")).unwrap();
    assert!(Store::format(&disk, IDENTITY, DIRECTORY).is_err(), "also if only the rest is there");
}

#[test]
fn a_directory_has_one_process() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data");
    let disk = FileDisk::open(path.clone()).unwrap();
    let locked = StorageError::Locked { path: path.clone() };
    assert_eq!(FileDisk::open(path.clone()).err(), Some(locked));
    drop(new_store(disk, Options::default()));
    assert!(FileDisk::open(path).is_ok());
}

/// The journal, and the files of one log.
fn logs(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new("groups/0000000007");
    let names = disk.list(dir).unwrap().into_iter().map(|name| dir.join(name));
    let logs = names.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let paths = logs.chain([PathBuf::from("journal")]);
    let bytes = |path: PathBuf| {
        let file = disk.open(&path, OpenMode::Existing).ok()?;
        let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        Some((path, bytes))
    };
    paths.filter_map(bytes).collect()
}

/// What a newer release has written, in a log or in the journal, is refused and left as it is: it is neither damage nor a torn end.
#[test]
fn what_another_release_has_written_is_neither_cut_nor_mended() {
    for (key_count, journal_bytes_max) in [(0, 0), (1, 0), (0, 100_000), (1, 100_000)] {
        let disk = MemoryDisk::new();
        let options = Options { journal_bytes_max, keys: keys(key_count), ..SMALL_SEGMENTS };
        let mut store = new_store(disk.clone(), options.clone());
        let other = GroupId::new(8);
        store.execute(vec![Job::SaveSuperblock(superblock(other, 1))]);
        let mut branches = [Branch::new(GROUP), Branch::new(other)];
        for version in [Version::FIRST, Version::new(9)] {
            branches[0].version = version;
            let jobs = branches.iter_mut().map(|branch| append(branch.group, &branch.seal_many(&[100, 200])));
            answers(&mut store, jobs.collect());
        }
        drop(store);
        let is_kept = |(path, _): &(PathBuf, Vec<u8>)| journal_bytes_max > 0 || path != Path::new("journal");
        let kept = |disk: &MemoryDisk| -> Vec<_> { logs(disk).into_iter().filter(is_kept).collect() };
        let before = kept(&disk);
        let opened = Store::open(disk.clone(), IDENTITY, options, &mut |_, _| {});
        let problem = match opened {
            // The journal is everybody's.
            Err(error) => error.to_string(),
            Ok((_, groups)) => {
                assert_eq!(groups[1].problem, None);
                groups[0].problem.clone().expect("its log is of another release").to_string()
            }
        };
        let expected = "a prepare of format 9, and this release knows formats 1 to";
        assert!(problem.contains(expected), "{key_count} keys, journal {journal_bytes_max}: {problem}");
        assert!(kept(&disk) == before, "{key_count} keys, journal {journal_bytes_max}: a log was changed");
    }
}
