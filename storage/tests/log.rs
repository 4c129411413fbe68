//! What a store does when nothing fails, on both disks.

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use varve_protocol::id::{GroupId, Offset, Op, View};
use varve_protocol::prepare::PrepareId;
use varve_storage::{
    Completion, Disk, DiskFile, FileDisk, Finding, Job, MemoryDisk, OpenMode, Options, ReadFrom, ScrubFrom,
    StorageError,
};

use crate::support::{
    Branch, GROUP, IDENTITY, SMALL_SEGMENTS, answers, append, durable, new_store, prepare_in, read,
    read_some, reopen, superblock,
};

/// Runs a test on each kind of disk; `reopened` gives the same disk to the next process.
fn on_each_disk(test: impl Fn(&dyn Fn() -> AnyDisk)) {
    let dir = TempDir::new().unwrap();
    test(&|| AnyDisk::File(FileDisk::open(dir.path().to_owned()).unwrap()));
    let memory = MemoryDisk::new();
    test(&|| AnyDisk::Memory(memory.clone()));
}

enum AnyDisk {
    File(FileDisk),
    Memory(MemoryDisk),
}

/// Calls `$body` with `$disk` bound to the disk inside.
macro_rules! with_disk {
    ($any:expr, $disk:ident => $body:expr) => {
        match $any {
            AnyDisk::File($disk) => $body,
            AnyDisk::Memory($disk) => $body,
        }
    };
}

#[test]
fn appended_prepares_are_there_after_a_restart() {
    on_each_disk(|disk| {
        let prepares = Branch::new(GROUP).seal_many(&[100, 0, 5000, 1, 0]);
        with_disk!(disk(), disk => {
            let mut store = new_store(disk, Options::default());
            let jobs = vec![append(GROUP, &prepares[..2]), append(GROUP, &prepares[2..])];
            assert_eq!(store.execute(jobs), [durable(GROUP, &prepares[4])]);
            assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), prepares);
        });
        with_disk!(disk(), disk => {
            let (mut store, recovered, shown) = reopen(disk, Options::default());
            assert_eq!(shown, prepares);
            assert_eq!(recovered[0].head, prepares[4].id());
            assert_eq!(recovered[0].superblock, superblock(GROUP, 1));
            assert_eq!(recovered[0].problem, None);
            assert_eq!(read(&mut store, ReadFrom::Op(Op::new(3))), prepares[2..]);
        });
    });
}

#[test]
fn a_log_rolls_over_many_segments_and_is_read_across_them() {
    on_each_disk(|disk| {
        let sizes: Vec<usize> = (0..60).map(|at| if at % 4 == 0 { 0 } else { at * 29 % 1500 }).collect();
        let prepares = Branch::new(GROUP).seal_many(&sizes);
        with_disk!(disk(), disk => {
            let mut store = new_store(disk, SMALL_SEGMENTS);
            for some in prepares.chunks(7) {
                store.execute(vec![append(GROUP, some)]);
            }
            check_reads(&mut store, &prepares);
        });
        with_disk!(disk(), disk => {
            let dir = std::path::Path::new("groups/0000000007");
            assert!(disk.list(dir).unwrap().len() > 10, "the log has many segments");
            let (mut store, _, shown) = reopen(disk, SMALL_SEGMENTS);
            assert_eq!(shown, prepares);
            check_reads(&mut store, &prepares);
        });
    });
}

/// Reads from every op and every offset.
fn check_reads<D: Disk>(store: &mut varve_storage::Store<D>, prepares: &[varve_protocol::prepare::Prepare]) {
    for (at, prepare) in prepares.iter().enumerate() {
        assert_eq!(read(store, ReadFrom::Op(prepare.op())), prepares[at..]);
        for offset in prepare.header().base_offset().as_raw()..prepare.header().next_offset().as_raw() {
            let found = read_some(store, ReadFrom::Offset(Offset::new(offset)), 1, Op::new(u64::MAX));
            assert_eq!(
                found,
                std::slice::from_ref(prepare),
                "one prepare in any case, the one with the offset"
            );
        }
    }
    let end = prepares.last().unwrap().header().next_offset();
    assert_eq!(read(store, ReadFrom::Offset(end)), []);
    assert_eq!(read(store, ReadFrom::Op(Op::new(prepares.len() as u64 + 1))), []);
}

