//! Normal operation at the primary: taking requests, counting acknowledgements, repeating itself (rules N1, N2, N5, N7).

use varve_protocol::id::{Op, ReplicaIndex, RequestNumber, Timestamp, View};
use varve_protocol::limits::{PREPARES_IN_FLIGHT_BYTES_MAX, PREPARES_IN_FLIGHT_MAX, REPAIR_PREPARES_MAX};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareFields, PrepareHeader, PrepareId, PrepareKind};

use super::{Leading, Replica, backed_off};
use crate::client_table::{Known, has_session};
use crate::event::{Outcome, Output, Request, RequestHandle};
use crate::quorum::{Votes, quorum_op};
use crate::timeout::Timer;

/// What to do with a request.
enum Verdict {
    /// Seal it.
    Take,
    /// It is sealed already: answer when this op commits.
    WaitFor(Op),
    /// Answer at once.
    Answer(Outcome),
}

impl Replica {
    pub(super) fn on_request(&mut self, request: Request) {
        match self.judge(&request) {
            Verdict::Answer(outcome) => self.reply(request.handle, outcome),
            Verdict::WaitFor(op) => {
                self.leading.waiting.insert((op, request.handle));
            }
            Verdict::Take => self.seal(request),
        }
    }

    fn judge(&self, request: &Request) -> Verdict {
        if !self.takes_requests() {
            return Verdict::Answer(Outcome::NotPrimary);
        }
        let has_session = has_session(request.producer, request.request) && !Mutant::NotConsulted.is_on();
        let verdict = if has_session { self.judge_session(request) } else { Verdict::Take };
        match verdict {
            Verdict::Take if self.must_wait(request) => Verdict::Answer(Outcome::Busy),
            Verdict::Take | Verdict::WaitFor(_) | Verdict::Answer(_) => verdict,
        }
    }

    /// Whether there is no room for a request now. Replicas are replaced one after the other, and nothing goes on before it is
    /// settled who counts.
    fn must_wait(&self, request: &Request) -> bool {
        let is_changing = self.members().pending().is_some() && !Mutant::SealedBehindChange.is_on();
        let has_room = self.window_has_room(request.body.len());
        if is_changing {
            Mark::MembersPending.hit();
        }
        if !has_room {
            Mark::WindowFull.hit();
        }
        self.leading.successor.is_some()
            || is_changing
            || !has_room
            || (request.kind == PrepareKind::Replacement && self.is_replacing())
            || (request.kind == PrepareKind::LogStart && self.is_moving_log_start())
    }

    fn judge_session(&self, request: &Request) -> Verdict {
        let in_flight = || self.uncommitted().filter(|header| header.producer() == request.producer);
        if let Some(header) = in_flight().find(|header| header.request() == request.request) {
            if Mutant::InFlightTwice.is_on() {
                return Verdict::Take;
            }
            Mark::RequestInFlight.hit();
            return Verdict::WaitFor(header.op());
        }
        let last_in_flight = in_flight().map(PrepareHeader::request).max();
        let last = match self.client_table.look_up(request.producer, request.request) {
            Known::Committed(place) => {
                Mark::RequestKnown.hit();
                let outcome = Outcome::Committed { op: place.op, base_offset: place.base_offset };
                return Verdict::Answer(outcome);
            }
            Known::Forgotten => {
                Mark::RequestForgotten.hit();
                return Verdict::Answer(Outcome::UnknownOutcome);
            }
            Known::Later { last } => last_in_flight.map_or(last, |in_flight| in_flight.max(last)),
            Known::Nobody => last_in_flight.unwrap_or(RequestNumber::ZERO),
        };
        if request.request == last.next() || (Mutant::GapTaken.is_on() && request.request > last) {
            Verdict::Take
        } else if request.request < last {
            // Evicted while later requests of it were under way.
            Verdict::Answer(Outcome::UnknownOutcome)
        } else {
            Mark::RequestOutOfOrder.hit();
            Verdict::Answer(Outcome::OutOfOrder { expected: last.next() })
        }
    }

    fn uncommitted(&self) -> impl DoubleEndedIterator<Item = &PrepareHeader> {
        self.log.headers(self.commit.next(), self.log.head().op)
    }

    fn window_has_room(&self, body_size: usize) -> bool {
        self.log.head().op.next().since(self.commit) <= PREPARES_IN_FLIGHT_MAX
            && self.leading.bytes_in_flight + body_size <= PREPARES_IN_FLIGHT_BYTES_MAX
            && !self.is_disk_full_of_work()
    }

