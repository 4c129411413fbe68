//! Logs that rot while they are in use: what has rotted is found where it is, nothing else is accused, and what was fetched
//! makes the files what they were.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_protocol::id::{Op, View};
use varve_protocol::log_start::LogStart;
use varve_protocol::prepare::Prepare;
use varve_storage::{
    Completion, Damage, Disk, DiskFile, Finding, Job, MemoryDisk, OpenMode, Options, ReadFrom, ScrubFrom,
    Scrubbed, Store,
};

use crate::support::{
    Branch, GROUP, answers, append, durable, keys, new_store, reopen, snapshot_of, summarize,
};

/// With so many keys, and segments that take three of the prepares.
fn options(count: u8) -> Options {
    Options { segment_size_bytes_max: 4096 + 680, reserve_bytes: 0, keys: keys(count), ..Options::DEFAULT }
}

const BLOCK: u64 = 4096;
/// Bytes of a local block that say something.
const SAID: [std::ops::Range<u64>; 3] = [0..128, 512..576, 1024..1088];
const PLENTY: usize = 1 << 20;

/// A store that is in use, with three segments, and its log.
struct Specimen {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    log: Vec<Prepare>,
    keys: u8,
}

fn specimen(keys: u8) -> Specimen {
    let disk = MemoryDisk::new();
    let mut store = new_store(disk.clone(), options(keys));
    let log = Branch::new(GROUP).seal_many(&[90, 0, 70, 120, 30, 20, 10, 4, 60]);
    for round in [&log[..3], &log[3..5], &log[5..6], &log[6..7], &log[7..]] {
        store.execute(vec![append(GROUP, round)]);
    }
    Specimen { disk, store, log, keys }
}

fn scrub(store: &mut Store<MemoryDisk>, from: ScrubFrom, (bytes_max, last): (usize, u64)) -> Scrubbed {
    let mut completions =
        store.execute(vec![Job::Scrub { group: GROUP, from, bytes_max, last: Op::new(last) }]);
    match (completions.pop(), completions.pop()) {
        (Some(Completion::Scrubbed { group: GROUP, piece }), None) => piece,
        other => panic!("a look is answered by what was seen: {other:?}"),
    }
}

/// Looks at everything, piece by piece: what was found, and the number of pieces and bytes.
fn scrub_all(store: &mut Store<MemoryDisk>, limits: (usize, u64)) -> (Vec<Finding>, usize, u64) {
    let mut findings = Vec::new();
    let (mut pieces, mut bytes) = (0, 0);
    let mut from = ScrubFrom::Read(ReadFrom::Op(Op::new(1)));
    loop {
        let piece = scrub(store, from, limits);
        findings.extend(piece.findings);
        pieces += 1;
        bytes += piece.bytes;
        assert!(pieces < 1000, "a look comes to an end");
        match piece.next {
            Some(next) => from = ScrubFrom::Mark(next),
            None => return (findings, pieces, bytes),
        }
    }
}

fn damages(findings: &[Finding]) -> Vec<Damage> {
    let damage = |finding: &Finding| match finding {
        Finding::Prepares { damage, .. } => Some(*damage),
        Finding::Block { .. } | Finding::Snapshot { .. } => None,
    };
    findings.iter().filter_map(damage).collect()
}

/// Gives back what is missing, some at a time.
fn patch(store: &mut Store<MemoryDisk>, log: &[Prepare], damage: Damage, at_once: usize) {
    let mut left = damage;
    loop {
        let missing = &log[place(left.after.op)..place(left.last.op)];
        let prepares = missing[..at_once.min(missing.len())].to_vec();
        match store.execute(vec![Job::Patch { group: GROUP, damage: left, prepares }]).pop() {
            Some(Completion::Patched { group: GROUP, left: None }) => return,
            Some(Completion::Patched { group: GROUP, left: Some(rest) }) => {
                assert!(rest.after.op > left.after.op, "something was given back: {rest:?}");
                left = rest;
            }
            other => panic!("what was given back is answered: {other:?}"),
        }
    }
}

