//! One replica of one group, as its node keeps it.

use std::cmp::Ordering;
use std::collections::VecDeque;

use varve_consensus::Replica;
use varve_protocol::durability::Durability;
use varve_protocol::frame::Voice;
use varve_protocol::id::{DirectoryId, NodeId, Op, ReplicaIndex, View};
use varve_protocol::limits::REPLICAS_MAX;
use varve_protocol::metadata::Move;
use varve_protocol::mutant::Mutant;
use varve_protocol::prepare::PrepareId;
use varve_protocol::replacement::{Change, Replacement};
use varve_protocol::retention::Retention;
use varve_protocol::time::Moment;

use crate::mending::Mending;
use crate::node::retention::Surveyed;
use crate::tail::Tail;

#[cfg(test)]
mod tests;

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

/// Where the metadata wants the replicas of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placement {
    /// The node that is to hold a replica in each place; zero: nobody.
    pub(crate) nodes: Vec<NodeId>,
    /// In how many places there was a replica when the group was made.
    pub(crate) founders: u8,
    /// The data directories that they had when the group was made; zero for one that has come later.
    pub(crate) directories: Vec<DirectoryId>,
    /// The op of the metadata that brought each there.
    pub(crate) arrived: Vec<Op>,
    /// The replica that is being moved.
    pub(crate) moving: Option<Move>,
    /// How long its records are kept.
    pub(crate) retention: Retention,
    /// When an append counts as done.
    pub(crate) durability: Durability,
}

impl Placement {
    /// The place of a node: its own, or the one that it is to take.
    pub(crate) fn place_of(&self, node: NodeId) -> Option<ReplicaIndex> {
        match self.moving {
            Some(moving) if moving.to == node => Some(moving.place),
            Some(_) | None => place_in(&self.nodes, node),
        }
    }

    /// Which place a node has or is to take, and the op of the metadata that brought it there.
    pub(crate) fn stay_of(&self, node: NodeId) -> Option<(ReplicaIndex, Op)> {
        Some((self.place_of(node)?, self.arrived(node)))
    }

    /// The op of the metadata that brought a node to its place, or is bringing it.
    pub(crate) fn arrived(&self, node: NodeId) -> Op {
        match (self.moving, place_in(&self.nodes, node)) {
            (Some(moving), _) if moving.to == node => moving.arrived,
            (_, Some(place)) => self.arrived[usize::from(place.as_raw())],
            (_, None) => Op::ZERO,
        }
    }

    /// Who stands in a place as long as no entry of the log says otherwise.
    pub(crate) fn first_holder(&self, replica: ReplicaIndex) -> NodeId {
        match self.successor(replica) {
            // A move that was given up: he is to stay.
            Some(moving) if moving.arrived == Op::ZERO => moving.to,
            Some(_) | None if replica.as_raw() < self.founders => self.node(replica),
            Some(_) | None => NodeId::ZERO,
        }
    }

    /// Who is to hold the replica in a place; zero: nobody.
    pub(crate) fn node(&self, replica: ReplicaIndex) -> NodeId {
        self.nodes.get(usize::from(replica.as_raw())).copied().unwrap_or_default()
    }

    /// The nodes that are to hold replicas.
    pub(crate) fn holders(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied().filter(|node| *node != NodeId::ZERO)
    }

    /// What is to become of a place, if anything is.
    pub(crate) fn successor(&self, replica: ReplicaIndex) -> Option<Move> {
        self.moving.filter(|moving| moving.place == replica)
    }
}

/// How many places a group has, vacant ones too.
pub(crate) const PLACES: u8 = 7;

const _: () = assert!(PLACES as usize == REPLICAS_MAX);

/// Every place that a group can have.
pub(crate) fn places() -> impl Iterator<Item = ReplicaIndex> {
    (0..).map(ReplicaIndex::new).take(REPLICAS_MAX)
}

fn place_in(nodes: &[NodeId], node: NodeId) -> Option<ReplicaIndex> {
    let place = nodes.iter().position(|member| *member == node)?;
    Some(ReplicaIndex::new(u8::try_from(place).expect("a group has at most seven members")))
}

/// Who stands in a place, as far as the log here tells, committed or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    /// Zero: nobody.
    pub(crate) node: NodeId,
    /// Its data directory.
    pub(crate) directory: DirectoryId,
    /// The op of the metadata that made it so; zero for one that the group was made with.
    pub(crate) since: Op,
}

/// What is made of the word of a node that speaks for a place of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It is heard.
    Voice,
    /// It is answered, and not heard: it is to take that place, or has held it and may not know that another does.
    Listener,
    /// It has nothing to do with that place, as far as is known here.
    Stranger,
}

