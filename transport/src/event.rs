//! What an endpoint tells its node, in four bounded queues so that no flood, of clients or of votes, can hold up a pulse.

use tokio::sync::mpsc;
use varve_protocol::frame::Frame;
use varve_protocol::id::{Incarnation, NodeId};

/// One stream of one client; never used twice in the life of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(u64);

impl SessionId {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn as_raw(self) -> u64 {
        self.0
    }
}

/// Something that happened at an endpoint.
#[derive(Debug)]
pub enum Event {
    /// A connection to a peer stands, in place of any before.
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
    /// A peer sent a frame; its checksums are right.
    PeerFrame {
        /// Which peer.
        node: NodeId,
        /// What it sent.
        frame: Frame,
    },
    /// A client sent a frame; its checksums are right.
    ClientFrame {
        /// On which stream.
        session: SessionId,
        /// What it sent.
        frame: Frame,
    },
    /// A client's stream ended.
    ClientGone {
        /// Which stream.
        session: SessionId,
    },
}

/// Pulses that may wait: some seconds' worth of all peers.
const PULSE_EVENTS_MAX: usize = 256;

/// Events of the control lane that may wait. Votes are small; QUIC's flow control holds back the rest.
const CONTROL_EVENTS_MAX: usize = 4096;

/// Frames of other lanes, and of clients, that may wait; QUIC's flow control holds back the rest. Each may be 16 MiB.
const DATA_EVENTS_MAX: usize = 32;

#[derive(Clone)]
pub(crate) struct EventSender {
    pub(crate) pulses: mpsc::Sender<Event>,
    pub(crate) control: mpsc::Sender<Event>,
    pub(crate) data: mpsc::Sender<Event>,
    pub(crate) clients: mpsc::Sender<Event>,
}

/// The events of an endpoint, the urgent ones first.
pub struct EventReceiver {
    pulses: mpsc::Receiver<Event>,
    control: mpsc::Receiver<Event>,
    data: mpsc::Receiver<Event>,
    clients: mpsc::Receiver<Event>,
}

pub(crate) fn channel() -> (EventSender, EventReceiver) {
    let (pulses, pulses_out) = mpsc::channel(PULSE_EVENTS_MAX);
    let (control, control_out) = mpsc::channel(CONTROL_EVENTS_MAX);
    let (data, data_out) = mpsc::channel(DATA_EVENTS_MAX);
    let (clients, clients_out) = mpsc::channel(DATA_EVENTS_MAX);
    let receiver =
        EventReceiver { pulses: pulses_out, control: control_out, data: data_out, clients: clients_out };
    (EventSender { pulses, control, data, clients }, receiver)
}

impl EventReceiver {
    /// Waits for the next event; `None` when the endpoint is gone.
    pub async fn recv(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            event = self.pulses.recv() => event,
            event = self.control.recv() => event,
            event = self.data.recv() => event,
            event = self.clients.recv() => event,
        }
    }

    /// Whether an event of the control lane, or of a peer's coming and going, is there already.
    #[must_use]
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// The next pulse, if one is there already.
    pub fn try_recv_pulse(&mut self) -> Option<Event> {
        self.pulses.try_recv().ok()
    }

    /// The next event that is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        let urgent = self.pulses.try_recv().or_else(|_| self.control.try_recv());
        urgent.or_else(|_| self.data.try_recv()).or_else(|_| self.clients.try_recv()).ok()
    }
}
