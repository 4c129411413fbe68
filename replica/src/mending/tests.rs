//! Names from the newest to the oldest, prepares from the oldest to the newest, and what nobody has.

use bytes::Bytes;
use varve_protocol::id::{ClusterId, Epoch, GroupId, Offset, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::prepare::{PrepareFields, PrepareKind};
use varve_protocol::version::Version;

use super::*;

const PEERS: [NodeId; 2] = [NodeId::new(2), NodeId::new(3)];

/// A log of so many prepares, all with this body.
fn log(count: u64, body: &'static [u8]) -> Vec<Prepare> {
    let mut prepares: Vec<Prepare> = Vec::new();
    for op in 1..=count {
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::new(1),
            group: GroupId::new(7),
            view: View::new(3),
            parent: prepares.last().map_or(PrepareId::ROOT, Prepare::id),
            epoch: Epoch::ZERO,
            kind: PrepareKind::Records,
            base_offset: Offset::new(op - 1),
            record_count: 1,
            timestamp: Timestamp::new(op),
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
        };
        prepares.push(Prepare::seal(fields, Bytes::from_static(body)));
    }
    prepares
}

/// The mending of a log that lacks what is behind `after`, up to `last`.
fn mending(log: &[Prepare], after: usize, last: usize) -> Mending {
    let id = |count: usize| log[count - 1].id();
    let hole = Hole { after: id(after), last: id(last), head: id(log.len()) };
    Mending::new(Superblock::new(GroupId::new(7)), hole, Moment::ZERO)
}

fn asked(mending: &mut Mending) -> Vec<PrepareId> {
    let (_, messages) = mending.ask(&PEERS, Moment::ZERO).expect("something is missing");
    match messages.into_iter().next_back() {
        Some(Message::GetPrepares { ids, .. }) => ids,
        other => panic!("prepares are asked for: {other:?}"),
    }
}

fn ids(prepares: &[Prepare]) -> Vec<PrepareId> {
    prepares.iter().map(Prepare::id).collect()
}

/// The mending of a log that nothing helps any more.
fn anew(log: &[Prepare], view: u64) -> Mending {
    let hole = Hole { after: log[9].id(), last: log[19].id(), head: log[19].id() };
    let superblock = Superblock { view: View::new(view), ..Superblock::new(GroupId::new(7)) };
    Mending::anew(superblock, hole, (5, Moment::ZERO))
}

#[test]
fn a_rotten_log_is_given_up_when_a_primary_works_without_it_and_not_before() {
    let log = log(30, b"x");
    let late = Moment::ZERO.plus(Duration::from_secs(3600));
    for (view, nonce, is_word) in [(2, 5, false), (3, 4, false), (3, 0, false), (3, 5, true), (4, 5, true)] {
        let mut mending = anew(&log, 3);
        let (node, messages) = mending.ask(&PEERS, Moment::ZERO).expect("somebody is asked");
        assert!(PEERS.contains(&node));
        assert_eq!(messages, [Message::GetStartView { view: View::new(3), nonce: 5 }]);
        // Nothing else moves it.
        assert!(PEERS.iter().all(|peer| mending.note_missing(*peer, log[19].id())));
        for prepare in log.iter().rev() {
            mending.take(prepare.clone(), Moment::ZERO);
        }
        assert!(matches!(mending.next_step(&PEERS, late), Step::Wait));
        assert_eq!(mending.note_primary(View::new(view), nonce), is_word);
        assert_eq!(matches!(mending.next_step(&PEERS, late), Step::GiveUp), is_word);
        if is_word {
            mending.note_mended(None, late);
            assert!(mending.superblock.is_torn && mending.reading.is_some());
            assert_eq!(mending.ask(&PEERS, late).map(|(node, _)| node), None);
        }
    }
}

#[test]
fn nobody_is_asked_again_at_once_who_has_answered_that_it_lacks_it() {
    let log = log(30, b"x");
    let mut mending = mending(&log, 10, 20);
    let mut now = Moment::ZERO;
    let mut asked = 0;
    for _ in 0..100_000 {
        // Whatever it is that looks at it all the time.
        if let Some((node, _)) = mending.ask(&PEERS, now) {
            asked += 1;
            mending.note_missing(node, log[19].id());
            mending.note_let_go_by(node, Op::new(25));
        }
        now = now.plus(Duration::from_micros(100));
    }
    assert!((2..=12).contains(&asked), "{asked} questions in ten seconds");
}