/// One replica of one group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Where the metadata wants the replicas.
    pub(crate) placement: Placement,
    /// The node that holds the replica in each place, or zero, as far as the log here tells. As long as the replica here has no
    /// voice its log may be old, and this is where the metadata wants them.
    pub(crate) members: [NodeId; REPLICAS_MAX],
    /// Who is answered at the moment, and what place it speaks for.
    pub(crate) answering: Option<(ReplicaIndex, NodeId)>,
    /// What the last survey of its segments has shown.
    pub(crate) surveyed: Option<Surveyed>,
    /// The op before the first one on the disk.
    pub(crate) base: Op,
    /// The end of sealed segments: when that is committed, a resume point spares the next start from reading them.
    pub(crate) unmarked: Option<Op>,
    pub(crate) state: State,
    pub(crate) tail: Tail,
    /// When its timer is set to.
    pub(crate) armed: Option<Moment>,
    /// The view whose primary is not to be waited for although it is alive: it has begun another life since, and never resumes the
    /// view, or has not said a word of it.
    pub(crate) mute_in: Option<View>,
    /// The last view whose primary's liveness it has been told.
    pub(crate) view_seen: Option<View>,
    /// The view that this replica leads, as far as its peers are to be told.
    pub(crate) view_led: Option<View>,
    /// What was told to consumers before the replica began anew: until it knows as much again they are told nothing.
    pub(crate) told: Op,
    /// Appends on their way to the disk: op and bytes.
    writing: VecDeque<(Op, usize)>,
}

impl Group {
    pub(crate) fn new(placement: Placement, state: State, tail: Tail) -> Self {
        let mut group = Self {
            members: [NodeId::ZERO; REPLICAS_MAX],
            placement,
            answering: None,
            surveyed: None,
            base: Op::ZERO,
            unmarked: None,
            state,
            tail,
            armed: None,
            mute_in: None,
            view_seen: None,
            view_led: None,
            told: Op::ZERO,
            writing: VecDeque::new(),
        };
        group.look_who_is_seated();
        group
    }

    /// Looks in the log who holds the replicas.
    pub(crate) fn look_who_is_seated(&mut self) {
        let is_told_by_log = self.replica().is_some_and(Replica::is_admitted);
        for replica in places() {
            let wanted = match self.placement.successor(replica) {
                Some(moving) if moving.arrived == Op::ZERO => moving.to,
                Some(_) | None => self.placement.node(replica),
            };
            let node = if is_told_by_log { self.seat(replica).node } else { wanted };
            self.members[usize::from(replica.as_raw())] = node;
        }
        let vacant = self.placement.moving.filter(|moving| moving.from == NodeId::ZERO);
        let newcomer = vacant.map(|moving| moving.place);
        if let Some(replica) = self.replica_mut() {
            let is_other = |place: &ReplicaIndex| *place != replica.config().replica;
            replica.set_listener(newcomer.filter(is_other));
        }
    }

