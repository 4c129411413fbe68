//! Histories made by hand: bad ones that the oracle must reject, odd ones that it must accept.

use std::collections::BTreeMap;

use simulator::oracle::{AppendId, Invocation, LogEnd, Oracle, Violation};
use simulator::workload::Value;
use varve_protocol::id::{GroupId, NodeId, Op, ProducerId, View};
use varve_protocol::prepare::PrepareId;

const GROUP: GroupId = GroupId::new(7);

/// An oracle with shorter words.
struct History {
    oracle: Oracle,
    counter: u64,
}

impl History {
    fn new() -> Self {
        Self { oracle: Oracle::new(), counter: 0 }
    }

    /// Invokes an append of `count` records in session 1 (or none) and gives it with its first value.
    fn append(&mut self, request: Option<u64>, count: u32) -> (AppendId, Value) {
        let first = Value { producer: 1, counter: self.counter };
        self.counter += u64::from(count);
        let session = request.map(|request| (ProducerId::new(1), request));
        (self.oracle.invoked(Invocation { group: GROUP, session, first, count }), first)
    }

    fn read(&mut self, node: u8, offset: u64, value: Value) -> Result<(), Violation> {
        self.oracle.observed((GROUP, NodeId::new(node)), offset, value)
    }

    fn end(&self, ends: &[u64]) -> Result<(), Violation> {
        let ends: BTreeMap<NodeId, u64> = (1..).map(NodeId::new).zip(ends.iter().copied()).collect();
        self.oracle.verify_end(GROUP, &ends)
    }
}

fn property(result: Result<(), Violation>) -> &'static str {
    result.expect_err("the history is bad").property
}

#[test]
fn an_acknowledged_record_that_is_nowhere_is_lost() {
    let mut history = History::new();
    let (append, _) = history.append(Some(1), 1);
    history.oracle.acked(append, 0).expect("first news");
    assert_eq!(property(history.end(&[0, 0, 0])), "acknowledged record lost");
}

#[test]
fn an_acknowledged_record_missing_on_one_replica_is_a_disagreement() {
    let mut history = History::new();
    let (append, value) = history.append(Some(1), 1);
    history.oracle.acked(append, 0).expect("first news");
    history.read(1, 0, value).expect("it is there");
    assert_eq!(property(history.end(&[1, 1, 0])), "replicas disagree");
}

#[test]
fn a_record_that_was_read_and_is_gone_is_lost_even_if_nobody_acknowledged_it() {
    let mut history = History::new();
    let (append, value) = history.append(None, 1);
    history.oracle.unknown(append);
    history.read(1, 0, value).expect("an unknown append may be there");
    assert_eq!(property(history.end(&[0])), "committed record lost");
}

#[test]
fn one_record_at_two_offsets_is_doubled() {
    let mut history = History::new();
    let (append, value) = history.append(Some(1), 1);
    history.oracle.acked(append, 0).expect("first news");
    assert_eq!(property(history.read(1, 1, value)), "record stored twice");
}

#[test]
fn two_acknowledgements_with_different_offsets_are_doubled() {
    let mut history = History::new();
    let (append, _) = history.append(Some(1), 1);
    history.oracle.acked(append, 0).expect("first news");
    assert_eq!(property(history.oracle.acked(append, 5)), "record stored twice");
}

#[test]
fn two_records_cannot_share_an_offset() {
    let mut history = History::new();
    let (one, _) = history.append(None, 3);
    let (two, _) = history.append(None, 1);
    history.oracle.acked(one, 0).expect("first news");
    assert_eq!(property(history.oracle.acked(two, 2)), "two records at one offset");
    let (three, _) = history.append(None, 4);
    let (four, _) = history.append(None, 4);
    history.oracle.acked(three, 10).expect("there is room");
    assert_eq!(property(history.oracle.acked(four, 8)), "two records at one offset");
}

