//! A cluster in one thread: frames and disk jobs are performed at once, and time moves only when nothing else is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::{NodeStatus, Request, Response, Role};
use varve_protocol::compression::Compression;
use varve_protocol::durability::Durability;
use varve_protocol::frame::{Command, Frame};
use varve_protocol::id::{
    ClusterId, DirectoryId, GroupId, Incarnation, NodeId, Offset, ProducerId, Timestamp,
};
use varve_protocol::metadata::{MetadataOp, MetadataOutcome};
use varve_protocol::retention::Retention;
use varve_protocol::time::Moment;
use varve_protocol::version::Versions;
use varve_replica::{Effect, METADATA_BYTES_KEPT, Node, NodeConfig, NodeInput, Recovery, Session, Timing};
use varve_storage::{Completion, Identity, Job, MemoryDisk, Options, Store};

mod disks;
mod frames;
mod links;
mod start;

pub(crate) use self::frames::{append, append_batch, fetch, payloads, refusal, request, response};

use self::frames::refusal_if_any;

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xc1);

/// How long anything may take before a test gives up, in simulated time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Frames delivered in one moment after which the nodes are taken to run in circles: here nothing takes time but waiting.
const FRAMES_AT_ONCE_MAX: u32 = 100_000;

/// The same for ticks.
const TICKS_AT_ONCE_MAX: u32 = 10_000;

pub(crate) const fn n(raw: u8) -> NodeId {
    NodeId::new(raw)
}

struct Machine {
    node: Option<Node>,
    disk: MemoryDisk,
    store: Option<Store<MemoryDisk>>,
    lives: u64,
    /// How far its wall clock is ahead.
    ahead: Duration,
    /// Whether its disk does nothing.
    is_hung: bool,
    /// The reads that its disk puts off, if it does.
    reads_held: Option<Vec<Job>>,
    /// What looks at logs have found and nobody is told yet, if that is put off.
    looks_held: Option<Vec<Completion>>,
}

pub(crate) struct Cluster {
    now: Moment,
    rng: ChaCha8Rng,
    machines: BTreeMap<NodeId, Machine>,
    /// Directed links that lose everything.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that hear nothing of the metadata.
    deaf: BTreeSet<NodeId>,
    /// Pairs of nodes that could not connect, because something was cut.
    unconnected: BTreeSet<(NodeId, NodeId)>,
    answers: BTreeMap<Session, VecDeque<Frame>>,
    next_session: u64,
    /// Frames that went from node to node, by command.
    pub(crate) sent: BTreeMap<Command, u64>,
    /// Frames to be delivered, oldest first.
    wire: VecDeque<(NodeId, NodeId, Frame)>,
    /// Ticks since time moved on.
    ticks_at_once: u32,
    /// Of the stores that are opened from now on.
    pub(crate) options: Options,
    /// Of the nodes that are started from now on.
    timing: Timing,
    /// What their release knows.
    pub(crate) release: Versions,
    metadata_bytes_kept: u64,
}

/// Disks in memory are not full, and need no reserve.
const OPTIONS: Options = Options { segment_size_bytes_max: 256 << 20, reserve_bytes: 0, ..Options::DEFAULT };

impl Cluster {
    /// A formatted and started cluster in which the metadata group has a primary and all nodes are registered.
    pub(crate) fn unfounded(nodes: u8) -> Self {
        let mut cluster = Self {
            now: Moment::ZERO,
            rng: ChaCha8Rng::seed_from_u64(7),
            machines: BTreeMap::new(),
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            unconnected: BTreeSet::new(),
            answers: BTreeMap::new(),
            next_session: 1,
            sent: BTreeMap::new(),
            wire: VecDeque::new(),
            ticks_at_once: 0,
            options: OPTIONS,
            timing: Timing::default(),
            release: Versions::OF_THIS_RELEASE,
            metadata_bytes_kept: METADATA_BYTES_KEPT,
        };
        for id in (1..=nodes).map(NodeId::new) {
            let disk = MemoryDisk::new();
            Store::format(
                &disk,
                Identity { cluster: CLUSTER, node: id },
                DirectoryId::new(id.as_raw().into()),
            )
            .expect("an empty disk can be formatted");
            cluster.machines.insert(
                id,
                Machine {
                    node: None,
                    disk,
                    store: None,
                    lives: 0,
                    ahead: Duration::ZERO,
                    is_hung: false,
                    reads_held: None,
                    looks_held: None,
                },
            );
        }
        cluster
    }

