//! What comes back from the disk, and the reads that are under way.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use varve_consensus::event::Input;
use varve_protocol::id::{GroupId, NodeId, Op, Timestamp, View};
use varve_protocol::limits::HEADERS_PER_MESSAGE_MAX;
use varve_protocol::message::Message;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId};
use varve_storage::{Completion, Job, ReadFrom, StorageError};

use crate::event::Effect;
use crate::group::State;
use crate::node::Node;
use crate::node::fetch::Fetch;
use crate::node::offsets::Question;

/// Bytes read at once to find headers for a peer.
const HEADER_READ_BYTES: usize = 1 << 20;

/// Why something is read.
#[derive(Debug)]
pub(crate) enum PendingRead {
    /// A peer wants this prepare.
    Prepare { to: NodeId, view: View, id: PrepareId },
    /// A peer wants headers.
    Headers { to: NodeId, view: View },
    /// A peer wants what was let go.
    Snapshot { to: NodeId, view: View },
    /// A consumer wants records.
    Fetch(Fetch),
    /// A consumer wants to know what was appended since when.
    OffsetAt(Question, Timestamp),
    /// A log that was mended is read from its start.
    Mended,
}

impl PendingRead {
    /// Where it starts, if it is a read of prepares.
    fn from(&self) -> Option<ReadFrom> {
        match self {
            Self::Prepare { id, .. } => Some(ReadFrom::Op(id.op)),
            Self::Fetch(fetch) => Some(ReadFrom::Offset(fetch.offset())),
            Self::OffsetAt(_, time) => Some(ReadFrom::Time(*time)),
            Self::Headers { .. } | Self::Snapshot { .. } | Self::Mended => None,
        }
    }
}

/// The reads under way, by token.
#[derive(Debug, Default)]
pub(crate) struct PendingReads {
    reads: BTreeMap<u64, (GroupId, PendingRead)>,
    next_token: u64,
}

