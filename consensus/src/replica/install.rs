//! Making the log of a view durable here, and starting to work in that view (rules V5, V6, promise P2).
//!
//! The new primary learns the log from the merge, a backup from `StartView`; from there on both do the same:
//! 1. agree: find how far the own log is the view's log; cut what conflicts, never at or below the commit, and nothing that
//!    is not *known* to conflict (an entry cut by mistake may be the one copy that made a quorum);
//! 2. fetch and append what is missing;
//! 3. when all that was announced is durable, make `log_view = view` durable;
//! 4. be normal.
//!
//! A cut waits until the disk queue has no append under way, so that a `Durable` can never speak of a prepare that was cut
//! and then written again.

use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{PrepareHeader, PrepareId};

use super::catchup::Catchup;
use super::{Changing, Proposal, Replica, Stage};
use crate::event::Output;
use crate::status::Status;
use crate::timeout::Timer;

/// The log that a view starts with, or goes on with, as its primary tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Announced {
    pub(super) commit: PrepareId,
    pub(super) head: Op,
    /// The header at `commit` (unless it is the root) and all above it, up to `head`.
    pub(super) suffix: Vec<PrepareHeader>,
}

impl Announced {
    fn is_sound(&self) -> bool {
        let first = if self.commit == PrepareId::ROOT { Op::new(1) } else { self.commit.op };
        let ops = self.suffix.iter().map(PrepareHeader::op);
        let is_anchored = match self.suffix.first() {
            Some(header) => header.id() == self.commit || header.parent() == self.commit,
            None => self.commit == PrepareId::ROOT,
        };
        ops.eq((first.as_raw()..=self.head.as_raw()).map(Op::new))
            && is_anchored
            && self.suffix.windows(2).all(|pair| pair[1].parent() == pair[0].id())
    }
}

impl Replica {
    pub(super) fn on_start_view(
        &mut self,
        from: ReplicaIndex,
        view: View,
        nonce: u64,
        announced: &Announced,
    ) {
        if view < self.view && !Mutant::OldStartViewTaken.is_on() {
            return self.tell_newer_view(from);
        }
        if from != self.config.primary(view) || !announced.is_sound() {
            return tracing::warn!(group = %self.config.group, %from, %view, "ignore unsound start_view");
        }
        if self.may_be_too_old(view, nonce) {
            Mark::StartViewTooOld.hit();
            return tracing::debug!(group = %self.config.group, %from, %view, "ignore start_view: it may be too old");
        }
        if view > self.view {
            self.enter_view(view);
        }
        match self.status {
            Status::Normal => self.go_on(announced),
            Status::ViewChange | Status::Recovering => self.install(announced),
        }
    }

    /// A normal backup compares itself with its primary.
    fn go_on(&mut self, announced: &Announced) {
        self.learn_announced(announced);
        self.pursue();
        if self.catchup.target() <= self.log.head().op {
            self.send_prepare_ok();
        }
    }

    /// Takes `announced` for the log of the view that this replica is changing to.
    pub(super) fn install(&mut self, announced: &Announced) {
        if !self.is_installing() {
            // A log that was durable in this view once is a part of the view's log, however old the announcement is.
            let was_normal = self.requested.log_view == self.view && !Mutant::CutWithoutNeed.is_on();
            let verified = if was_normal { self.log.head().op } else { self.commit };
            assert!(
                was_normal || announced.head >= self.commit,
                "the log of a later view contains everything committed before"
            );
            if self.status == Status::Recovering {
                Mark::BackupRestarted.hit();
            }
            self.status = Status::ViewChange;
            self.changing.stage = Stage::Installing;
            self.catchup = Catchup::from_verified(verified);
        }
        self.learn_announced(announced);
        self.arm_escalation();
        self.pursue();
    }

    fn learn_announced(&mut self, announced: &Announced) {
        for header in &announced.suffix {
            let own = self.log.id(header.op()).filter(|own| own.op <= self.commit);
            assert!(
                own.is_none_or(|own| own == header.id()),
                "a committed prepare stays in the log of every later view"
            );
            self.catchup.learn(*header);
        }
        self.catchup.hear_announced(announced.head);
        self.hear_commit(announced.commit);
    }

    /// Makes the own log a prefix of the view's log. Says whether it is one; if not, headers or the disk must come first.
    pub(super) fn agree_on_log(&mut self) -> bool {
        self.catchup.compare(&self.log, self.commit);
        let verified = self.catchup.verified();
        if verified == self.log.head().op {
            return true;
        }
        let conflicts = self.catchup.header(verified.next()).is_some();
        let is_beyond = verified >= self.catchup.announced();
        let keep = if Mutant::CutTooFar.is_on() { verified.previous() } else { verified };
        if conflicts || is_beyond { self.cut(keep) } else { false }
    }

