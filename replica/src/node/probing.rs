//! How much goes through to a peer: a row of frames full of filler is sent on the lane of repair, which is last in line, at a
//! bounded pace, and the peer says in which time they came.
//!
//! ```text
//!   client ─ MeasureRate ─▶ node ─ Probe 1 of n ─▶ peer
//!                            ...                    ...
//!                           node ─ Probe n of n ─▶ peer
//!   client ◀───── Rate ──── node ◀──── Probed ──── peer
//! ```
//!
//! One row is under way at a time, so the pace is that of the node. Frames that find no room in the lane are dropped like any
//! others; a row of which the last is missing is given up after a while, and the answer says that nothing came.

use std::time::Duration;

use bytes::Bytes;
use varve_protocol::client::{PeerRate, Refusal, Response};
use varve_protocol::frame::{Command, Frame, FrameHeader};
use varve_protocol::id::{NodeId, Op};
use varve_protocol::limits::{PROBE_BYTES, PROBE_BYTES_PER_SECOND_MAX, PROBES_PER_ROW};
use varve_protocol::time::Moment;
use varve_transport::Lane;

use crate::event::{Effect, Session};
use crate::node::Node;
use crate::timers::Due;

/// How long the last frame of a row may be on its way. Who asked waits for longer than a whole row takes.
const ROW_MAX: Duration = Duration::from_secs(3);

/// The row that is under way.
#[derive(Debug)]
struct Row {
    session: Session,
    correlation: u64,
    to: NodeId,
    sent: u64,
    began: Moment,
    /// When the last frame went out.
    last_at: Moment,
    given_up_at: Moment,
}

/// The rows of a node.
#[derive(Debug, Default)]
pub(super) struct Probing {
    row: Option<Row>,
    /// Which row it is, or was last.
    number: u64,
}

/// A row that comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    number: u64,
    first_at: Moment,
    bytes: u64,
}

impl Node {
    pub(super) fn on_measure_rate(&mut self, session: Session, correlation: u64, to: NodeId) {
        let refusal = match self.peers.get(&to) {
            None => Some(Refusal::Malformed { reason: format!("{to} is none of the other nodes") }),
            Some(peer) if !peer.is_alive() || self.probing.row.is_some() => Some(Refusal::Busy),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            return self.refuse(session, correlation, refusal);
        }
        self.probing.number += 1;
        let (began, given_up_at) = (self.now, self.now.plus(ROW_MAX));
        let row = Row { session, correlation, to, sent: 0, began, last_at: began, given_up_at };
        self.probing.row = Some(row);
        self.on_probe_due();
    }

    /// The next frame of a row is due, or the row has taken too long.
    pub(super) fn on_probe_due(&mut self) {
        let number = self.probing.number;
        let Some(row) = &mut self.probing.row else { return };
        if self.now >= row.given_up_at {
            return self.end_row(0, 0);
        }
        if row.sent == PROBES_PER_ROW {
            return;
        }
        row.sent += 1;
        row.last_at = self.now;
        let mut header = FrameHeader::new(Command::Probe, self.config.cluster);
        (header.op, header.commit, header.correlation) = (Op::new(row.sent), PROBES_PER_ROW, number);
        // Filler of zeros: nothing on the way compresses.
        let frame = Frame { header, body: Bytes::from_static(&[0; PROBE_BYTES]).into() };
        // A timer that fires late does not make the row slower.
        let next = if row.sent < PROBES_PER_ROW { row.began.plus(pace(row.sent)) } else { row.given_up_at };
        self.effects.push_back(Effect::ToPeer { node: row.to, lane: Lane::Bulk, frame });
        self.timers.set(next, Due::Probe);
    }

    pub(super) fn on_probe(&mut self, node: NodeId, frame: &Frame) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let FrameHeader { op, commit: count, correlation: number, .. } = frame.header;
        let size = frame.body.len() as u64;
        let incoming = match peer.probes {
            Some(incoming) if incoming.number == number => {
                Incoming { bytes: incoming.bytes + size, ..incoming }
            }
            Some(_) | None => Incoming { number, first_at: now, bytes: 0 },
        };
        peer.probes = Some(incoming);
        if op.as_raw() < count {
            return;
        }
        peer.probes = None;
        let took_us = u64::try_from(now.since(incoming.first_at).as_micros()).unwrap_or(u64::MAX);
        let mut header = FrameHeader::new(Command::Probed, self.config.cluster);
        (header.op, header.commit, header.correlation) = (Op::new(incoming.bytes), took_us, number);
        self.effects.push_back(Effect::ToPeer { node, lane: Lane::Control, frame: Frame::bare(header) });
    }

    pub(super) fn on_probed(&mut self, node: NodeId, header: &FrameHeader) {
        let is_ours = self.probing.row.as_ref().is_some_and(|row| row.to == node);
        if is_ours && header.correlation == self.probing.number {
            self.end_row(header.op.as_raw(), header.commit);
        }
    }

    fn end_row(&mut self, bytes: u64, took_us: u64) {
        let Some(row) = self.probing.row.take() else { return };
        self.timers.clear(row.given_up_at, Due::Probe);
        let rate = PeerRate { node: row.to, offered: row.offered(), bytes, took_us };
        self.respond(row.session, row.correlation, &Response::Rate(rate));
    }
}

impl Row {
    /// Bytes per second that were really sent: a node that is busy sends more slowly than it might.
    fn offered(&self) -> u64 {
        let bytes = self.sent.saturating_sub(1) * PROBE_BYTES as u64;
        let took_us = self.last_at.since(self.began).as_micros();
        let rate = u128::from(bytes) * 1_000_000 / took_us.max(1);
        u64::try_from(rate).unwrap_or(u64::MAX).min(PROBE_BYTES_PER_SECOND_MAX)
    }
}

/// From the first frame of a row to the one that follows so many.
fn pace(sent: u64) -> Duration {
    Duration::from_micros(sent * PROBE_BYTES as u64 * 1_000_000 / PROBE_BYTES_PER_SECOND_MAX)
}
