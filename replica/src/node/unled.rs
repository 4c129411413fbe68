//! Groups that are new here and of whose first primary nothing was heard.
//!
//! A primary that is alive leads, as a rule, also if it has nothing to say; so its backups wait as long as its node is heard. But a
//! node whose disk takes none of the metadata, for it is full, does not know of a group that it is to lead; and one whose disk hangs cannot
//! open it. So whoever is new in the first view of a group asks its primary for that view until it is answered, and suspects it if it
//! never is.

use std::time::Duration;

use varve_protocol::id::{GroupId, NodeId, ReplicaIndex, View};
use varve_protocol::mark::Mark;
use varve_protocol::message::Message;
use varve_protocol::time::Moment;

use crate::group::Group;
use crate::node::Node;

/// Between two questions to the same primary.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A group whose first primary has not said a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unled {
    /// When it was opened here.
    since: Moment,
    asked: Moment,
}

impl Node {
    /// A group is new here, and its primary has just been asked for its view.
    pub(super) fn await_primary(&mut self, id: GroupId) {
        self.unled.insert(id, Unled { since: self.now, asked: self.now });
    }

    /// A peer has said something in a group.
    pub(super) fn note_voice(&mut self, id: GroupId, node: NodeId) {
        if !self.unled.is_empty() && self.groups.get(&id).is_some_and(|group| group.primary_node() == node) {
            self.unled.remove(&id);
        }
    }

    /// Asks the primaries again that have not said a word, and suspects those that have had time enough.
    pub(super) fn look_for_unled(&mut self) {
        let (now, stall) = (self.now, self.config.timing.consensus.stall);
        let mut late = Vec::new();
        let mut asked = Vec::new();
        let groups = &self.groups;
        self.unled.retain(|id, unled| {
            let replica = groups.get(id).and_then(Group::replica);
            // In a later view there is somebody who leads it, or soon will.
            let is_awaited =
                replica.is_some_and(|replica| replica.view() == View::ZERO && !replica.is_primary());
            let is_late = now.since(unled.since) >= stall;
            if is_awaited && is_late {
                late.push(*id);
            } else if is_awaited && now.since(unled.asked) >= ASK_AGAIN_AFTER {
                unled.asked = now;
                asked.push(*id);
            }
            is_awaited && !is_late
        });
        for id in asked {
            self.send(id, ReplicaIndex::ZERO, &Message::GetStartView { view: View::ZERO, nonce: 0 });
        }
        for id in late {
            Mark::UnledFound.hit();
            tracing::warn!(group = %id, "its first primary has not said a word; another shall lead");
            self.on_mute_primary(id, View::ZERO);
        }
    }
}
