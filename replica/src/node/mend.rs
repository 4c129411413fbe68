//! Replicas whose logs have holes: asking for what is missing, putting it back, and reading the log when it is whole.

use std::collections::VecDeque;

use varve_protocol::id::{GroupId, NodeId, Op, View};
use varve_protocol::limits::REPAIR_PREPARES_MAX;
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::prepare::{Prepare, PrepareId};
use varve_storage::{Hole, Job, ReadFrom, StorageError};

use crate::group::{Group, State};
use crate::mending::{Mending, Step};
use crate::node::Node;
use crate::node::disk::PendingRead;
use crate::recovery::{RecoveredReplica, push_recovered};

/// Bytes read at once of a log that was mended.
const READ_BYTES: usize = 4 << 20;

impl Node {
    fn mending(&mut self, id: GroupId) -> Option<&mut Mending> {
        match self.groups.get_mut(&id).map(|group| &mut group.state) {
            Some(State::Mending(mending)) => Some(mending),
            Some(State::Opening | State::Open(_) | State::Damaged(_)) | None => None,
        }
    }

    pub(super) fn is_mending(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| matches!(group.state, State::Mending(_)))
    }

    pub(super) fn peers_of(&self, id: GroupId) -> Vec<NodeId> {
        let holders = self.groups.get(&id).into_iter().flat_map(Group::holders).map(|(_, node)| node);
        holders.filter(|node| *node != self.config.node).collect()
    }

    /// A message for a replica that is being mended.
    pub(super) fn on_message_while_mending(&mut self, id: GroupId, node: NodeId, message: Message) {
        let now = self.now;
        let Some(mending) = self.mending(id) else { return };
        let view = mending.superblock.view;
        let asks_again = match message {
            Message::Headers { headers, .. } => mending.learn(&headers, now),
            Message::RepairPrepare { prepare, .. } => mending.take(prepare, now),
            Message::RepairMissing { id, .. } => mending.note_missing(node, id),
            Message::Snapshot { snapshot, .. } => mending.note_gone(&snapshot),
            Message::StartView { view, nonce, .. } => mending.note_primary(view, nonce),
            Message::GetPrepares { ids, .. } => return self.serve_while_mending(id, node, view, &ids),
            Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => false,
        };
        if asks_again {
            self.mend(id);
        }
    }

    /// Another replica may mend with what this one holds. What cannot be found here may be in a hole, so nobody is told that it
    /// is missing.
    fn serve_while_mending(&mut self, id: GroupId, node: NodeId, view: View, ids: &[PrepareId]) {
        Mark::MendingServed.hit();
        for prepare in ids.iter().take(usize::try_from(REPAIR_PREPARES_MAX).unwrap_or(usize::MAX)) {
            self.serve_prepare(id, node, view, *prepare);
        }
    }

    /// Takes the next step with a replica that is being mended.
    pub(super) fn mend(&mut self, id: GroupId) {
        let (now, peers) = (self.now, self.peers_of(id));
        let Some(mending) = self.mending(id) else { return };
        match mending.next_step(&peers, now) {
            Step::Wait => {}
            Step::PutBack(prepares) => self.submit(Job::Mend { group: id, prepares }),
            Step::GiveUp if mending.begins_anew() => {
                tracing::warn!(group = %id, "a primary works without this replica; its log is given up");
                self.submit(Job::GiveUpLog { group: id });
            }
            Step::GiveUp => {
                tracing::warn!(group = %id, "nobody has what is missing; the log ends before it");
                self.submit(Job::GiveUpHoles { group: id });
            }
        }
        let asked = self.mending(id).and_then(|mending| mending.ask(&peers, now));
        if let Some((node, messages)) = asked {
            for message in messages {
                self.send_to(id, node, &message);
            }
        }
        self.arm(id);
    }

    pub(super) fn on_mended(&mut self, id: GroupId, hole: Option<Hole>) {
        let now = self.now;
        let Some(mending) = self.mending(id) else { return };
        mending.note_mended(hole, now);
        if mending.begins_anew()
            && let Some(group) = self.groups.get_mut(&id)
        {
            group.base = Op::ZERO;
        }
        match hole {
            Some(_) => self.mend(id),
            None => {
                tracing::info!(group = %id, "the log is mended; it is read again");
                let first =
                    self.mending(id).and_then(|mending| mending.reading.as_ref()).map(|reading| reading.next);
                self.read_mended(id, first.unwrap_or(Op::new(1)));
                self.arm(id);
            }
        }
    }

    fn read_mended(&mut self, id: GroupId, from: Op) {
        self.read(id, ReadFrom::Op(from), (READ_BYTES, Op::new(u64::MAX)), PendingRead::Mended);
    }

    /// A piece of a log that was mended; nothing if that was all.
    pub(super) fn on_mended_read(&mut self, id: GroupId, result: Result<Vec<Prepare>, StorageError>) {
        let prepares = match result {
            Ok(prepares) => prepares,
            Err(error) => return self.note_damaged(id, &error),
        };
        let Some(State::Mending(mending)) = self.groups.get_mut(&id).map(|group| &mut group.state) else {
            return;
        };
        let Some(reading) = &mut mending.reading else { return };
        if prepares.is_empty() {
            return self.open_mended(id);
        }
        for prepare in prepares {
            reading.next = prepare.op().next();
            push_recovered(&mut reading.log, id, &prepare, &mut self.metadata, &mut self.metadata_tail);
        }
        let next = reading.next;
        self.read_mended(id, next);
    }

    fn open_mended(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        let placement = group.placement;
        let State::Mending(mending) = group.state else { return };
        Mark::MendingDone.hit();
        let (base, told) = (group.base, group.told);
        let Mending { superblock, reading, .. } = *mending;
        let log = reading.map(|reading| reading.log).unwrap_or_default();
        let is_metadata = id == GroupId::METADATA;
        let tail = if is_metadata { std::mem::take(&mut self.metadata_tail) } else { VecDeque::new() };
        self.open_recovered(
            id,
            placement,
            RecoveredReplica {
                superblock,
                log,
                base,
                snapshot: None,
                problem: None,
                hole: None,
                unmarked: None,
            },
            tail,
        );
        if let Some(group) = self.groups.get_mut(&id) {
            group.told = told;
        }
        if is_metadata {
            self.note_registered();
            self.reconcile_groups();
        }
    }

    /// A replica's log cannot be mended.
    pub(super) fn note_damaged(&mut self, id: GroupId, error: &StorageError) {
        Mark::ReplicaClosed.hit();
        tracing::error!(group = %id, %error, "replica is damaged and takes no part");
        if let Some(group) = self.groups.get_mut(&id) {
            group.state = State::Damaged(error.to_string());
        }
        self.arm(id);
    }
}
