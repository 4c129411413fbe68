//! Who leads what: the operator's wishes, and preferred primaries restored after a failure (rule V8).
//!
//! The first replica of a group that is to stay is its preferred primary; placement spreads those evenly over the nodes. When a node has come
//! back and stayed for a while, its peers hand over the groups that it is preferred for, a few at a time. A group that an
//! operator has moved stays where it is until then.

use std::time::Duration;

use varve_consensus::Replica;
use varve_consensus::event::Input;
use varve_protocol::client::{Refusal, Response};
use varve_protocol::frame::FrameHeader;
use varve_protocol::id::{GroupId, NodeId, ReplicaIndex};
use varve_protocol::mark::Mark;
use varve_protocol::time::Moment;

use crate::event::Session;
use crate::group::Group;
use crate::node::Node;
use crate::timers::Due;

/// Groups handed over in one round.
const GROUPS_PER_ROUND: usize = 32;

/// Between two rounds; doubled by every round that changes nothing.
const ROUND_EVERY: Duration = Duration::from_millis(250);

/// Rounds in a row that may change nothing: the node does not catch up, and keeps what it has.
const FRUITLESS_ROUNDS_MAX: u32 = 8;

/// A peer that has come back and shall lead its groups again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// When it shall.
    due: Moment,
    /// Groups that were to be handed over at the last round.
    left: usize,
    fruitless_rounds: u32,
}

impl Node {
    /// A peer has come back: if it stays, it shall lead its groups again.
    pub(super) fn note_return(&mut self, node: NodeId) {
        let wait = self.config.timing.restore_primaries_after;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let due = self.now.plus(wait);
        peer.returned = (!wait.is_zero()).then_some(Return { due, left: usize::MAX, fruitless_rounds: 0 });
        if peer.returned.is_some() {
            self.timers.set(due, Due::Restore(node));
        }
    }

    /// Hands some groups back to a peer that has stayed.
    pub(super) fn on_restore_due(&mut self, node: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&node) else { return };
        let Some(mut returned) = peer.returned.filter(|returned| returned.due <= now) else { return };
        let here = |group: &Group| {
            let place = group.preferred().filter(|place| group.node(*place) == node && leads(group))?;
            self.is_seated(group, place).then_some(place)
        };
        let mut groups: Vec<(GroupId, ReplicaIndex)> =
            self.groups.iter().filter_map(|(id, group)| Some((*id, here(group)?))).collect();
        let left = groups.len();
        returned.fruitless_rounds = if left < returned.left { 0 } else { returned.fruitless_rounds + 1 };
        returned.left = left;
        returned.due = now.plus(ROUND_EVERY.saturating_mul(1 << returned.fruitless_rounds));
        groups.truncate(GROUPS_PER_ROUND);
        for (id, to) in groups {
            Mark::PrimaryRestored.hit();
            self.drive(id, Input::HandOver { to });
        }
        let goes_on = left > 0 && returned.fruitless_rounds < FRUITLESS_ROUNDS_MAX;
        if goes_on {
            self.timers.set(returned.due, Due::Restore(node));
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.returned = goes_on.then_some(returned);
        }
    }

    /// A client wants another node to lead a group.
    pub(super) fn on_hand_over(&mut self, session: Session, header: &FrameHeader, to: NodeId) {
        match self.why_no_handover(header.group, to) {
            Ok(index) => {
                self.drive(header.group, Input::HandOver { to: index });
                self.respond(session, header.correlation, &Response::HandingOver);
            }
            Err(refusal) => self.refuse(session, header.correlation, refusal),
        }
    }

    fn why_no_handover(&self, id: GroupId, to: NodeId) -> Result<ReplicaIndex, Refusal> {
        let group = self.groups.get(&id).ok_or(Refusal::UnknownGroup { group: id })?;
        if !leads(group) {
            return Err(self.redirect(id));
        }
        let Some(index) = group.index_of(to) else {
            let members: Vec<String> = group.holders().map(|(_, node)| node.to_string()).collect();
            let reason = format!("{to} holds no replica of {id}; {} do", members.join(", "));
            return Err(Refusal::NotPossible { reason });
        };
        if to != self.config.node && !self.peers.get(&to).is_some_and(|peer| peer.is_alive()) {
            return Err(Refusal::NotPossible {
                reason: format!("{to} is not up, as {} sees it", self.config.node),
            });
        }
        if !self.is_seated(group, index) {
            let reason = format!("{to} has lost its disk and does not hold {id} yet; try again later");
            return Err(Refusal::NotPossible { reason });
        }
        Ok(index)
    }
}

fn leads(group: &Group) -> bool {
    group.replica().is_some_and(Replica::takes_requests)
}
