//! Reads that must not be late (rule D2): whoever asks the primary where the log ends is told of everything that anybody was
//! told before he asked.
//!
//! Being normal is no proof of being the primary still: a view may have begun elsewhere, and have acknowledged something. So
//! a read is answered only after a quorum, this replica included, has said that it works in this view, and has said so to a
//! question that was asked after the read had come.
//!
//! ```text
//!   read ──▶ waits ──▶ is asked about ──▶ confirmed: answered with the commit of that moment
//!              │    a round at a time       │
//!              └──────────┬─────────────────┘
//!                         └──▶ refused: the view ends, a quorum is missed, or nobody answers
//! ```
//!
//! Why that is enough. A later view starts with the tales of a quorum that has left this one, durably, and two quorums share a
//! replica. The shared one confirmed this view after the read had come, so it told its log later still: no later view had
//! begun then, and nothing of one been acknowledged or read. Who has lost its disk may have told its log for a later view and
//! have forgotten it, so it confirms nothing before it is let in: with that entry, the tale it forgot counts for nothing. What earlier views acknowledged is in the log that this view
//! started with, but perhaps above the commit at first; so no round begins before all of that is committed here. What this
//! view acknowledged, it committed here first.
//!
//! A replica that restarts comes back in the view that it has saved, and is not normal in it before the primary has told it
//! the log; a primary that restarts never leads that view again. So view and round name a question for good.
//!
//! Reads that come while a round is under way ride on the next one, so that a thousand of them cost as much as two. Nothing is
//! written for them, and a group that nobody asks owns no timer. Clocks have no part in this: a primary that was
//! frozen for an hour wakes up and asks.

use std::hash::{Hash, Hasher};

use varve_protocol::id::{ReplicaIndex, Round, View};
use varve_protocol::limits::READS_WAITING_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;

use super::Replica;
use crate::event::{Output, ReadHandle, ReadOutcome};
use crate::quorum::Votes;
use crate::status::Status;
use crate::timeout::Timer;

/// How often a round is asked again before its reads are refused: with the usual wait that is half a second, after which a
/// client does better to look for another primary.
const REPEATS_MAX: u32 = 8;

/// The reads that a primary has not answered yet.
#[derive(Clone, Default, Debug)]
pub(super) struct Reading {
    /// The newest round begun in this view.
    round: Round,
    /// Who has confirmed it.
    confirmed: Votes,
    /// How often it was asked again.
    repeats: u32,
    /// The reads that it is about; none if no round is under way.
    asked: Vec<ReadHandle>,
    /// The reads that came since it began.
    waiting: Vec<ReadHandle>,
}

impl Reading {
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn has_round(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Self { round, confirmed, repeats, asked, waiting } = self;
        (round, confirmed, repeats, asked, waiting).hash(state);
    }
}

impl Replica {
    pub(super) fn on_confirm_read(&mut self, handle: ReadHandle) {
        let reading = &mut self.leading.reading;
        let is_full = reading.asked.len() + reading.waiting.len() >= READS_WAITING_MAX;
        if !self.takes_requests() {
            return self.reply_to_read(handle, ReadOutcome::NotPrimary);
        }
        if is_full {
            return self.reply_to_read(handle, ReadOutcome::Busy);
        }
        self.leading.reading.waiting.push(handle);
        self.continue_reading();
    }

    /// Begins a round for the reads that wait, unless one is under way or the log that the view started with is not committed.
    pub(super) fn continue_reading(&mut self) {
        let has_start_log = self.commit >= self.leading.started_with || Mutant::ReadBeforeStartLog.is_on();
        let reading = &mut self.leading.reading;
        if !has_start_log && !reading.waiting.is_empty() {
            Mark::ReadHeldBack.hit();
        }
        if !has_start_log || reading.has_round() || reading.waiting.is_empty() {
            return;
        }
        reading.round = reading.round.next();
        reading.repeats = 0;
        reading.confirmed = Votes::default();
        reading.confirmed.insert(self.config.replica);
        reading.asked = std::mem::take(&mut reading.waiting);
        self.ask_round();
        self.count_confirmed();
    }

    /// Asks those who have not answered the round under way.
    fn ask_round(&mut self) {
        let Reading { round, confirmed, .. } = self.leading.reading;
        for to in self.peers().filter(|to| !confirmed.contains(*to)) {
            self.send(to, Message::ConfirmView { view: self.view, round });
        }
        self.arm(Timer::ConfirmView, self.config.timeouts.confirm_view);
    }

    /// The round under way was not answered in time.
    pub(super) fn repeat_round(&mut self) {
        if self.leading.reading.repeats < REPEATS_MAX {
            Mark::ReadRepeated.hit();
            self.leading.reading.repeats += 1;
            return self.ask_round();
        }
        Mark::ReadUnanswered.hit();
        tracing::warn!(group = %self.config.group, view = %self.view, "reads refused: nobody confirms the view");
        self.refuse_reads();
    }

    pub(super) fn on_confirm_view(&mut self, from: ReplicaIndex, view: View, round: Round) {
        let is_old_confirmed = Mutant::ReadOldViewConfirmed.is_on() && view < self.view;
        if is_old_confirmed {
            return self.send(from, Message::ViewConfirmed { view, round });
        }
        if !self.is_of_this_view(from, view) {
            return;
        }
        if self.status != Status::Normal || from != self.primary() {
            let reason = "it does not work in this view, or does not follow the sender";
            return self.ignore_round(from, round, reason);
        }
        if !self.is_admitted() {
            return self.ignore_round(from, round, "it has lost its disk and no voice yet");
        }
        self.send(from, Message::ViewConfirmed { view, round });
    }

    pub(super) fn on_view_confirmed(&mut self, from: ReplicaIndex, view: View, round: Round) {
        if !self.is_of_this_view(from, view) {
            return;
        }
        let reading = &mut self.leading.reading;
        let is_this_round = round == reading.round || Mutant::ReadOldRoundCounts.is_on();
        if !reading.has_round() || !is_this_round {
            return self.ignore_round(from, round, "another one is under way, or none");
        }
        reading.confirmed.insert(from);
        self.count_confirmed();
    }

    /// Answers the reads of the round under way if a quorum has confirmed it.
    fn count_confirmed(&mut self) {
        let is_confirmed = self.members().suffice(self.leading.reading.confirmed, 0);
        if !is_confirmed && !Mutant::ReadUnconfirmed.is_on() {
            return;
        }
        Mark::ReadConfirmed.hit();
        self.timers.disarm(Timer::ConfirmView);
        for handle in std::mem::take(&mut self.leading.reading.asked) {
            self.reply_to_read(handle, ReadOutcome::Confirmed);
        }
        self.continue_reading();
    }

    /// Whether this replica leads is in doubt, or it does no longer: who waits looks elsewhere. Answers to the round that was
    /// under way count for nothing, for the next one has another number.
    pub(super) fn refuse_reads(&mut self) {
        self.timers.disarm(Timer::ConfirmView);
        let reading = &mut self.leading.reading;
        let refused = [std::mem::take(&mut reading.asked), std::mem::take(&mut reading.waiting)];
        for handle in refused.into_iter().flatten() {
            self.reply_to_read(handle, ReadOutcome::NotPrimary);
        }
    }

    fn reply_to_read(&mut self, handle: ReadHandle, outcome: ReadOutcome) {
        self.outputs.push_back(Output::ReplyToRead { handle, outcome });
    }

    fn ignore_round(&self, from: ReplicaIndex, round: Round, reason: &str) {
        tracing::debug!(group = %self.config.group, view = %self.view, %from, %round, reason, "ignore round");
    }
}