#[test]
fn a_read_stays_within_its_bytes_and_its_last_op() {
    let prepares = Branch::new(GROUP).seal_many(&[872; 20]);
    let mut store = new_store(MemoryDisk::new(), Options::default());
    store.execute(vec![append(GROUP, &prepares)]);
    let from = ReadFrom::Op(Op::new(4));
    assert_eq!(read_some(&mut store, from, 3000, Op::new(99)), prepares[3..6]);
    assert_eq!(read_some(&mut store, from, 2999, Op::new(99)), prepares[3..5]);
    assert_eq!(read_some(&mut store, from, 0, Op::new(99)), prepares[3..4]);
    assert_eq!(read_some(&mut store, from, 9999, Op::new(5)), prepares[3..5]);
    assert_eq!(read_some(&mut store, from, 9999, Op::new(3)), []);
}

#[test]
fn a_truncated_log_goes_on_on_another_branch() {
    for keep in 0..30 {
        on_each_disk(|disk| {
            let old = Branch::new(GROUP).seal_many(&[700; 30]);
            let mut kept = old[..keep].to_vec();
            let mut branch = kept.last().map_or(Branch::new(GROUP), Branch::behind);
            branch.view = View::new(2);
            let new = branch.seal_many(&[300; 5]);
            with_disk!(disk(), disk => {
                let mut store = new_store(disk, SMALL_SEGMENTS);
                store.execute(vec![append(GROUP, &old)]);
                let truncate = Job::Truncate { group: GROUP, keep: Op::new(keep as u64) };
                let id = kept.last().map_or(PrepareId::ROOT, |prepare| prepare.id());
                assert_eq!(store.execute(vec![truncate]), [Completion::Durable { group: GROUP, id }]);
                assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), kept);
                assert_eq!(answers(&mut store, vec![append(GROUP, &new)]), [durable(GROUP, &new[4])]);
            });
            kept.extend(new);
            with_disk!(disk(), disk => {
                let (mut store, _, shown) = reopen(disk, SMALL_SEGMENTS);
                assert_eq!(shown, kept);
                assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), kept);
            });
        });
    }
}

#[test]
fn a_log_is_cut_behind_what_has_rotted_meanwhile() {
    let few = [(7, 2..=6, 5), (6, 3..=3, 3), (6, 1..=6, 1)];
    // So many that nobody remembers where the first ones end.
    let many = [(80, 2..=2, 3), (80, 3..=3, 3), (80, 1..=1, 1), (80, 1..=3, 4), (80, 2..=2, 2)];
    for (count, rotten, keep) in few.into_iter().chain(many) {
        let disk = MemoryDisk::new();
        let mut store = new_store(disk.clone(), Options::DEFAULT);
        let prepares = Branch::new(GROUP).seal_many(&vec![40; count]);
        store.execute(vec![append(GROUP, &prepares)]);
        let dir = std::path::Path::new("groups/0000000007");
        let file = disk.open(&dir.join(&disk.list(dir).unwrap()[0]), OpenMode::Existing).unwrap();
        let size = prepares[0].header().total_size() as u64;
        for op in rotten {
            file.write_at(&[Bytes::from_static(b"rot")], 4096 + (op - 1) * size + 50).unwrap();
        }
        let told = store.execute(vec![Job::Truncate { group: GROUP, keep: Op::new(keep) }]);
        let last = &prepares[usize::try_from(keep).unwrap() - 1];
        assert_eq!(told, [durable(GROUP, last)], "cut behind op{keep}");
        let next = Branch::behind(last).seal(100);
        let told = store.execute(vec![append(GROUP, std::slice::from_ref(&next))]);
        assert_eq!(told, [durable(GROUP, &next)]);
    }
}

