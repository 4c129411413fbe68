//! The wire of the fast world: connections with the semantics of QUIC, frame by frame.
//!
//! * Frames of one lane of one connection arrive in order, after latency and bandwidth; lanes overtake each other.
//! * Nothing is lost on a standing connection. A cut makes it silent; frames wait and are sent again. When an end has
//!   heard nothing for the idle time-out it gives up: everything in flight is gone, and the other end learns of it later.
//! * A process that stops takes its connections with it; what it had sent may still arrive.
//! * Nodes dial each other until they are connected; clients dial when they have something to say.
//! * Queues are bounded: a frame for a full lane is dropped.
//!
//! ```text
//!              dial                 established at each end, one after the other
//!   Down ───────────────▶ Up ─────────────────────────────────────────────────────┐
//!    ▲                                                                              │
//!    └───── broken: idle time-out, reset, process gone; each end is told later ◀────┘
//! ```
//!
//! Every event carries the life of the connection it belongs to; an event of an earlier life means nothing.

mod connecting;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use varve_protocol::frame::{FRAME_HEADER_SIZE, Frame};

use super::heap::EventHeap;
use crate::random::{duration_between, long_tail};
use crate::scenario::Link;
use crate::trace::Endpoint;

/// Frames that may wait in one lane.
const LANE_FRAMES_MAX: usize = 1024;

/// The longest pause before a node dials again.
const REDIAL_MAX: Duration = Duration::from_millis(300);

/// The longest pause before frames that met a cut are sent again.
const RESEND_MAX: Duration = Duration::from_millis(100);

/// Two ends, the smaller first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pair {
    ends: [Endpoint; 2],
}

impl Pair {
    fn new(a: Endpoint, b: Endpoint) -> Self {
        Self { ends: if a < b { [a, b] } else { [b, a] } }
    }

    fn side(self, end: Endpoint) -> usize {
        usize::from(self.ends[1] == end)
    }

    fn other(self, end: Endpoint) -> Endpoint {
        self.ends[1 - self.side(end)]
    }

    fn is_between_nodes(self) -> bool {
        self.ends.iter().all(|end| matches!(end, Endpoint::Node(_)))
    }
}

/// Something that happens on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WireEvent {
    /// The ends try to connect.
    Dial(Pair, u64),
    /// An end learns that the connection stands.
    Establish(Pair, u64, Endpoint),
    /// The next frame of a lane reaches an end.
    Arrive(Pair, u64, Endpoint, u64),
    /// An end may have heard nothing for too long.
    Silence(Pair, u64, Endpoint),
    /// An end learns that the connection is gone.
    Tell(Pair, u64, Endpoint),
}

impl WireEvent {
    /// Who has to be awake for this to happen.
    pub(crate) fn receiver(&self) -> Option<Endpoint> {
        match self {
            Self::Dial(..) => None,
            Self::Establish(_, _, end)
            | Self::Arrive(_, _, end, _)
            | Self::Silence(_, _, end)
            | Self::Tell(_, _, end) => Some(*end),
        }
    }
}

/// What the wire brings to an end.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A connection stands.
    Up { at: Endpoint, with: Endpoint },
    /// It is gone; `session` is the name it had.
    Down { at: Endpoint, with: Endpoint, session: u64 },
    /// A frame.
    Frame { at: Endpoint, from: Endpoint, session: u64, frame: Frame },
}

/// Whether a process can take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It runs.
    Running,
    /// It exists and does nothing.
    Frozen,
    /// There is no process.
    Absent,
}

#[derive(Debug, Default)]
struct Connection {
    life: u64,
    is_up: bool,
    /// Which life each end believes to stand. Frames of a broken life may still arrive at an end that believes in it.
    told: [Option<u64>; 2],
    /// Since when an end hears nothing.
    silent_since: [Option<Duration>; 2],
    /// By receiving side and lane: arrival time and frame.
    lanes: BTreeMap<(usize, u64), VecDeque<(Duration, Frame)>>,
    /// When the link towards a side is free again.
    busy_until: [Duration; 2],
    /// What a client said before the connection stood.
    waiting: Vec<(u64, Frame)>,
    is_dialing: bool,
}

