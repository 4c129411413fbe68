//! What goes into a [`crate::Node`] and what comes out: the whole contract between the deterministic node and the world.
//!
//! The driver hands in one [`NodeInput`] at a time and then performs all [`Effect`]s in order. Frames to one peer on one lane
//! keep their order while the connection lasts; a broken connection loses what was under way. Disk jobs are done in order.

use varve_protocol::frame::Frame;
use varve_protocol::id::{Incarnation, NodeId};
use varve_storage::{Completion, Job};
use varve_transport::Lane;

/// Names the stream of a client for as long as it lasts; chosen by the driver, never used twice in one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum NodeInput {
    /// A connection to a peer stands.
    PeerUp {
        /// Which peer.
        node: NodeId,
        /// Which life of its process.
        incarnation: Incarnation,
    },
    /// The connection to a peer broke.
    PeerDown {
        /// Which peer.
        node: NodeId,
    },
    /// A frame of a peer; its checksums have been verified.
    PeerFrame {
        /// Which peer.
        node: NodeId,
        /// What it sent.
        frame: Frame,
    },
    /// A frame of a client; its checksums have been verified.
    ClientFrame {
        /// Which client.
        session: Session,
        /// What it sent.
        frame: Frame,
    },
    /// A client went away.
    ClientGone {
        /// Which client.
        session: Session,
    },
    /// The process is about to end: see [`crate::Node::may_stop`].
    Stop,
    /// A disk job is done.
    Disk(Completion),
    /// The moment given to [`crate::Node::next_timeout`] has come. Harmless at any other time.
    Tick,
}

/// Something to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame to a peer; it may be dropped if the lane is full or there is no connection.
    ToPeer {
        /// Which peer.
        node: NodeId,
        /// On which lane.
        lane: Lane,
        /// What.
        frame: Frame,
    },
    /// Answer a client; dropped if it is gone.
    ToClient {
        /// Which client.
        session: Session,
        /// What.
        frame: Frame,
    },
    /// Do a disk job.
    Disk(Job),
    /// Stop the process with this error: the disk failed, and a node that cannot store must make room for its peers.
    Halt {
        /// What failed, and what to do.
        reason: String,
    },
}
