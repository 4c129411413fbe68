//! A group of replicas with a network that does what it is told and disks that forget what was not synced.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use varve_consensus::event::{Liveness, Outcome, ReadHandle, ReadOutcome, Request, RequestHandle};
use varve_consensus::{Config, Input, Output, Replica, Status, Timeouts};
use varve_protocol::durability::Durability;
use varve_protocol::id::{
    ClusterId, DirectoryId, Epoch, GroupId, NodeId, Op, ProducerId, ReplicaIndex, RequestNumber, Timestamp,
    View,
};
use varve_protocol::log_start::LogStart;
use varve_protocol::message::{Message, SuffixSlot};
use varve_protocol::prepare::{PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::replacement::{Change, Replacement};
use varve_protocol::superblock::Superblock;
use varve_protocol::time::Moment;
use varve_protocol::version::Version;

mod changes;
mod course;
mod faults;

use crate::disk::{Disk, Job};
use crate::journal::Journal;
use crate::oracle::Oracle;
use crate::trace::{Trace, describe};

const GROUP: GroupId = GroupId::new(1);

#[derive(Clone)]
struct Node {
    replica: Option<Replica>,
    disk: Disk,
    /// The log as written, synced or not: what the driver's cache would serve.
    written: Journal,
    /// Newest op applied in this life.
    applied: Op,
    lives: u64,
    /// Disks that were lost.
    wipes: u64,
    /// Whether it holds a replica, or is to get one.
    is_here: bool,
    /// How much was committed when it came.
    came_at: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) message: Message,
}

