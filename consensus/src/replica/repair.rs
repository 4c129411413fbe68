//! Fetching what is missing, one question at a time, and answering such questions (rules R1, N3).
//!
//! A backup asks the primary of its view; the primary of a view that is being installed asks those who told it that they
//! hold the log. What is asked for is named exactly, or verified to chain onto what is known, so an answer may come from
//! anybody at any time.
//! Headers are served up to the own commit, which no later view changes; beyond it only by a normal primary.

use std::time::Duration;

use varve_protocol::id::{Op, ReplicaIndex, View};
use varve_protocol::limits::{HEADERS_PER_MESSAGE_MAX, PREPARES_IN_FLIGHT_MAX, REPAIR_PREPARES_MAX};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};

use super::catchup::Want;
use super::{Replica, backed_off};
use crate::event::Output;
use crate::status::Status;
use crate::timeout::Timer;

impl Replica {
    /// Gets as close to the view's log as what is known allows, and asks for what is not.
    pub(super) fn pursue(&mut self) {
        if self.is_primary() || (self.status != Status::Normal && !self.is_installing()) {
            return;
        }
        if self.status == Status::Normal || self.agree_on_log() {
            self.append_fetched();
            self.commit_heard();
            self.finish_install();
        }
        self.fetch_missing();
    }

    /// Appends prepares that are at hand and next.
    fn append_fetched(&mut self) {
        let before = self.log.head().op;
        while let Some(prepare) = self.catchup.ready(self.log.head().op.next()).cloned() {
            if self.is_disk_full_of_work() {
                Mark::DiskOutrun.hit();
                self.sync_log();
                break;
            }
            if prepare.header().parent() != self.log.head() && !Mutant::WrongParentTaken.is_on() {
                tracing::warn!(group = %self.config.group, id = %prepare.id(), "ignore prepare of another parent");
                Mark::FactsDistrusted.hit();
                self.catchup.distrust();
                return self.ask_start_view(self.view);
            }
            self.append(prepare);
        }
        self.acknowledge_appended();
        let head = self.log.head().op;
        self.catchup.advance(head);
        if head > before && self.is_installing() {
            self.arm_escalation();
        }
    }

    /// Asks for the next thing missing, unless a question is out or the disk is behind.
    pub(super) fn fetch_missing(&mut self) {
        let next = if self.is_installing() { self.catchup.verified() } else { self.log.head().op }.next();
        if next > self.catchup.target() || Mutant::NoRepair.is_on() {
            self.catchup.set_asked(None);
            return self.timers.disarm(Timer::Repair);
        }
        let is_disk_behind = self.log.head().op.since(self.durable) >= PREPARES_IN_FLIGHT_MAX;
        if is_disk_behind {
            return self.sync_log();
        }
        if self.catchup.is_asked(next) {
            return;
        }
        if self.catchup.is_following() && self.status == Status::Normal {
            Mark::PrepareAwaited.hit();
            if !self.timers.is_armed(Timer::Repair) {
                self.arm(Timer::Repair, self.config.timeouts.follow);
            }
            return;
        }
        let Some(want) = self.catchup.want(next) else { return };
        self.catchup.lose_track();
        self.arm(Timer::Repair, self.repair_wait());
        self.catchup.set_asked(Some(want.clone()));
        let Some(source) = self.source(&want) else { return };
        let view = self.view;
        let message = match want {
            Want::Headers { first, last } => Message::GetHeaders { view, first, last },
            Want::Prepares(ids) => Message::GetPrepares { view, ids },
        };
        self.send(source, message);
    }

    /// Whom to ask: the primary, or if that is this replica, in turn those who hold the first thing wanted.
    fn source(&self, want: &Want) -> Option<ReplicaIndex> {
        if !self.leads_view() {
            return Some(self.primary());
        }
        let told = self.changing.told.iter().filter(|(replica, _)| **replica != self.config.replica);
        let holders = told.filter(|(_, told)| match want {
            Want::Headers { first, .. } => told.commit.op >= *first,
            Want::Prepares(ids) => ids.first().is_some_and(|id| told.holds(*id)),
        });
        let holders: Vec<_> = holders.map(|(replica, _)| *replica).collect();
        (!holders.is_empty()).then(|| holders[self.catchup.rotation % holders.len()])
    }

