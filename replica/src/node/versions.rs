//! What this node speaks, and who does not understand it ([`varve_protocol::version`]).
//!
//! A node sends and seals what the metadata say that the cluster is at; before it knows any, the oldest that its release knows. It reads
//! all that its release knows, for others may have heard of a change before it has. Each node says in its pulses what its
//! release knows, and the primary of the metadata registers it; the cluster goes on to a version only if all registered nodes know it.
//!
//! * **U1** Nobody sends or seals anything newer than the version of the cluster as he knows it.
//! * **U2** The cluster goes on to a version only if the releases of all its nodes know it.
//!
//! So nobody is ever sent what he cannot read: only who comes back with an older release than he was registered with is, and he is
//! told.

use varve_protocol::client::encode_archive;
use varve_protocol::frame::Frame;
use varve_protocol::id::{GroupId, NodeId, ProducerId, RequestNumber};
use varve_protocol::mark::Mark;
use varve_protocol::metadata::MetadataOp;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::PrepareKind;
use varve_protocol::version::{Version, Versions};

use crate::node::Node;
use crate::node::clients::Waiting;

impl Node {
    /// The version in which this node speaks and writes: the cluster's, as far as it knows.
    #[must_use]
    pub fn version(&self) -> Version {
        self.metadata.version().max(self.config.versions.oldest)
    }

    /// The version of what this node sends.
    pub(super) fn spoken(&self) -> Version {
        if Mutant::SpeaksNewest.is_on() { self.config.versions.newest } else { self.version() }
    }

    /// The version of what this node seals.
    pub(super) fn sealed(&self) -> Version {
        if Mutant::SealsNewest.is_on() { self.config.versions.newest } else { self.version() }
    }

    /// Why this release has no part in this cluster any more, if so.
    pub(super) fn why_outdated(&self) -> Option<String> {
        why_outside(self.metadata.version(), self.config.versions)
    }

    /// Why nothing of a node is taken, or nothing is taken here, because a release does not know the cluster's version.
    pub(super) fn why_not_understood(&self, node: NodeId) -> Option<&'static str> {
        let versions = self.peers.get(&node).and_then(|peer| peer.versions);
        if self.why_outdated().is_some() {
            Some("this release does not know the cluster's version")
        } else if versions.is_some_and(|versions| !versions.contains(self.version())) {
            Some("its release does not know the cluster's version")
        } else {
            None
        }
    }

    /// Whether this release knows what a frame is written in.
    pub(super) fn can_read(&self, frame: &Frame) -> bool {
        if frame.header.version > self.version() {
            Mark::SpokenAhead.hit();
        }
        self.config.versions.contains(frame.header.version)
    }

    /// What the release of a node knows, as it says itself; `None` if it was not heard in this life.
    pub(super) fn versions_of(&self, node: NodeId) -> Option<Versions> {
        match self.peers.get(&node) {
            Some(peer) => peer.versions,
            None => Some(self.config.versions),
        }
    }

    /// As primary of the metadata of a new cluster, goes on to the newest version that all nodes know: there is nothing yet that anybody
    /// would want to go back to. Later it is for an operator to say.
    pub(super) fn raise_first_version(&mut self) {
        if self.metadata.has_streams() || !self.are_all_registered() {
            return;
        }
        let Some(to) = self.metadata.version_known_to_all().filter(|to| *to > self.version()) else { return };
        Mark::FirstVersionRaised.hit();
        self.registering = true;
        let handle = self.new_handle(Waiting::Registration);
        let body = (PrepareKind::Metadata, 0, encode_archive(&MetadataOp::RaiseVersion { to }));
        self.request(GroupId::METADATA, handle, (ProducerId::ZERO, RequestNumber::ZERO), body);
    }
}

/// Why a release that knows these versions has no part in a cluster of that version; none if it has.
pub(crate) fn why_outside(version: Version, versions: Versions) -> Option<String> {
    let advice = match version > versions.newest {
        true => "start a newer release here",
        false => "start an older release here first, and raise the cluster with it (`varve cluster upgrade`)",
    };
    let is_outside = !versions.contains(version);
    is_outside
        .then(|| format!("the cluster is at version {version}, and this release knows {versions}: {advice}"))
}