impl Connection {
    fn clear_lanes_to(&mut self, side: usize) {
        self.lanes.retain(|(to, _), _| *to != side);
    }
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Wire {
    link: Link,
    rng: ChaCha8Rng,
    connections: BTreeMap<Pair, Connection>,
    presence: BTreeMap<Endpoint, Presence>,
    /// How many faults cut a direction at the moment.
    cuts: BTreeMap<(Endpoint, Endpoint), u32>,
    /// Numbers the lives of all connections.
    lives: u64,
    /// The standing connections of clients, by the name that nodes know them by.
    sessions: BTreeMap<u64, Pair>,
    /// Connections that stood and broke.
    pub(crate) lost: u64,
    /// Frames dropped because their lane was full.
    pub(crate) dropped: u64,
}

impl Wire {
    /// A wire without any end.
    pub(crate) fn new(link: Link, rng: ChaCha8Rng) -> Self {
        Self {
            link,
            rng,
            connections: BTreeMap::new(),
            presence: BTreeMap::new(),
            cuts: BTreeMap::new(),
            lives: 0,
            sessions: BTreeMap::new(),
            lost: 0,
            dropped: 0,
        }
    }

    /// From now on the network is as good as it gets, short of being a different one.
    pub(crate) fn calm<E: From<WireEvent>>(&mut self, heap: &mut EventHeap<E>) {
        self.link.latency = self.link.latency.min(Duration::from_millis(2));
        self.link.latency_tail = self.link.latency_tail.min(Duration::from_micros(500));
        self.link.bandwidth = self.link.bandwidth.max(100_000_000);
        self.cuts.clear();
        self.note_silence(heap);
    }

    /// A process started, froze, thawed or stopped.
    pub(crate) fn set_presence<E: From<WireEvent>>(
        &mut self,
        end: Endpoint,
        presence: Presence,
        heap: &mut EventHeap<E>,
    ) {
        let before = self.presence.insert(end, presence).unwrap_or(Presence::Absent);
        let pairs: Vec<Pair> =
            self.connections.keys().filter(|pair| pair.ends.contains(&end)).copied().collect();
        if presence == Presence::Absent {
            for pair in &pairs {
                self.end_is_gone(*pair, end, heap);
            }
        }
        if before == Presence::Absent && matches!(end, Endpoint::Node(_)) {
            let others: Vec<Endpoint> =
                self.presence.keys().filter(|other| **other != end).copied().collect();
            for other in others.into_iter().filter(|other| matches!(other, Endpoint::Node(_))) {
                let pair = Pair::new(end, other);
                self.connections.entry(pair).or_default();
                self.dial_soon(pair, heap);
            }
        }
        self.note_silence(heap);
    }

    /// Cuts one direction; counted, so that overlapping faults heal one by one.
    pub(crate) fn cut<E: From<WireEvent>>(&mut self, from: Endpoint, to: Endpoint, heap: &mut EventHeap<E>) {
        *self.cuts.entry((from, to)).or_default() += 1;
        self.note_silence(heap);
    }

    /// Takes one cut back.
    pub(crate) fn mend<E: From<WireEvent>>(&mut self, from: Endpoint, to: Endpoint, heap: &mut EventHeap<E>) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
        self.note_silence(heap);
    }

    /// Breaks every standing connection between nodes.
    pub(crate) fn reset_all<E: From<WireEvent>>(&mut self, heap: &mut EventHeap<E>) {
        let pairs: Vec<Pair> = self.connections.keys().copied().collect();
        for pair in pairs {
            if self.connections[&pair].is_up {
                self.break_off(pair, heap);
            }
        }
    }

