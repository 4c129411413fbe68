//! Leaving a view and choosing the log of the next one (rules V1 to V4b, V7, promise P1).
//!
//! `StartViewChange` is a proposal, not a step: whoever sends it goes on working in its view, and a replica that hears its
//! primary does not join. Only when a quorum proposes the same view is the old one left. Who has left a view says so with
//! `DoViewChange` to everybody, and everybody follows: it proves that a quorum had agreed.

use varve_protocol::id::{ReplicaIndex, View};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::message::{Message, SuffixSlot};
use varve_protocol::mutant::Mutant;
use varve_protocol::replacement::Generations;

use super::catchup::Catchup;
use super::install::Announced;
use super::{Changing, Proposal, Replica, Stage, backed_off};
use crate::client_table::ClientTable;
use crate::event::Liveness;
use crate::log_merge::{Merge, Told, merge};
use crate::status::Status;
use crate::timeout::Timer;

/// How many times as long as the first wait the later ones get in which what was said in a view change is repeated.
const REPEAT_SLOWED_MAX: u32 = 16;

impl Replica {
    pub(super) fn on_primary_liveness(&mut self, liveness: Liveness) {
        self.liveness = liveness;
        if self.status != Status::Normal {
            return;
        }
        match liveness {
            Liveness::Suspected => self.give_up_primary(),
            Liveness::Heard if self.is_content() => self.withdraw_proposal(),
            Liveness::Heard => {}
        }
    }

    /// Whether this replica works and wants no other primary.
    pub(super) fn is_content(&self) -> bool {
        self.status == Status::Normal && !self.doubts_primary() && self.leading.successor.is_none()
    }

    pub(super) fn withdraw_proposal(&mut self) {
        if self.has_proposed() {
            Mark::ProposalWithdrawn.hit();
        }
        self.proposal = Proposal::default();
        self.timers.disarm(Timer::Propose);
    }

    /// A working replica has no faith in its primary any more, which may be itself (N8): it takes no requests then, and lets
    /// those who wait look elsewhere. What it sealed still commits if it can.
    pub(super) fn give_up_primary(&mut self) {
        if self.leads_view() {
            Mark::PrimaryDoubtful.hit();
            self.refuse_waiting();
            self.refuse_reads();
        } else {
            Mark::PrimarySuspected.hit();
        }
        if !self.has_proposed() && self.is_admitted() {
            self.propose(self.next_view(self.view));
        }
    }

    pub(super) fn on_start_view_change(&mut self, from: ReplicaIndex, view: View, current: View) {
        if view <= self.view {
            return self.tell_newer_view(from);
        }
        let has_joined = self.has_proposed() && view == self.proposal.view;
        if !(self.would_join(from, current) || has_joined) || view < self.proposal.view {
            Mark::ProposalIgnored.hit();
            return self.ignore_proposal(from, view);
        }
        if view > self.proposal.view {
            self.proposal = Proposal::of(view);
        }
        self.proposal.insert(from);
        if self.has_proposed() {
            self.count_proposal();
        } else {
            Mark::ProposalJoined.hit();
            self.propose(view);
        }
    }

    /// A working replica joins only if it has given up its primary, or if the primary itself has, or if its view is over: who
    /// proposes is in a later one.
    fn would_join(&self, from: ReplicaIndex, current: View) -> bool {
        if !self.is_admitted() {
            // It has no say in who leads.
            return false;
        }
        match self.status {
            Status::Normal => {
                self.liveness == Liveness::Suspected
                    || from == self.primary()
                    || current > self.view
                    || Mutant::JoinsAnyProposal.is_on()
            }
            Status::ViewChange | Status::Recovering => true,
        }
    }

    pub(super) fn has_proposed(&self) -> bool {
        self.proposal.view > self.view && self.proposal.standing().contains(self.config.replica)
    }

    /// Proposes `view`, or the later one that others propose.
    pub(super) fn propose(&mut self, view: View) {
        if view > self.proposal.view {
            self.proposal = Proposal::of(view);
        }
        self.proposal.insert(self.config.replica);
        self.broadcast(&Message::StartViewChange { view: self.proposal.view, current: self.view });
        self.arm(Timer::Propose, self.config.timeouts.start_view_change_resend);
        self.count_proposal();
    }

