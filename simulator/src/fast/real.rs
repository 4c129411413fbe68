//! The real node as a machine of the fast world: the deterministic node over a store on a disk in memory.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::client::NodeStatus;
use varve_protocol::frame::Command;
use varve_protocol::id::{DirectoryId, GroupId, Incarnation, NodeId, Timestamp};
use varve_protocol::time::Moment;
use varve_protocol::version::{Version, Versions};
use varve_replica::{Effect as NodeEffect, Node, NodeConfig, NodeInput, Recovery, Session};
use varve_storage::{Completion, Extent, Identity, Job, MemoryDisk, Options, Piece, StorageError, Store};
use varve_transport::Lane;

use super::machine::{Clocks, Effect, Ending, Input, Machine, Setup, Work};
use super::rot::{Harm, rot};
use super::rot_in_use::{Held, rot_in_use};
use crate::keys::{all_keys, keys_of};
use crate::random::{chance, pick, seed_bytes, stream};
use crate::scenario::{is_metadata_summed_up, metadata_bytes_kept, retention, timing};

/// The sizes that segments may have, so that some universes seal many of them.
const SEGMENT_SIZES: [u64; 3] = [32 << 10, 512 << 10, 16 << 20];

/// The same where records are not kept for ever: small ones, so that many are let go.
const SMALL_SEGMENT_SIZES: [u64; 3] = [6 << 10, 16 << 10, 64 << 10];

/// The sizes that the journal may have, so that some universes fill it often, and some have none.
const JOURNAL_SIZES: [u64; 4] = [0, 4 << 10, 64 << 10, 32 << 20];

/// Universes in which each node has a size of its own in each of its lives, as while a setting is rolled out, in a thousand:
/// segments end with other prepares on each replica then.
const SIZES_DIFFER_PERMILLE: u32 = 400;

/// The sizes that the reserve may have, so that some universes use it up.
const RESERVE_SIZES: [u64; 3] = [0, 8 << 10, 256 << 10];

/// Bytes that whoever starts a node frees on a disk that is so full that it does not start.
const ROOM_TO_START: u64 = 256 << 10;

/// A node and its disk.
pub struct RealNode {
    node: Node,
    store: Store<MemoryDisk>,
    disk: MemoryDisk,
    waiting: Vec<Job>,
    in_round: Option<Vec<Job>>,
    work: Work,
    /// Why the node wants to be stopped.
    halted: Option<String>,
}

fn identity(setup: &Setup) -> Identity {
    Identity { cluster: setup.cluster, node: setup.node }
}

/// The address of a node, which nobody dials in this world.
#[must_use]
pub fn address(node: NodeId) -> String {
    format!("n{}:4400", node.as_raw())
}

/// A new disk of a node that has lost so many, formatted.
pub(crate) fn format(identity: Identity, disks: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let directory = DirectoryId::new(u64::from(identity.node.as_raw()) + disks * 1000);
    Store::format(&disk, identity, directory).expect("an empty disk can be formatted");
    disk
}

/// What the release knows that a node is started with: the one that was meant, unless it refuses what it finds. Then the operator starts
/// the next one, as he is told.
pub(crate) fn release_for(recovery: &Recovery, meant: Versions) -> Versions {
    match recovery.check_release(meant) {
        Ok(()) => meant,
        Err(_) => Versions::OF_THE_NEXT_RELEASE,
    }
}

/// Opens the disk of a node for one of its lives, with the sizes and the keys that a seed draws.
pub(crate) fn open(
    disk: &MemoryDisk,
    identity: Identity,
    (seed, life): (u64, u64),
) -> Result<(Store<MemoryDisk>, Recovery), StorageError> {
    let reserve_bytes = RESERVE_SIZES[stream(seed, "reserve").random_range(0..RESERVE_SIZES.len())];
    let keys = keys_of(seed, identity.node, life);
    let segment_size_bytes_max = segment_size(seed, identity.node, life);
    let journal_bytes_max = JOURNAL_SIZES[stream(seed, "journal").random_range(0..JOURNAL_SIZES.len())];
    let mut options =
        Options { segment_size_bytes_max, journal_bytes_max, reserve_bytes, keys, ..Options::DEFAULT };
    if is_metadata_summed_up(seed) {
        options.metadata_segment_bytes_max = segment_size_bytes_max.min(SMALL_SEGMENT_SIZES[0]);
    }
    let open = || Recovery::open(disk.clone(), identity, options.clone());
    open().or_else(|error| {
        if error.is_disk_full() {
            // Somebody has to make some room for it first.
            fill(disk, Some(ROOM_TO_START));
            return open();
        }
        Err(error)
    })
}

