//! Messages between the replicas of a group: in whose name they are sent, to which nodes they go, and who is heard.
//!
//! A replica is a place in a group, and which node stands there changes. So a frame says for which place its sender speaks, and by
//! which entry of the log it stands there; `crate::group::Group::standing` says what is made of that.

use varve_consensus::Replica;
use varve_consensus::event::Input;
use varve_protocol::frame::Voice;
use varve_protocol::id::{GroupId, NodeId, Op, ReplicaIndex};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::prepare::PrepareHeader;
use varve_transport::Lane;

use crate::event::Effect;
use crate::group::{Group, Standing};
use crate::node::Node;

impl Node {
    /// Hands a message of a peer to the replica it is for.
    pub(super) fn deliver(&mut self, node: NodeId, id: GroupId, voice: Voice, message: Message) {
        self.note_voice(id, node);
        let Some(group) = self.groups.get(&id) else {
            // The peer is ahead or behind in the metadata; it will say it again.
            tracing::debug!(peer = %node, group = %id, "message for a group that is not here");
            return;
        };
        // Of this log, and in a version that this release knows; nothing else is ever sent to it if all keep the rules.
        let is_fit = |header: &PrepareHeader| {
            let is_of_group = header.group() == id && header.cluster() == self.config.cluster;
            is_of_group && self.config.versions.contains(header.version())
        };
        let is_unfit = match &message {
            Message::Prepare { prepare, .. } | Message::RepairPrepare { prepare, .. } => {
                !is_fit(prepare.header())
            }
            Message::Snapshot { snapshot, .. } => !is_fit(&snapshot.header),
            Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => false,
        };
        let standing = group.standing(node, voice);
        match standing {
            // Who takes a place, and who leaves it, do not hear each other.
            Standing::Voice | Standing::Listener
                if group.placement.place_of(self.config.node) == Some(voice.replica) => {}
            Standing::Voice | Standing::Listener if !is_unfit && self.is_mending(id) => {
                self.on_message_while_mending(id, node, message);
            }
            Standing::Voice | Standing::Listener if !is_unfit && self.is_about_wound(id, &message) => {
                self.on_message_about_wound(id, node, message);
            }
            Standing::Voice if !is_unfit => self.hear(id, (node, voice.replica), message),
            Standing::Listener if !is_unfit => self.on_question(id, (node, voice.replica), message),
            Standing::Voice | Standing::Listener | Standing::Stranger => {
                Mark::StrangerDropped.hit();
                self.frames_dropped += 1;
                tracing::warn!(peer = %node, group = %id, "message of a stranger or of another group dropped");
            }
        }
    }

    /// Hands a message to a replica; whatever it answers goes to the node that asked.
    pub(super) fn hear(&mut self, id: GroupId, (node, from): (NodeId, ReplicaIndex), message: Message) {
        if self.is_too_full_for(id, &message) {
            return;
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.answering = Some((from, node));
        }
        self.drive(id, Input::Message { from, message });
        if let Some(group) = self.groups.get_mut(&id) {
            group.answering = None;
        }
    }

    /// A node asks that has no voice here: its questions are answered, and nothing else of it is heard.
    pub(super) fn on_question(
        &mut self,
        id: GroupId,
        (node, from): (NodeId, ReplicaIndex),
        message: Message,
    ) {
        let Some(replica) = self.groups.get(&id).and_then(Group::replica) else { return };
        let is_question = match &message {
            // That its log is torn would be taken for the word of the one who stands in that place. That a quorum had agreed on a
            // later view is true whoever says so.
            Message::GetStartView { view, nonce } => {
                *nonce == 0 || (*view <= replica.view() && replica.is_primary())
            }
            // What proves itself, and a wish that counts for nothing by itself.
            Message::GetHeaders { .. }
            | Message::GetPrepares { .. }
            | Message::Headers { .. }
            | Message::RepairPrepare { .. } => true,
            Message::StartViewChange { .. } => {
                self.groups.get(&id).is_some_and(|group| group.node(from) == node)
            }
            Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. }
            | Message::Snapshot { .. } => false,
        };
        if is_question {
            return self.hear(id, (node, from), message);
        }
        tracing::debug!(peer = %node, group = %id, command = ?message.command(), "a replica without a voice is not heard");
    }

    /// In whose name the replica here speaks.
    pub(super) fn voice(&self, id: GroupId) -> Voice {
        let Some(group) = self.groups.get(&id) else { return Voice::default() };
        Voice {
            replica: group.placement.place_of(self.config.node).unwrap_or_default(),
            generation: group.replica().map_or(Op::ZERO, Replica::own_generation),
        }
    }

    /// Which nodes a message to a replica of a group goes to. A vote goes to nobody but who stands in that place, as far as the
    /// log here tells; a question to all who may; how the log goes on also to who is to take the place.
    pub(super) fn recipients(&self, id: GroupId, to: ReplicaIndex, message: &Message) -> [Option<NodeId>; 3] {
        let Some(group) = self.groups.get(&id) else { return [None; 3] };
        let is_other = |node: &NodeId| *node != self.config.node && *node != NodeId::ZERO;
        let holder = Some(group.node(to)).filter(is_other);
        match message {
            Message::GetStartView { .. } | Message::GetHeaders { .. } | Message::GetPrepares { .. } => {
                group.candidates(to).map(|node| node.filter(is_other))
            }
            Message::Prepare { .. } | Message::Commit { .. } | Message::StartView { .. } => {
                match group.answering.filter(|(place, _)| *place == to) {
                    Some((_, node)) => [Some(node), None, None],
                    None => [holder, group.successor(to).filter(is_other), None],
                }
            }
            Message::Headers { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::Snapshot { .. } => [Some(group.asker(to)).filter(is_other), None, None],
            Message::PrepareOk { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => [holder, None, None],
        }
    }

    /// Sends a message to another replica of a group.
    pub(super) fn send(&mut self, id: GroupId, to: ReplicaIndex, message: &Message) {
        for node in self.recipients(id, to, message).into_iter().flatten() {
            self.send_to(id, node, message);
        }
    }

    /// Sends a message about a group to a node.
    pub(super) fn send_to(&mut self, id: GroupId, node: NodeId, message: &Message) {
        let lane = match message {
            Message::Prepare { .. } => Lane::data(id),
            Message::RepairPrepare { .. } | Message::Headers { .. } | Message::Snapshot { .. } => Lane::Bulk,
            Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::DoViewChange { .. }
            | Message::StartView { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::GetPrepares { .. }
            | Message::RepairMissing { .. }
            | Message::ConfirmView { .. }
            | Message::ViewConfirmed { .. } => Lane::Control,
        };
        let frame = message.to_frame(self.config.cluster, id, self.voice(id));
        self.effects.push_back(Effect::ToPeer { node, lane, frame });
    }
}
