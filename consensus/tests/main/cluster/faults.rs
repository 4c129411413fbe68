//! What befalls nodes, and what an operator has done about it.

use varve_protocol::resume_point::ResumePoint;
use varve_protocol::version::Version;

use super::*;

impl Cluster {
    /// Ends a life. Of the jobs under way the first `performed` made it to the disk, unreported.
    pub(crate) fn crash(&mut self, node: usize, performed: usize) {
        let is_from_memory = self.durability == Durability::QuorumMemory;
        if !self.is_up(node) || (is_from_memory && self.others_in_doubt(node) >= (self.count() - 1) / 2) {
            return;
        }
        self.trace.at(node, "crash");
        self.reading.retain(|_, asked| *asked != node);
        let node = &mut self.nodes[node];
        node.replica = None;
        for _ in 0..performed {
            node.disk.perform();
        }
        node.disk.crash();
    }

    /// How many others are silent because they stopped uncleanly. With too many the group waits for an operator.
    fn others_in_doubt(&self, node: usize) -> usize {
        let in_doubt = |other: &usize| {
            let Disk { in_doubt, superblock, .. } = &self.nodes[*other].disk;
            *other != node && (*in_doubt || superblock.is_torn)
        };
        (0..self.count()).filter(in_doubt).count()
    }

    /// The power of all fails, and the group must wait for an operator afterwards.
    pub(crate) fn crash_all(&mut self) {
        for node in 0..self.count() {
            self.trace.at(node, "crash");
            self.nodes[node].replica = None;
            self.nodes[node].disk.crash();
        }
        self.reading.clear();
    }

    /// Ends a life in order, if the replica says that it may end.
    pub(crate) fn stop(&mut self, node: usize) {
        self.trace.at(node, "is to stop");
        self.step(node, Input::Stop);
        self.sync(node);
        assert!(self.replica(node).may_stop(), "what is synced may stop");
        self.crash(node, 0);
    }

    /// The operator takes the blame.
    pub(crate) fn force(&mut self, node: usize) {
        self.trace.at(node, "shall go on with what it has");
        self.step(node, Input::ForceRecover);
        self.sync(node);
    }

    /// A node that is down loses its disk.
    pub(crate) fn lose_disk(&mut self, node: usize) {
        assert!(!self.is_up(node), "a disk is lost while nobody uses it");
        self.trace.at(node, "its disk is lost");
        self.oracle.on_disk_lost(&self.nodes[node].disk);
        self.nodes[node].disk = empty_disk(self.durability);
        self.nodes[node].wipes += 1;
    }

    /// The primary is asked to let a replica in that has lost its disk.
    pub(crate) fn let_in(&mut self, primary: usize, node: usize) -> RequestHandle {
        self.trace.at(primary, format!("shall let r{node} in"));
        let directory = directory(node, self.nodes[node].wipes);
        let replacement = Replacement {
            replica: replica_index(node),
            change: Change::Seated,
            node: NodeId::new(replica_index(node).as_raw() + 1),
            directory,
            known_at: Op::new(self.nodes[node].wipes),
        };
        self.seat(primary, replacement)
    }

    /// The primary is asked to let go of all but the last `kept` of what is committed.
    pub(crate) fn move_log_start(&mut self, primary: usize, kept: u64) -> RequestHandle {
        let handle = RequestHandle(self.next_handle);
        self.next_handle += 1;
        self.asked.insert(handle, (ProducerId::ZERO, RequestNumber::ZERO));
        let commit = self.replica(primary).commit().op.as_raw();
        let op = Op::new((commit + 1).saturating_sub(kept).max(1));
        let offset = self.oracle.offset_of(op);
        self.trace.at(primary, format!("shall let go of what is before {op}"));
        let input = Input::Request(Request {
            version: Version::FIRST,
            handle,
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
            kind: PrepareKind::LogStart,
            record_count: 0,
            now: Timestamp::new(self.now.as_nanos() / 1000),
            body: LogStart { op, offset }.encode(),
        });
        self.step(primary, input);
        handle
    }

    /// Ends a life, and takes that many prepares from the end of its log, as its disk notices: unless another log is torn.
    /// A majority of whole logs is what a group lives by.
    pub(crate) fn tear(&mut self, node: usize, lost: usize) {
        if self.count() == 1 || self.others_in_doubt(node) > 0 {
            return;
        }
        self.crash(node, 0);
        self.trace.at(node, format!("loses the last {lost} of its log"));
        let disk = &mut self.nodes[node].disk;
        disk.log.lose(lost);
        disk.superblock.is_torn = true;
    }

    /// Has the next life of a node go on reading where this one has come to, if it can say where that is.
    pub(crate) fn save_resume_point(&mut self, node: usize) {
        if let Some(point) = self.nodes[node].replica.as_ref().and_then(Replica::resume_point) {
            self.nodes[node].disk.log.resume_point = Some(point);
        }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        if self.is_up(node) || !self.is_here(node) {
            return;
        }
        self.trace.at(node, "restart");
        let config = self.config(node);
        let listener = self.listener.filter(|place| *place != config.replica);
        let this = &mut self.nodes[node];
        this.lives += 1;
        this.written = this.disk.log.clone();
        this.applied = this.disk.log.resumes_at().map_or(this.disk.log.base(), ResumePoint::op);
        let (log, committed) = this.disk.log.recover();
        for header in committed {
            self.apply(node, &header);
        }
        let this = &mut self.nodes[node];
        let rng = rng(node, this.lives);
        let mut replica = Replica::recover(config, rng, this.disk.superblock, log);
        replica.set_listener(listener);
        this.replica = Some(replica);
        self.let_go(node);
        self.drain(node);
    }

    // ---- outputs
}
