//! How a cluster begins, and how a node with an empty disk tells that beginning from the loss of its disk (rule S4).
//!
//! A replica without a superblock has promised nothing, or has forgotten it: its files do not say which. So a node whose data
//! directory belongs to no cluster yet, a *fresh* one, says nothing in any group before it knows one of two things:
//! * all nodes of the configuration are fresh, and each has said so naming all the same directories: they found the cluster;
//! * a node that is not fresh names the directories that the cluster was founded with: if its own is among them, the founding
//!   only had not reached its disk; if another stands in its place, its disk was lost, and it comes back as a learner.
//!
//! Why nobody founds a cluster that there is: a founder has heard each other node say, since that node had this directory,
//! that it was fresh and that it knew this directory of the founder's. Had one been replaced in between, that word would name
//! the old directory.
//!
//! So a new cluster starts when all its nodes are up for the first time, and from then on with any majority.

use std::time::Duration;

use varve_protocol::id::NodeId;
use varve_protocol::mark::Mark;
use varve_protocol::mutant::Mutant;
use varve_protocol::pulse::Founders;
use varve_storage::Job;

use crate::node::Node;
use crate::node::liveness::Peer;

/// How often a node that waits for others to found the cluster says so in its log.
const SAY_EVERY: Duration = Duration::from_secs(5);

impl Node {
    /// Whether this node's data directory belongs to no cluster yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.founders.is_none()
    }

    /// Founds the cluster, or joins the one that there is, as soon as it is known which.
    pub(super) fn found_or_join(&mut self) {
        if !self.is_fresh() || self.founding.is_some() {
            return;
        }
        let told = self.peers.values().find(|peer| !peer.is_fresh && !peer.founders.is_empty());
        let told = told.map(|peer| peer.founders.clone());
        let here = self.config.node;
        if let Some(founders) = &told {
            let is_founder = founders.get(&here) == Some(&self.directory);
            tracing::info!(is_founder, "the cluster is there already; this node joins it with an empty disk");
        }
        let is_told = told.is_some();
        match told.or_else(|| self.all_are_fresh()) {
            Some(founders) => {
                if !is_told {
                    Mark::ClusterFounded.hit();
                } else if founders.get(&here) == Some(&self.directory) {
                    Mark::FounderLate.hit();
                } else {
                    Mark::NewDiskJoined.hit();
                }
                self.founding = Some(founders.clone());
                self.submit(Job::SaveFounders(founders));
            }
            None => self.say_who_is_missing(),
        }
    }

    pub(super) fn on_founders_durable(&mut self) {
        self.founders = self.founding.take();
        self.patient_until = Some(self.now.plus(self.config.timing.consensus.stall));
        self.open_metadata_group(std::collections::VecDeque::new());
    }

    /// Whether a peer is heard and yet takes part in nothing, because its disk does not take the founding. For a while after
    /// this node knows of the founding it is given time for that.
    pub(super) fn is_useless(&self, peer: &Peer) -> bool {
        peer.is_fresh && !self.is_fresh() && self.patient_until.is_none()
    }

    /// Ends the patience with fresh peers, and lets the groups that they lead know.
    pub(super) fn look_for_useless_peers(&mut self) {
        if self.patient_until.is_some_and(|until| until <= self.now) {
            self.patient_until = None;
            let fresh: Vec<NodeId> =
                self.peers.iter().filter(|(_, peer)| peer.is_fresh).map(|(node, _)| *node).collect();
            for node in fresh {
                Mark::FreshPeerGivenUp.hit();
                tracing::warn!(peer = %node, "its disk does not take the founding of the cluster; others shall lead");
                self.tell_groups_concerned(node);
            }
        }
    }

    /// What a pulse to this peer says of the founding.
    pub(super) fn founders_for(&self, peer: &Peer) -> Founders {
        match &self.founders {
            None => self.fresh_ones(),
            Some(founders) if peer.is_fresh => founders.clone(),
            Some(_) => Founders::new(),
        }
    }

    /// This node and those that it has heard to be fresh.
    fn fresh_ones(&self) -> Founders {
        let fresh = self.peers.iter().filter(|(_, peer)| peer.is_fresh);
        let heard = fresh.filter_map(|(node, peer)| Some((*node, peer.directory?)));
        heard.chain([(self.config.node, self.directory)]).collect()
    }

    fn all_are_fresh(&self) -> Option<Founders> {
        let fresh = self.fresh_ones();
        let is_unanimous = fresh.len() == self.config.members.len()
            && self.peers.values().all(|peer| peer.founders == fresh);
        (is_unanimous || Mutant::FoundsAlone.is_on()).then_some(fresh)
    }

    /// The nodes that this one has not heard to be fresh.
    fn missing_founders(&self) -> String {
        let fresh = self.fresh_ones();
        let missing = self.config.members.keys().filter(|node| !fresh.contains_key(node));
        missing.map(NodeId::to_string).collect::<Vec<_>>().join(", ")
    }

    /// What people are told while nothing is founded.
    pub(super) fn why_unfounded(&self) -> Option<String> {
        if self.founders.is_some() {
            return None;
        }
        let missing = self.missing_founders();
        (!missing.is_empty()).then(|| {
            format!(
                "a new cluster starts when all its nodes are up for the first time; not heard yet: {missing}"
            )
        })
    }

    fn say_who_is_missing(&mut self) {
        if self.now.since(self.founding_said) < SAY_EVERY {
            return;
        }
        self.founding_said = self.now;
        tracing::warn!(
            missing = self.missing_founders(),
            "an empty data directory: this node waits until it has heard all nodes, to found the cluster with them, or one \
             that knows the cluster, to join it"
        );
    }
}
