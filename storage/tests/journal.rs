//! The journal: what is little for many logs, and what becomes of it when the power fails, the disk fails, or it rots.

use std::path::Path;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::GroupId;
use varve_protocol::prepare::Prepare;
use varve_storage::{
    Completion, Disk, DiskFile, Job, MemoryDisk, OpenMode, Options, ReadFrom, ScrubFrom, StorageError, Store,
    SyncFault,
};

use crate::support::{
    Branch, GROUP, SMALL_SEGMENTS, answers, append, durable, keys, new_store, reopen, superblock,
};

const JOURNAL: &str = "journal";
const GROUPS: [GroupId; 3] = [GROUP, GroupId::new(8), GroupId::new(9)];
/// No segment and no journal is filled.
const ROOMY: Options = Options { reserve_bytes: 0, ..Options::DEFAULT };

fn with_groups(disk: &MemoryDisk, options: Options) -> (Store<MemoryDisk>, [Branch; 3]) {
    let mut store = new_store(disk.clone(), options);
    store.execute(GROUPS[1..].iter().map(|group| Job::SaveSuperblock(superblock(*group, 1))).collect());
    (store, GROUPS.map(Branch::new))
}

/// One prepare for each group, all made durable; returns them.
fn round(store: &mut Store<MemoryDisk>, branches: &mut [Branch], size: usize) -> Vec<Prepare> {
    let prepares: Vec<Prepare> = branches.iter_mut().flat_map(|branch| branch.seal_many(&[size])).collect();
    let jobs = prepares.iter().map(|prepare| append(prepare.header().group(), std::slice::from_ref(prepare)));
    let answers = answers(store, jobs.collect());
    let expected = prepares.iter().map(|prepare| durable(prepare.header().group(), prepare));
    assert_eq!(answers, expected.collect::<Vec<_>>());
    prepares
}

fn bytes_of_journal(disk: &MemoryDisk) -> Vec<u8> {
    let file = disk.open(Path::new(JOURNAL), OpenMode::Existing).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Round, generation and position of the newest slot.
fn newest_slot(bytes: &[u8]) -> (u64, u64, u64) {
    let slot = |at: usize| (u64_at(bytes, at + 8), u64_at(bytes, at + 16), u64_at(bytes, at + 24));
    slot(512).max(slot(1024))
}

fn crash(disk: &MemoryDisk, seed: u64) -> MemoryDisk {
    disk.fork().crash(&mut ChaCha8Rng::seed_from_u64(seed))
}

#[test]
fn a_round_over_many_logs_is_one_write_more_and_one_sync() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    round(&mut store, &mut branches, 100);
    let calls = disk.calls();
    round(&mut store, &mut branches, 100);
    // Slot, frame and sync.
    assert_eq!(disk.calls() - calls, 3 + 3);
    let calls = disk.calls();
    round(&mut store, &mut branches[..1], 100);
    assert_eq!(disk.calls() - calls, 2, "one log alone is synced where it is");
}

#[test]
fn room_is_set_aside_for_logs_that_the_journal_makes_durable() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let size = |disk: &MemoryDisk| {
        let dir = Path::new("groups").join("0000000008");
        let names = disk.list(&dir).unwrap();
        disk.open(&dir.join(&names[0]), OpenMode::Existing).unwrap().size().unwrap()
    };
    let mut sizes = Vec::new();
    for _ in 0..40 {
        round(&mut store, &mut branches, 900);
        sizes.push(size(&disk));
    }
    sizes.dedup();
    let kib = |blocks: u64| 4096 * blocks;
    assert_eq!(sizes, [2, 3, 5, 9, 17].map(kib), "more and more, and never by a single write");
    let (_, recovered, shown) = reopen(disk.restart(), ROOMY);
    assert!(recovered.iter().all(|group| group.problem.is_none() && group.hole.is_none()));
    assert_eq!(shown.len(), 3 * 40);
}

#[test]
fn a_slot_and_a_frame_have_these_bytes() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let prepares = round(&mut store, &mut branches, 3);
    let bytes = bytes_of_journal(&disk);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // The first round of the first life: the journal began anew with its start.
    let slot = [
        "5652564a",
        "0200000000000000",
        "0200000000000000",
        "0010000000000000",
        "efcdab89674523010000000000000000",
        "03",
        "00000000000000",
        "0000000000000000",
    ];
    assert_eq!(hex(&bytes[516..576]), slot.concat());
    let frame = ["56525646", "0200000000000000", "0010000000000000", "8901000000000000"];
    assert_eq!(hex(&bytes[4100..4128]), frame.concat());
    assert_eq!(&bytes[4128..4256], prepares[0].header().as_bytes());
    assert_eq!(&bytes[4256..4259], &prepares[0].body()[..]);
    assert_eq!(&bytes[4259..4387], prepares[1].header().as_bytes());
}