fn place(op: Op) -> usize {
    usize::try_from(op.as_raw()).unwrap()
}

impl Specimen {
    fn segments(&self) -> Vec<PathBuf> {
        let dir = Path::new("groups/0000000007");
        let names = self.disk.list(dir).unwrap();
        names.iter().filter(|name| name.ends_with(".log")).map(|name| dir.join(name)).collect()
    }

    fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let file = self.disk.open(path, OpenMode::Existing).unwrap();
        let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn write(&self, path: &Path, position: u64, bytes: &[u8]) {
        let file = self.disk.open(path, OpenMode::Existing).unwrap();
        file.write_at(&[Bytes::copy_from_slice(bytes)], position).unwrap();
    }

    /// The op of the prepare that has the byte at a position of a segment.
    fn op_at(&self, path: &Path, position: u64) -> Option<u64> {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let first: usize = name.split('-').nth(1).unwrap().parse().unwrap();
        let mut end = BLOCK;
        let size = self.bytes_of(path).len() as u64;
        let ops = self.log[first - 1..].iter().map(|prepare| {
            end += prepare.header().total_size() as u64 + if self.keys == 0 { 0 } else { 96 };
            (prepare.op().as_raw(), end)
        });
        ops.take_while(|(_, end)| *end <= size).find(|(_, end)| position < *end).map(|(op, _)| op)
    }

    /// Everything is sound, and the next start finds nothing amiss.
    fn assert_sound(&mut self, what: &str) {
        let (findings, _, _) = scrub_all(&mut self.store, (PLENTY, 9));
        assert_eq!(findings, [], "{what}");
        let (_, recovered, shown) = reopen(self.disk.fork(), options(self.keys));
        let found = &recovered[0];
        assert_eq!((&found.problem, found.hole, found.superblock.is_torn), (&None, None, false), "{what}");
        assert!(shown == self.log, "{what}");
    }
}

#[test]
fn a_sound_log_is_not_accused_however_it_is_cut_into_pieces() {
    let Specimen { mut store, log, .. } = specimen(0);
    let size: usize = log.iter().map(|prepare| prepare.header().total_size()).sum();
    for bytes_max in [1, 100, 128, 129, 300, 1000, PLENTY] {
        let (findings, pieces, bytes) = scrub_all(&mut store, (bytes_max, 9));
        assert_eq!((findings, bytes), (vec![], size as u64), "{bytes_max}");
        assert!((3..=12).contains(&pieces), "{bytes_max}: {pieces} pieces");
    }
}

#[test]
fn a_look_begins_anywhere_and_ends_where_it_is_told_to() {
    let Specimen { mut store, log, .. } = specimen(0);
    for last in 1..=9 {
        let (findings, _, bytes) = scrub_all(&mut store, (1, last));
        let upto: usize = log[..place(Op::new(last))].iter().map(|one| one.header().total_size()).sum();
        assert_eq!((findings, bytes), (vec![], upto as u64), "up to op{last}");
        let piece = scrub(&mut store, ScrubFrom::Read(ReadFrom::Op(Op::new(last))), (PLENTY, 9));
        assert_eq!(piece.findings, []);
        assert!(piece.next.is_none_or(|mark| mark.op() > Op::new(last)), "op{last} was looked at");
    }
}

#[test]
fn every_flipped_bit_of_a_prepare_is_found_where_it_is_and_mended() {
    flip_every_bit_of_prepares(specimen(0));
    flip_every_bit_of_prepares(specimen(1));
}