    /// What the clocks of all nodes say.
    pub(crate) fn wall(&self) -> Timestamp {
        wall(self.now)
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.machines[&id].node.as_ref().expect("the node is up")
    }

    pub(crate) fn status(&self, id: NodeId) -> NodeStatus {
        self.node(id).status()
    }

    /// What a node's replica of a group does, if it has one.
    pub(crate) fn role(&self, id: NodeId, group: GroupId) -> Option<Role> {
        self.status(id).groups.iter().find(|one| one.group == group).map(|one| one.role)
    }

    fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// The nodes that run.
    pub(crate) fn up(&self) -> Vec<NodeId> {
        self.machines.iter().filter(|(_, machine)| machine.node.is_some()).map(|(id, _)| *id).collect()
    }

    /// Starts a node on what its disk holds, and connects it to those that are up.
    pub(crate) fn boot(&mut self, id: NodeId) {
        let members = self.ids().into_iter().map(|id| (id, format!("127.0.0.1:{}", id.as_raw()))).collect();
        let machine = self.machines.get_mut(&id).expect("the machine exists");
        let identity = Identity { cluster: CLUSTER, node: id };
        let (store, recovery) = Recovery::open(machine.disk.clone(), identity, self.options.clone())
            .expect("what a node wrote it can read again");
        machine.lives += 1;
        let config = NodeConfig {
            cluster: CLUSTER,
            node: id,
            incarnation: Incarnation::new(machine.lives),
            versions: self.release,
            members,
            timing: self.timing.clone(),
            metadata_bytes_kept: self.metadata_bytes_kept,
            seed: [id.as_raw(); 32],
        };
        machine.store = Some(store);
        machine.node = Some(Node::new(config, self.now, wall(self.now), recovery));
        for other in self.up() {
            if other != id {
                self.connect(id, other);
            }
        }
        self.settle();
    }

