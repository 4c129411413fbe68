//! Letting go of old records, and helping those who lack what was let go (rule R3).
//!
//! ```text
//!   primary   every so often ──▶ survey of its segments ──▶ decision ──▶ an entry of the group's log
//!   replicas  the entry is committed ──▶ whole segments before it go, a snapshot stays
//! ```
//! Only the primary looks at the clock and at sizes; all replicas let go of the same records. Where all there is has become too
//! old, the entry lets go of everything before itself, and begins a segment on every disk. A group that nothing was appended
//! to since its last survey is not asked again before the next of its segments gets too old.
//!
//! The metadata are kept by their size: what they are is in the snapshot, however they came to be so.

use varve_consensus::Replica;
use varve_protocol::id::{GroupId, NodeId, Op, ProducerId, RequestNumber, Timestamp, View};
use varve_protocol::limits::FRAME_BODY_BYTES_MAX;
use varve_protocol::log_start::LogStart;
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::PrepareKind;
use varve_protocol::retention::Retention;
use varve_protocol::snapshot::Snapshot;
use varve_storage::{ActiveSegment, Job, SealedSegment, StorageError};

use crate::event::Effect;
use crate::group::Group;
use crate::metadata::Metadata;
use crate::node::Node;
use crate::node::clients::Waiting;
use crate::node::disk::PendingRead;
use crate::summary::summary_of;
use crate::tail::Tail;
use crate::timers::Due;

/// Bytes of state that fit a message. Only the metadata of tens of thousands of topics with long names come near.
const SNAPSHOT_BYTES_SENT_MAX: usize = FRAME_BODY_BYTES_MAX - 1024;

/// What the last survey of a group's segments has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Surveyed {
    head: Op,
    /// When the oldest segment that is kept gets too old; none if it never does.
    expires: Option<Timestamp>,
}

impl Node {
    /// Asks for the segments of the groups that this node leads and that may have something to let go.
    pub(super) fn on_retention_due(&mut self) {
        self.timers.set(self.now.plus(self.config.timing.retention_check), Due::Retention);
        let now = self.wall;
        let wanted = self.groups.iter().filter(|(_, group)| {
            let Some(replica) = group.replica() else { return false };
            let is_known = group.surveyed.is_some_and(|surveyed| {
                surveyed.head == replica.head().op && surveyed.expires.is_none_or(|expires| expires > now)
            });
            group.placement.retention.is_bounded()
                && replica.takes_requests()
                && !replica.is_moving_log_start()
                && !is_known
        });
        for group in wanted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.submit(Job::Survey { group });
        }
    }

    pub(super) fn on_surveyed(&mut self, id: GroupId, sealed: &[SealedSegment], active: ActiveSegment) {
        let now = self.wall;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let retention = group.placement.retention;
        let Some(replica) = group.replica().filter(|replica| replica.takes_requests()) else { return };
        let (commit, log_start, head) = (replica.commit().op, replica.log_start(), replica.head().op);
        let mut start = first_to_keep(retention, sealed, active.bytes, (now, commit));
        let kept = sealed.iter().find(|segment| start.is_none_or(|start| segment.next > start));
        let newest = kept.map(|oldest| oldest.newest).or(active.has_records.then_some(active.newest));
        let mut expires = retention.age_ms.zip(newest).map(|(age_ms, newest)| expiry(newest, age_ms));
        let is_all = kept.is_none() && active.head == head && commit == head;
        if is_all && expires.is_some_and(|expires| expires <= now) {
            // The entry itself begins the next segment.
            Mark::AllLetGo.hit();
            (start, expires) = (Some(LogStart { op: head.next(), offset: replica.log_end() }), None);
        }
        let start = start.filter(|start| *start > log_start);
        // If something goes, its entry makes the log another one; should the entry be refused, it is tried again.
        group.surveyed = start.is_none().then_some(Surveyed { head, expires });
        if let Some(start) = start {
            let mark = if id == GroupId::METADATA { Mark::MetadataLetGo } else { Mark::OldestLetGo };
            mark.hit();
            tracing::info!(group = %id, first_op = %start.op, first_offset = %start.offset, "let go of old records");
            let handle = self.new_handle(Waiting::Nobody);
            let body = (PrepareKind::LogStart, 0, start.encode());
            self.request(id, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
        }
    }

    /// Lets go of what lies before the start of a group's log and is still on the disk.
    pub(super) fn let_go(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(start) = group.replica().map(Replica::log_start) else { return };
        if start.op > group.base.next() {
            self.submit(Job::LetGo { group: id, first: start.op, summarize: summary_of(id) });
        }
    }

    /// The same, of what cannot be read here, with the snapshot of a replica that has let go of it.
    pub(super) fn let_go_with(&mut self, id: GroupId, snapshot: Snapshot) {
        let Some(first) = self.groups.get(&id).and_then(Group::replica).map(|here| here.log_start().op)
        else {
            return;
        };
        self.submit(Job::LetGoWith { group: id, first, snapshot, summarize: summary_of(id) });
    }

    /// Segments have gone.
    pub(super) fn on_let_go(&mut self, id: GroupId, start: LogStart) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if start.op.previous() > group.base {
            group.base = start.op.previous();
            self.scrubbing.note_let_go(id, start.op);
            self.scrubbing.note_new_base(id);
        }
    }

    /// A replica goes on behind a snapshot.
    pub(super) fn take_snapshot(&mut self, id: GroupId, snapshot: Snapshot) {
        if !self.groups.contains_key(&id) {
            return;
        }
        tracing::info!(group = %id, op = %snapshot.op(), "the others have let go of what is missing here; take their snapshot");
        if id == GroupId::METADATA && snapshot.op() > self.metadata.applied() {
            Mark::MetadataTaken.hit();
            let Some(metadata) = Metadata::from_snapshot(&snapshot) else {
                let reason = "the metadata that another node sent were written by another release; start the same one on all nodes";
                return self.effects.push_back(Effect::Halt { reason: reason.to_owned() });
            };
            self.metadata = metadata;
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        self.tail_bytes -= group.tail.bytes();
        group.tail = Tail::new(snapshot.op());
        group.base = snapshot.op();
        self.scrubbing.forget(id);
        self.submit(Job::TakeSnapshot { group: id, snapshot });
        self.wake_fetches(id);
    }

    /// Sends a peer what the log here builds on, for what it wants was let go.
    pub(super) fn serve_snapshot(&mut self, group: GroupId, to: NodeId, view: View) {
        let token = self.note_read(group, PendingRead::Snapshot { to, view });
        self.submit(Job::ReadSnapshot { group, token });
    }

    pub(super) fn on_snapshot_read(&mut self, token: u64, result: Result<Option<Snapshot>, StorageError>) {
        let Some((group, PendingRead::Snapshot { to, view })) = self.take_read(token) else { return };
        match result {
            Ok(Some(snapshot)) if snapshot.state.len() > SNAPSHOT_BYTES_SENT_MAX => {
                let bytes = snapshot.state.len();
                tracing::error!(%group, %to, bytes, "what was summed up is larger than a message may be, and cannot be sent");
            }
            Ok(Some(snapshot)) => {
                Mark::SnapshotServed.hit();
                self.send_to(group, to, &Message::Snapshot { view, snapshot: Box::new(snapshot) });
            }
            Ok(None) => {}
            Err(error) => self.on_unreadable(group, None, &error),
        }
    }

    /// Whether this op was let go here.
    pub(super) fn is_gone(&self, group: GroupId, op: Op) -> bool {
        self.groups.get(&group).is_some_and(|group| op <= group.base)
    }
}