fn flip_every_bit_of_prepares(mut specimen: Specimen) {
    for path in specimen.segments() {
        let size = specimen.bytes_of(&path).len() as u64;
        for position in BLOCK..size {
            let Some(op) = specimen.op_at(&path, position) else { continue };
            let whole = specimen.bytes_of(&path);
            let byte = whole[usize::try_from(position).unwrap()];
            specimen.write(&path, position, &[byte ^ (1 << (position % 8))]);
            let (findings, _, _) =
                scrub_all(&mut specimen.store, (1 + usize::try_from(position % 300).unwrap(), 9));
            let [damage] = damages(&findings)[..] else { panic!("one thing is damaged: {findings:?}") };
            assert_eq!((damage.after.op.as_raw(), damage.last.op.as_raw()), (op - 1, op), "at {position}");
            assert_eq!(damage.last, specimen.log[place(damage.after.op)].id(), "it is named truly");
            patch(&mut specimen.store, &specimen.log, damage, 1);
            let is_same = specimen.bytes_of(&path) == whole;
            assert!(is_same || specimen.keys > 0, "{} at {position}", path.display());
        }
    }
    specimen.assert_sound("all is mended");
}

#[test]
fn every_flipped_bit_of_a_local_block_is_found_and_written_anew() {
    flip_every_bit_of_blocks(specimen(0));
    flip_every_bit_of_blocks(specimen(1));
}

fn flip_every_bit_of_blocks(mut specimen: Specimen) {
    for path in specimen.segments() {
        for position in SAID.into_iter().flatten() {
            let whole = specimen.bytes_of(&path);
            let byte = whole[usize::try_from(position).unwrap()];
            specimen.write(&path, position, &[byte ^ (1 << (position % 8))]);
            let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
            assert_eq!(findings, [Finding::Block { path: path.clone() }], "at {position}");
            specimen.assert_sound(&format!("{} at {position}", path.display()));
        }
    }
}

#[test]
fn a_file_that_is_cut_or_gone_is_made_whole() {
    for (place_of_segment, is_newest) in [(0, false), (1, false), (2, true)] {
        let size = { specimen(0).bytes_of(&specimen(0).segments()[place_of_segment]).len() as u64 };
        for left in (0..size).step_by(37) {
            let mut specimen = specimen(0);
            let path = specimen.segments()[place_of_segment].clone();
            specimen.disk.open(&path, OpenMode::Existing).unwrap().set_size(left).unwrap();
            let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
            for damage in damages(&findings) {
                patch(&mut specimen.store, &specimen.log, damage, 2);
            }
            let is_harmless = specimen.op_at(&path, left).is_none() && is_newest;
            assert!(!findings.is_empty() || is_harmless, "cut to {left}");
            specimen.assert_sound(&format!("{} was cut to {left}", path.display()));
        }
        if !is_newest {
            let mut specimen = specimen(0);
            let path = specimen.segments()[place_of_segment].clone();
            let whole = specimen.bytes_of(&path);
            specimen.disk.remove(&path).unwrap();
            let (findings, _, _) = scrub_all(&mut specimen.store, (200, 9));
            for damage in damages(&findings) {
                patch(&mut specimen.store, &specimen.log, damage, 1);
            }
            assert_eq!(specimen.bytes_of(&path)[4096..], whole[4096..]);
            specimen.assert_sound("it was gone");
        }
    }
}

#[test]
fn the_file_that_is_appended_to_is_written_anew_if_it_is_gone() {
    for (keys, looks_before) in [(0, true), (0, false), (1, true), (1, false)] {
        let mut specimen = specimen(keys);
        let path = specimen.segments()[2].clone();
        let more = Branch::behind(&specimen.log[8]).seal(50);
        specimen.disk.remove(&path).unwrap();
        let look = |specimen: &mut Specimen| scrub_all(&mut specimen.store, (PLENTY, 9)).0;
        let mut found = if looks_before { look(&mut specimen) } else { Vec::new() };
        let told = specimen.store.execute(vec![append(GROUP, std::slice::from_ref(&more))]);
        assert_eq!(told, [durable(GROUP, &more)]);
        found.extend(look(&mut specimen));
        assert_eq!(found, [Finding::Block { path }]);
        specimen.log.push(more);
        specimen.assert_sound("it was gone");
    }
}