#[test]
fn what_a_journal_holds_survives_the_power() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let rounds: Vec<_> = (0..4).flat_map(|_| round(&mut store, &mut branches, 300)).collect();
    for seed in 0..40 {
        let (mut store, recovered, shown) = reopen(crash(&disk, seed), ROOMY);
        for group in GROUPS {
            let of = |all: &[Prepare]| -> Vec<Prepare> {
                all.iter().filter(|prepare| prepare.header().group() == group).cloned().collect()
            };
            assert_eq!(of(&shown), of(&rounds));
        }
        assert!(recovered.iter().all(|found| !found.superblock.is_torn && found.problem.is_none()));
        round(&mut store, &mut branches.clone(), 10);
    }
}

/// A disk after some rounds, of which nothing but the journal is durable, and what was acknowledged.
fn specimen(options: &Options) -> (MemoryDisk, Vec<Prepare>) {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, options.clone());
    let rounds = (0..3).flat_map(|_| round(&mut store, &mut branches, 40)).collect();
    (disk, rounds)
}

/// Opens what is left of it after a power failure: every log is whole, or is said to have lost its end. Says how many have.
fn torn_after(disk: &MemoryDisk, options: &Options, acknowledged: &[Prepare], seed: u64) -> usize {
    let (_, recovered, shown) = reopen(crash(disk, seed), options.clone());
    assert!(recovered.iter().all(|found| found.problem.is_none()));
    let torn: Vec<GroupId> = recovered
        .iter()
        .filter(|found| found.superblock.is_torn)
        .map(|found| found.superblock.group)
        .collect();
    for prepare in acknowledged.iter().filter(|prepare| !torn.contains(&prepare.header().group())) {
        assert!(shown.contains(prepare), "{} is missing, and its log is not said to be torn", prepare.id());
    }
    torn.len()
}

#[test]
fn what_rots_in_a_journal_is_noticed() {
    for options in [ROOMY, Options { keys: keys(1), ..ROOMY }] {
        let (disk, acknowledged) = specimen(&options);
        assert_eq!(torn_after(&disk, &options, &acknowledged, 1), 0);
        let bytes = bytes_of_journal(&disk);
        let (_, _, newest) = newest_slot(&bytes);
        // Rot in the newest round looks like a torn one.
        let protected = usize::try_from(newest).unwrap();
        let mut noticed = 0;
        for at in (512..576).chain(1024..1088).chain(4096..protected) {
            let disk = disk.fork();
            let file = disk.open(Path::new(JOURNAL), OpenMode::Existing).unwrap();
            file.write_at(&[vec![bytes[at] ^ (1 << (at % 8))].into()], at as u64).unwrap();
            file.sync().unwrap();
            drop(file);
            let torn = torn_after(&disk, &options, &acknowledged, at as u64);
            assert!([0, 3].contains(&torn), "nobody knows which log it was: {torn}");
            noticed += usize::from(torn == 3);
        }
        assert_eq!(noticed, 128 + protected - 4096, "every byte counts");
    }
}

#[test]
fn a_journal_that_is_cut_or_gone_is_noticed() {
    let (disk, acknowledged) = specimen(&ROOMY);
    let (_, _, newest) = newest_slot(&bytes_of_journal(&disk));
    for size in (0..newest).step_by(7) {
        let disk = disk.fork();
        let file = disk.open(Path::new(JOURNAL), OpenMode::Existing).unwrap();
        file.set_size(size).unwrap();
        file.sync().unwrap();
        drop(file);
        assert_eq!(torn_after(&disk, &ROOMY, &acknowledged, size), 3, "cut to {size}");
    }
    disk.remove(Path::new(JOURNAL)).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(torn_after(&disk, &ROOMY, &acknowledged, 1), 3);
    // Once that is said, all goes on.
    let (_, _, shown) = reopen(crash(&disk, 2), ROOMY);
    let next = disk.fork();
    let (_, recovered, _) = reopen(next.restart(), ROOMY);
    assert!(shown.len() <= acknowledged.len() && recovered.iter().all(|found| found.superblock.is_torn));
}

#[test]
fn a_failed_sync_of_the_journal_closes_who_waited_for_it() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let acknowledged = round(&mut store, &mut branches, 100);
    disk.set_sync_fault(SyncFault::Once);
    let doubtful = branches[..2].iter_mut().map(|branch| append(branch.group, &branch.seal_many(&[100])));
    let failed = store.execute(doubtful.collect());
    let is_failed =
        |group| failed.iter().any(|one| matches!(one, Completion::Failed { group: of, .. } if *of == group));
    assert!(failed.len() == 2 && is_failed(GROUPS[0]) && is_failed(GROUPS[1]), "{failed:?}");
    let more = round(&mut store, &mut branches[2..], 100);
    let all: Vec<Prepare> = acknowledged.iter().chain(&more).cloned().collect();
    assert_eq!(torn_after(&disk, &ROOMY, &all, 5), 0);
    // What the journal may hold of a log would come back.
    let cut = store.execute(vec![Job::Truncate { group: GROUPS[2], keep: acknowledged[2].op() }]);
    assert!(matches!(cut[..], [Completion::Failed { .. }]), "{cut:?}");
    assert_eq!(torn_after(&disk, &ROOMY, &all, 6), 0);
}

