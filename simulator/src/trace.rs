//! What happened in a universe: a digest over all of it, and the last of it in words.
//!
//! Two runs of a seed are the same run if their digests are equal. The digest covers every event with its time; the words
//! are made only for those who ask.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::time::Duration;

use varve_protocol::frame::FrameHeader;
use varve_protocol::id::{GroupId, NodeId};

/// How many events are kept for those who ask how it ended.
const KEPT: usize = 600;

/// One end of a wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    /// A node.
    Node(NodeId),
    /// A client, by number.
    Client(u32),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{node}"),
            Self::Client(client) => write!(f, "c{client}"),
        }
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A frame reached its receiver.
    Frame {
        /// Who sent it.
        from: Endpoint,
        /// Who got it.
        to: Endpoint,
        /// Its header.
        header: FrameHeader,
        /// Bytes of its body.
        body_size: usize,
        /// Checksum of its body.
        body_checksum: u32,
    },
    /// A packet was handed to the network.
    Packet {
        /// Who sent it.
        from: Endpoint,
        /// To whom.
        to: Endpoint,
        /// Its size.
        size: usize,
        /// What the network does with it.
        fate: Fate,
    },
    /// An end of a connection was told that it is up or down.
    Connection {
        /// Who was told.
        at: Endpoint,
        /// The other end.
        with: Endpoint,
        /// What.
        state: ConnectionState,
    },
    /// A node finished a round of disk jobs.
    DiskRound {
        /// Which node.
        node: NodeId,
        /// Jobs in it.
        jobs: usize,
    },
    /// A node's timer fired.
    Tick {
        /// Which node.
        node: NodeId,
    },
    /// A replica has a view that it did not have before.
    View {
        /// Which node.
        node: NodeId,
        /// Which group.
        group: GroupId,
        /// The view.
        view: u64,
    },
    /// Something that needs words.
    Note(String),
}

/// Whether a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnectionState {
    /// It stands.
    Up,
    /// It does not.
    Down,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It arrives after later ones.
    Delayed,
    /// It arrives twice.
    Doubled,
    /// It does not arrive.
    Lost,
    /// It arrives, and is not what was sent.
    Corrupted,
    /// It is larger than the path takes, and does not arrive.
    TooLarge,
}

impl Event {
    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Frame { from, to, header, body_size, body_checksum } => {
                digest.write_u8(0);
                (from, to, header.command, header.group, header.view, header.op).hash(digest);
                (header.commit, header.commit_view, header.commit_checksum).hash(digest);
                (header.correlation, header.voice, body_size, body_checksum).hash(digest);
            }
            Self::Packet { from, to, size, fate } => {
                digest.write_u8(1);
                (from, to, size, fate).hash(digest);
            }
            Self::Connection { at, with, state } => {
                digest.write_u8(2);
                (at, with, state).hash(digest);
            }
            Self::DiskRound { node, jobs } => {
                digest.write_u8(3);
                (node, jobs).hash(digest);
            }
            Self::Tick { node } => {
                digest.write_u8(4);
                node.hash(digest);
            }
            Self::View { node, group, view } => {
                digest.write_u8(5);
                (node, group, view).hash(digest);
            }
            Self::Note(text) => {
                digest.write_u8(6);
                text.hash(digest);
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { from, to, header, body_size, .. } => {
                write!(f, "{from} -> {to}  {:?} {}", header.command, header.group)?;
                write!(f, " {} {} commit={}", header.view, header.op, header.commit)?;
                write!(f, " correlation={:x} body={body_size}", header.correlation)
            }
            Self::Packet { from, to, size, fate } => write!(f, "{from} -> {to}  packet of {size}: {fate:?}"),
            Self::Connection { at, with, state } => write!(f, "{at}: connection with {with} is {state:?}"),
            Self::DiskRound { node, jobs } => write!(f, "{node}: disk round of {jobs} jobs"),
            Self::Tick { node } => write!(f, "{node}: tick"),
            Self::View { node, group, view } => write!(f, "{node}: {group} is in v{view}"),
            Self::Note(text) => f.write_str(text),
        }
    }
}

/// Whether events are written out as they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Printing {
    /// They are not.
    Off,
    /// Each is a line on the standard output.
    On,
}

/// The events of one universe.
#[derive(Debug)]
pub struct Trace {
    digest: Digest,
    events: u64,
    last: VecDeque<(Duration, Event)>,
    printing: Printing,
}

impl Trace {
    /// A trace in which nothing has happened.
    #[must_use]
    pub fn new(printing: Printing) -> Self {
        Self { digest: Digest::default(), events: 0, last: VecDeque::new(), printing }
    }

    /// Something happened.
    pub fn record(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.digest.write_u64(crate::random::nanos(at));
        event.digest(&mut self.digest);
        if self.printing == Printing::On {
            // Who stops listening misses the rest.
            writeln!(std::io::stdout(), "{}", line(at, &event)).unwrap_or_default();
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back((at, event));
    }

    /// Something happened that has no event of its own.
    pub fn note(&mut self, at: Duration, text: impl Into<String>) {
        self.record(at, Event::Note(text.into()));
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The digest over all events so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The last events.
    #[must_use]
    pub fn last(&self) -> Vec<(Duration, Event)> {
        self.last.iter().cloned().collect()
    }
}

/// An event in words, with its time.
#[must_use]
pub fn line(at: Duration, event: &Event) -> String {
    format!("{:>14.6}s  {event}", at.as_secs_f64())
}

/// A hash that is the same in every process, unlike the standard library's.
#[derive(Clone, Debug)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
