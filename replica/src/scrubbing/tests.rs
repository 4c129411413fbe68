//! Which log is looked at, and when.

use std::collections::BTreeSet;

use super::*;

impl Lookable for Op {
    fn limit(&self) -> Option<Op> {
        (*self > Op::ZERO).then_some(*self)
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn at(seconds: u64) -> Moment {
    Moment::ZERO.plus(Duration::from_secs(seconds))
}

fn logs(ops: &[u64]) -> BTreeMap<GroupId, Op> {
    (0..).map(GroupId::new).zip(ops.iter().copied().map(Op::new)).collect()
}

fn new(bytes_per_second: u64, seed: u8) -> Scrubbing {
    Scrubbing::new(bytes_per_second, DAY, ([seed; 32], Moment::ZERO))
}

/// Lets a pass happen in which each log takes one look, and gives the groups in the order in which they are looked at; and how
/// long it takes.
fn pass(scrubbing: &mut Scrubbing, logs: &BTreeMap<GroupId, Op>, begin: Moment) -> (Vec<Piece>, Moment) {
    let passes = scrubbing.status.passes;
    let mut pieces = Vec::new();
    let mut now = begin;
    while scrubbing.status.passes == passes {
        let wall = Timestamp::new(now.as_nanos());
        let piece = scrubbing.next(logs, (now, wall)).expect("a look is due");
        assert!(scrubbing.next(logs, (now, wall)).is_none(), "one look is under way at a time");
        pieces.push(piece);
        assert!(pieces.len() < 100, "a pass ends");
        now = scrubbing.note_looked((1_000_000, None), false, logs, (now, wall));
    }
    (pieces, now)
}

#[test]
fn a_pass_looks_at_every_log_from_wherever_it_begins() {
    let logs = logs(&[9, 0, 50, 7, 3]);
    let mut origins = BTreeSet::new();
    for seed in 0..20 {
        let (pieces, _) = pass(&mut new(1_000_000, seed), &logs, at(60));
        let seen: BTreeSet<u64> = pieces.iter().map(|piece| piece.group.as_raw()).collect();
        origins.extend(pieces.first().map(|piece| piece.group));
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 2, 3, 4], "seed {seed}");
        let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
        let ScrubFrom::Read(ReadFrom::Op(op)) = first.from else { panic!("a pass begins at an op") };
        assert!(op <= logs[&first.group] && first.last == logs[&first.group]);
        assert_eq!((last.group, last.last), (first.group, op), "it ends where it began");
    }
    assert!(origins.len() > 2, "not every life begins with the same log: {origins:?}");
}

#[test]
fn passes_begin_a_day_apart_and_take_the_time_that_their_bytes_are_allowed() {
    let logs = logs(&[9, 4]);
    let mut scrubbing = new(1_000_000, 1);
    assert_eq!(scrubbing.idle_until(at(0)), Some(at(60)));
    assert!(scrubbing.next(&logs, (at(59), Timestamp::ZERO)).is_none(), "a node that starts has other work");
    let (pieces, next) = pass(&mut scrubbing, &logs, at(60));
    assert_eq!(pieces.len(), 3);
    assert_eq!(next, at(60).plus(DAY));
    assert_eq!(scrubbing.status.bytes, 3_000_000);
    assert!(scrubbing.next(&logs, (at(3600), Timestamp::ZERO)).is_none());
    let piece = scrubbing.next(&logs, (next, Timestamp::ZERO));
    assert!(piece.is_some());
    let due = scrubbing.note_looked((1_000_000, None), false, &logs, (next, Timestamp::ZERO));
    assert!(due.since(next) > Duration::from_secs(1) && due.since(next) < Duration::from_millis(1_010));
}

#[test]
fn what_somebody_could_not_read_is_looked_at_at_once_even_if_nothing_else_ever_is() {
    let logs = logs(&[9, 4]);
    let mut scrubbing = new(0, 1);
    assert_eq!(scrubbing.idle_until(at(0)), None);
    assert!(scrubbing.next(&logs, (at(100_000), Timestamp::ZERO)).is_none());
    let from = ScrubFrom::Read(ReadFrom::Op(Op::new(3)));
    scrubbing.suspect(GroupId::new(1), from);
    scrubbing.suspect(GroupId::new(7), from);
    let piece = scrubbing.next(&logs, (at(1), Timestamp::ZERO)).expect("it is looked at");
    assert_eq!((piece.group, piece.from, piece.last), (GroupId::new(1), from, Op::new(4)));
    scrubbing.note_looked((10, None), true, &logs, (at(1), Timestamp::ZERO));
    assert!(scrubbing.next(&logs, (at(1), Timestamp::ZERO)).is_none(), "that group is not here");
}

#[test]
fn what_was_found_in_a_log_that_is_given_up_meanwhile_is_void() {
    let logs = logs(&[9, 4]);
    let (group, other) = (GroupId::new(1), GroupId::METADATA);
    let from = ScrubFrom::Read(ReadFrom::Op(Op::new(3)));
    for (forgotten, is_valid) in [(other, true), (group, false)] {
        let mut scrubbing = new(0, 1);
        assert!(!scrubbing.is_look_valid(), "none is under way");
        scrubbing.suspect(group, from);
        assert!(scrubbing.next(&logs, (at(1), Timestamp::ZERO)).is_some());
        scrubbing.forget(forgotten);
        assert_eq!(scrubbing.is_look_valid(), is_valid, "{forgotten} is forgotten");
        scrubbing.note_looked((10, None), true, &logs, (at(1), Timestamp::ZERO));
        scrubbing.suspect(group, from);
        assert!(scrubbing.next(&logs, (at(2), Timestamp::ZERO)).is_some());
        assert!(scrubbing.is_look_valid(), "the next one is of the log that is there");
    }
}