    fn seal(&mut self, request: Request) {
        let parent = self.log.head();
        assert!(
            parent.op.next().since(self.commit) <= PREPARES_IN_FLIGHT_MAX,
            "a prepare is sealed only within a window of the commit"
        );
        let after_parent = Timestamp::new(self.log.timestamp().as_raw() + 1);
        let after_parent = if Mutant::TimestampsGoBack.is_on() { request.now } else { after_parent };
        let next_offset = if Mutant::OffsetsMintedTwice.is_on() {
            self.next_offset_committed()
        } else {
            self.log.next_offset()
        };
        let fields = PrepareFields {
            version: request.version,
            cluster: self.config.cluster,
            group: self.config.group,
            view: self.view,
            parent,
            epoch: self.config.epoch,
            kind: request.kind,
            base_offset: next_offset,
            record_count: request.record_count,
            timestamp: after_parent.max(request.now),
            producer: request.producer,
            request: request.request,
        };
        let prepare = Prepare::seal(fields, request.body);
        self.leading.waiting.insert((prepare.op(), request.handle));
        self.leading.bytes_in_flight += prepare.body().len();
        if Mutant::ReplyBeforeCommit.is_on() {
            let (op, base_offset) = (prepare.op(), prepare.header().base_offset());
            self.reply(request.handle, Outcome::Committed { op, base_offset });
        }
        self.append(prepare.clone());
        self.broadcast(&Message::Prepare { view: self.view, commit: self.commit(), prepare });
        if !self.timers.is_armed(Timer::PrepareResend) {
            self.arm_prepare_resend();
        }
        self.leading.commit_delay.begin(self.log.head().op, self.now);
        self.watch_for_stall();
        self.acknowledge_appended();
    }

    pub(super) fn on_prepare_ok(&mut self, from: ReplicaIndex, view: View, id: PrepareId) {
        let is_old_counted = Mutant::OldPrepareOkCounts.is_on() && view < self.view;
        if !is_old_counted && !self.is_of_this_view(from, view) {
            return;
        }
        let is_ours = self.log.id(id.op) == Some(id)
            || id.op < self.log.base().op
            || (Mutant::AnyPrepareOkCounts.is_on() && id.op <= self.log.head().op);
        if !self.is_primary() || !is_ours {
            return self.ignore_prepare_ok(from, id);
        }
        let acknowledged = self.leading.acknowledged.entry(from).or_default();
        *acknowledged = id.op.max(*acknowledged);
        self.commit_acknowledged();
        self.repeat_more(from);
    }

    /// Commits what a quorum holds, durably or as the group wants it, this replica counted like any other.
    pub(super) fn commit_acknowledged(&mut self) {
        if let Some(op) = self.next_commit() {
            self.leading.resends = 0;
            self.leading.commit_delay.end(op, self.now);
            self.commit_to(op);
            self.arm_prepare_resend();
        }
        if self.commit == self.log.head().op {
            self.timers.disarm(Timer::PrepareResend);
        }
        self.note_progress();
        self.continue_reading();
        self.continue_handover();
    }

    fn next_commit(&self) -> Option<Op> {
        let members = self.members();
        let held_by_quorum_of =
            |voters: Votes| quorum_op(voters.iter().map(|replica| self.acknowledged_by(replica)));
        let mut op = held_by_quorum_of(members.committing(self.commit.next()));
        if let Some(pending) = members.pending() {
            let is_held = members.staying().is_none_or(|staying| held_by_quorum_of(staying) >= pending);
            if op == pending && !is_held {
                Mark::StayingAwaited.hit();
                op = pending.previous();
            }
        }
        (op > self.commit).then_some(op)
    }

    /// The newest op that a replica has acknowledged. One that an entry puts in its place says nothing on that entry, nor does
    /// who was there before, until it is committed.
    pub(super) fn acknowledged_by(&self, replica: ReplicaIndex) -> Op {
        let pending = self.replacements.in_effect(replica, self.commit).map(|(op, _)| *op);
        let last = pending.filter(|op| *op > self.commit && !Mutant::ReplacedCounts.is_on());
        last.map_or(self.acknowledged(replica), |op| self.acknowledged(replica).min(op.previous()))
    }

    fn acknowledged(&self, replica: ReplicaIndex) -> Op {
        if replica == self.config.replica {
            if Mutant::OwnVoteBeforeSync.is_on() { self.log.head().op } else { self.held() }
        } else {
            self.leading.acknowledged.get(&replica).copied().unwrap_or_default()
        }
    }

    /// Starts counting for a new view.
    pub(super) fn start_leading(&mut self) {
        self.leading = Leading {
            started_with: self.log.head().op,
            bytes_in_flight: self.count_bytes_in_flight(),
            ..Leading::default()
        };
        let implied = self.replacements.implied_commit(self.config.founders, self.log.head().op);
        if implied > self.commit && !Mutant::PendingForEver.is_on() {
            Mark::ChangeImplied.hit();
            self.commit_to(implied);
        }
        for to in self.peers() {
            self.send_start_view(to, 0);
        }
        if self.commit < self.log.head().op {
            self.arm_prepare_resend();
            self.watch_for_stall();
        }
        self.commit_acknowledged();
    }

