//! One replica of one group, as its node keeps it.

use std::collections::VecDeque;

use varve_consensus::Replica;
use varve_protocol::durability::Durability;
use varve_protocol::id::{DirectoryId, NodeId, Op, ReplicaIndex, View};
use varve_protocol::prepare::PrepareId;
use varve_protocol::retention::Retention;
use varve_protocol::time::Moment;

use crate::mending::Mending;
use crate::node::retention::Surveyed;
use crate::tail::Tail;

/// How far a replica is.
#[derive(Debug)]
pub(crate) enum State {
    /// Its first superblock is on its way to the disk; until then it says nothing.
    Opening,
    /// It takes part.
    Open(Box<Replica>),
    /// Its log has a hole; it takes no part until that is mended.
    Mending(Box<Mending>),
    /// Its log is damaged; it takes no part, so that it cannot vote on what it does not know.
    Damaged(String),
}

/// Where the replicas of a group were placed when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The nodes that hold replicas, by replica index.
    pub(crate) members: Vec<NodeId>,
    /// Their data directories at that time.
    pub(crate) directories: Vec<DirectoryId>,
    /// How long its records are kept.
    pub(crate) retention: Retention,
    /// When an append counts as done.
    pub(crate) durability: Durability,
}

/// One replica of one group.
#[derive(Debug)]
pub(crate) struct Group {
    /// The nodes that hold replicas, by replica index.
    pub(crate) members: Vec<NodeId>,
    /// The data directories that they had when the group was made.
    pub(crate) directories: Vec<DirectoryId>,
    /// How long its records are kept.
    pub(crate) retention: Retention,
    /// What the last survey of its segments has shown.
    pub(crate) surveyed: Option<Surveyed>,
    /// The op before the first one on the disk.
    pub(crate) base: Op,
    /// When an append counts as done.
    pub(crate) durability: Durability,
    pub(crate) state: State,
    pub(crate) tail: Tail,
    /// When its timer is set to.
    pub(crate) armed: Option<Moment>,
    /// The last view whose primary's liveness it has been told.
    pub(crate) view_seen: Option<View>,
    /// The view that this replica leads, as far as its peers are to be told.
    pub(crate) view_led: Option<View>,
    /// Appends on their way to the disk: op and bytes.
    writing: VecDeque<(Op, usize)>,
}

impl Group {
    pub(crate) fn new(placement: Placement, state: State, tail: Tail) -> Self {
        let Placement { members, directories, retention, durability } = placement;
        Self {
            members,
            directories,
            retention,
            surveyed: None,
            base: Op::ZERO,
            durability,
            state,
            tail,
            armed: None,
            view_seen: None,
            view_led: None,
            writing: VecDeque::new(),
        }
    }

    /// The same, with a log that begins behind this op.
    pub(crate) fn behind(self, base: Op) -> Self {
        Self { base, ..self }
    }

    pub(crate) fn placement(&self) -> Placement {
        let (members, directories) = (self.members.clone(), self.directories.clone());
        Placement { members, directories, retention: self.retention, durability: self.durability }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        match &self.state {
            State::Open(replica) => Some(replica),
            State::Opening | State::Mending(_) | State::Damaged(_) => None,
        }
    }

    pub(crate) fn replica_mut(&mut self) -> Option<&mut Replica> {
        match &mut self.state {
            State::Open(replica) => Some(replica),
            State::Opening | State::Mending(_) | State::Damaged(_) => None,
        }
    }

    /// When something is due in this group.
    pub(crate) fn next_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Open(replica) => replica.next_timeout(),
            State::Mending(mending) => mending.due,
            State::Opening | State::Damaged(_) => None,
        }
    }

    /// The node behind a replica index.
    pub(crate) fn node(&self, replica: ReplicaIndex) -> NodeId {
        self.members[usize::from(replica.as_raw())]
    }

    /// The data directory that stands in a place, as far as the log here tells, committed or not, and the op of the
    /// metadata that made it known there, if it is not the one that the group was made with.
    pub(crate) fn seated(&self, replica: ReplicaIndex) -> (DirectoryId, Op) {
        match self.replica().and_then(|here| here.replacement(replica)) {
            Some(replacement) => (replacement.directory, replacement.known_at),
            None => (self.directories[usize::from(replica.as_raw())], Op::ZERO),
        }
    }

    /// The replica index of a node, if it is a member.
    pub(crate) fn index_of(&self, node: NodeId) -> Option<ReplicaIndex> {
        let place = self.members.iter().position(|member| *member == node)?;
        Some(ReplicaIndex::new(u8::try_from(place).expect("a group has at most seven members")))
    }

    /// The node that leads the replica's view; the first member while it is not open.
    pub(crate) fn primary_node(&self) -> NodeId {
        self.node(self.replica().map_or(ReplicaIndex::ZERO, Replica::primary))
    }

    /// Notes an append that goes to the disk.
    pub(crate) fn note_writing(&mut self, op: Op, bytes: usize) {
        self.writing.push_back((op, bytes));
    }

    /// Notes that everything up to `id` is on disk, and tells how many bytes have thereby left the queue.
    pub(crate) fn note_written(&mut self, id: PrepareId) -> usize {
        let mut written = 0;
        while let Some((_, bytes)) = self.writing.front().filter(|(op, _)| *op <= id.op) {
            written += bytes;
            self.writing.pop_front();
        }
        written
    }

    /// Bytes still on their way to the disk.
    pub(crate) fn writing_bytes(&self) -> usize {
        self.writing.iter().map(|(_, bytes)| bytes).sum()
    }
}
