//! Every single-bit flip and every truncation of every file of a small data directory: nothing panics, no prepare is
//! altered, and nothing that a slot protects is lost in silence: it is a hole that can be mended, or the superblock says that
//! the end is lost.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_protocol::id::Op;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_protocol::superblock::Superblock;
use varve_storage::{
    Completion, Disk, DiskFile, Hole, Job, MemoryDisk, OpenMode, Options, ReadFrom, RecoveredGroup,
    StorageError, Store,
};

use crate::support::{
    Branch, GROUP, IDENTITY, answers, append, durable, keys, new_store, prepare_in, read, reopen, superblock,
};

/// With so many keys, and segments that take three of the prepares.
fn options(count: u8) -> Options {
    Options { segment_size_bytes_max: 4096 + 680, reserve_bytes: 0, keys: keys(count), ..Options::DEFAULT }
}

/// A directory with three segments, and its log. The last round holds the last two prepares.
struct Specimen {
    disk: MemoryDisk,
    log: Vec<Prepare>,
    protected: usize,
    keys: u8,
}

fn specimen(keys: u8) -> Specimen {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options(keys));
    let log = Branch::new(GROUP).seal_many(&[90, 0, 70, 120, 30, 20, 10, 4, 60]);
    for round in [&log[..3], &log[3..5], &log[5..6], &log[6..7], &log[7..]] {
        store.execute(vec![
            append(GROUP, round),
            Job::SaveSuperblock(superblock(GROUP, round[0].op().as_raw())),
        ]);
    }
    Specimen { disk, log, protected: 7, keys }
}

/// As above, opened once more: from then on all of it is vouched for.
fn settled_specimen(keys: u8) -> Specimen {
    let Specimen { disk, log, .. } = specimen(keys);
    let (_, recovered, shown) = reopen(disk.clone(), options(keys));
    assert_eq!((shown.len(), &recovered[0].problem), (9, &None));
    Specimen { disk, log, protected: 9, keys }
}

/// A directory that was opened.
struct Opened {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    found: RecoveredGroup,
    shown: Vec<Prepare>,
}

fn open(disk: MemoryDisk, keys: u8) -> Result<Opened, StorageError> {
    let mut shown = Vec::new();
    let opened =
        Store::open(disk.clone(), IDENTITY, options(keys), &mut |_, piece| shown.extend(prepare_in(piece)));
    opened.map(|(store, mut recovered)| Opened { disk, store, found: recovered.remove(0), shown })
}

fn end(log: &[Prepare]) -> PrepareId {
    log.last().map_or(PrepareId::ROOT, Prepare::id)
}

/// Puts back what is missing, and returns the next hole.
fn mend(store: &mut Store<MemoryDisk>, hole: Hole, log: &[Prepare]) -> Option<Hole> {
    let place = |op: Op| usize::try_from(op.as_raw()).unwrap();
    let missing = &log[place(hole.after.op)..place(hole.last.op)];
    assert_eq!(
        (hole.after, hole.last),
        (end(&log[..place(hole.after.op)]), end(missing)),
        "a hole is named truly"
    );
    let mut completions = store.execute(vec![Job::Mend { group: GROUP, prepares: missing.to_vec() }]);
    match completions.pop() {
        Some(Completion::Mended { group: GROUP, hole }) => hole,
        other => panic!("what is missing is taken: {other:?}"),
    }
}

impl Specimen {
    fn segments(&self) -> Vec<PathBuf> {
        let dir = Path::new("groups/0000000007");
        let mut names = self.disk.list(dir).unwrap();
        names.retain(|name| name.ends_with(".log"));
        assert_eq!(names.len(), 3);
        names.iter().map(|name| dir.join(name)).collect()
    }

    /// Changes a file of a copy, and opens that.
    fn open_with<T>(
        &self,
        path: &Path,
        change: impl FnOnce(&dyn Fn(u64) -> u8, &dyn Fn(u64, u8), &dyn Fn(u64)) -> T,
    ) -> Result<Opened, StorageError> {
        let disk = self.disk.fork();
        let file = disk.open(path, OpenMode::Existing).unwrap();
        let read = |position| {
            let mut byte = [0];
            file.read_at(&mut byte, position).unwrap();
            byte[0]
        };
        let write = |position, byte| file.write_at(&[Bytes::copy_from_slice(&[byte])], position).unwrap();
        change(&read, &write, &|size| file.set_size(size).unwrap());
        open(disk, self.keys)
    }

