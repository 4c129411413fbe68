//! A data directory in which somebody has written.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::checksum::checksum;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, NodeId, Offset, Op, ProducerId, RequestNumber, Timestamp, View,
};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareId, PrepareKind};
use varve_protocol::resume_point::ResumePoint;
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::version::Version;
use varve_storage::{
    Disk, DiskFile, Extent, Identity, Job, MemoryDisk, MemoryFile, OpenMode, Options, ReadFrom, Store,
};

const IDENTITY: Identity = Identity { cluster: ClusterId::new(7), node: NodeId::new(3) };
const GROUP: GroupId = GroupId::new(5);
const OTHER_GROUP: GroupId = GroupId::new(6);
const JOURNAL: &str = "journal";
const DIR: &str = "groups/0000000005";
const OPTIONS: Options = Options { segment_size_bytes_max: 4096 + 700, reserve_bytes: 0, ..Options::DEFAULT };
const PREPARES: usize = 10;

/// Edits of the files of a small log: each is which file, where, how many bytes, those bytes, and whether the checksum in front of
/// the file is made right afterwards. Whatever they are, the directory is opened or refused, and what is read was once appended.
pub fn data_dir(mut edits: &[u8]) {
    let (disk, log) = directory();
    let files = files(&disk);
    while let Some((edit, rest)) = edits.split_at_checked(5) {
        let size = usize::from(edit[3]).min(rest.len());
        let (bytes, rest) = rest.split_at(size);
        let position = u64::from(u16::from_le_bytes([edit[1], edit[2]]));
        write(&disk, &files[usize::from(edit[0]) % files.len()], position, bytes, edit[4] % 2 == 1);
        edits = rest;
    }
    for extent in [Extent::Tail, Extent::Whole] {
        let options = Options { extent, ..OPTIONS };
        let opened = Store::open(disk.restart(), IDENTITY, options, &mut |_, _| {});
        let Ok((mut store, recovered)) = opened else { return };
        // Around a hole all that is there is read, for others to mend with.
        let is_whole = recovered.iter().all(|found| found.hole.is_none());
        let (from, last) = (ReadFrom::Op(Op::new(1)), Op::new(u64::MAX));
        let told = store.execute(vec![
            Job::Read { group: GROUP, token: 1, from, bytes_max: usize::MAX, last },
            Job::Survey { group: GROUP },
            Job::ReadSnapshot { group: GROUP, token: 2 },
        ]);
        for completion in told {
            if let varve_storage::Completion::Read { result: Ok(found), .. } = completion {
                // Who writes checksums himself can write prepares himself, but not into the chain of this log.
                let is_prefix = found.iter().zip(&log).all(|(found, log)| found == log);
                assert!(is_prefix || !is_whole, "what is read was appended");
            }
        }
    }
}

fn directory() -> (MemoryDisk, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    Store::format(&disk, IDENTITY, DirectoryId::new(9)).expect("an empty disk can be formatted");
    let (mut store, _) =
        Store::open(disk.clone(), IDENTITY, OPTIONS, &mut |_, _| {}).expect("it was just formatted");
    let (log, other) = (log(GROUP), log(OTHER_GROUP));
    store.execute([GROUP, OTHER_GROUP].map(|group| Job::SaveSuperblock(Superblock::new(group))).into());
    let (early, late) = log.split_at(PREPARES - 1);
    store.execute(vec![Job::Append { group: GROUP, prepares: early.to_vec() }]);
    store.execute(vec![
        Job::Append { group: GROUP, prepares: late.to_vec() },
        Job::Append { group: OTHER_GROUP, prepares: other },
    ]);
    // Only the journal has it.
    forget(&disk, &late[0]);
    let snapshot = Snapshot { header: *log[6].header(), state: Bytes::from_static(&[0; 8]) };
    let point = Box::new(ResumePoint { log_start: LogStart::FIRST, snapshot });
    store.execute(vec![Job::SaveResumePoint { group: GROUP, point }]);
    (disk, log)
}

/// A write that the power took.
fn forget(disk: &MemoryDisk, lost: &Prepare) {
    for path in files(disk).iter().filter(|path| path.extension().is_some_and(|name| name == "log")) {
        let bytes = read(disk, path);
        let header = lost.header().as_bytes();
        if let Some(at) = bytes.windows(header.len()).position(|window| window == header) {
            write(disk, path, at as u64, &vec![0; lost.header().total_size()], false);
        }
    }
}

fn read(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Existing).expect("nothing was removed");
    let size = usize::try_from(file.size().expect("a disk in memory works")).unwrap_or_default();
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0).expect("a disk in memory works");
    bytes
}

fn log(group: GroupId) -> Vec<Prepare> {
    let mut parent = PrepareId::ROOT;
    let mut base_offset = Offset::ZERO;
    let seal = |number: usize| {
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: IDENTITY.cluster,
            group,
            view: View::ZERO,
            parent,
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset,
            record_count: 1,
            timestamp: Timestamp::new(number as u64 + 1),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        let prepare = Prepare::seal(fields, Bytes::from(vec![7; 20 + number]));
        parent = prepare.id();
        base_offset = prepare.header().next_offset();
        prepare
    };
    (0..PREPARES).map(seal).collect()
}

fn files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let names = |dir: &str| {
        let names = disk.list(Path::new(dir)).expect("the directory is there");
        names.into_iter().map(|name| Path::new(dir).join(name)).collect::<Vec<_>>()
    };
    let mut files = names("");
    files.retain(|path| path != Path::new("groups") && path != Path::new(JOURNAL));
    files.extend(names(DIR));
    files.push(JOURNAL.into());
    files
}

fn write(disk: &MemoryDisk, path: &Path, position: u64, bytes: &[u8], seals: bool) {
    let file = disk.open(path, OpenMode::Existing).expect("nothing was removed");
    file.write_at(&[Bytes::copy_from_slice(bytes)], position).expect("a disk in memory works");
    if seals && path == Path::new(JOURNAL) {
        for at in [512, 1024] {
            seal(&file, &read(disk, path), at, 64);
        }
        let all = read(disk, path);
        if let Some(size) = all.get(4120..4128).and_then(|size| <[u8; 8]>::try_from(size).ok()) {
            let size = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
            seal(&file, &all, 4096, size.saturating_add(32));
        }
    } else if seals {
        let all = read(disk, path);
        let size = all.len();
        // A segment and a prepare seal 128 bytes, other files all there is.
        let sealed = if path.extension().is_some_and(|name| name == "log") { 128.min(size) } else { size };
        seal(&file, &all, 0, sealed);
    }
}

/// Makes the checksum right of what takes so many bytes from a position on.
fn seal(file: &MemoryFile, all: &[u8], at: usize, size: usize) {
    if let Some(sealed) = all.get(at + 4..at.saturating_add(size)) {
        let sum = Bytes::copy_from_slice(&checksum(sealed).to_le_bytes());
        file.write_at(&[sum], at as u64).expect("a disk in memory works");
    }
}