#[test]
fn a_segment_that_is_gone_is_no_hindrance_to_a_cut_before_it() {
    for (gone, keep, left) in [(2, 1, 2), (2, 2, 2), (3, 2, 3), (3, 1, 2), (3, 3, 3)] {
        let disk = MemoryDisk::new();
        let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
        // Each fills a segment.
        let prepares = Branch::new(GROUP).seal_many(&[1500; 5]);
        store.execute(vec![append(GROUP, &prepares)]);
        let dir = std::path::Path::new("groups/0000000007");
        let names = || disk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(".log"));
        let mut logs: Vec<_> = names().collect();
        logs.sort();
        assert_eq!(logs.len(), 5);
        disk.remove(&dir.join(&logs[gone])).unwrap();
        let told = store.execute(vec![Job::Truncate { group: GROUP, keep: Op::new(keep) }]);
        let last = &prepares[usize::try_from(keep).unwrap() - 1];
        assert_eq!(told, [durable(GROUP, last)], "segment {gone} is gone, cut behind op{keep}");
        assert_eq!(names().count(), left);
        let next = Branch::behind(last).seal(100);
        let told = store.execute(vec![append(GROUP, std::slice::from_ref(&next))]);
        assert_eq!(told.last(), Some(&durable(GROUP, &next)));
    }
}

#[test]
fn a_log_is_cut_back_into_a_segment_that_has_rotted_while_it_was_sealed() {
    let harms: [fn(&MemoryDisk, &std::path::Path); 4] = [
        |disk, path| disk.open(path, OpenMode::Existing).unwrap().set_size(4096 + 50).unwrap(),
        |disk, path| disk.open(path, OpenMode::Existing).unwrap().set_size(100).unwrap(),
        |disk, path| {
            let file = disk.open(path, OpenMode::Existing).unwrap();
            file.write_at(&[Bytes::from(vec![0xee; 4096 + 300])], 0).unwrap();
        },
        |disk, path| disk.remove(path).unwrap(),
    ];
    for (place, harm) in harms.into_iter().enumerate() {
        for keep in [4, 5] {
            let disk = MemoryDisk::new();
            let mut store = new_store(disk.clone(), SMALL_SEGMENTS);
            // Three fill a segment.
            let prepares = Branch::new(GROUP).seal_many(&[400; 8]);
            store.execute(vec![append(GROUP, &prepares)]);
            let dir = std::path::Path::new("groups/0000000007");
            let names = || disk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(".log"));
            let mut logs: Vec<_> = names().collect();
            logs.sort();
            assert_eq!(logs.len(), 3);
            harm(&disk, &dir.join(&logs[1]));
            let told = store.execute(vec![Job::Truncate { group: GROUP, keep: Op::new(keep) }]);
            let last = &prepares[usize::try_from(keep).unwrap() - 1];
            assert_eq!(told, [durable(GROUP, last)], "harm {place}, cut behind op{keep}");
            assert_eq!(names().count(), 2);
            let next = Branch::behind(last).seal(100);
            let told = store.execute(vec![append(GROUP, std::slice::from_ref(&next))]);
            assert_eq!(told.last(), Some(&durable(GROUP, &next)));
            // What is lost of it is found.
            let from = ScrubFrom::Read(ReadFrom::Op(Op::new(4)));
            let look = Job::Scrub { group: GROUP, from, bytes_max: 1 << 20, last: next.op() };
            let told = store.execute(vec![look]);
            let [Completion::Scrubbed { piece, .. }] = &told[..] else { panic!("it is looked at: {told:?}") };
            let Some(Finding::Prepares { damage, .. }) = piece.findings.last() else {
                panic!("harm {place}, cut behind op{keep}: {piece:?}");
            };
            assert_eq!(damage.after, prepares[2].id());
            assert!(damage.last == last.id() || damage.last.op == Op::new(4));
        }
    }
}

#[test]
fn a_deleted_group_is_gone_and_the_others_stay() {
    on_each_disk(|disk| {
        let other = GroupId::new(8);
        let prepares = Branch::new(other).seal_many(&[10, 20]);
        with_disk!(disk(), disk => {
            let mut store = new_store(disk, SMALL_SEGMENTS);
            let jobs = vec![Job::SaveSuperblock(superblock(other, 5)), append(other, &prepares)];
            let done = [Completion::SuperblockDurable(superblock(other, 5)), durable(other, &prepares[1])];
            assert_eq!(store.execute(jobs), done);
            store.execute(vec![append(GROUP, &Branch::new(GROUP).seal_many(&[1500; 5]))]);
            let delete = Job::DeleteGroup { group: GROUP };
            assert_eq!(store.execute(vec![delete]), [Completion::Deleted { group: GROUP }]);
            let late = store.execute(vec![Job::Truncate { group: GROUP, keep: Op::ZERO }]);
            let error = StorageError::GroupUnknown { group: GROUP };
            assert_eq!(late, [Completion::Failed { group: GROUP, error }]);
        });
        with_disk!(disk(), disk => {
            assert_eq!(disk.list(std::path::Path::new("groups")).unwrap(), ["0000000008"]);
            let (_, recovered, shown) = reopen(disk, SMALL_SEGMENTS);
            assert_eq!(recovered.iter().map(|found| found.superblock).collect::<Vec<_>>(), [superblock(other, 5)]);
            assert_eq!(shown, prepares);
        });
    });
}