    /// Ends a node's process; what was not synced may be gone.
    pub(crate) fn kill(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).expect("the machine exists");
        machine.node = None;
        machine.store = None;
        machine.disk = machine.disk.crash(&mut self.rng);
        self.wire.retain(|(from, to, _)| *from != id && *to != id);
        for other in self.up() {
            self.input(other, NodeInput::PeerDown { node: id });
        }
    }

    /// Tells a node that its process is about to end.
    pub(crate) fn stop(&mut self, id: NodeId) {
        self.input(id, NodeInput::Stop);
        self.settle();
    }

    fn input(&mut self, id: NodeId, input: NodeInput) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if let Some(node) = &mut machine.node {
            node.step(now, wall(now.plus(machine.ahead)), input);
            self.perform(id);
        }
    }

    fn perform(&mut self, id: NodeId) {
        let mut jobs = Vec::new();
        let machine = self.machines.get_mut(&id).expect("the machine exists");
        let Some(node) = machine.node.as_mut() else { return };
        while let Some(effect) = node.poll_effect() {
            match effect {
                Effect::Disk(job) => match &mut machine.reads_held {
                    Some(held) if matches!(job, Job::Read { .. }) => held.push(job),
                    Some(_) | None => jobs.push(job),
                },
                Effect::ToPeer { node, frame, .. } => {
                    *self.sent.entry(frame.header.command).or_default() += 1;
                    self.wire.push_back((id, node, received(&frame)));
                }
                Effect::ToClient { session, frame } => {
                    self.answers.entry(session).or_default().push_back(received(&frame));
                }
                Effect::Halt { reason } => panic!("{id} halted: {reason}"),
            }
        }
        if machine.is_hung {
            return;
        }
        let store = machine.store.as_mut().expect("a node that is up has a store");
        let (looks, told): (Vec<Completion>, Vec<Completion>) = store
            .execute(jobs)
            .into_iter()
            .partition(|one| machine.looks_held.is_some() && matches!(one, Completion::Scrubbed { .. }));
        machine.looks_held.iter_mut().for_each(|held| held.extend(looks.iter().cloned()));
        for completion in told {
            self.input(id, NodeInput::Disk(completion));
        }
    }

    /// Performs everything that can be done without time passing.
    fn settle(&mut self) {
        for id in self.up() {
            self.perform(id);
        }
        let mut delivered = 0;
        while let Some((from, to, frame)) = self.wire.pop_front() {
            delivered += 1;
            assert!(delivered < FRAMES_AT_ONCE_MAX, "the nodes never come to rest");
            let is_pulse = frame.header.command == Command::Pulse;
            let is_unheard = self.deaf.contains(&to) && frame.header.group == GroupId::METADATA && !is_pulse;
            if !self.cut.contains(&(from, to)) && !is_unheard {
                self.input(to, NodeInput::PeerFrame { node: from, frame });
            }
        }
    }

    /// Has a node hear this from another one.
    pub(crate) fn say(&mut self, from: NodeId, to: NodeId, frame: &Frame) {
        self.wire.push_back((from, to, received(frame)));
        self.settle();
    }

    /// Lets time pass until the next timer.
    fn tick(&mut self) {
        let due = self.up().into_iter().filter_map(|id| self.node(id).next_timeout()).min();
        let due = due.expect("a node always has a pulse to send");
        self.ticks_at_once = if due > self.now { 0 } else { self.ticks_at_once + 1 };
        assert!(self.ticks_at_once < TICKS_AT_ONCE_MAX, "time stands still");
        self.now = self.now.max(due);
        for id in self.up() {
            self.input(id, NodeInput::Tick);
        }
        self.settle();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.tick();
        }
    }

    pub(crate) fn run_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.now.plus(PATIENCE);
        self.settle();
        while !holds(self) {
            assert!(self.now < end, "in {PATIENCE:?} it did not come about that {what}");
            self.tick();
        }
    }

    /// The node that leads a group, once there is exactly one that says so.
    pub(crate) fn primary(&mut self, group: GroupId) -> NodeId {
        let leads = |cluster: &Self, id: NodeId| {
            let status = cluster.status(id);
            status.groups.iter().any(|one| one.group == group && one.role == Role::Primary)
        };
        self.run_until("the group has one primary", |cluster| {
            cluster.up().into_iter().filter(|id| leads(cluster, *id)).count() == 1
        });
        self.up().into_iter().find(|id| leads(self, *id)).expect("one was found")
    }

    /// Has a node lead a group.
    pub(crate) fn lead(&mut self, group: GroupId, to: NodeId) {
        let from = self.primary(group);
        if from != to {
            let answer = self.call(from, request(group, &Request::HandOver { to }));
            assert_eq!(response(&answer), Response::HandingOver);
            self.run_until("the other one leads", |cluster| cluster.role(to, group) == Some(Role::Primary));
        }
    }

    pub(crate) fn session(&mut self) -> Session {
        self.next_session += 1;
        Session(self.next_session)
    }

    /// Sends a client's frame to a node; the answer is waited for with [`Self::answer`].
    pub(crate) fn ask(&mut self, node: NodeId, session: Session, frame: Frame) {
        self.input(node, NodeInput::ClientFrame { session, frame });
        self.settle();
    }

    /// A client goes away.
    pub(crate) fn leave(&mut self, node: NodeId, session: Session) {
        self.input(node, NodeInput::ClientGone { session });
    }

    pub(crate) fn has_answer(&self, session: Session) -> bool {
        self.answers.get(&session).is_some_and(|answers| !answers.is_empty())
    }

    pub(crate) fn answer(&mut self, session: Session) -> Frame {
        self.run_until("the client is answered", |cluster| cluster.has_answer(session));
        self.answers.get_mut(&session).and_then(VecDeque::pop_front).expect("there is an answer")
    }

    pub(crate) fn call(&mut self, node: NodeId, frame: Frame) -> Frame {
        let session = self.session();
        self.ask(node, session, frame);
        self.answer(session)
    }

    pub(crate) fn change(&mut self, operation: MetadataOp) -> MetadataOutcome {
        let primary = self.primary(GroupId::METADATA);
        let answer = self.call(primary, request(GroupId::METADATA, &Request::Change(operation)));
        let Response::Changed(outcome) = response(&answer) else {
            panic!("a change is answered by its outcome")
        };
        outcome
    }

    pub(crate) fn register_producer(&mut self) -> ProducerId {
        let outcome = self.change(MetadataOp::RegisterProducer);
        let MetadataOutcome::Producer(producer) = outcome else { panic!("a producer gets an id") };
        producer
    }

    /// Creates the topic `s/t` and waits until all its groups have a primary.
    pub(crate) fn create_topic(&mut self, partitions: u32, replication_factor: u8) -> Vec<GroupId> {
        self.make_topic(partitions, replication_factor, (Durability::QuorumDisk, Retention::FOREVER))
    }

    /// The same, for records that are not kept for ever.
    pub(crate) fn create_topic_keeping(
        &mut self,
        partitions: u32,
        replication_factor: u8,
        retention: Retention,
    ) -> Vec<GroupId> {
        self.make_topic(partitions, replication_factor, (Durability::QuorumDisk, retention))
    }

    /// The same, for another durability.
    pub(crate) fn create_topic_with(
        &mut self,
        partitions: u32,
        replication_factor: u8,
        durability: Durability,
    ) -> Vec<GroupId> {
        self.make_topic(partitions, replication_factor, (durability, Retention::FOREVER))
    }

    fn make_topic(
        &mut self,
        partitions: u32,
        replication_factor: u8,
        (durability, retention): (Durability, Retention),
    ) -> Vec<GroupId> {
        self.change(MetadataOp::CreateStream { stream: "s".to_owned() });
        let (stream, topic) = ("s".to_owned(), "t".to_owned());
        let replication_factor = Some(replication_factor);
        let operation = MetadataOp::CreateTopic {
            stream,
            topic,
            partitions,
            replication_factor,
            durability,
            retention,
            compression: Compression::None,
        };
        let outcome = self.change(operation);
        assert_eq!(outcome, MetadataOutcome::Done);
        let leader = self.primary(GroupId::METADATA);
        let groups: Vec<GroupId> =
            self.node(leader).metadata().partitions().map(|partition| partition.group).collect();
        for group in &groups {
            self.primary(*group);
        }
        // The backups hear of it with the next pulses.
        self.run_for(Duration::from_millis(100));
        groups
    }

    /// Appends and waits for the offset.
    pub(crate) fn append(
        &mut self,
        group: GroupId,
        producer: ProducerId,
        number: u64,
        payloads: &[&str],
    ) -> Offset {
        let primary = self.primary(group);
        let answer = self.call(primary, append(group, producer, number, payloads));
        assert_eq!(answer.header.command, Command::AppendOk, "{:?}", refusal_if_any(&answer));
        Offset::new(answer.header.commit)
    }

    /// All records of a partition as one node has them.
    pub(crate) fn read_all(&mut self, node: NodeId, group: GroupId) -> Vec<String> {
        self.read_from(node, group, 0)
    }

    /// All records of a partition from an offset on, as one node has them.
    pub(crate) fn read_from(&mut self, node: NodeId, group: GroupId, offset: u64) -> Vec<String> {
        let mut records: Vec<String> = Vec::new();
        loop {
            let next = offset + records.len() as u64;
            let answer = self.call(node, fetch(group, next, 0));
            assert_eq!(answer.header.command, Command::FetchOk, "{:?}", refusal_if_any(&answer));
            let found = payloads(&answer);
            if found.is_empty() {
                return records;
            }
            records.extend(found.into_iter().filter(|(at, _)| *at >= next).map(|(_, payload)| payload));
        }
    }

    /// Waits until all nodes that are up hold the same records of a group, and returns them.
    pub(crate) fn read_everywhere(&mut self, group: GroupId, count: usize) -> Vec<String> {
        self.read_everywhere_of(&self.up(), group, count)
    }

    /// The same of the nodes that hold the group.
    pub(crate) fn read_everywhere_of(
        &mut self,
        nodes: &[NodeId],
        group: GroupId,
        count: usize,
    ) -> Vec<String> {
        self.run_for(Duration::from_millis(200));
        let copies: Vec<_> = nodes.iter().map(|node| self.read_all(*node, group)).collect();
        assert!(copies.iter().all(|copy| *copy == copies[0]), "all replicas hold the same: {copies:?}");
        assert_eq!(copies[0].len(), count, "{:?}", copies[0]);
        copies[0].clone()
    }
}

fn wall(now: Moment) -> Timestamp {
    Timestamp::new(1_790_000_000_000_000 + now.as_nanos() / 1000)
}

/// The frame as it comes out at the other end.
fn received(frame: &Frame) -> Frame {
    Frame::decode(&frame.encode().concat().into()).expect("an encoded frame is sound")
}
