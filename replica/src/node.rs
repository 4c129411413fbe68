//! A node: many replicas, the metadata, and the clients they serve. Deterministic: the same inputs give the same effects.
//!
//! ```text
//!   NodeInput ──▶ step ──┬─ liveness   pulses of peers: who is alive
//!                        ├─ groups     inputs to the consensus cores, their outputs performed
//!                        ├─ placing    which groups are here
//!                        ├─ mail       messages between replicas
//!                        ├─ clients    appends, metadata, status
//!                        ├─ offsets    where a partition ends
//!                        ├─ fetch      reads, long polls
//!                        ├─ balance    who leads what
//!                        ├─ founding   how a cluster begins
//!                        ├─ seats      lost disks
//!                        ├─ versions   what is spoken, and who understands it
//!                        ├─ moves      replicas that go from node to node
//!                        ├─ doubt      unclean stops
//!                        ├─ full       disks without room
//!                        ├─ scrub      logs that rot
//!                        ├─ anew       those that nothing makes whole
//!                        ├─ distance   how far the peers are
//!                        ├─ probing    how much goes through to them
//!                        └─ disk       completions ──▶ Effects
//! ```
//!
//! There is no clock, socket, disk or thread in here; [`crate::server`] has them, and so has the simulator.

mod anew;
mod balance;
pub(crate) mod clients;
mod disk;
mod distance;
pub(crate) mod doubt;
pub(crate) mod fetch;
mod founding;
pub(crate) mod full;
mod groups;
mod liveness;
mod mail;
mod mend;
mod moves;
mod offsets;
mod placing;
mod probing;
mod resume;
pub(crate) mod retention;
mod scrub;
mod seats;
mod unled;
mod versions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use varve_consensus::Status;
use varve_consensus::event::RequestHandle;
use varve_protocol::client::{GroupStatus, NodeStatus, NodeVitals, Role, RoleCounts};
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, DirectoryId, GroupId, Incarnation, NodeId, Offset, Op, Timestamp, View};
use varve_protocol::prepare::Prepare;
use varve_protocol::pulse::Founders;
use varve_protocol::time::Moment;
use varve_protocol::version::Versions;
use varve_storage::Job;

use crate::allowance::Allowance;
use crate::event::{Effect, NodeInput, Session};
use crate::group::{Group, State, places};
use crate::metadata::Metadata;
use crate::node::clients::Waiting;
use crate::node::disk::PendingReads;
use crate::node::fetch::Fetches;
use crate::node::full::DISK_FULL;
use crate::node::liveness::Peer;
use crate::node::offsets::Questions;
use crate::node::probing::Probing;
use crate::node::unled::Unled;
use crate::recovery::{RecoveredReplica, Recovery};
use crate::scrubbing::Scrubbing;
use crate::timers::{Due, Timers};
use crate::timing::Timing;

pub(crate) use self::versions::why_outside;

/// Bytes of the metadata's log that are kept in full segments: enough for a node that was away for a while. The rest is summed up.
pub const METADATA_BYTES_KEPT: u64 = 4 << 20;

/// Who a node is and how it beats.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Which of its nodes it is.
    pub node: NodeId,
    /// Which life of its process this is.
    pub incarnation: Incarnation,
    /// What this release knows.
    pub versions: Versions,
    /// All nodes of the cluster with their addresses, itself included.
    pub members: BTreeMap<NodeId, String>,
    /// The clockwork.
    pub timing: Timing,
    /// Bytes of the metadata's log that are kept in full segments, if it has so many; [`METADATA_BYTES_KEPT`] but in tests.
    pub metadata_bytes_kept: u64,
    /// The root of all that is drawn by lot in this node.
    pub seed: [u8; 32],
}