#[derive(Clone)]
pub(crate) struct Cluster {
    durability: Durability,
    /// Replicas that the group was made with.
    founders: usize,
    /// The place of a newcomer.
    listener: Option<ReplicaIndex>,
    nodes: Vec<Node>,
    pub(crate) network: Vec<Envelope>,
    pub(crate) now: Moment,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) replies: BTreeMap<RequestHandle, Outcome>,
    pub(crate) reads: BTreeMap<ReadHandle, ReadOutcome>,
    /// Who has not answered which read yet.
    reading: BTreeMap<ReadHandle, usize>,
    asked: BTreeMap<RequestHandle, (ProducerId, RequestNumber)>,
    next_handle: u64,
    /// Newest request number each producer has used.
    pub(crate) sessions: BTreeMap<u64, u64>,
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Self {
        Self::with_durability(count, Durability::QuorumDisk)
    }

    pub(crate) fn with_durability(count: usize, durability: Durability) -> Self {
        let nodes = (0..count).map(|node| Node {
            replica: Some(Replica::new(config((node, count, count), 0, durability), rng(node, 0))),
            disk: empty_disk(durability),
            written: Journal::default(),
            applied: Op::ZERO,
            lives: 0,
            wipes: 0,
            is_here: true,
            came_at: 0,
        });
        Self {
            durability,
            founders: count,
            listener: None,
            nodes: nodes.collect(),
            network: Vec::new(),
            now: Moment::ZERO,
            oracle: Oracle::new(count),
            trace: Trace::new(count),
            replies: BTreeMap::new(),
            reads: BTreeMap::new(),
            reading: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_handle: 0,
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn replica(&self, node: usize) -> &Replica {
        self.nodes[node].replica.as_ref().expect("the replica is up")
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some()
    }

    fn config(&self, node: usize) -> Config {
        config((node, self.founders, self.count()), self.nodes[node].wipes, self.durability)
    }

    fn disks(&self) -> Vec<&Disk> {
        self.nodes.iter().map(|node| &node.disk).collect()
    }

    // ---- inputs

    pub(crate) fn step(&mut self, node: usize, input: Input) {
        let Some(replica) = self.nodes[node].replica.as_mut() else { return };
        replica.step(self.now, input);
        self.drain(node);
    }

    /// An append without a session. Returns the handle under which the outcome is found.
    pub(crate) fn request(&mut self, node: usize) -> RequestHandle {
        self.request_of(node, 0, 0)
    }

    pub(crate) fn request_of(&mut self, node: usize, producer: u64, request: u64) -> RequestHandle {
        let handle = RequestHandle(self.next_handle);
        self.next_handle += 1;
        let (producer, request) = (ProducerId::new(producer), RequestNumber::new(request));
        self.asked.insert(handle, (producer, request));
        let of = if producer == ProducerId::ZERO { String::new() } else { format!(" {producer} {request}") };
        self.trace.at(node, format!("request h{}{of}", handle.0));
        let input = Input::Request(Request {
            version: Version::FIRST,
            handle,
            producer,
            request,
            kind: PrepareKind::Records,
            record_count: 2,
            now: Timestamp::new(self.now.as_nanos() / 1000),
            body: Bytes::from(format!("{producer} {request}")),
        });
        self.step(node, input);
        handle
    }

    /// Somebody asks where the log ends now. Returns the handle under which the outcome is found.
    pub(crate) fn read(&mut self, node: usize) -> ReadHandle {
        let handle = ReadHandle(self.next_handle);
        self.next_handle += 1;
        self.trace.at(node, format!("read h{}", handle.0));
        self.oracle.on_read(handle);
        self.reading.insert(handle, node);
        self.step(node, Input::ConfirmRead { handle });
        handle
    }

    pub(crate) fn liveness(&mut self, node: usize, liveness: Liveness) {
        let what =
            if self.is_up(node) && self.replica(node).is_primary() { "a quorum" } else { "its primary" };
        let does = match liveness {
            Liveness::Suspected => "misses",
            Liveness::Heard => "hears",
        };
        self.trace.at(node, format!("{does} {what}"));
        self.step(node, Input::PrimaryLiveness(liveness));
    }

    /// The operator wants another primary.
    pub(crate) fn hand_over(&mut self, node: usize, to: usize) {
        self.trace.at(node, format!("shall hand over to r{to}"));
        self.step(node, Input::HandOver { to: replica_index(to) });
    }

    /// The primary's node tells its commit, as pulses do.
    pub(crate) fn pulse(&mut self, node: usize) {
        if !self.is_up(node) || !self.replica(node).is_primary() {
            return;
        }
        let message =
            Message::Commit { view: self.replica(node).view(), commit: self.replica(node).commit() };
        for to in (0..self.count()).filter(|to| *to != node) {
            self.network.push(Envelope { from: node, to, message: message.clone() });
        }
    }

    /// Lets time pass; whoever has something due is woken.
    pub(crate) fn elapse(&mut self, wait: Duration) {
        self.now = self.now.plus(wait);
        for node in 0..self.count() {
            let due = self.nodes[node].replica.as_ref().and_then(Replica::next_timeout);
            if due.is_some_and(|due| due <= self.now) {
                self.step(node, Input::Tick);
            }
        }
    }

    pub(crate) fn deliver(&mut self, place: usize) {
        let Envelope { from, to, message } = self.network.remove(place);
        if self.is_up(to) {
            self.trace.arrow(from, to, describe(&message), true);
            self.step(to, Input::Message { from: replica_index(from), message });
        }
    }

    pub(crate) fn drop(&mut self, place: usize) {
        let Envelope { from, to, message } = self.network.remove(place);
        self.trace.arrow(from, to, describe(&message), false);
    }

    /// Performs the oldest disk job and reports it.
    pub(crate) fn complete_job(&mut self, node: usize) -> bool {
        if !self.is_up(node) {
            return false;
        }
        let Some(done) = self.nodes[node].disk.perform() else { return false };
        match &done {
            Input::Durable(id) => self.trace.at(node, format!("durable {id}")),
            Input::SuperblockDurable(saved) => {
                let torn = match (saved.is_torn, saved.is_unsynced) {
                    (true, _) => " torn",
                    (false, true) => " unsynced",
                    (false, false) => "",
                };
                let text = format!("superblock view={} log_view={}{torn}", saved.view, saved.log_view);
                self.trace.at(node, text);
            }
            Input::Message { .. }
            | Input::Request(_)
            | Input::PrimaryLiveness(_)
            | Input::HandOver { .. }
            | Input::ConfirmRead { .. }
            | Input::SaveCommit
            | Input::Stop
            | Input::ForceRecover
            | Input::Tick => {}
        }
        self.step(node, done);
        true
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].replica.as_mut().and_then(Replica::poll_output) {
            self.perform(node, output);
        }
        self.oracle.assert_durable(&self.nodes.iter().map(|node| &node.disk).collect::<Vec<_>>());
    }

    fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.assert_promises(node, &message);
                self.network.push(Envelope { from: node, to: usize::from(to.as_raw()), message });
            }
            Output::Append(prepare) => {
                self.trace.at(node, format!("append {}", prepare.id()));
                self.oracle.on_append(&prepare);
                self.nodes[node].written.push(prepare.clone());
                self.nodes[node].disk.jobs.push_back(Job::Append(prepare));
            }
            Output::Sync => {
                assert_eq!(self.durability, Durability::QuorumMemory, "other groups sync what they append");
                self.nodes[node].disk.jobs.push_back(Job::Sync);
            }
            Output::Truncate { keep } => {
                self.trace.at(node, format!("cut behind {keep}"));
                self.nodes[node].written.truncate(keep);
                self.nodes[node].disk.jobs.push_back(Job::Truncate(keep));
            }
            Output::TakeSnapshot(snapshot) => {
                self.trace.at(node, format!("take snapshot {}", snapshot.id()));
                self.oracle.on_snapshot(&snapshot);
                self.nodes[node].written.take((*snapshot).clone());
                self.nodes[node].applied = snapshot.op();
                self.nodes[node].disk.jobs.push_back(Job::Take(*snapshot));
            }
            Output::SaveSuperblock(superblock) => {
                self.nodes[node].disk.jobs.push_back(Job::Save(superblock));
            }
            Output::Apply(header) => {
                self.trace.at(node, format!("commit {}", header.id()));
                self.apply(node, &header);
                if header.kind() == PrepareKind::LogStart {
                    self.let_go(node);
                }
            }
            Output::Reply { handle, outcome } => {
                self.trace.at(node, format!("reply h{} {outcome:?}", handle.0));
                let (producer, request) = self.asked[&handle];
                self.oracle.on_reply(producer, request, outcome);
                let twice = self.replies.insert(handle, outcome);
                assert_eq!(twice, None, "a request is answered once");
            }
            Output::ReplyToRead { handle, outcome } => {
                let commit = self.replica(node).commit().op;
                self.trace.at(node, format!("reply h{} {outcome:?} commit={commit}", handle.0));
                self.oracle.on_read_reply(handle, outcome, commit);
                let twice = self.reads.insert(handle, outcome);
                assert_eq!(twice, None, "a read is answered once");
                self.reading.remove(&handle);
            }
            Output::ServePrepares { to, view, ids } => self.serve_prepares(node, to, view, &ids),
            Output::ServeHeaders { to, view, first, last } => {
                assert!(
                    last <= self.replica(node).commit().op,
                    "only committed headers are served from disk"
                );
                let written = &self.nodes[node].written;
                let message = match written.snapshot.clone().filter(|snapshot| snapshot.op() >= first) {
                    Some(snapshot) => Message::Snapshot { view, snapshot: Box::new(snapshot) },
                    None => Message::Headers { view, headers: written.headers(first, last) },
                };
                self.network.push(Envelope { from: node, to: usize::from(to.as_raw()), message });
            }
        }
    }

    fn serve_prepares(&mut self, node: usize, to: ReplicaIndex, view: View, ids: &[PrepareId]) {
        for id in ids {
            let message = match self.nodes[node].written.get(*id).cloned() {
                Some(prepare) => Message::RepairPrepare { view, prepare },
                None => Message::RepairMissing { view, id: *id },
            };
            self.network.push(Envelope { from: node, to: usize::from(to.as_raw()), message });
        }
        let first = ids.iter().map(|id| id.op).min();
        let snapshot = self.nodes[node].written.snapshot.clone();
        if let Some(snapshot) = snapshot.filter(|snapshot| first.is_some_and(|first| first <= snapshot.op()))
        {
            let message = Message::Snapshot { view, snapshot: Box::new(snapshot) };
            self.network.push(Envelope { from: node, to: usize::from(to.as_raw()), message });
        }
    }

    /// Lets go of what is before the start of the log.
    fn let_go(&mut self, node: usize) {
        let start = self.replica(node).log_start();
        let commit = self.replica(node).commit().op;
        assert!(start.op <= commit.next(), "nothing is let go that is not committed");
        let this = &mut self.nodes[node];
        if start.op > this.written.base().next() {
            this.written.let_go(start.op);
            this.disk.jobs.push_back(Job::LetGo(start.op));
            self.trace.at(node, format!("let go of what is before {}", start.op));
        }
    }

    fn apply(&mut self, node: usize, header: &PrepareHeader) {
        let disks: Vec<_> = self.nodes.iter().map(|node| &node.disk).collect();
        self.oracle.on_apply(header, &disks);
        assert_eq!(header.op(), self.nodes[node].applied.next(), "each op is applied once, in order");
        self.nodes[node].applied = header.op();
    }

    /// P1, P2 and N4, as seen from outside: at the moment of sending, the disk holds what the message promises.
    fn assert_promises(&self, node: usize, message: &Message) {
        let disk = &self.nodes[node].disk;
        match message {
            Message::DoViewChange { view, log_view, suffix, .. } => {
                assert!(!disk.superblock.is_torn, "who has lost the end of its log does not tell it");
                assert_eq!(disk.superblock.view, *view, "P1: the view is durable before do_view_change");
                assert_eq!(disk.superblock.log_view, *log_view, "do_view_change tells the durable log view");
                for slot in suffix {
                    if let SuffixSlot::Has(header) = slot {
                        assert!(disk.holds(header.id()), "do_view_change tells what is durable");
                    }
                }
            }
            Message::StartView { view, .. } | Message::Prepare { view, .. } => {
                assert_eq!(disk.superblock.log_view, *view, "P2: the log view is durable before leading");
            }
            Message::PrepareOk { view, id } => {
                assert_eq!(disk.superblock.log_view, *view, "P2: the log view is durable before prepare_ok");
                assert!(disk.may_acknowledge(*id), "prepare_ok comes after the sync, or after the mark");
            }
            Message::Commit { .. }
            | Message::StartViewChange { .. }
            | Message::GetStartView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::GetPrepares { .. }
            | Message::RepairPrepare { .. }
            | Message::RepairMissing { .. }
            | Message::Snapshot { .. }
            | Message::ConfirmView { .. } => {}
            Message::ViewConfirmed { view, .. } => {
                assert_eq!(disk.superblock.log_view, *view, "only who works in a view confirms it");
            }
        }
    }

    // ---- whole courses

    pub(crate) fn is_whole(&self) -> bool {
        let Some(primary) = self.newest_primary() else { return false };
        let first = self.replica(primary);
        (0..self.count()).filter(|node| self.is_here(*node)).map(|node| self.replica(node)).all(|replica| {
            replica.status() == Status::Normal
                && replica.view() == first.view()
                && replica.head() == first.head()
                && replica.commit() == first.head()
                && replica.durable() == first.head()
                && replica.next_timeout().is_none()
        }) && self.reading.is_empty()
    }

    pub(crate) fn primary(&self) -> usize {
        self.newest_primary().expect("there is a primary")
    }

    pub(crate) fn newest_primary(&self) -> Option<usize> {
        (0..self.count())
            .filter(|node| self.is_up(*node) && self.replica(*node).is_primary())
            .max_by_key(|node| self.replica(*node).view())
    }

    pub(crate) fn state(&self, node: usize) -> String {
        match &self.nodes[node].replica {
            None => "down".to_owned(),
            Some(replica) => format!(
                "{} view={} log_view={} head={} durable={} commit={} timeout={:?}",
                replica.status(),
                replica.view(),
                replica.log_view(),
                replica.head(),
                replica.durable(),
                replica.commit(),
                replica.next_timeout()
            ),
        }
    }

    /// All safety properties that can be judged from outside at any time.
    pub(crate) fn assert_safe(&self) {
        self.oracle.assert_durable(&self.disks());
        for replica in self.nodes.iter().filter_map(|node| node.replica.as_ref()) {
            self.oracle.assert_log_start(replica.commit().op, replica.log_start());
        }
    }
}

pub(crate) fn replica_index(node: usize) -> ReplicaIndex {
    ReplicaIndex::new(u8::try_from(node).unwrap())
}

fn empty_disk(durability: Durability) -> Disk {
    let superblock = Superblock::new(GROUP);
    let (jobs, unsynced) = (VecDeque::new(), Vec::new());
    Disk { log: Journal::default(), superblock, jobs, unsynced, durability, in_doubt: false }
}

fn directory(node: usize, wipes: u64) -> DirectoryId {
    DirectoryId::new(node as u64 + 1 + wipes * 100)
}

fn config((node, founders, places): (usize, usize, usize), wipes: u64, durability: Durability) -> Config {
    Config {
        cluster: ClusterId::new(7),
        group: GROUP,
        epoch: Epoch::ZERO,
        replica: replica_index(node),
        founders: u8::try_from(founders).unwrap(),
        places: u8::try_from(places).unwrap(),
        directory: directory(node, wipes),
        arrived: Op::ZERO,
        is_original: wipes == 0 && node < founders,
        durability,
        timeouts: Timeouts { memory_rest: Duration::from_millis(300), ..Timeouts::default() },
    }
}

fn rng(node: usize, life: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(node as u64 * 1000 + life)
}