#[test]
fn what_was_acknowledged_before_an_append_began_stands_before_it() {
    let mut history = History::new();
    let (first, _) = history.append(None, 1);
    history.oracle.acked(first, 4).expect("first news");
    let (second, _) = history.append(None, 1);
    assert_eq!(property(history.oracle.acked(second, 3)), "records reordered");
}

#[test]
fn requests_of_a_session_stand_in_order() {
    let mut history = History::new();
    let (one, _) = history.append(Some(1), 1);
    let (two, _) = history.append(Some(2), 1);
    history.oracle.acked(two, 0).expect("first news");
    history.oracle.acked(one, 1).expect("first news");
    assert_eq!(property(history.end(&[2])), "records reordered");
}

#[test]
fn no_request_of_a_session_is_skipped() {
    let mut history = History::new();
    history.append(Some(1), 1);
    let (two, _) = history.append(Some(2), 1);
    history.oracle.acked(two, 0).expect("first news");
    assert_eq!(property(history.end(&[1])), "request skipped");
}

#[test]
fn a_record_that_nobody_appended_is_a_phantom() {
    let mut history = History::new();
    let (_, value) = history.append(Some(1), 2);
    assert_eq!(property(history.read(1, 2, value.plus(2))), "phantom record");
    assert_eq!(property(history.read(1, 0, Value { producer: 0, counter: 0 })), "phantom record");
}

#[test]
fn a_record_of_another_partition_is_misplaced() {
    let mut history = History::new();
    let (_, value) = history.append(Some(1), 1);
    let elsewhere = (GroupId::new(8), NodeId::new(1));
    assert_eq!(property(history.oracle.observed(elsewhere, 0, value)), "record in the wrong partition");
}

#[test]
fn a_refused_append_must_not_be_there() {
    let mut history = History::new();
    let (append, value) = history.append(None, 1);
    history.oracle.refused(append).expect("it was not seen yet");
    assert_eq!(property(history.read(1, 0, value)), "refused append stored");
    let (append, value) = history.append(None, 1);
    history.read(1, 0, value).expect("it may be there before the answer");
    assert_eq!(property(history.oracle.refused(append)), "refused append stored");
}

#[test]
fn the_second_record_of_a_batch_cannot_open_a_partition() {
    let mut history = History::new();
    let (_, value) = history.append(Some(1), 2);
    assert_eq!(property(history.read(1, 0, value.plus(1))), "torn batch");
}

#[test]
fn a_hole_in_the_log_is_found() {
    let mut history = History::new();
    let (append, _) = history.append(None, 1);
    history.oracle.acked(append, 1).expect("first news");
    assert_eq!(property(history.end(&[2])), "hole in the log");
    assert_eq!(property(history.end(&[3])), "hole in the log");
}

#[test]
fn one_op_is_one_prepare() {
    let mut history = History::new();
    let id = |checksum| PrepareId { op: Op::new(1), view: View::ZERO, checksum };
    history.oracle.observed_prepare((GROUP, NodeId::new(1)), id(1)).expect("first news");
    history.oracle.observed_prepare((GROUP, NodeId::new(2)), id(1)).expect("the same");
    let other = history.oracle.observed_prepare((GROUP, NodeId::new(2)), id(2));
    assert_eq!(property(other), "replicas disagree");
}

#[test]
fn a_high_watermark_goes_back_only_with_the_connection() {
    let mut history = History::new();
    let replica = (GROUP, NodeId::new(1));
    history.oracle.observed_high_watermark(1, replica, 5).expect("first news");
    history
        .oracle
        .observed_high_watermark(2, replica, 4)
        .expect("answers to two readers overtake each other");
    let back = history.oracle.observed_high_watermark(1, replica, 4);
    assert_eq!(property(back), "high watermark went back");
    history.oracle.disconnected(1, NodeId::new(1));
    history.oracle.observed_high_watermark(1, replica, 3).expect("a new life knows less at first");
}