    /// Ends leading: who still waits is told that the outcome is open.
    pub(super) fn stop_leading(&mut self) {
        self.refuse_waiting();
        self.refuse_reads();
        self.leading = Leading::default();
        for timer in [Timer::PrepareResend, Timer::Stall, Timer::HandOver] {
            self.timers.disarm(timer);
        }
    }

    /// Tells who waits that the outcome is open.
    pub(super) fn refuse_waiting(&mut self) {
        for (_, handle) in std::mem::take(&mut self.leading.waiting) {
            self.reply(handle, Outcome::ViewEnded);
        }
    }

    /// This prepare is committed: answers those who wait for it.
    pub(super) fn note_committed(&mut self, header: &PrepareHeader) {
        if !self.is_primary() {
            return;
        }
        self.leading.bytes_in_flight -= header.body_size();
        let outcome = Outcome::Committed { op: header.op(), base_offset: header.base_offset() };
        while self.leading.waiting.first().is_some_and(|(op, _)| *op == header.op()) {
            let (_, handle) = self.leading.waiting.pop_first().expect("there is a first one");
            self.reply(handle, outcome);
        }
    }

    pub(super) fn count_bytes_in_flight(&self) -> usize {
        self.uncommitted().map(PrepareHeader::body_size).sum()
    }

    /// Repeats to each backup the first prepare that is neither committed nor acknowledged by it. If that was lost, so is what was sent
    /// behind it, most likely: its acknowledgement brings more ([`Self::repeat_more`]). If it was only slow, little was sent twice.
    pub(super) fn resend_prepares(&mut self) {
        let head = self.log.head().op;
        if !self.is_primary() || self.commit == head || Mutant::PreparesNotRepeated.is_on() {
            return;
        }
        Mark::PreparesRepeated.hit();
        for to in self.peers() {
            self.repeat(to, 1);
        }
        self.leading.resends += 1;
        self.arm_prepare_resend();
    }

    /// A backup that has acknowledged what was repeated to it, and nothing behind that, although it arrived behind all that had been sent
    /// before, has lost the rest.
    fn repeat_more(&mut self, to: ReplicaIndex) {
        let acknowledged = self.acknowledged_by(to);
        let Some(repeated) = self.leading.repeated.get(&to).copied() else { return };
        if acknowledged < repeated || Mutant::RepeatsOneOnly.is_on() {
            return;
        }
        self.leading.repeated.remove(&to);
        if acknowledged == repeated && self.is_primary() && acknowledged < self.log.head().op {
            Mark::MoreRepeated.hit();
            self.repeat(to, REPAIR_PREPARES_MAX);
        }
    }

    /// Repeats to a backup so many uncommitted prepares at most. One that was not heard in this view, or whose next prepare is here
    /// without its body, is told the view's log instead and fetches what it lacks.
    fn repeat(&mut self, to: ReplicaIndex, count: u64) {
        let head = self.log.head().op;
        let next = self.acknowledged_by(to).max(self.commit).next();
        let was_heard = self.leading.acknowledged.contains_key(&to);
        if next > head {
            return;
        }
        if !was_heard || self.log.prepare(next).is_none() {
            return self.send_start_view(to, 0);
        }
        let last = next.plus(count - 1).min(head);
        self.leading.repeated.insert(to, last);
        let ops = (next.as_raw()..=last.as_raw()).map(Op::new);
        let prepares: Vec<_> = ops.filter_map(|op| self.log.prepare(op).cloned()).collect();
        for prepare in prepares {
            self.send(to, Message::Prepare { view: self.view, commit: self.commit(), prepare });
        }
    }

    /// Waits for the next commit, twice as long as one takes: what is only slow must not be sent twice, which would make it slower.
    fn arm_prepare_resend(&mut self) {
        let timeouts = self.config.timeouts;
        let wait = timeouts.prepare_resend.max(self.leading.commit_delay.lately() * 2);
        self.arm(Timer::PrepareResend, backed_off(wait, self.leading.resends, timeouts.prepare_resend_max));
    }

    fn reply(&mut self, handle: RequestHandle, outcome: Outcome) {
        self.outputs.push_back(Output::Reply { handle, outcome });
    }

    fn ignore_prepare_ok(&self, from: ReplicaIndex, id: PrepareId) {
        tracing::debug!(group = %self.config.group, view = %self.view, %from, %id, "ignore prepare_ok");
    }
}