/// A node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    rng: ChaCha8Rng,
    now: Moment,
    wall: Timestamp,
    groups: BTreeMap<GroupId, Group>,
    /// Replicas found on disk that the metadata, as known so far, does not mention.
    dormant: BTreeMap<GroupId, RecoveredReplica>,
    metadata: Metadata,
    /// Metadata prepares of a log that is being read again, and may be committed or not.
    metadata_tail: VecDeque<Prepare>,
    /// What was applied in an earlier life of this node: before it is applied again nothing is opened or closed, for files of
    /// groups that were deleted by then may be gone.
    metadata_floor: Op,
    /// Deleted groups whose files are still there, by the metadata op after which they were found to be deleted.
    deleting: BTreeMap<Op, Vec<GroupId>>,
    /// Those whose files the disk is deleting.
    being_deleted: BTreeSet<GroupId>,
    /// Groups that are new here and whose primary has not said a word.
    unled: BTreeMap<GroupId, Unled>,
    /// The placement that the groups were last opened and closed by.
    placement_seen: Option<u64>,
    peers: BTreeMap<NodeId, Peer>,
    last_pulse: Moment,
    /// When the next pulse is due. It stands apart, so that it never waits behind the timers of groups.
    pulse_due: Moment,
    timers: Timers,
    waiting: BTreeMap<RequestHandle, Waiting>,
    next_handle: u64,
    questions: Questions,
    fetches: Fetches,
    reads: PendingReads,
    /// What may be sent to replicas that catch up.
    catch_up: Allowance,
    /// Whether a node registration of our own is under way.
    registering: bool,
    /// Which data directory this node has.
    directory: DirectoryId,
    /// Who founded the cluster; none while this node is fresh.
    founders: Option<Founders>,
    /// The founders on their way to the disk.
    founding: Option<Founders>,
    /// Until when peers may still be on their way to know of the founding; none from then on.
    patient_until: Option<Moment>,
    /// When it was last said who is missing.
    founding_said: Moment,
    /// Groups in which a replica may stand with another data directory than its node has.
    unseated: BTreeSet<GroupId>,
    /// Whether a group is wanted here that may not be opened yet.
    is_awaited: bool,
    /// Groups of which a replica is being moved here, or leaves.
    moving: BTreeSet<GroupId>,
    /// The data directories that the groups were last compared with.
    directories_seen: u64,
    /// Bytes of appends on their way to the disk, over all groups.
    writing_bytes: usize,
    /// Bytes of prepares kept in memory, over all groups.
    tail_bytes: usize,
    /// Groups whose writes wait because the disk is full.
    full: BTreeSet<GroupId>,
    scrubbing: Scrubbing,
    probing: Probing,
    frames_dropped: u64,
    /// Frames that did not even reach this node, as its driver says.
    frames_unreadable: u64,
    effects: VecDeque<Effect>,
}

