//! What can go wrong, when, and to whom.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use varve_protocol::id::NodeId;

use super::format;

/// One misfortune.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strike {
    /// When, since the start.
    #[serde(with = "format::time")]
    pub at: Duration,
    /// How long.
    #[serde(with = "format::time")]
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// Whom a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// This node.
    Node(#[serde(with = "format::node")] NodeId),
    /// Whoever leads the metadata group (0) or the partition with this number less one at that moment.
    Primary(u32),
}

/// What can go wrong. But for [`Fault::LoseDisk`] none of it harms data that a disk has synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Cuts one node off from all others, and from the clients too if they are to notice.
    Isolate(Victim, Reach),
    /// Splits the nodes in two: those whose bit is set, and the rest.
    Halves {
        /// One bit per node, node 1 the lowest.
        mask: u32,
    },
    /// Cuts every node that is no neighbour on a ring, so that no node sees a quorum of five directly.
    Ring,
    /// Cuts all that one node says; what it hears still arrives.
    Mute(Victim),
    /// Cuts all that one node hears; what it says still arrives.
    Deafen(Victim),
    /// Cuts one direction between two nodes.
    OneWay {
        /// Whose words are lost.
        #[serde(with = "format::node")]
        from: NodeId,
        /// Who does not hear them.
        #[serde(with = "format::node")]
        to: NodeId,
    },
    /// Stops a process at once; the kernel keeps what it has written. It starts again when the fault ends.
    Kill(Victim),
    /// Stops a computer at once; what its disk has not synced may be lost. It starts again when the fault ends.
    Crash(Victim),
    /// Stops a computer at once, and its disk is lost. It starts again with an empty one when the fault ends. Nothing happens
    /// while another disk that was lost is not made good yet: with two of three gone, nothing could be promised.
    LoseDisk(Victim),
    /// Stops every computer at once.
    PowerFailure,
    /// Lets the victim get through some more rounds of writes and stops it, or everybody, in the middle of the next one.
    DieInWrites {
        /// Whose writes.
        victim: Victim,
        /// How many rounds it gets through.
        rounds: u32,
        /// Who dies.
        death: Death,
    },
    /// Freezes a process; its clock runs on.
    Pause(Victim),
    /// Resets every connection, without cutting anything.
    ResetConnections,
    /// Makes every disk round of one node slow.
    SlowDisk(Victim),
    /// Lets no disk round of one node come to an end.
    HangDisk(Victim),
    /// Moves the wall clock of one node.
    JumpClock {
        /// Whose.
        victim: Victim,
        /// How far, in milliseconds.
        by_ms: i64,
    },
}

/// Who dies in the middle of a round of writes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// The process; the kernel keeps what it has written.
    Process,
    /// The computer.
    Computer,
    /// All computers.
    Everybody,
}

/// How far a network partition reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Between nodes only.
    Nodes,
    /// Clients are cut off too.
    NodesAndClients,
}
