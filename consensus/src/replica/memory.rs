//! A group that acknowledges from memory (rule S3): what is appended counts at once, and is synced within a bounded time.
//!
//! Only the acknowledgement in a view under way is early. All else is as in other groups: the view is durable before
//! `DoViewChange` (P1), a log is told, cut or installed when all of it is synced (P2), so a view change syncs first.
//!
//! **The mark.** Before the first early acknowledgement the superblock says `is_unsynced`, durably; until then this replica
//! acknowledges what is synced. One save covers all that follows. The mark is lifted when everything acknowledged is synced
//! and nothing was appended for a while, or when the process is about to end; from the moment that is asked for nothing is
//! acknowledged early, and the mark is not set again before it was lifted. So an idle group survives a power failure
//! of all its nodes without a doubt, and no append costs a save of its own.
//!
//! **Recovery.** Who finds the mark at its start stopped uncleanly, and may lack what it acknowledged. It is in the place of
//! a replica whose log has lost its end, and does what that one does (`torn`): it is silent but for its question. It sends
//! no `DoViewChange` and no `PrepareOk`, confirms no read and leads no view whose log it has not learnt from a quorum of
//! others, until it is normal in a later view than its log view, or in its log view by the answer to a question of this life.
//!
//! Why that is enough, although recovery in the paper waits for f + 1 answers, the primary of the latest view among them. The
//! paper's replica has forgotten its view, and needs a quorum to learn of every view that it may have promised to enter. Here
//! view and log view are on the disk before anything that depends on them. So this replica believes nobody who works in an
//! older view than it has ever entered; and three cases are left for who answers:
//!
//! * *A later view v than the log view.* Nothing was acknowledged here in v: the log view is durable before. What was committed
//!   before v is in the log that v began with, for that was chosen from the tales of a quorum, and a tale is all that its
//!   teller ever acknowledged: it is told in the life of the acknowledgements, or in one that was recovered. The log
//!   view moves to v when all that was announced of v is synced here. If v is over by now and nobody here knows, this replica
//!   is no worse than one that was slow all the time: it never entered what followed.
//! * *The log view itself.* Its primary answers as the primary it has been since the view began, for a primary that restarts never
//!   leads that view again. All that was acknowledged here in this view is a piece of its log, which never gets shorter, and the
//!   nonce says that this is the log of now, not of before the crash. If that primary is a stale one, then its successors
//!   began without this replica, and a quorum of others holds what they acknowledged; it is as if this replica had not
//!   stopped, and had heard nothing of them.
//! * *An older view* than the one that this replica has entered: refused, whoever answers. A replica that acknowledged something
//!   in a later view than its answerer's has that later log view on its disk.
//!
//! A primary that stops uncleanly is one of these: it comes back as a backup of the next view, whose log is chosen from the
//! tales of a quorum without it, and what it committed is in one of them at least, if no more than f are silent.
//!
//! **More than f at once**, the primary among them: no quorum is left that may tell, and no view begins. That is where
//! guessing would begin, so the group waits ("unsafe restart") until an operator has one replica after the other go on with
//! what it has ([`crate::Input::ForceRecover`]). What is lost then was acknowledged and not synced by any replica that takes
//! part in the next view change.

use varve_protocol::durability::Durability;
use varve_protocol::id::Op;
use varve_protocol::limits::HEADERS_PER_MESSAGE_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::superblock::Superblock;

use super::Replica;
use crate::event::Output;
use crate::status::Status;
use crate::timeout::Timer;

/// Prepares that wait for a sync before the bounded time is over: half of what a replica lets wait for its disk.
const UNSYNCED_MAX: u64 = HEADERS_PER_MESSAGE_MAX as u64 / 2;

/// What a superblock says to who finds it at its start.
pub(super) fn as_found(superblock: Superblock) -> Superblock {
    let may_lack = superblock.is_unsynced && !Mutant::MemoryVotesAfterCrash.is_on();
    Superblock { is_torn: superblock.is_torn || may_lack, is_unsynced: false, ..superblock }
}

impl Replica {
    /// The newest op that this replica acknowledges, and all below it.
    pub(super) fn held(&self) -> Op {
        if self.may_vouch() { self.durable.max(self.vouched) } else { self.durable }
    }

