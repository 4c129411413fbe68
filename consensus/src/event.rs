//! What goes into the core and what comes out: the whole contract between a [`crate::Replica`] and its driver.
//!
//! The driver hands in one [`Input`] at a time, then drains [`Output`]s **in order** and performs them in order:
//! * disk outputs (`Append`, `Truncate`, `SaveSuperblock`) go to one FIFO queue per group and are answered, when they are on
//!   disk, by `Durable` or `SuperblockDurable`;
//! * messages may be lost, repeated, delayed and reordered at will;
//! * `Apply` is performed at once: it is the driver's word that the op is visible from then on.

use bytes::Bytes;
use varve_protocol::id::{Offset, Op, ProducerId, ReplicaIndex, RequestNumber, Timestamp, View};
use varve_protocol::message::Message;
use varve_protocol::prepare::{Prepare, PrepareHeader, PrepareId, PrepareKind};
use varve_protocol::snapshot::Snapshot;
use varve_protocol::superblock::Superblock;
use varve_protocol::version::Version;

/// Names a request while it is under way; chosen by the driver, meaningless to the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestHandle(pub u64);

/// Names a read while it is under way; chosen by the driver, meaningless to the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadHandle(pub u64);

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A message of another replica of this group arrived. Its checksums and its epoch have been verified.
    Message {
        /// Who sent it.
        from: ReplicaIndex,
        /// What it says.
        message: Message,
    },
    /// Somebody wants something appended to the log.
    Request(Request),
    /// Somebody wants to know what is committed, and not less than anybody was told before he asked.
    ConfirmRead {
        /// Names the read in the answer.
        handle: ReadHandle,
    },
    /// This prepare and all before it in the log as it was when it was appended are durable here.
    Durable(PrepareId),
    /// This superblock is durable here.
    SuperblockDurable(Superblock),
    /// What the driver knows of the node that leads this replica's view; if that is this replica itself, whether it is in
    /// touch with a quorum of the group's nodes, itself included. Told when it changes, and again when the view has: a
    /// replica takes the primary of a new view to be alive until told otherwise.
    PrimaryLiveness(Liveness),
    /// Let `to` lead instead of this replica, without any request seeing more of it than a short wait. Nothing happens if
    /// this replica does not lead, or `to` is far behind; it is given up if `to` does not take over in time.
    HandOver {
        /// Who shall lead.
        to: ReplicaIndex,
    },
    /// Save how far this replica has committed, as far as that is durable here: after a restart it is known to be committed
    /// without asking anybody. Answered like any superblock; nothing happens if that much is saved or about to be.
    SaveCommit,
    /// The process is about to end. From now on nothing is acknowledged before it is durable; when
    /// [`crate::Replica::may_stop`], an end leaves no doubt about this replica's log.
    Stop,
    /// An operator lets this replica, whose log may lack what it acknowledged, go on with what it has, and takes the loss upon
    /// himself. Nothing happens if its log lacks nothing.
    ForceRecover,
    /// The moment given to [`crate::Replica::next_timeout`] has come. Harmless at any other time.
    Tick,
}

/// Whether a node gives signs of life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Liveness {
    /// It was heard lately, and hears us.
    Heard,
    /// It was not.
    Suspected,
}

/// A wish to append to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Names the request in the answer.
    pub handle: RequestHandle,
    /// Who asks; zero: the cluster itself or someone without a session, who gets no protection against doubles.
    pub producer: ProducerId,
    /// Which of that producer's requests to this group, from 1; zero together with `producer`.
    pub request: RequestNumber,
    /// The version to write it in: the cluster's.
    pub version: Version,
    /// What the body is.
    pub kind: PrepareKind,
    /// Records in the body.
    pub record_count: u32,
    /// Wall clock of this node, for the prepare's timestamp.
    pub now: Timestamp,
    /// The record batch or operation; verified by the driver and within limits.
    pub body: Bytes,
}

/// Something to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a message to another replica.
    Send {
        /// To whom.
        to: ReplicaIndex,
        /// What.
        message: Message,
    },
    /// Write a prepare behind the log's end and answer `Durable` when it is synced: at once, or in a group that acknowledges
    /// from memory with the next `Sync`.
    Append(Prepare),
    /// Sync the log and answer `Durable` for its end. Only in groups that acknowledge from memory.
    Sync,
    /// Cut the log behind `keep`, durably, before any later append.
    Truncate {
        /// The last op that stays.
        keep: Op,
    },
    /// Put this in the place of the whole log: from now on the log is what follows it. Answer `Durable` with its name when it is
    /// durable, or with that of a later prepare; what stood there before must not be harmed until then.
    TakeSnapshot(Box<Snapshot>),
    /// Save this, replacing what was saved for the group before, and answer `SuperblockDurable`.
    SaveSuperblock(Superblock),
    /// This prepare is committed, and so are all before it. Comes once per op, in order. The driver holds the body, having
    /// been given it in `Append` or having read it at recovery.
    Apply(PrepareHeader),
    /// Answer a request.
    Reply {
        /// Which.
        handle: RequestHandle,
        /// How it ended.
        outcome: Outcome,
    },
    /// Answer a read.
    ReplyToRead {
        /// Which.
        handle: ReadHandle,
        /// Whether it may be answered.
        outcome: ReadOutcome,
    },
    /// Find these prepares in the log on disk and send each as `RepairPrepare`, or `RepairMissing` if it is not there; if the log
    /// begins behind one of them, send what it builds on as `Snapshot` too.
    ServePrepares {
        /// To whom.
        to: ReplicaIndex,
        /// The view for the envelope.
        view: View,
        /// What is wanted.
        ids: Vec<PrepareId>,
    },
    /// Find the headers of these ops in the log on disk and send them as `Headers`; fewer, or none, if they are not there. If the
    /// log begins behind the first one, send what it builds on as `Snapshot` instead.
    ServeHeaders {
        /// To whom.
        to: ReplicaIndex,
        /// The view for the envelope.
        view: View,
        /// First op.
        first: Op,
        /// Last op; no later than the commit of this replica.
        last: Op,
    },
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is committed; for a retry this is the outcome of the first try.
    Committed {
        /// Where in the log.
        op: Op,
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// This replica does not lead the group, or is about to stop; nothing was done.
    NotPrimary,
    /// The window is full, or the primary is handing over; nothing was done.
    Busy,
    /// A request number was skipped, as far as this replica knows; nothing was done. A producer that has been told the
    /// outcome of the expected request already was evicted from the client table, or asks a primary of an old view.
    OutOfOrder {
        /// The number that is next.
        expected: RequestNumber,
    },
    /// This number is older than the client table remembers.
    UnknownOutcome,
    /// The primary lost its view before the request was committed: it may or may not be committed in a later view. Retrying
    /// with the same request number is safe.
    ViewEnded,
}

/// Whether a read may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// It may: what this replica has committed is all that was acknowledged or read anywhere before the read came.
    Confirmed,
    /// This replica does not lead the group, or cannot make sure that it does. Another one may know better.
    NotPrimary,
    /// Too many reads wait already.
    Busy,
}