#[test]
fn where_there_is_no_room_for_a_journal_logs_are_synced_where_they_are() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let mut acknowledged = round(&mut store, &mut branches, 100);
    // The first frame has made room for some more.
    acknowledged.extend(round(&mut store, &mut branches, 100));
    disk.set_capacity(Some(disk.used() + 70_000));
    let calls = disk.calls();
    acknowledged.extend(round(&mut store, &mut branches, 21_000));
    assert!(disk.calls() - calls >= 6, "each is written and synced");
    assert_eq!(torn_after(&disk, &ROOMY, &acknowledged, 3), 0);
}

#[test]
fn a_log_that_was_closed_is_torn_when_the_journal_begins_anew() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, SMALL_SEGMENTS);
    let first = round(&mut store, &mut branches, 100);
    disk.set_sync_fault(SyncFault::Once);
    let large = branches[0].seal_many(&[70_000]);
    let failed = store.execute(vec![append(GROUP, &large)]);
    assert!(matches!(failed[..], [Completion::Failed { group: GROUP, .. }]), "{failed:?}");
    let is_torn = |seed| {
        let (_, recovered, shown) = reopen(crash(&disk, seed), SMALL_SEGMENTS);
        assert!(shown.contains(&first[1]) && shown.contains(&first[2]));
        let is_torn = recovered[0].superblock.is_torn;
        assert!(is_torn || shown.contains(&first[0]));
        is_torn
    };
    assert!((0..10).any(|seed| !is_torn(seed)), "the journal has what it lacks");
    let (_, generation, _) = newest_slot(&bytes_of_journal(&disk));
    while newest_slot(&bytes_of_journal(&disk)).1 == generation {
        round(&mut store, &mut branches[1..], 100);
    }
    assert!((0..10).all(is_torn));
}

#[test]
fn a_journal_is_kept_until_the_key_is_there() {
    let sealed = Options { keys: keys(2), ..ROOMY };
    let (disk, acknowledged) = specimen(&sealed);
    let bytes = bytes_of_journal(&disk);
    let held = acknowledged
        .iter()
        .any(|prepare| bytes.windows(20).any(|window| window == &prepare.header().as_bytes()[..20]));
    assert!(!held, "nothing can be read in it");
    let without = Options { keys: keys(1), ..ROOMY };
    let (_, recovered, shown) = reopen(disk.restart(), without);
    assert!(recovered.iter().all(|found| matches!(found.problem, Some(StorageError::KeyMissing { .. }))));
    assert!(recovered.iter().all(|found| !found.superblock.is_torn) && shown.is_empty());
    assert!(bytes_of_journal(&disk.fork().restart()) == bytes);
    assert_eq!(torn_after(&disk.fork().restart(), &sealed, &acknowledged, 3), 0);
}

#[test]
fn nothing_that_was_written_before_there_was_a_key_stays_in_a_journal() {
    let (disk, acknowledged) = specimen(&ROOMY);
    let disk = disk.restart();
    let (mut store, _, shown) = reopen(disk.clone(), Options { keys: keys(1), ..ROOMY });
    assert_eq!(shown.len(), acknowledged.len());
    let mut branches = GROUPS.map(|group| {
        let of_group = |prepare: &&Prepare| prepare.header().group() == group;
        Branch::behind(acknowledged.iter().rfind(of_group).unwrap())
    });
    round(&mut store, &mut branches, 1);
    let bytes = bytes_of_journal(&disk);
    let trace = &acknowledged[0].header().as_bytes()[..20];
    assert!(!bytes.windows(trace.len()).any(|window| window == trace));
}

#[test]
fn a_local_block_is_looked_at_while_the_journal_has_the_newest_rounds() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let first = round(&mut store, &mut branches, 100);
    round(&mut store, &mut branches, 100);
    let path = Path::new("groups/0000000007/00000000000000000000-00000000000000000001.log");
    let mut noticed = 0;
    for at in (0..80).chain(512..576) {
        let file = disk.open(path, OpenMode::Existing).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[vec![byte[0] ^ 4].into()], at).unwrap();
        let from = ScrubFrom::Read(ReadFrom::Op(first[0].op()));
        let last = first[0].op();
        let looked = store.execute(vec![Job::Scrub { group: GROUP, from, bytes_max: 1000, last }]);
        let Some(Completion::Scrubbed { piece, .. }) = looked.last() else { panic!("{looked:?}") };
        noticed += piece.findings.len();
        let mut now = [0];
        file.read_at(&mut now, at).unwrap();
        assert_eq!(now, byte, "it is what it was");
    }
    assert_eq!(noticed, 80 + 64);
}