#[test]
fn a_file_that_is_gone_and_finds_no_room_is_written_anew_when_there_is_some() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[2].clone();
    specimen.disk.remove(&path).unwrap();
    specimen.disk.set_capacity(Some(specimen.disk.used() + 100));
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0, []);
    let dir = specimen.disk.list(Path::new("groups/0000000007")).unwrap();
    assert!(dir.iter().all(|name| !name.ends_with(".tmp")), "nothing of it is left behind: {dir:?}");
    specimen.disk.set_capacity(None);
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0, [Finding::Block { path }]);
    specimen.assert_sound("there was room");
}

#[test]
fn several_stretches_of_a_segment_are_found_one_by_one() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    let whole = specimen.bytes_of(&path);
    let second = BLOCK + specimen.log[0].header().total_size() as u64;
    specimen.write(&path, BLOCK + 5, &[0xee; 3]);
    specimen.write(&path, second + 200, &[0xee; 3]);
    let (findings, _, _) = scrub_all(&mut specimen.store, (64, 9));
    let found = damages(&findings);
    assert_eq!(found.iter().map(|one| one.last.op.as_raw()).collect::<Vec<_>>(), [1, 3]);
    for damage in found.into_iter().rev() {
        patch(&mut specimen.store, &specimen.log, damage, 1);
    }
    assert!(specimen.bytes_of(&path) == whole);
}

#[test]
fn what_is_not_committed_is_not_accused() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[2].clone();
    let end = specimen.bytes_of(&path).len() as u64;
    let last = (BLOCK..end).rev().find_map(|position| specimen.op_at(&path, position)).unwrap();
    let position = (BLOCK..end).find(|position| specimen.op_at(&path, *position) == Some(last)).unwrap();
    specimen.write(&path, position + 1, &[0xee; 3]);
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, last - 1)).0, []);
    assert_eq!(damages(&scrub_all(&mut specimen.store, (PLENTY, last)).0).len(), 1);
}

/// A write that was lost leaves what was there before: here a prepare of another branch, sound in itself.
#[test]
fn a_prepare_of_another_branch_is_found_and_mended_with_what_is_around_it() {
    for (op, is_end_of_segment) in [(2, false), (3, true)] {
        let mut specimen = specimen(0);
        let mut other = Branch::behind(&specimen.log[op - 2]);
        other.view = View::new(1);
        let size = specimen.log[op - 1].body().len();
        let mut stale = other;
        stale.view = View::new(2);
        let stale = stale.seal(size);
        let path = specimen.segments()[0].clone();
        let whole = specimen.bytes_of(&path);
        let before: usize = specimen.log[..op - 1].iter().map(|one| one.header().total_size()).sum();
        specimen.write(&path, BLOCK + before as u64, &stale.chunks().concat());
        let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
        let found = damages(&findings);
        assert!(!found.is_empty(), "{findings:?}");
        let wide = if is_end_of_segment { found[0] } else { found[0].widened().expect("it is a part of it") };
        assert_eq!((wide.after.op, wide.widened()), (Op::ZERO, None));
        patch(&mut specimen.store, &specimen.log, wide, 2);
        assert!(specimen.bytes_of(&path) == whole);
    }
}

#[test]
fn nothing_is_given_back_that_does_not_belong_there() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    specimen.write(&path, BLOCK + 5, &[0xee; 3]);
    let rotten = specimen.bytes_of(&path);
    let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
    let damage = damages(&findings)[0];
    let of_other_branch = Branch { view: View::new(9), ..Branch::new(GROUP) }.seal(90);
    let too_short = Branch::new(GROUP).seal(89);
    for wrong in [&specimen.log[1], &of_other_branch, &too_short] {
        let job = Job::Patch { group: GROUP, damage, prepares: vec![wrong.clone()] };
        let answer = specimen.store.execute(vec![job]);
        assert_eq!(answer, [Completion::Patched { group: GROUP, left: Some(damage) }]);
        assert!(specimen.bytes_of(&path) == rotten);
    }
}