/// The size that segments have in one life of a node.
fn segment_size(seed: u64, node: NodeId, life: u64) -> u64 {
    let sizes = if retention(seed).is_bounded() { SMALL_SEGMENT_SIZES } else { SEGMENT_SIZES };
    let size = pick(&mut stream(seed, "segments"), &sizes);
    if !chance(&mut stream(seed, "segments differ"), SIZES_DIFFER_PERMILLE) {
        return size;
    }
    size + stream(seed, &format!("segments of {node} in life {life}")).random_range(0..=size)
}

/// Leaves only so much room on a disk; `None`: enough.
pub(crate) fn fill(disk: &MemoryDisk, room: Option<u64>) {
    disk.set_capacity(room.map(|room| disk.used() + room));
}

/// Takes note of what is to be done to a disk.
pub(crate) fn count(work: &mut Work, job: &Job) {
    work.truncations += u64::from(matches!(job, Job::Truncate { .. }));
    work.let_go += u64::from(matches!(job, Job::LetGo { .. }));
    work.snapshots += u64::from(matches!(job, Job::TakeSnapshot { .. }));
}

impl Machine for RealNode {
    type Disk = MemoryDisk;

    fn format(setup: &Setup, disks: u64) -> MemoryDisk {
        format(identity(setup), disks)
    }

    fn start(setup: &Setup, incarnation: Incarnation, disk: MemoryDisk) -> Result<Self, String> {
        let life = incarnation.as_raw() & u64::from(u32::MAX);
        let (store, recovery) = open(&disk, identity(setup), (setup.seed, life))
            .map_err(|error| format!("the store cannot be opened: {error}"))?;
        let members: BTreeMap<NodeId, String> =
            setup.members.iter().map(|node| (*node, address(*node))).collect();
        let config = NodeConfig {
            cluster: setup.cluster,
            node: setup.node,
            incarnation,
            versions: release_for(&recovery, setup.versions),
            members,
            timing: timing(setup.seed),
            metadata_bytes_kept: metadata_bytes_kept(setup.seed),
            seed: seed_bytes(setup.seed, &format!("node {} {incarnation}", setup.node)),
        };
        let wall = Timestamp::new(1);
        Ok(Self {
            node: Node::new(config, Moment::ZERO, wall, recovery),
            store,
            disk,
            waiting: Vec::new(),
            in_round: None,
            work: Work::default(),
            halted: None,
        })
    }

