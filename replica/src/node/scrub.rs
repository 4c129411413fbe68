//! Logs that are looked at again and again, so that what rots is found while others still have it, and mended from them.
//!
//! ```text
//!   due ──▶ Scrub a piece ──▶ nothing: the next piece, when its time has come
//!                        └──▶ damage: fetched from peers by name ──▶ Patch ──▶ as it was
//! ```
//! The replica works meanwhile. It knows what it has lost by name, and all of it is committed: so it says nothing of it that
//! is not true, votes with what it knows, and goes on appending. Whoever asks for a prepare that has rotted is not answered, and
//! a consumer is refused and asks elsewhere, or again.
//!
//! Where the others have let go of what has rotted here, this replica lets go of it as well when the entry that says so is committed
//! here, with the snapshot of one of them; until then nothing needs it. Should none of them ever fit, it begins anew (`anew`).
//!
//! Nobody is asked twice for the same without a pause, which doubles while nothing comes of it, up to two seconds; whoever finds the
//! same damage again meanwhile has to wait as well.

use std::time::Duration;

use rand::Rng;
use varve_consensus::Replica;
use varve_protocol::client::Refusal;
use varve_protocol::id::{GroupId, NodeId, Op};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;
use varve_storage::{Damage, Finding, Hole, Job, ReadFrom, ScrubFrom, Scrubbed, StorageError};

use crate::group::Group;
use crate::mending::{Mending, Step};
use crate::node::Node;
use crate::scrubbing::{Lookable, PIECE_BYTES, Piece, RottenBase};
use crate::timers::Due;

/// Between two questions for what a log builds on, in milliseconds: drawn, so that two that need each other do not ask at the same
/// time for good.
const ASK_FOR_BASE_AFTER_MS: std::ops::Range<u64> = 1000..2000;

impl Lookable for Group {
    fn limit(&self) -> Option<Op> {
        let limit = |replica: &Replica| replica.commit().op.min(replica.durable().op);
        self.replica().map(limit).filter(|limit| *limit > Op::ZERO)
    }
}

impl Node {
    pub(super) fn on_scrub_due(&mut self) {
        self.scrubbing.due = None;
        let now = self.now;
        match self.scrubbing.next(&self.groups, (now, self.wall)) {
            Some(Piece { group, from, last }) => {
                if self.scrubbing.has_begun_pass() {
                    self.submit(Job::ScrubShared);
                }
                self.submit(Job::Scrub { group, from, bytes_max: PIECE_BYTES, last });
            }
            None => self.arm_scrub(self.scrubbing.idle_until(now)),
        }
    }