#[test]
fn a_log_is_appended_to_while_it_is_looked_at() {
    let mut specimen = specimen(0);
    let mut branch = Branch::behind(&specimen.log[8]);
    let mut from = ScrubFrom::Read(ReadFrom::Op(Op::new(1)));
    let mut count = 9;
    loop {
        let next = branch.seal(100);
        let look = Job::Scrub { group: GROUP, from, bytes_max: 150, last: Op::new(count) };
        let jobs = vec![append(GROUP, std::slice::from_ref(&next)), look];
        let completions = answers(&mut specimen.store, jobs);
        count += 1;
        let [Completion::Scrubbed { piece, .. }, appended] = &completions[..] else {
            panic!("both are answered: {completions:?}")
        };
        assert_eq!((appended, &piece.findings[..]), (&durable(GROUP, &next), &[][..]));
        match piece.next {
            Some(mark) => from = ScrubFrom::Mark(mark),
            None => break,
        }
        if count > 30 {
            break;
        }
    }
    assert!(count > 12, "several pieces were looked at meanwhile");
}

#[test]
fn what_was_found_in_a_log_that_is_replaced_is_void() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    specimen.write(&path, BLOCK + 5, &[0xee; 3]);
    let piece = scrub(&mut specimen.store, ScrubFrom::Read(ReadFrom::Op(Op::new(1))), (PLENTY, 9));
    let (damage, mark) = (damages(&piece.findings)[0], piece.next.unwrap());
    let snapshot = snapshot_of(&specimen.log[..5]);
    specimen.store.execute(vec![Job::TakeSnapshot { group: GROUP, snapshot }]);
    specimen.store.execute(vec![append(GROUP, &specimen.log[5..])]);
    let newest = specimen.segments().pop().unwrap();
    let whole = specimen.bytes_of(&newest);
    let job = Job::Patch { group: GROUP, damage, prepares: vec![specimen.log[0].clone()] };
    assert_eq!(specimen.store.execute(vec![job]), [Completion::Patched { group: GROUP, left: None }]);
    let piece = scrub(&mut specimen.store, ScrubFrom::Mark(mark), (PLENTY, 9));
    assert_eq!(piece.findings, []);
    assert!(specimen.bytes_of(&newest) == whole);
}

#[test]
fn what_cannot_be_let_go_and_a_rotten_snapshot_are_said() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    let whole = specimen.bytes_of(&path);
    specimen.write(&path, BLOCK + 5, &[0xee; 3]);
    let first = Op::new(specimen.op_at(&specimen.segments()[1].clone(), BLOCK).unwrap());
    let offset = specimen.log[place(first) - 1].header().base_offset();
    let let_go = || Job::LetGo { group: GROUP, first, summarize };
    let answers = specimen.store.execute(vec![let_go()]);
    assert_eq!(answers[0], Completion::CannotLetGo { group: GROUP, op: Op::new(1) });
    specimen.write(&path, BLOCK, &whole[4096..]);
    let start = LogStart { op: first, offset };
    assert_eq!(specimen.store.execute(vec![let_go()]), [Completion::LetGo { group: GROUP, start }]);
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0, []);
    let dir = Path::new("groups/0000000007");
    let snapshot = dir.join(format!("{:020}.snapshot", first.as_raw() - 1));
    specimen.write(&snapshot, 40, &[0xee; 3]);
    let id = specimen.log[place(first) - 2].id();
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0, [Finding::Snapshot { path: snapshot, id }]);
}