    /// Breaks one standing connection, whichever.
    pub(crate) fn reset_any<E: From<WireEvent>>(&mut self, heap: &mut EventHeap<E>) {
        let up: Vec<Pair> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_up)
            .map(|(pair, _)| *pair)
            .collect();
        if !up.is_empty() {
            let pair = up[self.rng.random_range(0..up.len())];
            self.break_off(pair, heap);
        }
    }

    /// Puts a frame on the connection between two ends. A node's frame for a connection that does not stand is dropped,
    /// a client's makes it dial.
    pub(crate) fn send<E: From<WireEvent>>(
        &mut self,
        (from, to): (Endpoint, Endpoint),
        lane: u64,
        frame: Frame,
        heap: &mut EventHeap<E>,
    ) {
        let pair = Pair::new(from, to);
        let connection = self.connections.entry(pair).or_default();
        match connection.told[pair.side(from)] {
            Some(life) if connection.is_up && connection.life == life => {
                self.transmit(pair, to, (lane, frame), heap);
            }
            // The sender does not know yet that this connection is gone.
            Some(_) => {}
            None if matches!(from, Endpoint::Client(_)) => {
                connection.waiting.push((lane, frame));
                if !connection.is_up {
                    self.dial_soon(pair, heap);
                }
            }
            None => {}
        }
    }

    /// The client behind the name of a connection; `None` if it is gone.
    pub(crate) fn client_of(&self, session: u64) -> Option<Endpoint> {
        self.sessions.get(&session).map(|pair| pair.ends[1])
    }

    /// Lets an event happen and appends what it brings to `deliveries`.
    pub(crate) fn handle<E: From<WireEvent>>(
        &mut self,
        event: WireEvent,
        heap: &mut EventHeap<E>,
        deliveries: &mut Vec<Delivery>,
    ) {
        match event {
            WireEvent::Dial(pair, life) => self.on_dial(pair, life, heap),
            WireEvent::Establish(pair, life, end) => {
                if self.connections[&pair].life == life {
                    self.establish(pair, end, heap, deliveries);
                }
            }
            WireEvent::Arrive(pair, life, end, lane) => {
                self.on_arrive(pair, life, (end, lane), heap, deliveries);
            }
            WireEvent::Silence(pair, life, end) => self.on_silence(pair, life, end, heap),
            WireEvent::Tell(pair, life, end) => {
                let side = pair.side(end);
                let connection = self.connections.entry(pair).or_default();
                if connection.life != life || connection.is_up {
                    return;
                }
                if let Some(session) = connection.told[side].take() {
                    connection.clear_lanes_to(side);
                    connection.waiting.clear();
                    deliveries.push(Delivery::Down { at: end, with: pair.other(end), session });
                }
            }
        }
    }

    fn is_running(&self, end: Endpoint) -> bool {
        self.presence.get(&end) == Some(&Presence::Running)
    }

    fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    fn latency(&mut self) -> Duration {
        self.link.latency + long_tail(&mut self.rng, self.link.latency_tail)
    }

    fn transmit<E: From<WireEvent>>(
        &mut self,
        pair: Pair,
        to: Endpoint,
        (lane, frame): (u64, Frame),
        heap: &mut EventHeap<E>,
    ) {
        let side = pair.side(to);
        let latency = self.latency();
        let size = (FRAME_HEADER_SIZE + frame.body.len()) as u64;
        let on_link = Duration::from_nanos(size * 1_000_000_000 / self.link.bandwidth.max(1));
        let connection = self.connections.entry(pair).or_default();
        let queue = connection.lanes.entry((side, lane)).or_default();
        if queue.len() >= LANE_FRAMES_MAX {
            // It was never on the link.
            self.dropped += 1;
            return;
        }
        let sent = connection.busy_until[side].max(heap.now()) + on_link;
        connection.busy_until[side] = sent;
        let arrives = queue.back().map_or(Duration::ZERO, |(last, _)| *last).max(sent + latency);
        queue.push_back((arrives, frame));
        heap.push(arrives, WireEvent::Arrive(pair, connection.life, to, lane).into());
    }

    fn on_arrive<E: From<WireEvent>>(
        &mut self,
        pair: Pair,
        life: u64,
        (end, lane): (Endpoint, u64),
        heap: &mut EventHeap<E>,
        deliveries: &mut Vec<Delivery>,
    ) {
        let side = pair.side(end);
        let from = pair.other(end);
        let connection = &self.connections[&pair];
        let is_draining = connection.told[side] == Some(life) && !connection.is_up;
        if connection.life != life && !is_draining {
            return;
        }
        if self.is_cut(from, end) {
            let wait = duration_between(&mut self.rng, RESEND_MAX / 10, RESEND_MAX);
            heap.push_after(wait, WireEvent::Arrive(pair, life, end, lane).into());
            return;
        }
        self.establish(pair, end, heap, deliveries);
        let connection = self.connections.entry(pair).or_default();
        let Some(queue) = connection.lanes.get_mut(&(side, lane)) else { return };
        let Some((_, frame)) = queue.pop_front() else { return };
        if queue.is_empty() {
            connection.lanes.remove(&(side, lane));
        }
        deliveries.push(Delivery::Frame { at: end, from, session: life, frame });
    }
}