#[test]
fn an_end_below_what_was_known_when_it_was_asked_for_is_late() {
    let mut history = History::new();
    let node = NodeId::new(1);
    let (one, _) = history.append(Some(1), 2);
    let (_, value) = history.append(Some(2), 3);
    let before = history.oracle.end_asked(GROUP);
    history.oracle.acked(one, 0).expect("first news");
    let after = history.oracle.end_asked(GROUP);
    history.oracle.end_told(before, node, 0).expect("nothing was known when it was asked");
    assert_eq!(property(history.oracle.end_told(after, node, 1)), "late read");
    history.oracle.end_told(after, node, 5).expect("the second may be there");
    let again = history.oracle.end_asked(GROUP);
    assert_eq!(property(history.oracle.end_told(again, node, 2)), "late read");
    history.read(2, 2, value).expect("it is there");
    assert_eq!(property(history.oracle.end_told(again, node, 6)), "phantom end");
    history.oracle.refused(one).expect_err("it is there");
    assert_eq!(property(history.end(&[2])), "committed record lost");
}

#[test]
fn what_was_read_or_seen_below_a_high_watermark_is_known() {
    let mut history = History::new();
    let (append, value) = history.append(None, 2);
    history.oracle.unknown(append);
    history.read(1, 0, value).expect("it may be there");
    let asked = history.oracle.end_asked(GROUP);
    assert_eq!(property(history.oracle.end_told(asked, NodeId::new(2), 0)), "late read");
    let (refused, _) = history.append(None, 7);
    history.oracle.refused(refused).expect("it is nowhere");
    assert_eq!(property(history.oracle.end_told(asked, NodeId::new(2), 3)), "phantom end");
    history.oracle.observed_high_watermark(1, (GROUP, NodeId::new(1)), 9).expect("first news");
    let asked = history.oracle.end_asked(GROUP);
    assert_eq!(property(history.oracle.end_told(asked, NodeId::new(2), 2)), "late read");
}

#[test]
fn a_producer_id_has_one_owner() {
    let mut history = History::new();
    history.oracle.registered(ProducerId::new(3), 1).expect("first news");
    history.oracle.registered(ProducerId::new(3), 1).expect("a repeated answer");
    let other = history.oracle.registered(ProducerId::new(3), 2);
    assert_eq!(property(other), "producer id given twice");
}

#[test]
fn odd_but_good_histories_are_accepted() {
    let mut history = History::new();
    let (unknown, _) = history.append(None, 2);
    let (late, late_value) = history.append(None, 1);
    let (never, _) = history.append(None, 1);
    let (refused, _) = history.append(None, 1);
    history.oracle.unknown(unknown);
    history.oracle.unknown(never);
    history.oracle.unknown(late);
    history.oracle.refused(refused).expect("it is nowhere");
    history.read(2, 0, late_value).expect("seen before it was acknowledged");
    history.oracle.acked(late, 0).expect("a late answer");
    let (one, first) = history.append(Some(1), 2);
    let (two, second) = history.append(Some(2), 1);
    history.oracle.acked(two, 3).expect("answers may overtake each other");
    history.oracle.acked(one, 1).expect("answers may overtake each other");
    history.oracle.acked(one, 1).expect("and be repeated");
    history.read(1, 2, first.plus(1)).expect("a read may begin inside a batch");
    history.read(1, 3, second).expect("it is there");
    history.end(&[4, 4, 4]).expect("everything is where it should be");
    let tally = history.oracle.tally();
    assert_eq!((tally.acked, tally.records_acked, tally.refused, tally.unknown), (3, 4, 1, 2));
}

#[test]
fn an_empty_partition_is_fine() {
    History::new().end(&[0, 0, 0]).expect("nothing was promised");
}