    /// The log is whole, or has a hole that is mended to the byte, or says that its end is lost, or lacks at most what no slot
    /// protects; whatever it is, it goes on from there. Returns whether nothing was amiss.
    fn judge(&self, what: &str, opened: Result<Opened, StorageError>) -> bool {
        let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let Opened { disk, mut store, found, shown } = opened;
        assert_eq!(found.problem, None, "{what}");
        assert!(self.log.starts_with(&shown), "{what}: no prepare is altered");
        let is_torn = found.superblock.is_torn;
        assert_eq!(Superblock { is_torn: false, ..found.superblock }, superblock(GROUP, 8), "{what}");
        let mut hole = found.hole;
        assert!(
            hole.is_none_or(|hole| hole.after == end(&shown)),
            "{what}: the first hole follows what is shown"
        );
        while let Some(missing) = hole {
            hole = mend(&mut store, missing, &self.log);
            assert!(
                hole.is_none_or(|left| left.after.op > missing.last.op),
                "{what}: one hole after the other"
            );
        }
        let whole = read(&mut store, ReadFrom::Op(Op::new(1)));
        assert!(
            self.log.starts_with(&whole) && end(&whole) == found.head,
            "{what}: what was mended is what was there"
        );
        assert!(is_torn || whole.len() >= self.protected, "{what}: {} prepares left in silence", whole.len());
        drop(store);
        let (mut store, recovered, shown) = reopen(disk, options(self.keys));
        assert_eq!((shown.len(), recovered[0].hole), (whole.len(), None), "{what}: it stays mended");
        assert_eq!(recovered[0].superblock.is_torn, is_torn, "{what}: what is lost stays lost");
        let next = whole.last().map_or(Branch::new(GROUP), Branch::behind).seal(500);
        let appended = answers(&mut store, vec![append(GROUP, std::slice::from_ref(&next))]);
        assert_eq!(appended, [durable(GROUP, &next)], "{what}");
        found.hole.is_none() && !is_torn && whole.len() == self.log.len()
    }

    fn size(&self, path: &Path) -> u64 {
        self.disk.open(path, OpenMode::Existing).unwrap().size().unwrap()
    }

    /// All positions of a segment file, but only some of the long stretches of zeros.
    fn positions(&self, path: &Path) -> impl Iterator<Item = u64> {
        let used = [0..132, 508..580, 1020..1092, 4090..4096 + 1150];
        let is_used = move |position| used.iter().any(|range| range.contains(&position));
        (0..self.size(path)).filter(move |position| is_used(*position) || position % 251 == 0)
    }
}

fn flip_every_bit_of_segments(specimen: &Specimen) {
    for path in specimen.segments() {
        let mut harmed = 0;
        for position in specimen.positions(&path) {
            for bit in 0..8 {
                let opened =
                    specimen.open_with(&path, |read, write, _| write(position, read(position) ^ (1 << bit)));
                harmed += u64::from(!specimen.judge(&format!("{} {position}.{bit}", path.display()), opened));
            }
        }
        assert!(harmed > 8 * 128, "flips in prepares are noticed: {harmed}");
    }
}

fn truncate_segments_everywhere(specimen: &Specimen) {
    for path in specimen.segments() {
        for size in specimen.positions(&path) {
            let opened = specimen.open_with(&path, |_, _, cut| cut(size));
            specimen.judge(&format!("{} cut to {size}", path.display()), opened);
        }
    }
}

#[test]
fn no_flipped_bit_of_a_segment_passes() {
    flip_every_bit_of_segments(&specimen(0));
}

#[test]
fn no_flipped_bit_of_a_settled_log_passes() {
    flip_every_bit_of_segments(&settled_specimen(0));
}

#[test]
fn no_flipped_bit_of_what_is_sealed_passes() {
    flip_every_bit_of_segments(&settled_specimen(1));
}

#[test]
fn no_truncation_of_a_segment_passes() {
    truncate_segments_everywhere(&specimen(0));
    truncate_segments_everywhere(&settled_specimen(0));
    truncate_segments_everywhere(&settled_specimen(1));
}

