//! What all tasks of an endpoint share: who it is, the connections and sessions that stand, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quinn::{Connection, VarInt};
use tokio::sync::watch;
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{ClusterId, Incarnation, NodeId, Op};
use varve_protocol::mark::Mark;
use varve_protocol::version::{Version, Versions};

use crate::error::{SendError, TransportError};
use crate::event::{EventSender, SessionId};
use crate::lane::Lane;
use crate::queue::QueueSender;
use crate::tuning::Tuning;

/// Codes with which connections are closed.
pub(crate) mod code {
    use quinn::VarInt;

    /// The endpoint shuts down.
    pub(crate) const SHUTDOWN: VarInt = VarInt::from_u32(0);
    /// Another connection has taken its place.
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(1);
    /// The other side is not whom it says it is, or is of another cluster or release.
    pub(crate) const STRANGER: VarInt = VarInt::from_u32(2);
    /// What was sent cannot be read.
    pub(crate) const UNREADABLE: VarInt = VarInt::from_u32(3);
}

/// The lanes of a connection.
#[derive(Clone)]
pub(crate) struct Link {
    /// Tells this connection from those before and after it.
    pub(crate) number: u64,
    pub(crate) lanes: Vec<QueueSender>,
    pub(crate) connection: Connection,
}

impl Link {
    pub(crate) fn send(&self, lane: Lane, frame: Frame) -> Result<(), SendError> {
        let sent = self.lanes[lane.index()].try_send(frame);
        if sent == Err(SendError::Busy) {
            Mark::LaneFull.hit();
        }
        sent
    }
}

/// Who an endpoint is, and whom it takes for a peer.
pub(crate) struct Who {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// What its release knows.
    pub(crate) versions: Versions,
    /// The other nodes of the configuration.
    pub(crate) peers: BTreeSet<NodeId>,
}

/// What all tasks of an endpoint share.
pub(crate) struct Shared {
    pub(crate) who: Who,
    pub(crate) tuning: Tuning,
    pub(crate) events: EventSender,
    /// Held for a map operation only, by the node's task and when a connection comes or goes.
    links: Mutex<BTreeMap<NodeId, Link>>,
    sessions: Mutex<BTreeMap<SessionId, QueueSender>>,
    next_number: AtomicU64,
    frames_dropped: AtomicU64,
    /// The cluster's version, in which clients are spoken to.
    version: AtomicU8,
    shutdown: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(who: Who, tuning: Tuning, events: EventSender) -> Self {
        let version = who.versions.oldest;
        Self {
            who,
            tuning,
            events,
            links: Mutex::default(),
            sessions: Mutex::default(),
            next_number: AtomicU64::new(1),
            frames_dropped: AtomicU64::new(0),
            version: AtomicU8::new(version.as_raw()),
            shutdown: watch::Sender::new(false),
        }
    }

    pub(crate) fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, QueueSender>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number never used before in this endpoint.
    pub(crate) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn set_version(&self, version: Version) {
        self.version.store(version.as_raw(), Ordering::Relaxed);
    }

    /// The version in which clients are spoken to.
    pub(crate) fn version(&self) -> Version {
        Version::new(self.version.load(Ordering::Relaxed))
    }

    /// The first frame on a connection: who is speaking. It has the same form in all versions.
    pub(crate) fn hello(&self) -> Frame {
        let mut header = FrameHeader::new(Command::Hello, self.who.cluster);
        header.commit = self.who.versions.newest.as_raw().into();
        header.op = Op::new(self.who.node.as_raw().into());
        header.correlation = self.who.incarnation.as_raw();
        Frame::bare(header)
    }

    /// The answer to a client's, which is spoken to in this version.
    pub(crate) fn hello_in(&self, version: Version) -> Frame {
        let mut hello = self.hello();
        hello.header.commit = version.as_raw().into();
        hello
    }

    pub(crate) fn frames_dropped(&self) -> u64 {
        self.frames_dropped.load(Ordering::Relaxed)
    }

    /// Ends everything that waits for [`Self::shutdown`].
    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    /// Waits for the endpoint to shut down.
    pub(crate) async fn shutdown(&self) {
        let mut watched = self.shutdown.subscribe();
        // The sender lives as long as `self`, so this ends only with the value it waits for.
        let _ = watched.wait_for(|is_over| *is_over).await;
    }

    /// Counts something unreadable and closes its connection.
    pub(crate) fn drop_unreadable(&self, connection: &quinn::Connection, error: &TransportError) {
        let TransportError::Frame(error) = error else { return };
        self.frames_dropped.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(remote = %connection.remote_address(), %error, "connection closed: unreadable frame");
        connection.close(code::UNREADABLE, error.to_string().as_bytes());
    }
}

/// Closes a connection with a code and a reason that the other side logs.
pub(crate) fn close(connection: &Connection, code: VarInt, reason: &str) {
    connection.close(code, reason.as_bytes());
}