    /// Whether nothing is to be done any more before the process may end without leaving a doubt.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        !self.saved.is_unsynced && !self.requested.is_unsynced
    }

    /// Whether so many replicas may lack what they acknowledged that the others are no quorum: unless one of those still
    /// leads, the group waits for an operator.
    #[must_use]
    pub fn is_restart_unsafe(&self) -> bool {
        let sound = self.peers().filter(|peer| !self.torn_peers.contains(*peer)).collect();
        self.is_torn() && !self.members().suffice(sound, 0)
    }

    fn is_from_memory(&self) -> bool {
        self.config.durability == Durability::QuorumMemory
    }

    fn may_vouch(&self) -> bool {
        let is_marked = self.saved.is_unsynced && self.requested.is_unsynced;
        self.is_from_memory()
            && self.status == Status::Normal
            && (is_marked || Mutant::MemoryMarkNotSaved.is_on())
    }

    /// Something was handed to the log.
    pub(super) fn note_appended(&mut self) {
        if !self.is_from_memory() {
            return;
        }
        if self.status != Status::Normal || self.is_stopping {
            return self.sync_log();
        }
        self.mark_unsynced();
        if !self.timers.is_armed(Timer::Sync) {
            self.timers.arm(Timer::Sync, self.now.plus(self.config.timeouts.memory_sync));
        }
        self.timers.arm(Timer::Rest, self.now.plus(self.config.timeouts.memory_rest));
        if self.log.head().op.since(self.durable) >= UNSYNCED_MAX && self.syncing <= self.durable {
            Mark::SyncedForRoom.hit();
            self.sync_log();
        }
    }

    /// Acknowledges what was appended, as far as that is done from memory.
    pub(super) fn acknowledge_appended(&mut self) {
        if !self.may_vouch() || self.vouched.max(self.durable) >= self.log.head().op {
            return;
        }
        Mark::AcknowledgedEarly.hit();
        self.vouched = self.log.head().op;
        if self.leads_view() { self.commit_acknowledged() } else { self.send_prepare_ok() }
    }

    /// Has everything synced that is in the log, unless that is under way. Other groups sync whatever they append.
    pub(super) fn sync_log(&mut self) {
        let head = self.log.head().op;
        if self.is_from_memory() && self.durable < head && self.syncing < head {
            self.syncing = head;
            self.outputs.push_back(Output::Sync);
        }
    }

    pub(super) fn sync_is_due(&mut self) {
        self.sync_log();
        if self.durable < self.log.head().op {
            self.timers.arm(Timer::Sync, self.now.plus(self.config.timeouts.memory_sync));
        }
    }

    /// Nothing was appended for a while.
    pub(super) fn rest(&mut self) {
        self.lift_mark();
        if self.requested.is_unsynced {
            self.timers.arm(Timer::Rest, self.now.plus(self.config.timeouts.memory_rest));
        }
    }

    /// Says on the disk that acknowledgements may be early, once it is known whether it says so already.
    fn mark_unsynced(&mut self) {
        if !self.requested.is_unsynced && !self.saved.is_unsynced && !self.is_stopping {
            self.requested.is_unsynced = true;
            self.save_superblock(self.requested.log_view);
        }
    }

    /// Takes that back if all that was acknowledged is synced, and the mark known to be there: the two never overtake each
    /// other on their way to the disk, because each waits for the other to have arrived.
    pub(super) fn lift_mark(&mut self) {
        let is_synced = self.durable >= self.vouched || Mutant::MemoryMarkLifted.is_on();
        if self.requested.is_unsynced && self.saved.is_unsynced && is_synced {
            Mark::MarkLifted.hit();
            self.requested.is_unsynced = false;
            self.save_superblock(self.requested.log_view);
        }
    }

    /// The disk has caught up with something: what waited for that.
    pub(super) fn note_synced(&mut self) {
        if self.is_stopping {
            self.lift_mark();
        }
    }

    /// A superblock is durable: perhaps the mark, perhaps that it is lifted.
    pub(super) fn note_mark_saved(&mut self) {
        if self.is_stopping {
            return self.lift_mark();
        }
        if self.is_from_memory() && self.status == Status::Normal && self.durable < self.log.head().op {
            self.mark_unsynced();
            self.acknowledge_appended();
        }
    }

    pub(super) fn on_stop(&mut self) {
        self.is_stopping = true;
        self.sync_log();
        self.lift_mark();
    }

    /// The operator takes the blame for what this replica has lost.
    pub(super) fn on_force_recover(&mut self) {
        if !self.is_torn() {
            return tracing::info!(group = %self.config.group, "nothing to force: this replica lacks nothing");
        }
        Mark::ForcedOn.hit();
        let head = self.log.head();
        tracing::warn!(group = %self.config.group, view = %self.view, %head, "forced to go on with what is left of the log");
        self.nonce = 0;
        self.requested.is_torn = false;
        // What it knew to be committed above that may come out otherwise now.
        self.requested.commit = self.requested.commit.min(head.op);
        self.save_superblock(self.requested.log_view);
    }
}