#[test]
fn what_was_cut_does_not_come_back_behind_its_parent() {
    let options = || Options { reserve_bytes: 0, ..Options::DEFAULT };
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options());
    // The second one ends with a page: what is appended in its place overwrites nothing of the third.
    let log = Branch::new(GROUP).seal_many(&[90, 3750, 60]);
    store.execute(vec![append(GROUP, &log[..1])]);
    store.execute(vec![append(GROUP, &log[1..])]);
    let position = 4096 + log[0].header().total_size() as u64;
    assert_eq!(position + log[1].header().total_size() as u64, 2 * 4096);
    let dir = Path::new("groups/0000000007");
    let file = disk.open(&dir.join(disk.list(dir).unwrap().pop().unwrap()), OpenMode::Existing).unwrap();
    file.write_at(&[Bytes::from_static(b"torn")], position).unwrap();
    let (mut store, recovered, shown) = reopen(disk.clone(), options());
    assert_eq!(
        (shown.len(), &recovered[0].problem),
        (1, &None),
        "the first prepare of the last round is torn"
    );
    store.execute(vec![append(GROUP, &log[1..2])]);
    let (_, recovered, shown) = reopen(disk.restart(), options());
    assert_eq!(
        (shown.len(), &recovered[0].problem),
        (2, &None),
        "the second one was said to be absent, and is"
    );
}

/// Every choice of files to lose.
#[test]
fn lost_segments_are_missed() {
    for specimen in [specimen(0), settled_specimen(0), settled_specimen(1)] {
        let segments = specimen.segments();
        for lost in 1..1 << segments.len() {
            let disk = specimen.disk.fork();
            for (_, path) in segments.iter().enumerate().filter(|(at, _)| lost >> at & 1 == 1) {
                disk.remove(path).unwrap();
            }
            let opened = open(disk, specimen.keys).unwrap();
            let (has_hole, is_torn) = (opened.found.hole.is_some(), opened.found.superblock.is_torn);
            assert_eq!(is_torn, lost >> 2 & 1 == 1, "{lost:03b}: the newest one is the end");
            assert_eq!(has_hole, [1, 2, 3, 5].contains(&lost), "{lost:03b}");
            assert!(!specimen.judge(&format!("lost {lost:03b}"), Ok(opened)));
        }
    }
}

#[test]
fn a_log_that_is_lost_altogether_is_missed() {
    let specimen = specimen(0);
    let disk = specimen.disk.fork();
    let dir = Path::new("groups/0000000007");
    for name in disk.list(dir).unwrap() {
        disk.remove(&dir.join(name)).unwrap();
    }
    disk.remove_dir(Path::new("groups/0000000007")).unwrap();
    let opened = open(disk, 0).unwrap();
    assert!(opened.found.superblock.is_torn && opened.shown.is_empty());
    specimen.judge("all of it lost", Ok(opened));
}

#[test]
fn a_file_that_nothing_can_be_made_of_is_a_part_of_the_hole_before_it() {
    let specimen = settled_specimen(0);
    let segments = specimen.segments();
    specimen.disk.remove(&segments[0]).unwrap();
    let second = specimen.disk.open(&segments[1], OpenMode::Existing).unwrap();
    let rotten = Bytes::from(vec![0xa5; 4096 + specimen.log[3].header().total_size()]);
    second.write_at(&[rotten], 0).unwrap();
    let Opened { disk, mut store, found, shown } = open(specimen.disk.clone(), specimen.keys).unwrap();
    assert!(shown.is_empty());
    assert_eq!(found.hole.map(|hole| (hole.after.op, hole.last.op)), Some((Op::ZERO, Op::new(6))));
    // It is the same after another start, and when it is filled.
    drop(store);
    let again = open(disk.restart(), 0).unwrap();
    assert_eq!(again.found.hole, found.hole);
    store = again.store;
    assert_eq!(mend(&mut store, found.hole.unwrap(), &specimen.log), None);
    assert_eq!(reopen(again.disk.restart(), options(0)).2, specimen.log);
}

