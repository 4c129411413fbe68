//! What the fast world asks of a node: the seam behind which the real node stands, and in tests nodes with planted bugs.
//!
//! A machine keeps its disk jobs to itself. The world only decides when a round of them is taken and when it is done, or that
//! the process dies in the middle of it.

use varve_protocol::client::NodeStatus;
use varve_protocol::frame::Frame;
use varve_protocol::id::{ClusterId, GroupId, Incarnation, NodeId, Op, Timestamp};
use varve_protocol::prepare::PrepareId;
use varve_protocol::time::Moment;
use varve_protocol::version::{Version, Versions};

use rand_chacha::ChaCha8Rng;

use super::rot::Harm;
use super::rot_in_use::Held;

/// Who a node is; the same in all its lives, but for the release.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// All nodes.
    pub members: Vec<NodeId>,
    /// The seed of the universe.
    pub seed: u64,
    /// What the release knows that the next process runs.
    pub versions: Versions,
}

/// The node's clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clocks {
    /// The monotonic one.
    pub now: Moment,
    /// The one on the wall.
    pub wall: Timestamp,
}

/// Something that happened to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection with another node stands.
    PeerUp {
        /// Which node.
        node: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// It does not any more.
    PeerDown {
        /// Which node.
        node: NodeId,
    },
    /// Another node sent something.
    PeerFrame {
        /// Which node.
        node: NodeId,
        /// What.
        frame: Frame,
    },
    /// A client sent something.
    ClientFrame {
        /// Names the connection.
        session: u64,
        /// What.
        frame: Frame,
    },
    /// A client's connection is gone.
    ClientGone {
        /// Names the connection.
        session: u64,
    },
    /// The moment given by [`Machine::next_timeout`] has come.
    Tick,
}

/// Something a node wants.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to another node.
    ToPeer {
        /// Which node.
        node: NodeId,
        /// Frames of one lane stay in order.
        lane: u64,
        /// What.
        frame: Frame,
    },
    /// Send to a client.
    ToClient {
        /// Names the connection.
        session: u64,
        /// What.
        frame: Frame,
    },
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The kernel lives on: what was written is still read back, synced or not.
    Process,
    /// The power fails: what was not synced may be there or not, sector by sector.
    Power,
}

/// What is known of a node's work beyond its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Logs cut at their end.
    pub truncations: u64,
    /// Times that segments were let go.
    pub let_go: u64,
    /// Snapshots taken from other replicas.
    pub snapshots: u64,
    /// Prepares written that a peer had sent as a repair.
    pub repairs: u64,
}

/// A node in the fast world.
pub trait Machine: Sized {
    /// What survives the process.
    type Disk;

    /// An empty disk; `disks` of this node were lost before it.
    fn format(setup: &Setup, disks: u64) -> Self::Disk;

    /// Starts a process on a disk.
    ///
    /// # Errors
    /// When it does not start, in words.
    fn start(setup: &Setup, incarnation: Incarnation, disk: Self::Disk) -> Result<Self, String>;

    /// Takes one input.
    fn step(&mut self, clocks: Clocks, input: Input);

    /// Gives out one effect.
    fn poll_effect(&mut self) -> Option<Effect>;

    /// When the node wants a [`Input::Tick`].
    fn next_timeout(&self) -> Option<Moment>;

    /// How it is.
    fn status(&self) -> NodeStatus;

    /// The word of how many replicas of a group counts as far as this node knows, if that changes.
    fn members(&self, group: GroupId) -> Option<usize> {
        let _ = group;
        None
    }

    /// Whether the replica of a group here is a quorum by itself, if that changes.
    fn decides_alone(&self, group: GroupId) -> bool {
        let _ = group;
        false
    }

    /// The version of the cluster as the node knows it.
    fn version(&self) -> Version {
        Version::FIRST
    }

    /// Takes all waiting disk jobs as one round and says how many there are; `None` if nothing waits or a round is
    /// under way.
    fn begin_round(&mut self) -> Option<usize>;

    /// Performs the round and tells the node.
    fn finish_round(&mut self, clocks: Clocks);

    /// Ends the process at once. A round under way is broken off at any point of its writes.
    fn crash(self, ending: Ending, rng: &mut ChaCha8Rng) -> Self::Disk;

    /// Leaves so many bytes of room on a disk; `None`: any number.
    fn fill(disk: &Self::Disk, room: Option<u64>) {
        let (_, _) = (disk, room);
    }

    /// The disk that it uses.
    fn disk(&self) -> Option<&Self::Disk> {
        None
    }

    /// Makes a disk that nobody uses forget some of what it had synced: of these logs so
    /// many in a thousand. Says what.
    fn rot(disk: &Self::Disk, which: (&[GroupId], u32), rng: &mut ChaCha8Rng) -> Vec<Harm> {
        let (_, _, _) = (disk, which, rng);
        Vec::new()
    }

    /// Makes a disk that is in use forget some of what it had synced. Says what.
    fn rot_in_use(disk: &Self::Disk, groups: &[GroupId], rng: &mut ChaCha8Rng) -> Vec<Harm> {
        let (_, _, _) = (disk, groups, rng);
        Vec::new()
    }

    /// The prepares of a log that are on a disk.
    ///
    /// # Errors
    /// When it is not whole, in words.
    fn held(disk: &Self::Disk, group: GroupId) -> Result<Held, String> {
        let (_, _) = (disk, group);
        Ok(Held::from([(Op::new(u64::MAX), PrepareId::ROOT)]))
    }

    /// What it has done so far in this life.
    fn work(&self) -> Work;

    /// Why it wants its process to end, if it does.
    fn halted(&self) -> Option<&str> {
        None
    }
}