impl Node {
    pub(super) fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Durable { group, id } => {
                if let Some(written) = self.groups.get_mut(&group).map(|group| group.note_written(id)) {
                    self.writing_bytes -= written;
                }
                self.drive(group, Input::Durable(id));
                if group == GroupId::METADATA {
                    self.after_metadata_write();
                }
            }
            Completion::SuperblockDurable(superblock) => {
                let group = self.groups.get(&superblock.group);
                if group.is_some_and(|group| matches!(group.state, State::Opening)) {
                    self.on_group_created(superblock.group);
                } else {
                    self.drive(superblock.group, Input::SuperblockDurable(superblock));
                    if superblock.group == GroupId::METADATA {
                        self.after_metadata_write();
                    }
                }
            }
            Completion::FoundersDurable => self.on_founders_durable(),
            Completion::Read { token, result, .. } => self.on_read(token, result),
            Completion::Mended { group, hole } => self.on_mended(group, hole),
            Completion::Failed { group, error } if error.is_repairable() && self.is_mending(group) => {
                self.note_damaged(group, &error);
            }
            Completion::LetGo { group, start } => self.on_let_go(group, start),
            Completion::Sealed { group, last } => self.on_sealed(group, last),
            Completion::Snapshot { token, result, .. } => self.on_snapshot_read(token, result),
            Completion::Surveyed { group, sealed, active } => self.on_surveyed(group, &sealed, active),
            Completion::Scrubbed { group, piece } => self.on_scrubbed(group, piece),
            Completion::SharedScrubbed { was_sound } => self.on_shared_scrubbed(was_sound),
            Completion::Patched { group, left } => self.on_patched(group, left),
            Completion::CannotLetGo { group, op } => self.on_cannot_let_go(group, op),
            Completion::NoneFits { group } => self.on_none_fits(group),
            Completion::SnapshotRestored { group } => self.on_snapshot_restored(group),
            Completion::Deleted { group } => self.on_deleted(group),
            Completion::DiskFull { group } => self.on_disk_full(group),
            Completion::DiskHasRoom { group } => self.on_disk_has_room(group),
            Completion::Failed { group, error } => {
                let what_to_do = if error.is_disk_full() {
                    "free some space on the disk of its data directory"
                } else {
                    "check the disk of its data directory"
                };
                let reason =
                    format!("{group} cannot be stored any more: {error}; {what_to_do}, then start it again");
                self.effects.push_back(Effect::Halt { reason });
            }
        }
    }

    pub(super) fn read(
        &mut self,
        group: GroupId,
        from: ReadFrom,
        (bytes_max, last): (usize, Op),
        why: PendingRead,
    ) {
        let token = self.note_read(group, why);
        self.submit(Job::Read { group, token, from, bytes_max, last });
    }

    /// Remembers why something is read, under the token that the disk gives back.
    pub(super) fn note_read(&mut self, group: GroupId, why: PendingRead) -> u64 {
        let token = self.reads.next_token;
        self.reads.next_token += 1;
        self.reads.reads.insert(token, (group, why));
        token
    }

    /// Whose group was read, and why.
    pub(super) fn take_read(&mut self, token: u64) -> Option<(GroupId, PendingRead)> {
        self.reads.reads.remove(&token)
    }

    /// Sends a peer the prepares it asks for; what the log here builds on too, if some of them were let go.
    pub(super) fn serve_prepares(&mut self, group: GroupId, to: NodeId, view: View, ids: &[PrepareId]) {
        let (gone, here): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| self.is_gone(group, id.op));
        for id in &gone {
            self.send_to(group, to, &Message::RepairMissing { view, id: *id });
        }
        if !gone.is_empty() {
            self.serve_snapshot(group, to, view);
        }
        for id in here {
            self.serve_prepare(group, to, view, id);
        }
    }

    /// Sends a peer the prepare it asks for, or word that it is not here.
    pub(super) fn serve_prepare(&mut self, group: GroupId, to: NodeId, view: View, id: PrepareId) {
        match self.groups.get(&group).and_then(|group| group.tail.find(id)).cloned() {
            Some(prepare) => self.send_old_prepare(group, to, view, prepare),
            None => self.read(group, ReadFrom::Op(id.op), (0, id.op), PendingRead::Prepare { to, view, id }),
        }
    }

    fn send_old_prepare(&mut self, group: GroupId, to: NodeId, view: View, prepare: Prepare) {
        self.catch_up.spend(prepare.header().total_size());
        self.send_to(group, to, &Message::RepairPrepare { view, prepare });
    }

    /// Sends a peer the headers it asks for, as many as go into a message.
    pub(super) fn serve_headers(&mut self, id: GroupId, to: NodeId, view: View, ops: RangeInclusive<Op>) {
        if self.is_gone(id, *ops.start()) {
            return self.serve_snapshot(id, to, view);
        }
        let Some(group) = self.groups.get(&id) else { return };
        let last = (*ops.end()).min(ops.start().plus(HEADERS_PER_MESSAGE_MAX as u64 - 1));
        let mut headers: Vec<PrepareHeader> = Vec::new();
        let mut next = *ops.start();
        while let Some(prepare) = group.tail.get(next).filter(|_| next <= last) {
            headers.push(*prepare.header());
            next = next.next();
        }
        if headers.is_empty() {
            let why = PendingRead::Headers { to, view };
            self.read(id, ReadFrom::Op(*ops.start()), (HEADER_READ_BYTES, last), why);
        } else {
            self.send_to(id, to, &Message::Headers { view, headers });
        }
    }

    fn on_read(&mut self, token: u64, result: Result<Vec<Prepare>, StorageError>) {
        let Some((group, why)) = self.take_read(token) else { return };
        if matches!(why, PendingRead::Mended) {
            return self.on_mended_read(group, result);
        }
        let is_readable = result.is_ok() && !self.is_mending(group);
        let prepares = match result {
            Ok(prepares) => prepares,
            Err(error) => {
                self.on_unreadable(group, why.from(), &error);
                Vec::new()
            }
        };
        match why {
            PendingRead::Prepare { to, view, id } => {
                let found = prepares.into_iter().find(|prepare| prepare.id() == id);
                match found {
                    Some(prepare) => self.send_old_prepare(group, to, view, prepare),
                    None if is_readable => self.send_to(group, to, &Message::RepairMissing { view, id }),
                    // It may be what cannot be read.
                    None => {}
                }
            }
            PendingRead::Headers { to, view } => {
                let headers = prepares.iter().map(|prepare| *prepare.header()).collect();
                self.send_to(group, to, &Message::Headers { view, headers });
            }
            PendingRead::Fetch(fetch) if is_readable => self.answer_fetch(&fetch, prepares),
            PendingRead::Fetch(fetch) => self.refuse_unreadable(&fetch),
            PendingRead::OffsetAt(question, _) if is_readable => {
                self.answer_offset_at(question, prepares.first());
            }
            PendingRead::OffsetAt(question, _) => self.refuse_unreadable_time(question),
            PendingRead::Mended | PendingRead::Snapshot { .. } => {}
        }
    }
}