impl Node {
    /// A node that starts with what it remembers. Its first effects are there at once.
    #[must_use]
    pub fn new(config: NodeConfig, now: Moment, wall: Timestamp, recovery: Recovery) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let others = config.members.keys().copied().filter(|node| *node != config.node);
        let peers =
            others.map(|node| (node, Peer::new(now, config.timing.suspicion_timeout, &mut rng))).collect();
        let Recovery { replicas, metadata, metadata_tail, directory, founders, .. } = recovery;
        let metadata_floor =
            replicas.get(&GroupId::METADATA).map_or(Op::ZERO, |found| found.superblock.commit);
        let catch_up = Allowance::new(config.timing.catch_up_bytes_per_second, now);
        let Timing { scrub_bytes_per_second, scrub_pass_every, .. } = config.timing;
        let scrubbing = Scrubbing::new(scrub_bytes_per_second, scrub_pass_every, (config.seed, now));
        let mut node = Self {
            config,
            rng,
            now,
            wall,
            groups: BTreeMap::new(),
            dormant: replicas,
            metadata,
            metadata_tail: VecDeque::new(),
            metadata_floor,
            deleting: BTreeMap::new(),
            being_deleted: BTreeSet::new(),
            unled: BTreeMap::new(),
            placement_seen: None,
            peers,
            last_pulse: now,
            pulse_due: now,
            timers: Timers::default(),
            waiting: BTreeMap::new(),
            next_handle: 0,
            questions: Questions::default(),
            fetches: Fetches::default(),
            reads: PendingReads::default(),
            catch_up,
            registering: false,
            directory,
            founders,
            founding: None,
            patient_until: None,
            founding_said: now,
            unseated: BTreeSet::new(),
            is_awaited: false,
            moving: BTreeSet::new(),
            directories_seen: 0,
            writing_bytes: 0,
            tail_bytes: 0,
            full: BTreeSet::new(),
            scrubbing,
            probing: Probing::default(),
            frames_dropped: 0,
            frames_unreadable: 0,
            effects: VecDeque::new(),
        };
        node.timers.set(now.plus(node.config.timing.retention_check), Due::Retention);
        node.arm_scrub(node.scrubbing.idle_until(now));
        node.open_metadata_group(metadata_tail);
        node.reconcile_groups();
        node.found_or_join();
        node
    }

    /// Takes one input at the given time; `now` never goes back, `wall` may.
    pub fn step(&mut self, now: Moment, wall: Timestamp, input: NodeInput) {
        assert!(now >= self.now, "the monotonic clock does not go back");
        self.now = now;
        self.wall = wall;
        match input {
            NodeInput::PeerUp { node, incarnation } => self.on_peer_up(node, incarnation),
            NodeInput::PeerDown { node } => self.on_peer_down(node),
            NodeInput::PeerFrame { node, frame } => self.on_peer_frame(node, &frame),
            NodeInput::ClientFrame { session, frame } => self.on_client_frame(session, &frame),
            NodeInput::ClientGone { session } => self.on_client_gone(session),
            NodeInput::Disk(completion) => self.on_completion(completion),
            NodeInput::Stop => self.stop(),
            NodeInput::Tick => {}
        }
        self.fire_timers();
    }

    /// The next thing to do, if there is any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let mut effect = self.effects.pop_front()?;
        if let Effect::ToPeer { frame, .. } = &mut effect {
            frame.header.version = self.spoken();
        }
        Some(effect)
    }

    /// When to call [`Node::step`] with [`NodeInput::Tick`] if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        Some(self.timers.next().map_or(self.pulse_due, |due| due.min(self.pulse_due)))
    }

    /// Tells the node, for its status, how many frames its driver could not read so far.
    pub fn set_frames_unreadable(&mut self, count: u64) {
        self.frames_unreadable = count;
    }

    /// Which node this is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.node
    }

    /// How this node and its replicas are.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let NodeVitals { node, uptime_ms, hears, frames_dropped, scrub, .. } = self.vitals();
        let mut groups: Vec<GroupStatus> =
            self.groups.iter().map(|(id, group)| group_status(*id, group)).collect();
        for status in &mut groups {
            status.problem = status.problem.take().or_else(|| self.scrub_problem(status.group));
        }
        for status in groups.iter_mut().filter(|status| self.full.contains(&status.group)) {
            status.problem.get_or_insert_with(|| DISK_FULL.to_owned());
        }
        if let Some(metadata) = groups.first_mut().filter(|first| first.group == GroupId::METADATA) {
            metadata.problem =
                metadata.problem.take().or_else(|| self.why_outdated()).or_else(|| self.why_unfounded());
        }
        NodeStatus { node, uptime_ms, hears, groups, frames_dropped, scrub }
    }

    /// How this node is, in short.
    #[must_use]
    pub fn vitals(&self) -> NodeVitals {
        let mut hears: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.is_alive()).map(|(node, _)| *node).collect();
        hears.push(self.config.node);
        hears.sort();
        NodeVitals {
            node: self.config.node,
            uptime_ms: u64::try_from(self.now.since(Moment::ZERO).as_millis()).unwrap_or(u64::MAX),
            hears,
            counts: RoleCounts::of(self.groups.values().map(role_of)),
            frames_dropped: self.frames_dropped + self.frames_unreadable,
            map_op: self.metadata.applied(),
            scrub: self.scrubbing.status,
        }
    }

    /// The word of how many replicas counts in a group, as far as the log here tells; `None` if the one here has no voice.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Option<usize> {
        let replica = self.groups.get(&group)?.replica().filter(|replica| replica.is_admitted())?;
        Some(places().filter(|place| replica.is_member(*place)).count())
    }

    /// Whether the replica here is a quorum by itself, as far as its log tells.
    #[must_use]
    pub fn decides_alone(&self, group: GroupId) -> bool {
        let replica = self.groups.get(&group).and_then(Group::replica);
        replica.is_some_and(|replica| replica.suffice(std::iter::once(replica.config().replica)))
    }

    /// The metadata as this node knows it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Fires the pulse and one timer of those that are due; the others wait for the next input, or the next tick if there is
    /// none. When thousands of groups change views, what makes them say everything again must not keep them from hearing the
    /// answers.
    fn fire_timers(&mut self) {
        if self.pulse_due <= self.now {
            self.on_pulse_due();
        }
        match self.timers.pop(self.now) {
            Some(Due::Group(group)) => self.on_group_due(group),
            Some(Due::Liveness(group)) => self.tell_liveness_of_primary(group),
            Some(Due::Reborn(group, view)) => self.on_primary_reborn(group, view),
            Some(Due::Fetch(fetch)) => self.on_fetch_due(fetch),
            Some(Due::Restore(node)) => self.on_restore_due(node),
            Some(Due::Retention) => self.on_retention_due(),
            Some(Due::DiskRoom) => self.on_disk_room_due(),
            Some(Due::Scrub) => self.on_scrub_due(),
            Some(Due::Probe) => self.on_probe_due(),
            Some(Due::Wound(group)) => self.on_wound_due(group),
            Some(Due::Base(group)) => self.ask_for_base(group),
            None => {}
        }
    }

    fn submit(&mut self, job: Job) {
        self.effects.push_back(Effect::Disk(job));
    }

    fn answer(&mut self, session: Session, frame: Frame) {
        self.effects.push_back(Effect::ToClient { session, frame });
    }

    fn drop_frame(&mut self, node: NodeId, frame: &Frame, reason: &'static str) {
        self.frames_dropped += 1;
        tracing::warn!(peer = %node, command = ?frame.header.command, group = %frame.header.group, reason, "frame dropped");
    }
}

