//! A replica whose log has lost its end: something that was durable behind its last prepare is gone, nobody can tell how much.
//!
//! It may have acknowledged what it lost, and a quorum may have counted on it. So it says nothing about its log: whoever
//! chooses the log of a view would take "lacks" for proof that the prepare was never stored here. Until the doubt ends it is
//! no more than a replica that is down: it sends no `DoViewChange`, and no `PrepareOk`, and leads no view whose log it did not
//! learn from a quorum of others. It asks everybody for the log instead, and takes it from a `StartView`.
//!
//! The doubt ends when this replica becomes normal, because it then holds what it has ever acknowledged and may not be lost:
//!
//! * in a later view than its log view: that view's log has all that was committed before, and nothing was acknowledged here
//!   in that view;
//! * in its log view: the primary of that view has sealed, or announced, all that was acknowledged here in it, and a primary
//!   that restarts never resumes its view. So its log has it, as it is **now**; an older `StartView` may end before it. The
//!   answer is known by the nonce of the question, which is drawn anew in every life.
//!
//! The doubt is in the superblock, because the next prepares that are appended behind the lost ones make the log look sound.
//! It is void as soon as the log view moves on.
//!
//! A replica that acknowledged from memory and stopped uncleanly is in the same place (`memory`).

use rand::Rng;
use varve_protocol::id::{ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::mutant::Mutant;

use super::Replica;
use crate::event::Output;
use crate::quorum::Votes;

impl Replica {
    /// Whether this replica's log has lost its end, and it has not made up for that yet.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.requested.is_torn
    }

    pub(super) fn begin_doubt(&mut self) {
        if self.is_torn() {
            tracing::warn!(group = %self.config.group, view = %self.view, head = %self.log.head(), "the log has lost its end");
            self.nonce = self.rng.random_range(1..=u64::MAX);
        }
    }

    /// Whether what this replica says of its log is true.
    pub(super) fn may_tell_log(&self) -> bool {
        !self.is_torn() || Mutant::TornTellsLog.is_on()
    }

    /// Whether a `StartView` may be from before the end of the log was lost, and end before it.
    pub(super) fn may_be_too_old(&self, view: View, nonce: u64) -> bool {
        self.is_torn()
            && view == self.view
            && view == self.requested.log_view
            && nonce != self.nonce
            && !Mutant::TornTakesOldLog.is_on()
    }

    /// In place of telling its own.
    pub(super) fn ask_everybody_for_the_log(&mut self) {
        if self.is_torn() {
            Mark::TornSilent.hit();
        }
        self.broadcast(&Message::GetStartView { view: self.view, nonce: self.nonce });
    }

    /// Keeps count of who else is silent. Only who asks with a nonce is torn.
    pub(super) fn note_torn(&mut self, from: ReplicaIndex, message: &Message) {
        if !self.is_torn() {
            return;
        }
        match message {
            Message::GetStartView { nonce: 1.., .. } => {
                self.torn_peers.insert(from);
                if self.is_restart_unsafe() {
                    Mark::RestartUnsafe.hit();
                }
            }
            Message::DoViewChange { .. } | Message::StartView { .. } | Message::PrepareOk { .. } => {
                self.torn_peers.remove(from);
            }
            Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => {}
        }
    }

    /// This replica holds the log of its view.
    pub(super) fn end_doubt(&mut self) {
        self.nonce = 0;
        self.torn_peers = Votes::default();
        if self.requested.is_torn {
            Mark::TornRecovered.hit();
            self.requested.is_torn = false;
            self.outputs.push_back(Output::SaveSuperblock(self.requested));
        }
    }
}