    fn step(&mut self, clocks: Clocks, input: Input) {
        let input = match input {
            Input::PeerUp { node, incarnation } => NodeInput::PeerUp { node, incarnation },
            Input::PeerDown { node } => NodeInput::PeerDown { node },
            Input::PeerFrame { node, frame } => {
                self.work.repairs += u64::from(frame.header.command == Command::RepairPrepare);
                NodeInput::PeerFrame { node, frame }
            }
            Input::ClientFrame { session, frame } => {
                NodeInput::ClientFrame { session: Session(session), frame }
            }
            Input::ClientGone { session } => NodeInput::ClientGone { session: Session(session) },
            Input::Tick => NodeInput::Tick,
        };
        self.node.step(clocks.now, clocks.wall, input);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            match self.node.poll_effect()? {
                NodeEffect::ToPeer { node, lane, frame } => {
                    return Some(Effect::ToPeer { node, lane: lane_number(lane), frame });
                }
                NodeEffect::ToClient { session, frame } => {
                    return Some(Effect::ToClient { session: session.0, frame });
                }
                NodeEffect::Disk(job) => {
                    count(&mut self.work, &job);
                    self.waiting.push(job);
                }
                NodeEffect::Halt { reason } => {
                    self.halted.get_or_insert(reason);
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<Moment> {
        self.node.next_timeout()
    }

    fn status(&self) -> NodeStatus {
        self.node.status()
    }

    fn members(&self, group: GroupId) -> Option<usize> {
        self.node.members(group)
    }

    fn decides_alone(&self, group: GroupId) -> bool {
        self.node.decides_alone(group)
    }

    fn begin_round(&mut self) -> Option<usize> {
        if self.in_round.is_some() || self.waiting.is_empty() {
            return None;
        }
        let jobs = self.in_round.insert(std::mem::take(&mut self.waiting));
        Some(jobs.len())
    }

    fn finish_round(&mut self, clocks: Clocks) {
        let jobs = self.in_round.take().unwrap_or_default();
        let completions: Vec<Completion> = self.store.execute(jobs);
        for completion in completions {
            self.node.step(clocks.now, clocks.wall, NodeInput::Disk(completion));
        }
    }

    fn crash(mut self, ending: Ending, rng: &mut ChaCha8Rng) -> MemoryDisk {
        if let Some(jobs) = self.in_round.take() {
            // The round gets anywhere between its first call and its last; each job takes a few calls.
            let calls_max = 4 * jobs.len() as u64 + 4;
            let calls = if chance(rng, 100) { u64::MAX / 2 } else { rng.random_range(0..=calls_max) };
            self.disk.power_off_after(self.disk.calls() + calls);
            self.store.execute(jobs);
        }
        match ending {
            Ending::Process => self.disk.restart(),
            Ending::Power => self.disk.crash(rng),
        }
    }

    fn fill(disk: &MemoryDisk, room: Option<u64>) {
        fill(disk, room);
    }

    fn disk(&self) -> Option<&MemoryDisk> {
        Some(&self.disk)
    }

    fn rot(disk: &MemoryDisk, which: (&[GroupId], u32), rng: &mut ChaCha8Rng) -> Vec<Harm> {
        rot(disk, which, rng)
    }

    fn rot_in_use(disk: &MemoryDisk, groups: &[GroupId], rng: &mut ChaCha8Rng) -> Vec<Harm> {
        rot_in_use(disk, groups, rng)
    }

    fn held(disk: &MemoryDisk, group: GroupId) -> Result<Held, String> {
        let copy = disk.fork();
        copy.set_capacity(None);
        let identity = Identity::of(&copy).map_err(|error| error.to_string())?;
        let mut held = Held::new();
        let options =
            Options { reserve_bytes: 0, extent: Extent::Whole, keys: all_keys(), ..Options::DEFAULT };
        let opened = Store::open(copy, identity, options, &mut |of, piece| match piece {
            Piece::Snapshot(snapshot) if of == group => drop(held.insert(snapshot.op(), snapshot.id())),
            Piece::Prepare(prepare) if of == group => drop(held.insert(prepare.op(), prepare.id())),
            Piece::Root | Piece::Snapshot(_) | Piece::ResumePoint(_) | Piece::Prepare(_) => {}
        });
        let (_, groups) = opened.map_err(|error| error.to_string())?;
        let found = groups.into_iter().find(|found| found.superblock.group == group);
        let Some(found) = found else { return Ok(held) };
        match (found.problem, found.hole) {
            (Some(problem), _) => Err(problem.to_string()),
            (None, Some(hole)) => {
                Err(format!("op{} to op{} are missing", hole.after.op.as_raw() + 1, hole.last.op.as_raw()))
            }
            (None, None) => Ok(held),
        }
    }

    fn version(&self) -> Version {
        self.node.version()
    }

    fn work(&self) -> Work {
        self.work
    }

    fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }
}

/// Frames of one lane stay in order.
fn lane_number(lane: Lane) -> u64 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
        Lane::Pulse => 2,
        Lane::Data(stream) => 3 + u64::from(stream),
    }
}