    pub(super) fn arm_scrub(&mut self, at: Option<Moment>) {
        if self.scrubbing.due == at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut self.scrubbing.due, at) {
            self.timers.clear(before, Due::Scrub);
        }
        if let Some(at) = at {
            self.timers.set(at, Due::Scrub);
        }
    }

    /// A piece of a log was looked at.
    pub(super) fn on_scrubbed(&mut self, id: GroupId, piece: Scrubbed) {
        let has_found = !piece.findings.is_empty();
        let has_log = self.groups.get(&id).and_then(Group::replica).is_some();
        if has_log && self.scrubbing.is_look_valid() {
            for finding in piece.findings {
                self.note_finding(id, finding);
            }
            self.tend(id);
        }
        let looked = (piece.bytes, piece.next.filter(|_| has_log));
        let times = (self.now, self.wall);
        let due = self.scrubbing.note_looked(looked, has_found, &self.groups, times);
        self.arm_scrub(Some(due));
    }

    /// What all groups share was looked at.
    pub(super) fn on_shared_scrubbed(&mut self, was_sound: bool) {
        if !was_sound {
            // It was written anew at once.
            self.scrubbing.status.damages_found += 1;
            self.scrubbing.status.damages_mended += 1;
        }
    }

    fn note_finding(&mut self, id: GroupId, finding: Finding) {
        match finding {
            Finding::Prepares { path, damage } => {
                let (first, last) = (damage.after.op.next(), damage.last.op);
                let file = path.display().to_string();
                if self.scrubbing.note_wound(id, path, damage) {
                    tracing::error!(group = %id, file, %first, %last, "a part of the log cannot be read any more");
                }
            }
            Finding::Block { path } => {
                tracing::warn!(group = %id, file = %path.display(), "what is local in a segment had rotted, and is written anew");
                self.scrubbing.status.damages_found += 1;
                self.scrubbing.status.damages_mended += 1;
            }
            Finding::Snapshot { path, id: last } => {
                let file = path.display().to_string();
                if self.scrubbing.note_rotten_base(id, RottenBase { path, id: last }) {
                    tracing::error!(group = %id, file, "what the log builds on cannot be read any more");
                    self.ask_for_base(id);
                }
            }
        }
    }

    /// What is to be let go cannot be read.
    pub(super) fn on_cannot_let_go(&mut self, id: GroupId, op: Op) {
        self.suspect(id, ReadFrom::Op(op));
        if self.scrubbing.is_missing(id, op) {
            // Of one stretch the others have let go of a part only: it cannot be told where the rest begins.
            self.on_none_fits(id);
        }
    }

    /// Asks the others for what the log here builds on and cannot be read, until there is something that fits: who has let go of as
    /// much or more answers with its snapshot. If none ever fits, the replica is to begin anew.
    pub(super) fn ask_for_base(&mut self, id: GroupId) {
        let Some(last) = self.scrubbing.rotten_base(id).map(|base| base.id) else { return };
        let Some(view) = self.groups.get(&id).and_then(Group::replica).map(Replica::view) else { return };
        for node in self.peers_of(id) {
            self.send_to(id, node, &Message::GetPrepares { view, ids: vec![last] });
        }
        self.ask_who_holds(id);
        let pause = Duration::from_millis(self.rng.random_range(ASK_FOR_BASE_AFTER_MS));
        self.timers.set(self.now.plus(pause), Due::Base(id));
    }

    /// What the log builds on can be read again.
    pub(super) fn on_snapshot_restored(&mut self, id: GroupId) {
        tracing::info!(group = %id, "what the log builds on was given back by another replica");
        self.scrubbing.note_new_base(id);
        // That may be what kept it from being let go.
        self.let_go(id);
    }

    fn suspect(&mut self, id: GroupId, from: ReadFrom) {
        if self.groups.get(&id).and_then(Group::replica).is_some() {
            self.scrubbing.suspect(id, ScrubFrom::Read(from));
            self.arm_scrub(Some(self.now));
        }
    }

    /// Something of a log could not be read.
    pub(super) fn on_unreadable(&mut self, id: GroupId, from: Option<ReadFrom>, error: &StorageError) {
        tracing::error!(group = %id, %error, "read failed");
        let from = match error {
            StorageError::Damaged { op, .. } => Some(ReadFrom::Op(*op)),
            StorageError::Io { .. } => from,
            StorageError::Locked { .. }
            | StorageError::AlreadyFormatted { .. }
            | StorageError::NotFormatted
            | StorageError::IdentityDamaged { .. }
            | StorageError::WrongVersion { .. }
            | StorageError::WrongCluster { .. }
            | StorageError::WrongNode { .. }
            | StorageError::SuperblocksDamaged { .. }
            | StorageError::KeyMissing { .. }
            | StorageError::GroupUnknown { .. } => None,
        };
        if let Some(from) = from {
            self.suspect(id, from);
        }
    }

    /// What a consumer is told who asked for what cannot be read.
    pub(super) fn why_unreadable(&self, id: GroupId) -> Refusal {
        let known = self.scrub_problem(id);
        Refusal::Storage { reason: known.unwrap_or_else(|| "a part of its log cannot be read".to_owned()) }
    }

    pub(super) fn scrub_problem(&self, id: GroupId) -> Option<String> {
        self.scrubbing.has_problem(id).then(|| self.scrubbing.problem(id, !self.peers_of(id).is_empty()))?
    }

    /// It is time to ask again for what has rotted in a log; if that was in vain several times, for something else first.
    pub(super) fn on_wound_due(&mut self, id: GroupId) {
        let peers = self.peers_of(id).len();
        let mending = self.scrubbing.wound(id).and_then(|wound| wound.mending.as_ref());
        if mending.is_some_and(|mending| mending.is_stuck(peers)) {
            Mark::WoundPutOff.hit();
            self.scrubbing.put_off_wound(id);
        }
        self.tend(id);
    }

    /// Takes the next step with what has rotted in a log.
    pub(super) fn tend(&mut self, id: GroupId) {
        let (now, peers) = (self.now, self.peers_of(id));
        let Some(replica) = self.groups.get(&id).and_then(Group::replica) else { return };
        let superblock =
            Superblock { view: replica.view(), commit: replica.commit().op, ..Superblock::new(id) };
        let Some(wound) = self.scrubbing.wound(id).filter(|_| !peers.is_empty()) else { return };
        let damage = wound.damage;
        let mending = wound.mending.get_or_insert_with(|| Mending::new(superblock, hole_of(&damage), now));
        mending.superblock = superblock;
        let step = mending.next_step(&peers, now);
        let is_nowhere = mending.is_nowhere(peers.len());
        match step {
            Step::PutBack(prepares) => self.submit(Job::Patch { group: id, damage, prepares }),
            Step::GiveUp => return self.tend_more(id),
            Step::Wait if is_nowhere && damage.widened().is_some() => return self.tend_more(id),
            Step::Wait => {}
        }
        let asked = self.scrubbing.wound(id).and_then(|wound| wound.mending.as_mut()?.ask(&peers, now));
        if let Some((node, messages)) = asked {
            for message in messages {
                self.send_to(id, node, &message);
            }
        }
        let due = self.scrubbing.wound(id).and_then(|wound| wound.mending.as_ref()?.due);
        if let Some(due) = due {
            self.timers.set(due, Due::Wound(id));
        }
    }

    /// What is around a damage does not belong together, or nobody knows what is missing by that name: more of it has rotted than
    /// it seemed.
    fn tend_more(&mut self, id: GroupId) {
        let Some(wound) = self.scrubbing.wound(id) else { return };
        match wound.damage.widened() {
            Some(wide) => {
                tracing::warn!(group = %id, file = %wound.path.display(), "what is around the damage is not of this log; all of the segment is fetched");
                Mark::WoundWidened.hit();
                wound.damage = wide;
                wound.mending = None;
            }
            None => {
                tracing::error!(group = %id, file = %wound.path.display(), "the others have another log than this one");
                self.scrubbing.give_up_wound(id);
            }
        }
        self.tend(id);
    }

    /// Whether a message is about what has rotted here, and thus nothing that the replica waits for.
    pub(super) fn is_about_wound(&self, id: GroupId, message: &Message) -> bool {
        let is_missing = |op: Op| self.scrubbing.is_missing(id, op);
        match message {
            Message::Headers { headers, .. } => {
                headers.first().is_some_and(|first| is_missing(first.op()))
                    || self.is_asked_for_anew(id, headers)
            }
            Message::RepairPrepare { prepare, .. } => is_missing(prepare.op()),
            Message::RepairMissing { id, .. } => is_missing(id.op),
            // Who may be about to stop counting is not to be relied on (`crate::anew`).
            Message::GetHeaders { .. } => self.scrubbing.is_asking(id, self.now),
            Message::Snapshot { snapshot, .. } => {
                let replica = self.groups.get(&id).and_then(Group::replica);
                let is_behind = replica.is_some_and(|replica| snapshot.op() > replica.commit().op);
                self.scrubbing.has_problem(id) && !is_behind
            }
            Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::GetStartView { .. }
            | Message::GetPrepares { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => false,
        }
    }

    pub(super) fn on_message_about_wound(&mut self, id: GroupId, node: NodeId, message: Message) {
        let now = self.now;
        let goes_on = match message {
            Message::Snapshot { snapshot, .. } => {
                let let_go = snapshot.op();
                self.with_wound(id, |mending| mending.note_let_go_by(node, let_go));
                return self.let_go_with(id, *snapshot);
            }
            Message::Headers { headers, .. } if self.is_asked_for_anew(id, &headers) => {
                return self.on_holder(id, node);
            }
            Message::Headers { headers, .. } => self.with_wound(id, |mending| mending.learn(&headers, now)),
            Message::RepairPrepare { prepare, .. } => {
                self.with_wound(id, |mending| mending.take(prepare, now))
            }
            Message::RepairMissing { id: missing, .. } => {
                self.with_wound(id, |mending| mending.note_missing(node, missing))
            }
            Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::GetPrepares { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => None,
        };
        if goes_on == Some(true) {
            self.tend(id);
        }
    }

    /// Tells something to what mends the log of a group, if anything is to be mended.
    fn with_wound<T>(&mut self, id: GroupId, tell: impl FnOnce(&mut Mending) -> T) -> Option<T> {
        self.scrubbing.wound(id)?.mending.as_mut().map(tell)
    }

    /// Something was given back to a log; the rest is left.
    pub(super) fn on_patched(&mut self, id: GroupId, left: Option<Damage>) {
        let now = self.now;
        let Some(wound) = self.scrubbing.wound(id) else { return };
        let file = wound.path.display().to_string();
        match (left, &mut wound.mending) {
            (None, _) => {
                tracing::info!(group = %id, file, "what could not be read of the log is mended");
                self.scrubbing.note_mended(id);
                // That may be what kept it from being let go.
                self.let_go(id);
            }
            (Some(left), Some(mending)) if left.after.op > wound.damage.after.op => {
                wound.damage = left;
                mending.note_mended(Some(hole_of(&left)), now);
            }
            (Some(_), _) => {
                tracing::error!(group = %id, file, "what was fetched could not be put back; it is tried again when it is found again");
                self.scrubbing.give_up_wound(id);
            }
        }
        self.tend(id);
    }
}

/// A stretch that cannot be read, as a hole in a log that ends with it. All of it is committed.
pub(super) fn hole_of(damage: &Damage) -> Hole {
    Hole { after: damage.after, last: damage.last, head: damage.last }
}