/// A group that acknowledges from memory: one record is acknowledged and synced, another one acknowledged only. Then the power of
/// everybody fails.
fn in_the_dark() -> (History, AppendId, Value) {
    let mut history = History::new();
    let (synced, value) = history.append(Some(1), 1);
    history.oracle.acked(synced, 0).expect("first news");
    history.read(1, 0, value).expect("it is there");
    let (unsynced, value) = history.append(Some(2), 2);
    history.oracle.acked(unsynced, 1).expect("first news");
    history.oracle.power_failed(GROUP, LogEnd { op: 1, offset: 1 });
    (history, unsynced, value)
}

#[test]
fn what_is_acknowledged_from_memory_is_lost_by_an_operators_word_only() {
    let (history, ..) = in_the_dark();
    assert_eq!(property(history.end(&[1])), "acknowledged record lost");
    let (mut history, ..) = in_the_dark();
    history.oracle.forced(GROUP, LogEnd { op: 1, offset: 1 }).expect("what was synced is left");
    history.end(&[1, 1, 1]).expect("the second record is given up");
    assert_eq!((history.oracle.tally().acked, history.oracle.tally().lost), (1, 1));
    assert_eq!(property(history.end(&[0])), "acknowledged record lost");
}

#[test]
fn what_was_synced_is_never_given_up() {
    let (mut history, ..) = in_the_dark();
    let forced = history.oracle.forced(GROUP, LogEnd { op: 0, offset: 0 });
    assert_eq!(property(forced), "synced record given up");
}

#[test]
fn an_operators_word_counts_once_after_a_failure_of_everybodys_power() {
    let left = LogEnd { op: 1, offset: 1 };
    let mut history = History::new();
    let (append, _) = history.append(None, 2);
    history.oracle.acked(append, 0).expect("first news");
    history.oracle.forced(GROUP, LogEnd::default()).expect("nothing comes of it");
    assert_eq!(property(history.end(&[0])), "acknowledged record lost");
    let (mut history, ..) = in_the_dark();
    history.oracle.forced(GROUP, left).expect("what was synced is left");
    let (after, _) = history.append(None, 1);
    history.oracle.acked(after, 1).expect("the offset is given again");
    history.oracle.forced(GROUP, left).expect("nothing comes of it");
    assert_eq!(property(history.end(&[1])), "acknowledged record lost");
}

#[test]
fn what_was_given_up_does_not_come_back_and_makes_room() {
    let left = LogEnd { op: 1, offset: 1 };
    let (mut history, lost, value) = in_the_dark();
    let asked = history.oracle.end_asked(GROUP);
    let id = |checksum| PrepareId { op: Op::new(2), view: View::ZERO, checksum };
    history.oracle.observed_prepare((GROUP, NodeId::new(1)), id(1)).expect("first news");
    history.oracle.forced(GROUP, left).expect("what was synced is left");
    history.oracle.end_told(asked, NodeId::new(1), 1).expect("it was asked before the loss");
    let (after, other) = history.append(None, 1);
    history.oracle.acked(after, 1).expect("the offset is given again");
    history.read(1, 1, other).expect("it is there");
    history.oracle.observed_prepare((GROUP, NodeId::new(1)), id(2)).expect("the op is given again");
    assert_eq!(property(history.read(1, 2, value)), "lost record came back");
    assert_eq!(property(history.oracle.acked(lost, 2)), "lost record came back");
    history.end(&[2]).expect("everything is where it should be");
}

#[test]
fn a_request_that_was_lost_unanswered_may_be_stored_again() {
    let mut history = History::new();
    let (pending, value) = history.append(Some(1), 1);
    history.read(1, 0, value).expect("it may be there before the answer");
    history.oracle.power_failed(GROUP, LogEnd::default());
    history.oracle.forced(GROUP, LogEnd::default()).expect("nothing was synced");
    let (other, _) = history.append(None, 1);
    history.oracle.acked(other, 0).expect("the offset is given again");
    history.oracle.acked(pending, 1).expect("its retry");
    history.end(&[2]).expect("everything is where it should be");
}
