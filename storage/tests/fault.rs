//! Disks whose syncs fail: the group is closed, the others go on, nothing acknowledged is lost.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::{GroupId, Op};
use varve_storage::{Completion, Job, MemoryDisk, Options, ReadFrom, StorageError, Store, SyncFault};

use crate::support::{Branch, GROUP, append, durable, new_store, reopen, superblock};

fn failure(completions: &[Completion]) -> &StorageError {
    match completions {
        [Completion::Failed { group: GROUP, error }] => error,
        other => panic!("one failure is the answer: {other:?}"),
    }
}

#[test]
fn a_failed_sync_closes_its_group_and_no_other() {
    let other = GroupId::new(9);
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    store.execute(vec![Job::SaveSuperblock(superblock(other, 1))]);
    let (mut branch, mut other_branch) = (Branch::new(GROUP), Branch::new(other));
    let acknowledged = branch.seal_many(&[500, 600]);
    store.execute(vec![append(GROUP, &acknowledged), append(other, &other_branch.seal_many(&[100]))]);

    disk.set_sync_fault(SyncFault::Once);
    // So much is not written to the journal.
    let doubtful = branch.seal_many(&[70_000]);
    let fine = other_branch.seal_many(&[80_000]);
    let completions = store.execute(vec![append(other, &fine), append(GROUP, &doubtful)]);
    assert_eq!(completions[0], durable(other, &fine[0]), "{completions:?}");
    failure(&completions[1..]);
    let saved = store.execute(vec![Job::SaveSuperblock(superblock(GROUP, 2))]);
    failure(&saved);
    let job =
        Job::Read { group: GROUP, token: 1, from: ReadFrom::Op(Op::new(1)), bytes_max: 1, last: Op::new(1) };
    assert!(matches!(store.execute(vec![job])[..], [Completion::Read { result: Err(_), .. }]));
    let more = other_branch.seal_many(&[10]);
    assert_eq!(store.execute(vec![append(other, &more)]), [durable(other, &more[0])]);

    for seed in 0..20 {
        let disk = disk.fork().crash(&mut ChaCha8Rng::seed_from_u64(seed));
        let (_, recovered, shown) = reopen(disk, Options::default());
        assert_eq!(recovered[0].problem, None);
        assert_eq!(recovered[0].superblock, superblock(GROUP, 1));
        assert!(shown.starts_with(&acknowledged));
    }
}

#[test]
fn a_failed_sync_of_the_whole_disk_closes_who_waited_for_it() {
    let groups = [GROUP, GroupId::new(9), GroupId::new(10), GroupId::new(11), GroupId::new(12)];
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    store.execute(groups[1..].iter().map(|group| Job::SaveSuperblock(superblock(*group, 1))).collect());
    let mut branches = groups.map(Branch::new);
    let mut append_to = |store: &mut Store<MemoryDisk>, count: usize| {
        let appended = |branch: &mut Branch| append(branch.group, &branch.seal_many(&[70_000]));
        store.execute(branches[..count].iter_mut().map(appended).collect())
    };
    let calls = disk.calls();
    append_to(&mut store, 5);
    let first = disk.calls() - calls;
    append_to(&mut store, 5);
    let later = disk.calls() - calls - first;
    assert!(later < 5 * 3, "two writes for each, and one sync for all: {later}");

    disk.set_sync_fault(SyncFault::Once);
    let completions = append_to(&mut store, 4);
    let failed = completions.iter().filter(|completion| matches!(completion, Completion::Failed { .. }));
    assert_eq!((failed.count(), completions.len()), (4, 4), "{completions:?}");
    let last = branches[4].seal_many(&[100]);
    assert_eq!(store.execute(vec![append(groups[4], &last)]), [durable(groups[4], &last[0])]);
}

#[test]
fn a_failed_sync_of_superblocks_closes_their_groups_and_saves_no_more() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    disk.set_sync_fault(SyncFault::Once);
    failure(&store.execute(vec![Job::SaveSuperblock(superblock(GROUP, 2))]));
    let other = GroupId::new(9);
    let refused = store.execute(vec![Job::SaveSuperblock(superblock(other, 1))]);
    assert!(matches!(refused[..], [Completion::Failed { .. }]), "{refused:?}");
    let (_, recovered, _) = reopen(disk.crash(&mut ChaCha8Rng::seed_from_u64(1)), Options::default());
    assert_eq!(recovered.len(), 1);
    assert!([1, 2].contains(&recovered[0].superblock.view.as_raw()));
}

#[test]
fn a_closed_group_can_be_deleted() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    disk.set_sync_fault(SyncFault::Once);
    failure(&store.execute(vec![append(GROUP, &Branch::new(GROUP).seal_many(&[1]))]));
    let deleted = store.execute(vec![Job::DeleteGroup { group: GROUP }]);
    assert_eq!(deleted, [Completion::Deleted { group: GROUP }]);
    assert_eq!(reopen(disk.restart(), Options::default()).1, []);
}
