//! What can go wrong, when, and to whom.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use varve_protocol::id::NodeId;

use super::{Unsound, format};

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
    /// The disk of a computer that runs forgets something that it had synced. Nothing happens while another one's log is not
    /// whole again.
    RotDisk(Victim),
    /// Stops every computer at once; but no more than a minority of the replicas of a group that acknowledges from memory.
    PowerFailure,
    /// Stops every computer at once, whatever acknowledges from memory; they come back one by one, the last when the fault ends.
    /// In the fast world an operator has the groups go on that wait for him. In the QUIC world there is none, and it is a
    /// [`Fault::PowerFailure`].
    Blackout,
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
    /// Leaves so much room on the disk of one node.
    FillDisk {
        /// Whose.
        victim: Victim,
        /// Bytes beyond what is there.
        room: u64,
    },
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

impl Fault {
    /// Its kind, in a word or a few.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolate(..) => "isolation",
            Self::Halves { .. } => "halves",
            Self::Ring => "ring",
            Self::Mute(_) => "mute",
            Self::Deafen(_) => "deaf",
            Self::OneWay { .. } => "one way",
            Self::Kill(_) => "kill",
            Self::Crash(_) => "crash",
            Self::LoseDisk(_) => "lost disk",
            Self::RotDisk(_) => "rot in use",
            Self::PowerFailure => "power failure",
            Self::Blackout => "blackout",
            Self::DieInWrites { .. } => "death in writes",
            Self::Pause(_) => "pause",
            Self::ResetConnections => "reset of connections",
            Self::SlowDisk(_) => "slow disk",
            Self::HangDisk(_) => "hung disk",
            Self::FillDisk { .. } => "full disk",
            Self::JumpClock { .. } => "jump of a clock",
        }
    }

    /// Whether it can strike a cluster of so many nodes.
    ///
    /// # Errors
    /// When it names a node that there is not.
    pub fn fits(self, nodes: u8) -> Result<(), Unsound> {
        let named = match self {
            Self::Halves { mask } if mask == 0 || mask >= (1 << nodes) - 1 => {
                return Err(Unsound::Mask(mask));
            }
            Self::OneWay { from, to } => vec![from, to],
            Self::Halves { .. }
            | Self::Ring
            | Self::PowerFailure
            | Self::Blackout
            | Self::ResetConnections => Vec::new(),
            Self::Isolate(victim, _)
            | Self::Mute(victim)
            | Self::Deafen(victim)
            | Self::Kill(victim)
            | Self::Crash(victim)
            | Self::LoseDisk(victim)
            | Self::RotDisk(victim)
            | Self::DieInWrites { victim, .. }
            | Self::Pause(victim)
            | Self::SlowDisk(victim)
            | Self::HangDisk(victim)
            | Self::FillDisk { victim, .. }
            | Self::JumpClock { victim, .. } => match victim {
                Victim::Node(node) => vec![node],
                Victim::Primary(_) => Vec::new(),
            },
        };
        let stranger = named.into_iter().find(|node| !(1..=nodes).contains(&node.as_raw()));
        stranger.map_or(Ok(()), |node| Err(Unsound::Stranger(node)))
    }
}