#[test]
fn a_hole_that_is_filled_when_there_is_room_again_leaves_the_next_one() {
    let Specimen { disk, log, .. } = settled_specimen(0);
    let segments = Specimen { disk: disk.clone(), log: Vec::new(), protected: 0, keys: 0 }.segments();
    disk.remove(&segments[0]).unwrap();
    let second = disk.open(&segments[1], OpenMode::Existing).unwrap();
    let rotten = Bytes::from(vec![0xa5; log[4].header().total_size()]);
    second.write_at(&[rotten], 4096 + log[3].header().total_size() as u64).unwrap();
    let Opened { disk, mut store, found, .. } = open(disk, 0).unwrap();
    let first = found.hole.unwrap();
    assert_eq!((first.after.op, first.last.op), (Op::ZERO, Op::new(3)));
    disk.set_capacity(Some(disk.used()));
    let told = store.execute(vec![Job::Mend { group: GROUP, prepares: log[..3].to_vec() }]);
    assert_eq!(told, [Completion::DiskFull { group: GROUP }]);
    disk.set_capacity(None);
    let told = store.execute(vec![Job::Resume]);
    let hole_in = |told: &Completion| if let Completion::Mended { hole, .. } = told { *hole } else { None };
    let next = told.iter().find_map(hole_in);
    assert_eq!(next.map(|hole| (hole.after, hole.last)), Some((log[3].id(), log[4].id())));
    assert_eq!(mend(&mut store, next.unwrap(), &log), None);
    assert_eq!(reopen(disk.restart(), options(0)).2, log);
}

#[test]
fn holes_that_are_given_up_are_a_lost_end() {
    let specimen = specimen(0);
    for (at, path) in specimen.segments().iter().enumerate().take(2) {
        let disk = specimen.disk.fork();
        disk.remove(path).unwrap();
        let Opened { disk, mut store, found, shown } = open(disk, 0).unwrap();
        assert!(found.hole.is_some() && !found.superblock.is_torn, "segment {at}");
        let given_up = store.execute(vec![Job::GiveUpHoles { group: GROUP }]);
        assert_eq!(given_up, [Completion::Mended { group: GROUP, hole: None }]);
        assert_eq!(read(&mut store, ReadFrom::Op(Op::new(1))), shown);
        let (_, recovered, shown_again) = reopen(disk, options(0));
        assert_eq!((recovered[0].hole, shown_again), (None, shown));
        assert!(recovered[0].superblock.is_torn);
    }
}

#[test]
fn what_is_not_missing_is_not_put_back() {
    let specimen = specimen(0);
    let disk = specimen.disk.fork();
    disk.remove(&specimen.segments()[1]).unwrap();
    let Opened { mut store, found, .. } = open(disk, 0).unwrap();
    let hole = found.hole.unwrap();
    let mut branch = Branch::behind(&specimen.log[usize::try_from(hole.after.op.as_raw()).unwrap() - 1]);
    let count = usize::try_from(hole.last.op.since(hole.after.op)).unwrap();
    let others = branch.seal_many(&vec![33; count]);
    let refused = store.execute(vec![Job::Mend { group: GROUP, prepares: others }]);
    assert!(
        matches!(&refused[..], [Completion::Failed { error: StorageError::Damaged { .. }, .. }]),
        "{refused:?}"
    );
}

#[test]
fn one_copy_of_the_superblocks_is_enough() {
    let specimen = specimen(0);
    for path in ["superblocks-a", "superblocks-b"].map(Path::new) {
        for position in 0..specimen.size(path) {
            for bit in 0..8 {
                let opened =
                    specimen.open_with(path, |read, write, _| write(position, read(position) ^ (1 << bit)));
                assert!(specimen.judge(&format!("{} {position}.{bit}", path.display()), opened));
            }
            let opened = specimen.open_with(path, |_, _, cut| cut(position));
            assert!(specimen.judge(&format!("{} cut to {position}", path.display()), opened));
        }
        let disk = specimen.disk.fork();
        disk.remove(path).unwrap();
        assert_eq!(reopen(disk, options(0)).1[0].superblock, superblock(GROUP, 8));
    }
}

