//! Normal operation at a backup, and what primary and backup share: storing, acknowledging, committing (rules N3 to N6).
//!
//! In view v, normal, the log of a backup is a prefix of the log of v's primary. So a prepare that does not fit can only be
//! early (set aside, the gap repaired) or a sign that something is wrong (asked about, never overwritten).

use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::limits::{HEADERS_PER_MESSAGE_MAX, PREPARES_IN_FLIGHT_MAX};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareId};

use super::Replica;
use crate::event::Output;
use crate::status::Status;
use crate::timeout::Timer;

impl Replica {
    pub(super) fn on_prepare(&mut self, from: ReplicaIndex, view: View, commit: PrepareId, prepare: Prepare) {
        let is_old_taken = Mutant::OldPrepareTaken.is_on() && view < self.view;
        if !is_old_taken && !self.is_of_this_view(from, view) {
            return;
        }
        if from != self.config.primary(view) || !self.is_of_this_group(&prepare) {
            return self.ignore_prepare(&prepare, "it is not the primary's to send");
        }
        if !self.takes_prepares() {
            return self.ask_start_view(view);
        }
        if prepare.op() > self.log.head().op {
            if prepare.op() > self.log.head().op.next() {
                Mark::PrepareAside.hit();
                self.catchup.lose_track();
            } else if self.catchup.follow() {
                self.timers.disarm(Timer::Repair);
            }
            self.catchup.offer(prepare, self.log.head().op);
            self.hear_commit(commit);
            return self.pursue();
        }
        let conflicts = self.log.id(prepare.op()).is_some_and(|own| own != prepare.id());
        if conflicts && Mutant::ConflictOverwritten.is_on() && self.cut(prepare.op().previous()) {
            return self.append(prepare);
        }
        if conflicts && self.status == Status::Normal {
            Mark::ConflictFound.hit();
            self.ignore_prepare(&prepare, "another prepare stands in its place");
            return self.ask_start_view(view);
        }
        self.send_prepare_ok();
        self.hear_commit(commit);
        self.pursue();
    }

    pub(super) fn on_commit(&mut self, from: ReplicaIndex, view: View, commit: PrepareId) {
        if Mutant::CommitOfLaterView.is_on() && view > self.view {
            self.commit_to(commit.op.min(self.log.head().op));
        }
        if !self.is_of_this_view(from, view) {
            return;
        }
        if from != self.primary() {
            return self.ignore_commit(commit, "it is not the primary's to send");
        }
        if !self.takes_prepares() {
            return self.ask_start_view(view);
        }
        self.hear_commit(commit);
        self.pursue();
    }

    pub(super) fn on_durable(&mut self, id: PrepareId) {
        let is_taken = self.taking.is_some_and(|taking| id.op >= taking.op) && self.log.id(id.op) == Some(id);
        if !is_taken && (id.op <= self.durable || self.log.id(id.op) != Some(id)) {
            return self.ignore_durable(id);
        }
        if is_taken {
            self.taking = None;
        }
        self.durable = id.op;
        self.note_synced();
        self.save_voice();
        match self.status {
            Status::Normal if self.leads_view() => self.commit_acknowledged(),
            Status::Normal => {
                self.send_prepare_ok();
                self.pursue();
            }
            Status::ViewChange => {
                self.tell_log();
                self.pursue();
            }
            Status::Recovering => {}
        }
    }

    /// Acknowledges everything durable here, or in memory if the group does that; says nothing unless this replica is a normal
    /// backup that has a voice.
    pub(super) fn send_prepare_ok(&mut self) {
        let may_acknowledge = self.status == Status::Normal || Mutant::OkInViewChange.is_on();
        if may_acknowledge && !self.leads_view() && self.is_admitted() && !self.has_snapshot_under_way() {
            let id = if Mutant::AckBeforeDurable.is_on() { self.head() } else { self.held_id() };
            self.send(self.primary(), Message::PrepareOk { view: self.view, id });
        }
    }

    /// Whether so much waits for the own disk that no more is given to it. A disk that hangs must not fill the memory.
    pub(super) fn is_disk_full_of_work(&self) -> bool {
        self.log.head().op.since(self.durable) >= HEADERS_PER_MESSAGE_MAX as u64
    }

