//! What is going to happen in the fast world.

use std::time::Duration;

use varve_protocol::id::NodeId;

use crate::fast::host::Doom;
use crate::fast::wire::WireEvent;
use crate::scenario::Phase;
use crate::trace::Endpoint;

/// Something that is going to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Something on the wire.
    Wire(WireEvent),
    /// A node's timer, for a life and a moment.
    Tick(NodeId, u64, Duration),
    /// A round of so many writes of a life is done.
    DiskRound(NodeId, u64, usize),
    /// A process starts, after that life.
    Start(NodeId, u64),
    /// A client's timer, for a moment.
    Wake(u32, Duration),
    /// A strike of the schedule begins.
    Strike(usize),
    /// It ends.
    Relief(usize),
    /// A process dies in the middle of a round of writes of that life.
    Doom(NodeId, u64, Doom),
    /// A connection breaks without a reason.
    Reset,
    /// The nodes are looked at.
    Watch,
    /// The faults are over.
    Heal,
    /// Those who were left behind come back.
    Homecoming,
    /// They have been back for a while.
    SettledIn,
    /// The phase should be over by now.
    Deadline(Phase),
}

impl From<WireEvent> for Event {
    fn from(event: WireEvent) -> Self {
        Self::Wire(event)
    }
}

/// The node that has to be awake for an event.
pub(super) fn receiver(event: &Event) -> Option<NodeId> {
    match event {
        Event::Wire(event) => match event.receiver() {
            Some(Endpoint::Node(node)) => Some(node),
            Some(Endpoint::Client(_)) | None => None,
        },
        Event::Tick(node, ..) | Event::DiskRound(node, ..) => Some(*node),
        Event::Start(..)
        | Event::Wake(..)
        | Event::Strike(_)
        | Event::Relief(_)
        | Event::Doom(..)
        | Event::Reset
        | Event::Watch
        | Event::Heal
        | Event::Homecoming
        | Event::SettledIn
        | Event::Deadline(_) => None,
    }
}