    /// The nodes that hold replicas, as far as the log here tells.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (ReplicaIndex, NodeId)> + '_ {
        places().zip(self.members).filter(|(_, node)| *node != NodeId::ZERO)
    }

    /// The place whose replica leads the group if nothing speaks against it.
    pub(crate) fn preferred(&self) -> Option<ReplicaIndex> {
        self.holders().map(|(place, _)| place).find(|place| self.successor(*place).is_none())
    }

    /// The same, with a log that begins behind this op.
    pub(crate) fn behind(self, base: Op) -> Self {
        Self { base, ..self }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        match &self.state {
            State::Open(replica) => Some(replica),
            State::Opening | State::Mending(_) | State::Damaged(_) => None,
        }
    }

    /// The replica, if it may tell consumers where its log ends.
    pub(crate) fn reader(&self) -> Option<&Replica> {
        self.replica().filter(|replica| replica.commit().op >= self.told)
    }

    pub(crate) fn replica_mut(&mut self) -> Option<&mut Replica> {
        match &mut self.state {
            State::Open(replica) => Some(replica),
            State::Opening | State::Mending(_) | State::Damaged(_) => None,
        }
    }

    /// Whether the node that leads the replica's view is not to be waited for although it is alive.
    pub(crate) fn primary_is_mute(&self) -> bool {
        let is_mute = |replica: &Replica| self.mute_in == Some(replica.view());
        self.replica().is_some_and(is_mute) && !Mutant::RebirthForgiven.is_on()
    }

    /// When something is due in this group.
    pub(crate) fn next_timeout(&self) -> Option<Moment> {
        match &self.state {
            State::Open(replica) => replica.next_timeout(),
            State::Mending(mending) => mending.due,
            State::Opening | State::Damaged(_) => None,
        }
    }

    /// The node in a place; zero if it is vacant.
    pub(crate) fn node(&self, replica: ReplicaIndex) -> NodeId {
        self.members[usize::from(replica.as_raw())]
    }

    /// Who stands in a place, as far as the log here tells, committed or not.
    pub(crate) fn seat(&self, replica: ReplicaIndex) -> Seat {
        match self.replica().and_then(|here| here.replacement(replica)) {
            Some(Replacement { node, directory, known_at, .. }) => Seat { node, directory, since: known_at },
            None => {
                let node = self.placement.first_holder(replica);
                let directory = self.placement.directories.get(usize::from(replica.as_raw()));
                Seat { node, directory: directory.copied().unwrap_or_default(), since: Op::ZERO }
            }
        }
    }

    /// The replica index of a node, if it is a member.
    pub(crate) fn index_of(&self, node: NodeId) -> Option<ReplicaIndex> {
        place_in(&self.members, node)
    }

    /// What is made of the word of a node in the name of `voice`. Whoever another has taken the place of, in the log here, has
    /// an older generation than that entry. Until that is committed nobody is heard in that place.
    pub(crate) fn standing(&self, node: NodeId, voice: Voice) -> Standing {
        let Some(holder) = self.members.get(usize::from(voice.replica.as_raw())).copied() else {
            return Standing::Stranger;
        };
        let known = self.replica().map_or(Op::ZERO, |here| here.generation(voice.replica));
        let may_speak = node == holder
            || node == self.placement.node(voice.replica)
            || self.placement.successor(voice.replica).is_some_and(|moving| moving.to == node);
        let commit = self.replica().map_or(Op::ZERO, |here| here.commit().op);
        let is_heard = match voice.generation.cmp(&known) {
            // Who has a generation knows its entry to be committed.
            Ordering::Greater => true,
            Ordering::Equal => node == holder || Mutant::SuccessorHeard.is_on(),
            // Who stands there and has lost its disk again, or does not know yet, speaks for itself.
            Ordering::Less if node == holder => known <= commit || Mutant::PendingHeard.is_on(),
            Ordering::Less => Mutant::FormerHeard.is_on(),
        };
        match may_speak {
            true if is_heard => Standing::Voice,
            true => Standing::Listener,
            false => Standing::Stranger,
        }
    }

    /// Everybody who may stand in a place: as the log here tells, as the metadata wants it, and who is to come.
    pub(crate) fn candidates(&self, replica: ReplicaIndex) -> [Option<NodeId>; 3] {
        let holder = self.node(replica);
        let wanted = self.placement.node(replica);
        let successor = self.placement.successor(replica).map(|moving| moving.to);
        let somebody = |node: &NodeId| *node != NodeId::ZERO;
        [
            Some(holder).filter(somebody),
            Some(wanted).filter(somebody).filter(|wanted| *wanted != holder),
            successor.filter(somebody).filter(|successor| *successor != holder && *successor != wanted),
        ]
    }

    /// The node that is to take a place and has not taken it, as far as the log here tells; it may have had that place before. Zero
    /// if the place is to be vacant and is not.
    pub(crate) fn successor(&self, replica: ReplicaIndex) -> Option<NodeId> {
        let moving = self.placement.successor(replica)?;
        let Move { from, to, since, .. } = moving;
        let is_done = if from == NodeId::ZERO || to == NodeId::ZERO {
            self.last_step(moving).is_some()
        } else {
            let seat = self.seat(replica);
            seat.node == to && seat.since >= since
        };
        (!is_done).then_some(to)
    }

    /// The entry of the log, committed or not, by which a replica has come or gone as is wanted.
    pub(crate) fn last_step(&self, Move { place, to, since, .. }: Move) -> Option<Op> {
        let change = if to == NodeId::ZERO { Change::Vacated } else { Change::Counted };
        let (op, entry) = self.replica()?.newest_entry(place)?;
        (entry.change == change && entry.node == to && entry.known_at >= since).then_some(op)
    }

    /// Who is meant when a replica is answered.
    pub(crate) fn asker(&self, replica: ReplicaIndex) -> NodeId {
        let asker = self.answering.filter(|(place, _)| *place == replica).map(|(_, node)| node);
        asker.unwrap_or_else(|| self.node(replica))
    }

    /// Every node that is told how the log goes on.
    pub(crate) fn audience(&self) -> impl Iterator<Item = NodeId> + '_ {
        let successor = self.placement.moving.map(|moving| moving.to);
        let successor = successor.filter(|node| *node != NodeId::ZERO && !self.members.contains(node));
        self.holders().map(|(_, node)| node).chain(successor)
    }

    /// The node that leads the replica's view; the first member while it is not open. Zero if it has left.
    pub(crate) fn primary_node(&self) -> NodeId {
        match self.replica() {
            Some(replica) => self.node(replica.primary()),
            None => self.holders().next().map(|(_, node)| node).unwrap_or_default(),
        }
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