/// When a segment with this newest timestamp is older than records are to be kept.
fn expiry(newest: Timestamp, age_ms: u64) -> Timestamp {
    Timestamp::new(newest.as_raw().saturating_add(age_ms.saturating_mul(1000)))
}

/// Where the log may start; none if all of it is to be kept. Nothing that is not committed is let go.
fn first_to_keep(
    retention: Retention,
    sealed: &[SealedSegment],
    active_bytes: u64,
    (now, commit): (Timestamp, Op),
) -> Option<LogStart> {
    let mut bytes = active_bytes + sealed.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut start = None;
    for segment in sealed {
        bytes -= segment.bytes;
        let is_too_much = retention.bytes.is_some_and(|kept| bytes >= kept || Mutant::KeepsTooLittle.is_on());
        let is_too_old = retention.age_ms.is_some_and(|age_ms| expiry(segment.newest, age_ms) <= now);
        let is_committed = segment.next.op <= commit.next();
        if !is_committed || !(is_too_much || is_too_old) {
            break;
        }
        start = Some(segment.next);
    }
    start
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::Offset;

    use super::*;

    /// Segments of ten ops and a hundred bytes each; number n is as old as n seconds after the epoch.
    fn segments(count: u64) -> Vec<SealedSegment> {
        let segment = |number: u64| SealedSegment {
            next: LogStart { op: Op::new(number * 10 + 1), offset: Offset::new(number * 20) },
            bytes: 100,
            newest: Timestamp::new(number * 1_000_000),
        };
        (1..=count).map(segment).collect()
    }

    fn kept_from(retention: Retention, now_s: u64, commit: u64) -> u64 {
        let at = (Timestamp::new(now_s * 1_000_000), Op::new(commit));
        first_to_keep(retention, &segments(5), 50, at).map_or(1, |start| start.op.as_raw())
    }

    #[test]
    fn what_is_too_much_or_too_old_is_let_go_and_nothing_else() {
        let bytes = |bytes| Retention { bytes: Some(bytes), ..Retention::FOREVER };
        let age = |age_ms| Retention { age_ms: Some(age_ms), ..Retention::FOREVER };
        let cases = [
            (Retention::FOREVER, 99, 99, 1),
            (bytes(550), 99, 99, 1),
            (bytes(451), 99, 99, 1),
            (bytes(450), 99, 99, 11),
            (bytes(449), 99, 99, 11),
            (bytes(250), 99, 99, 31),
            (bytes(0), 99, 99, 51),
            (age(3_000), 3, 99, 1),
            (age(3_000), 4, 99, 11),
            (age(3_000), 6, 99, 31),
            (Retention { bytes: Some(450), age_ms: Some(3_000) }, 6, 99, 31),
            (Retention { bytes: Some(250), age_ms: Some(3_000) }, 4, 99, 31),
        ];
        for (retention, now_s, commit, first) in cases {
            assert_eq!(kept_from(retention, now_s, commit), first, "{retention:?} at {now_s} s");
        }
    }

    #[test]
    fn nothing_is_let_go_that_is_not_committed() {
        let nothing = Retention { bytes: Some(0), ..Retention::FOREVER };
        assert_eq!([9, 10, 29, 30].map(|commit| kept_from(nothing, 0, commit)), [1, 11, 21, 31]);
    }
}