#[test]
fn superblocks_that_rot_in_use_are_written_anew_whatever_is_left_of_them() {
    let specimen = specimen(0);
    let copies = ["superblocks-a", "superblocks-b"].map(Path::new);
    let look = |store: &mut Store<_>| {
        let told = store.execute(vec![Job::ScrubShared]);
        let [Completion::SharedScrubbed { was_sound }] = told[..] else { panic!("{told:?}") };
        was_sound
    };
    for harmed in [&copies[..1], &copies[1..], &copies[..]] {
        for way in 0..4 {
            let disk = specimen.disk.fork();
            let (mut store, found, _) = reopen(disk.clone(), options(0));
            assert!(look(&mut store), "nothing has rotted yet");
            for path in harmed {
                let file = disk.open(path, OpenMode::Existing).unwrap();
                let size = file.size().unwrap();
                match way {
                    0 => file.write_at(&[Bytes::from_static(b"rot")], 41).unwrap(),
                    1 => file.write_at(&[Bytes::from_static(b"rot")], size - 20).unwrap(),
                    2 => file.set_size(size - 64).unwrap(),
                    _ => disk.remove(path).unwrap(),
                }
            }
            assert!(!look(&mut store), "{harmed:?}, way {way}");
            assert!(look(&mut store), "it was written anew");
            drop(store);
            let again = reopen(disk.crash(&mut ChaCha8Rng::seed_from_u64(way)), options(0)).1;
            assert_eq!(again[0].superblock, found[0].superblock, "{harmed:?}, way {way}");
        }
    }
}

#[test]
fn an_entry_that_is_rotten_in_both_copies_is_an_error() {
    let specimen = specimen(0);
    let entries = specimen.size(Path::new("superblocks-a")) / 64;
    for entry in 0..entries {
        let disk = specimen.disk.fork();
        for path in ["superblocks-a", "superblocks-b"].map(Path::new) {
            let file = disk.open(path, OpenMode::Existing).unwrap();
            file.write_at(&[Bytes::from_static(b"rot")], entry * 64 + 41).unwrap();
        }
        let opened = Store::open(disk, IDENTITY, options(0), &mut |_, _| {});
        let expected = StorageError::SuperblocksDamaged { path: "superblocks-b".into(), entry };
        assert_eq!(opened.err(), Some(expected));
    }
}

#[test]
fn no_damage_to_the_identity_passes() {
    let specimen = specimen(0);
    let path = Path::new("identity");
    let damaged = StorageError::IdentityDamaged { path: path.to_owned() };
    for position in 0..64 {
        for bit in 0..8 {
            let opened =
                specimen.open_with(path, |read, write, _| write(position, read(position) ^ (1 << bit)));
            assert_eq!(opened.err(), Some(damaged.clone()));
        }
        let opened = specimen.open_with(path, |_, _, cut| cut(position));
        assert_eq!(opened.err(), Some(damaged.clone()));
    }
}

/// A log with a hole in its first file and a lost newest file: the power fails at any call while it is opened and mended.
#[test]
fn a_crash_while_mending_leaves_what_was_missing_known() {
    let specimen = specimen(0);
    for calls in 0.. {
        let mut is_done = false;
        for seed in 0..8 {
            let disk = specimen.disk.fork();
            let segments = specimen.segments();
            disk.remove(&segments[2]).unwrap();
            disk.sync_dir(segments[2].parent().unwrap()).unwrap();
            let file = disk.open(&segments[0], OpenMode::Existing).unwrap();
            file.write_at(&[Bytes::from_static(b"rot")], 4096 + 40).unwrap();
            file.sync().unwrap();
            disk.power_off_after(disk.calls() + calls);
            is_done = open(disk.clone(), specimen.keys).is_ok_and(|Opened { mut store, found, .. }| {
                let missing = &specimen.log[..usize::try_from(found.hole.unwrap().last.op.as_raw()).unwrap()];
                let mended = store.execute(vec![Job::Mend { group: GROUP, prepares: missing.to_vec() }]);
                mended == [Completion::Mended { group: GROUP, hole: None }]
            });
            let disk = disk.crash(&mut ChaCha8Rng::seed_from_u64(seed * 1000 + calls));
            specimen.judge(&format!("crash after {calls} calls, {seed}"), open(disk, specimen.keys));
        }
        if is_done {
            assert!(calls > 10, "mending is not done in a few calls");
            return;
        }
    }
}
