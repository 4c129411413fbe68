//! Replicas that join the group, and leave it.

use super::*;

impl Cluster {
    /// A group that was made with `founders` replicas and has room for more.
    pub(crate) fn with_room(founders: usize, places: usize) -> Self {
        let mut cluster = Self::with_durability(places, Durability::QuorumDisk);
        cluster.founders = founders;
        cluster.oracle = Oracle::new(founders);
        for node in 0..places {
            cluster.nodes[node].is_here = node < founders;
            let config = cluster.config(node);
            cluster.nodes[node].replica = (node < founders).then(|| Replica::new(config, rng(node, 0)));
        }
        cluster
    }

    /// Whether a node is to hold a replica, or to get one.
    pub(crate) fn is_here(&self, node: usize) -> bool {
        self.nodes[node].is_here
    }

    /// Whether the replica of a node has left, as is committed somewhere.
    pub(crate) fn has_left(&self, node: usize) -> bool {
        self.oracle.has_left(node, self.nodes[node].came_at)
    }

    /// A node without a replica gets an empty one, which listens.
    pub(crate) fn come(&mut self, node: usize) {
        if self.nodes[node].is_here {
            return;
        }
        self.trace.at(node, "comes to listen");
        self.nodes[node].is_here = true;
        self.nodes[node].came_at = self.oracle.committed.len();
        self.restart(node);
        self.listen(Some(node));
    }

    /// Everybody tells a newcomer how the log goes on.
    fn listen(&mut self, node: Option<usize>) {
        self.listener = node.map(replica_index);
        for node in &mut self.nodes {
            if let Some(replica) = &mut node.replica {
                replica.set_listener(self.listener.filter(|place| *place != replica.config().replica));
            }
        }
    }

    /// A node whose place is vacant, as is committed somewhere, forgets its replica.
    pub(crate) fn go(&mut self, node: usize) {
        if !self.nodes[node].is_here || !self.oracle.may_go(node, self.nodes[node].came_at) {
            return;
        }
        self.trace.at(node, "goes");
        self.reading.retain(|_, asked| *asked != node);
        let this = &mut self.nodes[node];
        this.is_here = false;
        this.replica = None;
        this.disk = empty_disk(self.durability);
        this.written = Journal::default();
        this.wipes += 1;
    }

    /// Whether the replica of a node is seated, as far as another one knows.
    pub(crate) fn is_seated(&self, by: usize, node: usize) -> bool {
        let entry = self.replica(by).replacement(replica_index(node));
        entry.is_some_and(|entry| entry.directory == directory(node, self.nodes[node].wipes))
    }

    /// A node is asked to seat the replica of another one, or, if it is seated, to let it count.
    pub(crate) fn join(&mut self, primary: usize, node: usize) -> RequestHandle {
        let change = if self.is_seated(primary, node) { Change::Counted } else { Change::Seated };
        let does = if change == Change::Counted { "count" } else { "in" };
        self.trace.at(primary, format!("shall let r{node} {does}"));
        let replacement = Replacement {
            replica: replica_index(node),
            change,
            node: NodeId::new(replica_index(node).as_raw() + 1),
            directory: directory(node, self.nodes[node].wipes),
            known_at: Op::new(self.nodes[node].wipes),
        };
        self.seat(primary, replacement)
    }

    /// A node is asked to let the replica of one leave.
    pub(crate) fn leave(&mut self, primary: usize, node: usize) -> RequestHandle {
        self.trace.at(primary, format!("shall let r{node} leave"));
        let replacement = Replacement {
            replica: replica_index(node),
            change: Change::Vacated,
            node: NodeId::ZERO,
            directory: DirectoryId::ZERO,
            known_at: Op::new(self.nodes[node].wipes),
        };
        self.seat(primary, replacement)
    }

    pub(super) fn seat(&mut self, primary: usize, replacement: Replacement) -> RequestHandle {
        let handle = RequestHandle(self.next_handle);
        self.next_handle += 1;
        self.asked.insert(handle, (ProducerId::ZERO, RequestNumber::ZERO));
        let input = Input::Request(Request {
            version: Version::FIRST,
            handle,
            producer: ProducerId::ZERO,
            request: RequestNumber::ZERO,
            kind: PrepareKind::Replacement,
            record_count: 0,
            now: Timestamp::new(self.now.as_nanos() / 1000),
            body: replacement.encode(),
        });
        self.step(primary, input);
        handle
    }
}