    /// How long an answer is waited for. Who can ask only the primary asks ever more rarely: an answer that is slow to come is not sped
    /// up by another one behind it.
    fn repair_wait(&self) -> Duration {
        let timeouts = self.config.timeouts;
        let is_in_step = self.leads_view() || Mutant::AsksInStep.is_on();
        let repeats = if is_in_step { 0 } else { self.catchup.repeats };
        backed_off(timeouts.repair, repeats, timeouts.repair_max)
    }

    /// Nobody answered in time: asks the next one. Or the primary, in whose stream this replica was, sends nothing more: asks for it.
    pub(super) fn ask_again(&mut self) {
        if self.catchup.is_following() {
            if Mutant::AwaitsForEver.is_on() {
                return;
            }
            Mark::StreamEnded.hit();
            self.catchup.lose_track();
            return self.fetch_missing();
        }
        Mark::RepairRepeated.hit();
        self.catchup.rotation += 1;
        self.catchup.repeats += 1;
        self.catchup.misses = 0;
        self.catchup.set_asked(None);
        self.fetch_missing();
    }

    pub(super) fn on_headers(&mut self, view: View, headers: &[PrepareHeader]) {
        let after =
            if self.is_installing() { self.log.id(self.catchup.verified()) } else { Some(self.log.head()) };
        let is_news =
            view == self.view && after.is_some_and(|after| self.catchup.learn_chain(after, headers));
        if is_news {
            Mark::HeadersLearned.hit();
            self.pursue();
        } else {
            tracing::debug!(group = %self.config.group, count = headers.len(), "ignore headers that were not wanted");
        }
    }

    pub(super) fn on_repair_prepare(&mut self, prepare: Prepare) {
        let id = prepare.id();
        if self.catchup.supply(prepare) {
            Mark::PrepareRepaired.hit();
            self.pursue();
        } else {
            tracing::debug!(group = %self.config.group, %id, "ignore prepare that was not wanted");
        }
    }

    /// A new primary asks somebody else at once; a backup can only ask its primary again, later.
    pub(super) fn on_repair_missing(&mut self, id: PrepareId) {
        let is_wanted = self.catchup.header(id.op).is_some_and(|header| header.id() == id);
        if is_wanted && self.leads_view() && self.catchup.misses < usize::from(self.config.places) {
            Mark::RepairRefused.hit();
            self.catchup.misses += 1;
            self.catchup.rotation += 1;
            self.catchup.set_asked(None);
            self.fetch_missing();
        }
    }

    pub(super) fn on_get_headers(&mut self, from: ReplicaIndex, first: Op, last: Op) {
        let limit = if self.is_primary() { self.log.head().op } else { self.commit };
        let last = last.min(limit).min(first.plus(HEADERS_PER_MESSAGE_MAX as u64 - 1));
        if first == Op::ZERO || first > last {
            return tracing::debug!(group = %self.config.group, %from, %first, %last, "ignore get_headers");
        }
        if first > self.log.base().op {
            let headers = self.log.headers(first, last).copied().collect();
            self.send(from, Message::Headers { view: self.view, headers });
        } else {
            let last = last.min(self.commit);
            self.outputs.push_back(Output::ServeHeaders { to: from, view: self.view, first, last });
        }
    }

    pub(super) fn on_get_prepares(&mut self, from: ReplicaIndex, ids: &[PrepareId]) {
        let view = self.view;
        let mut from_disk = Vec::new();
        for &id in ids.iter().take(usize::try_from(REPAIR_PREPARES_MAX).unwrap_or(usize::MAX)) {
            let is_here = self.log.id(id.op) == Some(id) || id.op < self.log.base().op;
            if let Some(prepare) = self.log.prepare(id.op).filter(|prepare| prepare.id() == id).cloned() {
                self.send(from, Message::RepairPrepare { view, prepare });
            } else if is_here && id.op > Op::ZERO {
                from_disk.push(id);
            } else {
                self.send(from, Message::RepairMissing { view, id });
            }
        }
        if !from_disk.is_empty() {
            self.outputs.push_back(Output::ServePrepares { to: from, view, ids: from_disk });
        }
    }
}