#[test]
fn a_rotten_snapshot_is_given_back() {
    for is_gone in [false, true] {
        for keys in [0, 1] {
            let mut specimen = specimen(keys);
            let path = Path::new("groups/0000000007").join(format!("{:020}.snapshot", 3));
            let first = Op::new(4);
            let job = Job::LetGo { group: GROUP, first, summarize };
            let told = specimen.store.execute(vec![job]);
            let [Completion::LetGo { start, .. }] = &told[..] else { panic!("{told:?}") };
            assert_eq!(start.op, first);
            let give = |of: &[Prepare]| {
                vec![Job::LetGoWith { group: GROUP, first, snapshot: snapshot_of(of), summarize }]
            };
            let nothing = [Completion::LetGo { group: GROUP, start: *start }];
            assert_eq!(specimen.store.execute(give(&specimen.log[..3])), nothing, "it is there");
            let whole = specimen.bytes_of(&path);
            if is_gone {
                specimen.disk.remove(&path).unwrap();
            } else {
                specimen.write(&path, 40, &[0xee; 3]);
            }
            let found = scrub_all(&mut specimen.store, (PLENTY, 9)).0;
            assert_eq!(found, [Finding::Snapshot { path: path.clone(), id: specimen.log[2].id() }]);
            assert_eq!(specimen.store.execute(give(&specimen.log[..2])), nothing, "it is an older one");
            let mut branch = Branch::behind(&specimen.log[1]);
            branch.view = View::new(9);
            let other = [&specimen.log[..2], &branch.seal_many(&[70])].concat();
            assert_eq!(specimen.store.execute(give(&other)), nothing, "it is of another log");
            let told = specimen.store.execute(give(&specimen.log[..3]));
            assert_eq!(told[0], Completion::SnapshotRestored { group: GROUP });
            assert!(keys > 0 || specimen.bytes_of(&path) == whole);
            assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0, []);
            let (_, recovered, shown) = reopen(specimen.disk.fork(), options(keys));
            assert_eq!((&recovered[0].problem, recovered[0].hole), (&None, None));
            assert!(shown == specimen.log[3..]);
        }
    }
}

#[test]
fn what_is_behind_damage_can_be_read_when_it_was_found() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    let second = BLOCK + specimen.log[0].header().total_size() as u64;
    specimen.write(&path, second + 5, &[0xee; 3]);
    let read = |store: &mut Store<MemoryDisk>, from| {
        let job = Job::Read { group: GROUP, token: 1, from, bytes_max: 0, last: Op::new(9) };
        match store.execute(vec![job]).pop() {
            Some(Completion::Read { result, .. }) => result.ok().map(|found| found[0].op().as_raw()),
            other => panic!("a read is answered: {other:?}"),
        }
    };
    assert_eq!(read(&mut specimen.store, ReadFrom::Op(Op::new(3))), None, "nobody knows where it is");
    assert_eq!(scrub_all(&mut specimen.store, (PLENTY, 9)).0.len(), 1);
    let offset = specimen.log[2].header().base_offset();
    assert_eq!(read(&mut specimen.store, ReadFrom::Op(Op::new(3))), Some(3));
    assert_eq!(read(&mut specimen.store, ReadFrom::Offset(offset)), Some(3));
    assert_eq!(read(&mut specimen.store, ReadFrom::Op(Op::new(2))), None);
    assert_eq!(read(&mut specimen.store, ReadFrom::Op(Op::new(1))), Some(1));
}

#[test]
fn a_file_that_is_gone_is_damage_to_whoever_wants_to_read_it() {
    let mut specimen = specimen(0);
    let path = specimen.segments()[0].clone();
    specimen.write(&path, BLOCK + 5, &[0xee; 3]);
    let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
    let damage = damages(&findings)[0];
    specimen.disk.remove(&path).unwrap();
    let job = Job::Patch { group: GROUP, damage, prepares: vec![specimen.log[0].clone()] };
    let answer = specimen.store.execute(vec![job]);
    assert_eq!(answer, [Completion::Patched { group: GROUP, left: Some(damage) }]);
    let job = Job::LetGo { group: GROUP, first: Op::new(4), summarize };
    let answers = specimen.store.execute(vec![job]);
    assert_eq!(answers[0], Completion::CannotLetGo { group: GROUP, op: Op::new(1) });
    let (findings, _, _) = scrub_all(&mut specimen.store, (PLENTY, 9));
    patch(&mut specimen.store, &specimen.log, damages(&findings)[0], 9);
    specimen.assert_sound("it is there again");
}