    pub(super) fn repeat_proposal(&mut self) {
        if self.is_content() {
            // It joined because its primary wanted to go; if that is still so, the primary says it again.
            self.withdraw_proposal();
        } else if self.has_proposed() {
            self.proposal.age();
            self.propose(self.proposal.view);
        }
    }

    fn count_proposal(&mut self) {
        let is_quorum =
            self.members().suffice(self.proposal.standing(), 0) || Mutant::ProposalNeedsNobody.is_on();
        // Who has no voice asks the others to go on, and follows who has gone: it tells no log, so if it went first, alone, it
        // would wait for them, and they for it.
        if self.is_admitted() && self.has_proposed() && is_quorum {
            self.enter_view(self.proposal.view);
        }
    }

    /// Leaves all earlier views for good.
    pub(super) fn enter_view(&mut self, view: View) {
        assert!(view > self.view, "views only grow");
        Mark::ViewEntered.hit();
        tracing::info!(group = %self.config.group, %view, left = %self.view, "view change");
        self.stop_leading();
        self.sync_log();
        if Mutant::TableReset.is_on() {
            self.client_table = ClientTable::default();
        }
        self.view = view;
        self.status = Status::ViewChange;
        self.changing = Changing { attempts: self.changing.attempts, ..Changing::default() };
        self.catchup = Catchup::from_verified(self.commit);
        self.liveness = Liveness::Heard;
        self.start_view_asked = None;
        self.timers.disarm(Timer::AskStartView);
        self.timers.disarm(Timer::Repair);
        if self.proposal.view <= view {
            self.proposal = Proposal::default();
            self.timers.disarm(Timer::Propose);
        }
        self.arm(Timer::ViewChangeResend, self.config.timeouts.view_change_resend);
        self.arm_escalation();
        self.save_superblock(self.requested.log_view);
    }

    /// Tells what this replica holds, once its view is durable (P1) and all it holds is, too.
    pub(super) fn tell_log(&mut self) {
        let may_tell = self.status == Status::ViewChange
            && self.changing.stage == Stage::Choosing
            && (self.saved.view == self.view || Mutant::TellsBeforeViewSaved.is_on())
            && self.may_tell_log()
            && !self.has_snapshot_under_way()
            && self.durable == self.log.head().op;
        if !may_tell || self.changing.has_told {
            return;
        }
        if !self.is_admitted() {
            // It has no voice, and cannot lead without one.
            return if self.leads_view() && !self.has_proposed() {
                self.propose(self.next_view(self.view))
            };
        }
        self.changing.has_told = true;
        self.send_do_view_change();
        if self.leads_view() {
            let told = self.told();
            self.changing.told.insert(self.config.replica, told);
            self.choose_log();
        }
    }

    fn told(&self) -> Told {
        let commit = self.commit();
        let head = self.log.head().op;
        let suffix = self.log.headers(commit.op, head).copied().map(SuffixSlot::Has).collect();
        Told { log_view: self.saved.log_view, commit, head, generations: self.generations(), suffix }
    }

    /// What this replica knows of who was replaced.
    fn generations(&self) -> Generations {
        Generations {
            own: self.own_replacement().map(|(op, _)| *op).unwrap_or_default(),
            known: self.replacements.known(self.config.founders),
        }
    }

    fn send_do_view_change(&mut self) {
        let Told { log_view, commit, head, generations, suffix } = self.told();
        let view = self.view;
        self.broadcast(&Message::DoViewChange { view, log_view, commit, head, generations, suffix });
    }

    pub(super) fn on_do_view_change(&mut self, from: ReplicaIndex, view: View, told: Told) {
        if !told.is_sound() {
            return tracing::warn!(group = %self.config.group, %from, %view, "ignore unsound do_view_change");
        }
        if view > self.view {
            self.enter_view(view);
        }
        let is_old = view < self.view && !Mutant::OldTaleCounts.is_on();
        if is_old || self.status == Status::Normal {
            return self.tell_started_view(from);
        }
        if self.status == Status::ViewChange && self.leads_view() {
            let is_older = |known: &Told| known.generations.own > told.generations.own;
            if !self.changing.told.get(&from).is_some_and(is_older) {
                self.changing.told.insert(from, told);
                self.choose_log();
            }
        }
    }