#[test]
fn what_cannot_be_synced_at_a_checkpoint_stays_in_the_journal() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, SMALL_SEGMENTS);
    let acknowledged = round(&mut store, &mut branches, 100);
    disk.set_sync_fault(SyncFault::Once);
    let cut = store.execute(vec![Job::Truncate { group: GROUP, keep: acknowledged[0].op() }]);
    assert!(cut.iter().any(|one| matches!(one, Completion::Failed { group: GROUP, .. })), "{cut:?}");
    for seed in 0..20 {
        assert_eq!(torn_after(&disk, &SMALL_SEGMENTS, &acknowledged, seed), 0);
    }
}

#[test]
fn a_log_with_much_in_the_journal_is_synced_where_it_is() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let mut acknowledged = Vec::new();
    let mut synced = 0;
    for _ in 0..60 {
        let calls = disk.calls();
        acknowledged.extend(round(&mut store, &mut branches[..2], 40_000));
        synced += u64::from(disk.calls() - calls > 2 + 3 + 2);
    }
    assert!(synced >= 2, "each of them has been: {synced}");
    for seed in 0..5 {
        assert_eq!(torn_after(&disk, &ROOMY, &acknowledged, seed), 0);
    }
}

#[test]
fn a_look_at_what_groups_share_begins_the_journal_anew_and_loses_nothing() {
    let mut calls = 0;
    loop {
        let disk = MemoryDisk::new();
        let (mut store, mut branches) = with_groups(&disk, ROOMY);
        let acknowledged = round(&mut store, &mut branches, 100);
        let copy = disk.open(Path::new("superblocks-a"), OpenMode::Existing).unwrap();
        copy.write_at(&[Bytes::from_static(b"rot")], 70).unwrap();
        copy.sync().unwrap();
        let (_, generation, _) = newest_slot(&bytes_of_journal(&disk));
        disk.power_off_after(disk.calls() + calls);
        let told = store.execute(vec![Job::ScrubShared]);
        drop(store);
        let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(calls));
        let renewed = newest_slot(&bytes_of_journal(&disk)).1 > generation;
        let (_, recovered, shown) = reopen(disk, ROOMY);
        assert!(acknowledged.iter().all(|prepare| shown.contains(prepare)), "after {calls} calls");
        assert!(recovered.iter().all(|found| found.superblock.view.as_raw() == 1), "after {calls} calls");
        if told == [Completion::SharedScrubbed { was_sound: false }] {
            assert!(renewed && calls > 10, "{calls} calls");
            return;
        }
        calls += 1;
    }
}

#[test]
fn what_is_given_up_does_not_come_back_from_the_journal() {
    let disk = MemoryDisk::new();
    let (mut store, mut branches) = with_groups(&disk, ROOMY);
    let acknowledged = round(&mut store, &mut branches, 100);
    store.execute(vec![Job::GiveUpLog { group: GROUP }]);
    for seed in 0..10 {
        let (_, recovered, shown) = reopen(crash(&disk, seed), ROOMY);
        assert!(shown == acknowledged[1..] && recovered[0].superblock.is_torn);
    }
}

#[test]
fn what_a_failed_sync_of_the_file_system_leaves_in_doubt_stays_in_the_journal() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), ROOMY);
    let groups: Vec<GroupId> = (8..15).map(GroupId::new).collect();
    store.execute(groups.iter().map(|group| Job::SaveSuperblock(superblock(*group, 1))).collect());
    let mut branches: Vec<Branch> = groups.iter().map(|group| Branch::new(*group)).collect();
    let acknowledged = round(&mut store, &mut branches, 100);
    disk.set_sync_fault(SyncFault::Once);
    let large = branches[3..].iter_mut().map(|branch| append(branch.group, &branch.seal_many(&[70_000])));
    let failed = store.execute(large.collect());
    let is_failed =
        |group| failed.iter().any(|one| matches!(one, Completion::Failed { group: of, .. } if *of == group));
    assert!(is_failed(groups[0]) && is_failed(groups[1]) && is_failed(groups[3]), "{failed:?}");
    // Nothing begins the journal anew.
    let cut = store.execute(vec![Job::Truncate { group: groups[0], keep: acknowledged[0].op() }]);
    assert!(matches!(cut[..], [Completion::Failed { .. }]), "{cut:?}");
    for seed in 0..10 {
        assert_eq!(torn_after(&disk, &ROOMY, &acknowledged, seed), 0);
    }
}