#[test]
fn superblocks_of_many_groups_outlive_their_rewriting() {
    on_each_disk(|disk| {
        with_disk!(disk(), disk => {
            let mut store = new_store(disk, SMALL_SEGMENTS);
            for view in 1..=600 {
                let saves = (10..50).map(|group| Job::SaveSuperblock(superblock(GroupId::new(group), view)));
                assert_eq!(store.execute(saves.collect()).len(), 40);
            }
        });
        with_disk!(disk(), disk => {
            let (_, recovered, _) = reopen(disk, SMALL_SEGMENTS);
            let views: Vec<_> = recovered.iter().map(|found| found.superblock.view.as_raw()).collect();
            assert_eq!(views, [&[1][..], &[600; 40]].concat());
        });
    });
}

#[test]
fn groups_are_shown_in_order_metadata_first() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    for group in [12, 0, 5].map(GroupId::new) {
        let prepares = Branch::new(group).seal_many(&[10, 10]);
        store.execute(vec![Job::SaveSuperblock(superblock(group, 1)), append(group, &prepares)]);
    }
    let mut order = Vec::new();
    let opened = varve_storage::Store::open(disk, IDENTITY, Options::default(), &mut |group, piece| {
        order.extend(prepare_in(piece).map(|prepare| (group.as_raw(), prepare.op().as_raw())));
    });
    assert!(opened.is_ok());
    assert_eq!(order, [(0, 1), (0, 2), (5, 1), (5, 2), (12, 1), (12, 2)]);
}

#[test]
#[should_panic(expected = "an appended prepare continues the log")]
fn an_append_that_leaves_a_gap_is_a_programmer_error() {
    let prepares = Branch::new(GROUP).seal_many(&[10, 10, 10]);
    let mut store = new_store(MemoryDisk::new(), Options::default());
    store.execute(vec![append(GROUP, &prepares[..1])]);
    store.execute(vec![append(GROUP, &prepares[2..])]);
}

#[test]
fn idle_groups_cost_an_open_no_writes_and_no_syncs_of_their_own() {
    let calls_of_open = |groups: u64| {
        let disk = MemoryDisk::new();
        let mut store = new_store(disk.clone(), Options::default());
        for group in (0..groups).map(|number| GroupId::new(100 + number)) {
            store.execute(vec![Job::SaveSuperblock(superblock(group, 1))]);
            store.execute(vec![append(group, &Branch::new(group).seal_many(&[100, 100]))]);
        }
        // The first one seals the logs.
        drop(reopen(disk.clone(), Options::default()));
        let before = disk.calls();
        drop(reopen(disk.clone(), Options::default()));
        disk.calls() - before
    };
    assert_eq!(calls_of_open(20), calls_of_open(1));
}

#[test]
fn a_group_has_files_from_its_first_append_on() {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), Options::default());
    let groups = Path::new("groups");
    assert_eq!(disk.list(groups).unwrap(), [""; 0]);
    assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), []);
    drop(store);

    let (mut store, recovered, shown) = reopen(disk.clone(), Options::default());
    assert_eq!((recovered[0].head, recovered[0].problem.clone(), shown), (PrepareId::ROOT, None, vec![]));
    let prepares = Branch::new(GROUP).seal_many(&[100]);
    assert_eq!(store.execute(vec![append(GROUP, &prepares)]), [durable(GROUP, &prepares[0])]);
    assert_eq!(disk.list(groups).unwrap(), ["0000000007"]);
    drop(store);
    let (_, recovered, shown) = reopen(disk, Options::default());
    assert_eq!((recovered[0].superblock, shown), (superblock(GROUP, 1), prepares));
}