    /// Tells a replica that still chooses a log that this is over.
    fn tell_started_view(&mut self, to: ReplicaIndex) {
        if self.is_primary() {
            self.send_start_view(to, 0);
        } else {
            self.tell_newer_view(to);
        }
    }

    /// Merges what was told, this replica's own log included, and starts to install the outcome.
    fn choose_log(&mut self) {
        let has_own = self.changing.told.contains_key(&self.config.replica);
        let may_lead = has_own || (self.is_torn() && self.is_admitted());
        if !may_lead || self.changing.stage == Stage::Installing {
            return;
        }
        match merge(self.config.founders, &self.changing.told) {
            Merge::Decided(merged) => {
                Mark::LogChosen.hit();
                let head = merged.head().op;
                if head.since(self.log.head().op.min(head)) > PREPARES_IN_FLIGHT_MAX {
                    Mark::LogForfeited.hit();
                    // V4b: whoever holds more of it can lead sooner. If nobody else can, this goes on.
                    tracing::info!(group = %self.config.group, view = %self.view, own = %self.log.head(), %head, "forfeit");
                    self.propose(self.next_view(self.view));
                }
                self.install(&Announced { commit: merged.commit, head, suffix: merged.headers });
            }
            Merge::Undecided => {
                tracing::debug!(group = %self.config.group, view = %self.view, "the log to start with is undecided");
            }
        }
    }

    pub(super) fn resend_in_view_change(&mut self) {
        match (self.status, self.changing.stage) {
            (Status::Normal, _) => return,
            (Status::Recovering, _) => self.ask_everybody_for_the_log(),
            (Status::ViewChange, Stage::Choosing) if self.is_torn() => self.ask_everybody_for_the_log(),
            (Status::ViewChange, Stage::Choosing) if self.changing.has_told => self.send_do_view_change(),
            // It has no voice to tell its log. The others may not know of this view, and its primary may be gone for good.
            (Status::ViewChange, Stage::Choosing) if !self.is_admitted() && !self.leads_view() => {
                self.ask_everybody_for_the_log();
            }
            (Status::ViewChange, Stage::Choosing) => self.tell_log(),
            (Status::ViewChange, Stage::Installing) if self.leads_view() => {}
            (Status::ViewChange, Stage::Installing) => self.ask_start_view(self.view),
        }
        if self.status == Status::Normal {
            return;
        }
        // Less often each time: ten thousand groups that all repeat themselves would keep a node from hearing the answers.
        self.changing.repeats += 1;
        let wait = self.config.timeouts.view_change_resend;
        self.arm(Timer::ViewChangeResend, backed_off(wait, self.changing.repeats, wait * REPEAT_SLOWED_MAX));
        if !self.timers.is_armed(Timer::ViewChangeEscalate) {
            self.arm_escalation();
        }
    }

    /// This view takes too long: proposes the next one, and goes on trying.
    pub(super) fn give_up_view(&mut self) {
        if self.status == Status::Normal || Mutant::ViewNotGivenUp.is_on() {
            return;
        }
        self.changing.attempts = self.changing.attempts.saturating_add(1);
        self.arm_escalation();
        // Without a voice it has no say in who leads, but that it does not.
        if self.is_admitted() || self.leads_view() {
            Mark::ViewGivenUp.hit();
            self.propose(self.next_view(self.view));
        }
    }

    pub(super) fn arm_escalation(&mut self) {
        let timeouts = self.config.timeouts;
        let wait = backed_off(timeouts.view_change, self.changing.attempts, timeouts.view_change_max);
        self.arm(Timer::ViewChangeEscalate, wait);
    }

    fn ignore_proposal(&self, from: ReplicaIndex, view: View) {
        tracing::debug!(group = %self.config.group, own = %self.view, %from, %view, "ignore start_view_change");
    }
}