    /// Cuts the log behind `keep`, once no append is under way. Says whether that is done.
    pub(super) fn cut(&mut self, keep: Op) -> bool {
        assert!(keep >= self.commit, "nothing committed is ever cut");
        if self.durable != self.log.head().op && !Mutant::CutUnderWrites.is_on() {
            Mark::CutAwaited.hit();
            return false;
        }
        tracing::info!(group = %self.config.group, view = %self.view, %keep, head = %self.log.head(), "cut");
        Mark::SuffixCut.hit();
        self.log.truncate(keep);
        self.replacements.truncate(keep);
        self.log_starts.truncate(keep);
        self.durable = keep;
        self.vouched = self.vouched.min(keep);
        self.syncing = self.syncing.min(keep);
        self.outputs.push_back(Output::Truncate { keep });
        true
    }

    /// Moves on when all that was announced is durable here (P2).
    pub(super) fn finish_install(&mut self) {
        let announced = self.catchup.announced();
        let is_whole = self.is_installing()
            && self.catchup.verified() == self.log.head().op
            && !self.has_snapshot_under_way()
            && (self.durable >= announced || Mutant::LogViewBeforeLog.is_on());
        if !is_whole {
            return;
        }
        if self.saved.log_view == self.view {
            self.become_normal();
        } else if self.requested.log_view < self.view {
            self.save_superblock(self.view);
        }
    }

    fn become_normal(&mut self) {
        assert!(self.saved.log_view == self.view, "a replica works in a view whose log it holds, durably");
        self.end_doubt();
        self.status = Status::Normal;
        self.changing = Changing::default();
        self.proposal = Proposal::default();
        for timer in [Timer::Propose, Timer::ViewChangeResend, Timer::ViewChangeEscalate] {
            self.timers.disarm(timer);
        }
        tracing::info!(group = %self.config.group, view = %self.view, head = %self.log.head(), "normal");
        if self.leads_view() {
            self.catchup = Catchup::default();
            self.timers.disarm(Timer::Repair);
            self.start_leading();
        } else {
            self.send_prepare_ok();
            self.fetch_missing();
        }
        if self.doubts_primary() {
            // Said while the view was being changed; it will not be said again.
            self.give_up_primary();
        }
    }

    pub(super) fn on_get_start_view(&mut self, from: ReplicaIndex, view: View, nonce: u64) {
        let is_mute_primary = !self.is_admitted() && self.config.primary(view) == self.config.replica;
        if self.is_primary() && view <= self.view {
            self.send_start_view(from, nonce);
        } else if view < self.view {
            self.tell_newer_view(from);
        } else if view > self.view && is_mute_primary && nonce == 0 {
            // It led that view before its disk was lost. The others are not to wait for it.
            self.ask_start_view(view);
        } else if view > self.view {
            // Like a `DoViewChange` this proves that a quorum had agreed on that view. It may be the only word of it: who asks
            // may be torn, or have no voice, and whoever it has that from may be gone for good.
            tracing::debug!(group = %self.config.group, %from, %view, "asked for the log of a later view: follow");
            self.enter_view(view);
        } else {
            tracing::debug!(group = %self.config.group, %from, %view, "ignore get_start_view: not this replica's to answer");
        }
    }

    pub(super) fn send_start_view(&mut self, to: ReplicaIndex, nonce: u64) {
        assert!(self.is_primary(), "only a normal primary starts a view");
        let commit = self.commit();
        let head = self.log.head().op;
        let suffix = self.log.headers(commit.op, head).copied().collect();
        self.send(to, Message::StartView { view: self.view, commit, head, suffix, nonce });
    }

    /// Asks once more for the log of a view that was heard of.
    pub(super) fn ask_start_view_again(&mut self) {
        if let Some((view, _)) = self.start_view_asked.take()
            && view > self.view
        {
            self.ask_start_view(view);
        }
    }

    /// Asks the primary of `view` for its log, at most once in a while.
    pub(super) fn ask_start_view(&mut self, view: View) {
        let was_asked_lately = self
            .start_view_asked
            .is_some_and(|(asked, at)| asked == view && self.now.since(at) < self.config.timeouts.repair);
        let to = self.config.primary(view);
        let is_own = to == self.config.replica && view > self.view;
        if is_own && !self.is_admitted() && self.proposal.view <= view {
            // The others follow who led here before its disk was lost, and hear that this node is there.
            Mark::ListenerAsked.hit();
            return self.propose(self.next_view(view));
        }
        if was_asked_lately || to == self.config.replica {
            return;
        }
        self.start_view_asked = Some((view, self.now));
        if view > self.view {
            Mark::LaterViewHeard.hit();
            // Whoever told of that view may have no reason to tell again.
            self.arm(Timer::AskStartView, self.config.timeouts.view_change);
        }
        self.send(to, Message::GetStartView { view, nonce: self.nonce });
    }
}
