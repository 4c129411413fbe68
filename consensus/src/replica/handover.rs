//! A primary that goes: at the operator's wish (rule V8), or because nothing moves any more though its peers are alive (the
//! second half of rule N8).
//!
//! A handover is a view change that nobody waits for. The primary takes no new requests, lets what it has sealed commit, and
//! when its successor holds all of it durably proposes the next view that the successor leads. The others join at once, for
//! it is their primary that gives the view up. A client sees "busy" for a moment, then a redirect.

use varve_protocol::id::{Op, ReplicaIndex};
use varve_protocol::limits::PREPARES_IN_FLIGHT_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;

use super::{Progress, Replica};
use crate::timeout::Timer;

impl Replica {
    pub(super) fn on_hand_over(&mut self, to: ReplicaIndex) {
        let is_other = to != self.config.replica && self.members().settled().contains(to);
        if !is_other || !self.takes_requests() || self.leading.successor.is_some() {
            return tracing::debug!(group = %self.config.group, %to, "ignore a handover: not possible now");
        }
        if self.lag(to) > PREPARES_IN_FLIGHT_MAX {
            Mark::HandoverRefused.hit();
            return tracing::info!(group = %self.config.group, %to, "no handover: it is far behind");
        }
        tracing::info!(group = %self.config.group, view = %self.view, %to, "hand over");
        Mark::HandoverBegun.hit();
        self.leading.successor = Some(to);
        self.arm(Timer::HandOver, self.config.timeouts.handover);
        self.continue_handover();
    }

    /// Proposes the successor's view when nothing is under way and the successor holds everything.
    pub(super) fn continue_handover(&mut self) {
        let Some(to) = self.leading.successor else { return };
        let head = self.log.head().op;
        let is_ready = self.commit == head && self.acknowledged_by(to) == head;
        if (is_ready || Mutant::HandOverUnready.is_on()) && !self.has_proposed() {
            self.propose(self.config.next_view_of(to, self.view));
        }
    }

    pub(super) fn give_up_handover(&mut self) {
        if let Some(to) = self.leading.successor.take() {
            Mark::HandoverGivenUp.hit();
            tracing::warn!(group = %self.config.group, view = %self.view, %to, "handover given up: it took too long");
        }
        if self.is_content() {
            self.withdraw_proposal();
        }
    }

    /// Looks after a while whether anything of what is sealed now has moved.
    pub(super) fn watch_for_stall(&mut self) {
        if !self.timers.is_armed(Timer::Stall) && self.peers().next().is_some() {
            self.leading.seen = self.progress();
            self.arm(Timer::Stall, self.config.timeouts.stall);
        }
    }

    fn progress(&self) -> Progress {
        Progress { head: self.log.head().op, commit: self.commit, durable: self.durable }
    }

    /// A primary whose group commits nothing although it hears a quorum, or whose own disk takes nothing, gives way.
    pub(super) fn look_for_stall(&mut self) {
        if self.stands_still() {
            let since = self.leading.seen;
            tracing::warn!(group = %self.config.group, view = %self.view, ?since, "nothing moves; another shall lead");
            Mark::StallFound.hit();
            self.leading.is_stuck = true;
            self.give_up_primary();
        }
        if self.durable.min(self.commit) < self.log.head().op {
            self.watch_for_stall();
        }
    }

    /// Whether nothing of what was sealed at the last look has been committed since, or nothing been written here.
    fn stands_still(&self) -> bool {
        let seen = self.leading.seen;
        let stands = |then: Op, now: Op| then == now && then < seen.head;
        stands(seen.commit, self.commit) || stands(seen.durable, self.durable)
    }

    /// What was stuck may have moved; when all is done there is nothing to look after.
    pub(super) fn note_progress(&mut self) {
        if self.durable.min(self.commit) == self.log.head().op {
            self.timers.disarm(Timer::Stall);
        }
        if self.leading.is_stuck && !self.stands_still() {
            Mark::StallEnded.hit();
            self.leading.is_stuck = false;
            if self.is_content() {
                self.withdraw_proposal();
            }
        }
    }
}
