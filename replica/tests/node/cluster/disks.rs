//! What befalls the disks of nodes.

use varve_protocol::id::{DirectoryId, GroupId, NodeId};
use varve_replica::NodeInput;
use varve_storage::{Completion, Disk, Identity, MemoryDisk, Store};

use super::{CLUSTER, Cluster};

impl Cluster {
    /// Lets the disk of a node do nothing any more.
    pub(crate) fn hang_disk(&mut self, id: NodeId) {
        self.machines.get_mut(&id).expect("the machine exists").is_hung = true;
    }

    /// Puts off telling a node what looks at its logs find.
    pub(crate) fn hold_looks(&mut self, id: NodeId) {
        self.machines.get_mut(&id).expect("the machine exists").looks_held = Some(Vec::new());
    }

    /// Whether a look that is put off has found something in the log of a group.
    pub(crate) fn holds_finding(&self, id: NodeId, group: GroupId) -> bool {
        let finds = |look: &Completion| {
            let Completion::Scrubbed { group: of, piece } = look else { return false };
            *of == group && !piece.findings.is_empty()
        };
        self.machines[&id].looks_held.iter().flatten().any(finds)
    }

    /// Tells it.
    pub(crate) fn release_looks(&mut self, id: NodeId) {
        let held = self.machines.get_mut(&id).expect("the machine exists").looks_held.take();
        for look in held.into_iter().flatten() {
            self.input(id, NodeInput::Disk(look));
        }
        self.settle();
    }

    /// Lets the disk of a node put off all reads while it does everything else.
    pub(crate) fn hold_reads(&mut self, id: NodeId) {
        self.machines.get_mut(&id).expect("the machine exists").reads_held = Some(Vec::new());
    }

    /// Lets it do them.
    pub(crate) fn release_reads(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).expect("the machine exists");
        let jobs = machine.reads_held.take().expect("reads were held");
        let store = machine.store.as_mut().expect("a node that is up has a store");
        for completion in store.execute(jobs) {
            self.input(id, NodeInput::Disk(completion));
        }
        self.settle();
    }

    /// Gives a node that is down an empty disk.
    pub(crate) fn lose_disk(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).expect("the machine exists");
        assert!(machine.node.is_none(), "a disk is lost while nobody uses it");
        machine.disk = MemoryDisk::new();
        let directory = DirectoryId::new(u64::from(id.as_raw()) + 100 * machine.lives);
        Store::format(&machine.disk, Identity { cluster: CLUSTER, node: id }, directory)
            .expect("an empty disk can be formatted");
    }

    /// A node's disk.
    pub(crate) fn disk(&self, id: NodeId) -> &MemoryDisk {
        &self.machines[&id].disk
    }

    /// The directories of groups on a node's disk.
    pub(crate) fn group_dirs(&self, id: NodeId) -> Vec<String> {
        self.machines[&id].disk.list(std::path::Path::new("groups")).expect("a node's disk has groups")
    }
}