    /// Writes the next prepare of the log.
    pub(super) fn append(&mut self, prepare: Prepare) {
        assert!(prepare.header().view() <= self.view, "no prepare is stored before its view");
        self.log.append(prepare.clone());
        self.replacements.note(&prepare);
        self.log_starts.note(&prepare);
        self.outputs.push_back(Output::Append(prepare));
        self.note_appended();
        self.commit_floor();
    }

    /// A primary seals an op only while its distance to the commit is within the window, so a log with head h proves that
    /// everything up to h - window was committed when h was sealed.
    fn commit_floor(&mut self) {
        let head = self.log.head().op.as_raw();
        let window = if Mutant::CommitFloorTooHigh.is_on() { 1 } else { PREPARES_IN_FLIGHT_MAX };
        self.commit_to(Op::new(head.saturating_sub(window)));
    }

    /// Remembers the primary's commit. It takes effect where this log holds that very prepare (N6), now or later.
    pub(super) fn hear_commit(&mut self, commit: PrepareId) {
        self.catchup.hear_commit(commit);
        self.commit_heard();
    }

    /// Commits up to the primary's commit if that very prepare stands in this log.
    pub(super) fn commit_heard(&mut self) {
        let heard = self.catchup.commit();
        if heard.op <= self.commit || heard.op > self.log.head().op {
            return;
        }
        if self.log.id(heard.op) == Some(heard) || Mutant::CommitUnnamed.is_on() {
            self.commit_to(heard.op);
        } else if self.status == Status::Normal {
            self.ignore_commit(heard, "another prepare stands in its place");
            self.ask_start_view(self.view);
        }
    }

    /// Commits and applies up to `last`, and answers who waits for that.
    pub(super) fn commit_to(&mut self, last: Op) {
        if last <= self.commit {
            return;
        }
        assert!(last <= self.log.head().op, "nothing is committed here that is not in the log");
        let previous = self.commit;
        for op in (previous.next().as_raw()..=last.as_raw()).map(Op::new) {
            let header = *self.log.header(op).expect("uncommitted prepares are remembered");
            if op == last || !Mutant::ApplySkips.is_on() {
                self.client_table.apply(&header);
                self.outputs.push_back(Output::Apply(header));
            }
            self.commit = op;
            self.log_starts.commit(op);
            self.note_committed(&header);
        }
        self.log.forget(previous, last, self.durable);
        self.save_voice();
    }

    /// Whether a message belongs to this replica's view; tells or asks if it does not.
    pub(super) fn is_of_this_view(&mut self, from: ReplicaIndex, view: View) -> bool {
        if view < self.view {
            self.ignore_old_view(from, view);
            self.tell_newer_view(from);
        } else if view > self.view {
            self.ask_start_view(view);
        }
        view == self.view
    }

    /// Tells a replica that works in an older view of this one.
    pub(super) fn tell_newer_view(&mut self, to: ReplicaIndex) {
        if self.is_primary() {
            self.send_start_view(to, 0);
        } else if self.status == Status::Normal {
            self.send(to, Message::Commit { view: self.view, commit: self.commit() });
        }
    }

    /// Whether this replica knows its view's log well enough to take prepares for it.
    fn takes_prepares(&self) -> bool {
        self.status == Status::Normal || self.is_installing()
    }

    fn is_of_this_group(&self, prepare: &Prepare) -> bool {
        let header = prepare.header();
        header.cluster() == self.config.cluster
            && header.group() == self.config.group
            && header.view() <= self.view
    }

    fn ignore_prepare(&self, prepare: &Prepare, reason: &str) {
        tracing::warn!(group = %self.config.group, view = %self.view, id = %prepare.id(), reason, "ignore prepare");
    }

    fn ignore_commit(&self, commit: PrepareId, reason: &str) {
        tracing::warn!(group = %self.config.group, view = %self.view, %commit, reason, "ignore commit");
    }

    fn ignore_durable(&self, id: PrepareId) {
        tracing::debug!(group = %self.config.group, %id, "ignore durable: it is known, or was cut");
    }

    fn ignore_old_view(&self, from: ReplicaIndex, old: View) {
        tracing::debug!(group = %self.config.group, view = %self.view, %from, %old, "ignore message of an old view");
    }
}
