//! What nodes hear of each other.

use std::time::Duration;

use varve_protocol::id::{Incarnation, NodeId};
use varve_replica::NodeInput;

use super::Cluster;

impl Cluster {
    /// Connects two nodes, at once or when nothing is cut any more: it takes both directions.
    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)) {
            self.unconnected.insert((a, b));
            return;
        }
        for (id, to) in [(a, b), (b, a)] {
            let incarnation = Incarnation::new(self.machines[&to].lives);
            self.input(id, NodeInput::PeerUp { node: to, incarnation });
        }
    }

    /// Sets the wall clock of a node: it is so far ahead from now on.
    pub(crate) fn set_clock(&mut self, id: NodeId, ahead: Duration) {
        self.machines.get_mut(&id).expect("the machine exists").ahead = ahead;
    }

    /// Loses everything sent from one node to another from now on.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Ends that for one link.
    pub(crate) fn mend_link(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    /// Keeps everything about the metadata from a node from now on, but for pulses.
    pub(crate) fn deafen(&mut self, id: NodeId) {
        self.deaf.insert(id);
    }

    /// Ends that.
    pub(crate) fn undeafen(&mut self, id: NodeId) {
        self.deaf.remove(&id);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.deaf.clear();
        for (a, b) in std::mem::take(&mut self.unconnected) {
            if [a, b].into_iter().all(|id| self.machines[&id].node.is_some()) {
                self.connect(a, b);
            }
        }
    }
}