#[test]
fn what_is_missing_is_gone_everywhere_when_each_peer_has_let_go_of_the_oldest_that_is_named() {
    let log = log(30, b"x");
    let mut mending = mending(&log, 10, 20);
    let [one, other] = PEERS;
    mending.note_let_go_by(one, Op::new(19));
    assert!(!mending.is_gone_everywhere(&[one]), "the last one of them is not among those");
    mending.note_let_go_by(one, Op::new(20));
    assert!(mending.is_gone_everywhere(&[one]) && !mending.is_gone_everywhere(&PEERS));
    mending.note_let_go_by(other, Op::new(25));
    assert!(mending.is_gone_everywhere(&PEERS));
    mending.take(log[19].clone(), Moment::ZERO);
    assert!(!mending.is_gone_everywhere(&[one]), "there is more to ask for");
}

#[test]
fn names_are_learnt_from_the_newest_and_prepares_put_back_from_the_oldest() {
    let log = log(60, b"x");
    let headers: Vec<PrepareHeader> = log.iter().map(|prepare| *prepare.header()).collect();
    let mut mending = mending(&log, 10, 40);
    assert_eq!(asked(&mut mending), [log[39].id()], "only the last one's name is known");
    assert!(!mending.learn(&headers[..39], Moment::ZERO), "nothing names these");
    assert!(mending.learn(&headers[20..45], Moment::ZERO));
    assert_eq!(asked(&mut mending), [log[19].id()]);
    assert!(mending.take(log[19].clone(), Moment::ZERO), "a prepare names its parent, too");
    assert!(mending.learn(&headers[..19], Moment::ZERO));
    assert_eq!(asked(&mut mending), ids(&log[10..26]));
    let taken: Vec<bool> = log[10..26].iter().map(|one| mending.take(one.clone(), Moment::ZERO)).collect();
    assert_eq!(
        taken.iter().position(|asks_again| *asks_again),
        Some(15),
        "more is asked for when all has come"
    );
    match mending.next_step(&PEERS, Moment::ZERO) {
        Step::PutBack(prepares) => assert_eq!(ids(&prepares), ids(&log[10..26])),
        other @ (Step::Wait | Step::GiveUp) => panic!("they are put back: {other:?}"),
    }
    let left = Hole { after: log[25].id(), ..mending.hole };
    mending.note_mended(Some(left), Moment::ZERO);
    assert_eq!(asked(&mut mending), ids(&log[26..40]));
}

#[test]
fn another_prepare_in_the_place_of_a_missing_one_is_not_taken() {
    let (log, other) = (log(20, b"x"), log(20, b"y"));
    let mut mending = mending(&log, 10, 12);
    for one in [&log[11], &log[10]] {
        assert!(mending.learn(&[*one.header()], Moment::ZERO));
    }
    assert_eq!(asked(&mut mending), ids(&log[10..12]));
    assert!(!mending.take(other[10].clone(), Moment::ZERO));
    assert!(matches!(mending.next_step(&PEERS, Moment::ZERO), Step::Wait));
}

#[test]
fn what_nobody_has_is_given_up_unless_it_is_surely_committed() {
    let log = log(100, b"x");
    for (last, is_given_up) in [(36, false), (37, true)] {
        let mut mending = mending(&log, 30, last);
        for peer in PEERS {
            assert!(matches!(mending.next_step(&PEERS, Moment::ZERO), Step::Wait));
            let missing = asked(&mut mending);
            assert!(mending.note_missing(peer, missing[0]));
        }
        let step = mending.next_step(&PEERS, Moment::ZERO);
        assert_eq!(matches!(step, Step::GiveUp), is_given_up, "op{last}: {step:?}");
    }
}

#[test]
fn a_hole_whose_ends_do_not_belong_together_is_given_up() {
    let (log, other) = (log(20, b"x"), log(20, b"y"));
    let mut mending = mending(&log, 10, 11);
    mending.hole.after = other[9].id();
    assert!(mending.learn(&[*log[10].header()], Moment::ZERO));
    assert!(matches!(mending.next_step(&PEERS, Moment::ZERO), Step::GiveUp));
}

#[test]
fn what_others_have_let_go_is_given_up_when_a_primary_works() {
    let log = log(100, b"x");
    let snapshot = |op: usize| Snapshot { header: *log[op - 1].header(), state: Bytes::new() };
    let begin = || mending(&log, 10, 20).behind(None, 77);
    let gives_up = |mending: &mut Mending| matches!(mending.next_step(&PEERS, Moment::ZERO), Step::GiveUp);

    let mut waits = begin();
    assert!(!waits.note_gone(&snapshot(10)), "what is missing comes later");
    assert!(
        waits.note_gone(&snapshot(11)) && !gives_up(&mut waits),
        "another damaged replica may need this log"
    );
    assert!(!waits.note_primary(View::new(9), 76) && !gives_up(&mut waits), "that was said to another life");
    assert!(waits.note_primary(View::new(9), 77) && gives_up(&mut waits));

    let mut is_led = begin();
    assert!(is_led.note_primary(View::new(9), 77) && !gives_up(&mut is_led), "it may still be had");
}
