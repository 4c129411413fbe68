//! Nothing is sent or sealed that a node of the cluster could not read (rules U1 and U2): the cluster goes on to a version only when
//! all nodes have run a release that knows it, and nobody is ahead of the cluster.

use varve_protocol::frame::{Command, Frame};
use varve_protocol::id::NodeId;
use varve_protocol::prepare::PrepareHeader;
use varve_protocol::version::Version;

use super::Universe;
use crate::fast::host::Host;
use crate::fast::machine::Machine;
use crate::oracle::Violation;

impl<M: Machine> Universe<M> {
    /// Notes what a node knows of the cluster's version.
    pub(super) fn look_at_version(&mut self, node: NodeId) -> Result<(), Violation> {
        let known = self.hosts[&node].machine().map_or(Version::FIRST, Machine::version);
        if known <= self.version {
            return Ok(());
        }
        self.version = known;
        self.note(format!("{node} knows that the cluster is at version {known}"));
        let now = self.heap.now();
        let behind = self.scenario.node_ids().find(|node| !self.scenario.has_had_next(now, *node));
        behind.map_or(Ok(()), |behind| {
            let detail = format!("the cluster went on to version {known}, and {behind} never knew it");
            Err(Violation::new("a version was raised that a node does not know", detail))
        })
    }

    /// Whether a frame is ahead of the cluster, or what it brings.
    pub(super) fn look_at_frame(&self, from: NodeId, frame: &Frame) -> Result<(), Violation> {
        let mut version = frame.header.version;
        if matches!(frame.header.command, Command::Prepare | Command::RepairPrepare) {
            let header = PrepareHeader::decode(&frame.body.to_bytes());
            version = version.max(header.map_or(version, |header| header.version()));
        }
        if version <= self.version {
            return Ok(());
        }
        let (command, cluster) = (frame.header.command, self.version);
        let detail = format!("{from} sent {command:?} in version {version}; the cluster is at {cluster}");
        Err(Violation::new("somebody is ahead of the cluster's version", detail))
    }

    /// Whether all nodes know what one of them knows.
    pub(super) fn all_know_the_version(&self) -> bool {
        let mut machines = self.hosts.values().filter_map(Host::machine);
        machines.all(|machine| machine.version() == self.version)
    }
}