fn role_of(group: &Group) -> Role {
    match &group.state {
        State::Opening => Role::ViewChange,
        State::Mending(_) | State::Damaged(_) => Role::Faulty,
        State::Open(replica) if !replica.is_admitted() => Role::Learner,
        State::Open(replica) => match replica.status() {
            Status::Normal if replica.takes_requests() => Role::Primary,
            Status::Normal if !replica.is_primary() => Role::Backup,
            Status::Normal | Status::ViewChange | Status::Recovering => Role::ViewChange,
        },
    }
}

fn group_status(id: GroupId, group: &Group) -> GroupStatus {
    let status = GroupStatus {
        group: id,
        role: role_of(group),
        view: View::ZERO,
        primary: group.primary_node(),
        head: 0,
        durable: 0,
        commit: 0,
        high_watermark: Offset::ZERO,
        problem: None,
    };
    match &group.state {
        State::Opening => status,
        State::Mending(mending) => {
            GroupStatus { view: mending.superblock.view, problem: Some(mending.problem()), ..status }
        }
        State::Damaged(problem) => GroupStatus { problem: Some(problem.clone()), ..status },
        State::Open(replica) => GroupStatus {
            view: replica.view(),
            head: replica.head().op.as_raw(),
            durable: if replica.has_snapshot_under_way() { 0 } else { replica.durable().op.as_raw() },
            commit: replica.commit().op.as_raw(),
            high_watermark: replica.next_offset_committed(),
            problem: doubt::problem_of(replica).map(str::to_owned),
            ..status
        },
    }
}
