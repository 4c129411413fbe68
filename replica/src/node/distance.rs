//! How far the peers are, and how their clocks go: told by the pulses that are exchanged anyway.
//!
//! A pulse says when it was sent by the wall clock of its sender, and how long before that the pulse had come which it echoes.
//! With what the receiver knows of its own pulse these are the four times of NTP (RFC 5905, section 8):
//!
//! ```text
//!   here    t1 ───────╮            ╭──────▶ t4     round trip = (t4 - t1) - (t3 - t2)
//!   there             ╰──▶ t2   t3 ╯               ahead      = t3 + round trip / 2 - t4
//! ```
//!
//! Differences are taken from monotonic clocks, each at its own node; only t3 and t4 in the second line are by the wall clocks.
//! A round trip counts what a pulse waits for in either node, as all frames do. The clocks are compared by the fastest of the
//! last round trips: it leaves the least room for a way out that took longer than the way back.

use std::collections::VecDeque;
use std::time::Duration;

use varve_protocol::client::PeerDistance;
use varve_protocol::id::{NodeId, Timestamp};
use varve_protocol::pulse::Pulse;
use varve_protocol::time::Moment;

/// Pulses whose echo is waited for, and round trips that are kept: some seconds' worth.
const KEPT_MAX: usize = 128;

/// One round trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Trip {
    took: Duration,
    /// Microseconds that the peer's wall clock was ahead, if both ways took the same time.
    ahead_us: i64,
}

/// What is known of the way to one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Distance {
    /// Our last pulses: number and t1.
    sent: VecDeque<(u64, Moment)>,
    /// When the newest pulse of the peer came: t2 of its next round trip.
    heard_at: Option<Moment>,
    trips: VecDeque<Trip>,
}

impl Distance {
    /// A pulse of ours goes out. Returns how long ago the one had come that it echoes.
    pub(super) fn note_sent(&mut self, sequence: u64, now: Moment) -> Duration {
        keep(&mut self.sent, (sequence, now));
        self.heard_at.map_or(Duration::ZERO, |heard_at| now.since(heard_at))
    }

    /// A pulse of the peer has come that is newer than all before.
    pub(super) fn note_heard(&mut self, pulse: &Pulse, (now, wall): (Moment, Timestamp)) {
        self.heard_at = Some(now);
        let Some(place) = self.sent.iter().position(|(sequence, _)| *sequence == pulse.echo) else { return };
        let (_, sent_at) = self.sent[place];
        // An echo that comes again tells nothing new.
        self.sent.drain(..=place);
        let took = now.since(sent_at).saturating_sub(pulse.held);
        let way_us = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
        let ahead_us = difference_us(pulse.sent_at, wall).saturating_add(way_us);
        keep(&mut self.trips, Trip { took, ahead_us });
    }

    /// What the last round trips say; none if there were none.
    pub(super) fn told(&self, node: NodeId) -> Option<PeerDistance> {
        let mut took: Vec<Duration> = self.trips.iter().map(|trip| trip.took).collect();
        took.sort_unstable();
        // Of equals the newest: a clock may have been set.
        let fastest = self.trips.iter().rev().min_by_key(|trip| trip.took)?;
        let us = |time: &Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Some(PeerDistance {
            node,
            round_trips: u32::try_from(took.len()).unwrap_or(u32::MAX),
            round_trip_us_min: us(took.first()?),
            round_trip_us_p50: us(took.get(took.len() / 2)?),
            round_trip_us_max: us(took.last()?),
            clock_ahead_us: fastest.ahead_us,
        })
    }
}

/// One time minus another, in microseconds.
fn difference_us(one: Timestamp, other: Timestamp) -> i64 {
    let size = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    match one.as_raw().checked_sub(other.as_raw()) {
        Some(later) => size(later),
        None => -size(other.as_raw() - one.as_raw()),
    }
}

fn keep<T>(row: &mut VecDeque<T>, new: T) {
    if row.len() == KEPT_MAX {
        row.pop_front();
    }
    row.push_back(new);
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{DirectoryId, Incarnation};

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::ZERO.plus(Duration::from_millis(ms))
    }

    /// A pulse that echoes another one, sent at this time by the peer's clock.
    fn pulse(echo: u64, held_ms: u64, sent_at_ms: u64) -> Pulse {
        Pulse {
            versions: varve_protocol::version::Versions::OF_THIS_RELEASE,
            sequence: 1,
            echo,
            sent_at: Timestamp::new(sent_at_ms * 1_000),
            held: Duration::from_millis(held_ms),
            incarnation: Incarnation::new(1),
            directory: DirectoryId::new(1),
            is_fresh: false,
            founders: Default::default(),
            moving: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn told(distance: &Distance) -> Option<(u32, u32, i64)> {
        let told = distance.told(NodeId::new(2))?;
        Some((told.round_trip_us_min, told.round_trip_us_max, told.clock_ahead_us))
    }

    #[test]
    fn four_times_make_a_round_trip_and_an_offset() {
        let mut distance = Distance::default();
        assert_eq!(distance.note_sent(7, at(100)), Duration::ZERO);
        assert_eq!(told(&distance), None);
        // 3 ms there, 20 ms held, 3 ms back; the peer's clock is a second ahead.
        let wall = |ms: u64| Timestamp::new(ms * 1_000);
        distance.note_heard(&pulse(7, 20, 1_000 + 123), (at(126), wall(126)));
        assert_eq!(told(&distance), Some((6_000, 6_000, 1_000_000)));
        assert_eq!(
            distance.note_sent(8, at(140)),
            Duration::from_millis(14),
            "what came at 126 is held since"
        );
        // The same with a clock that is behind, and a slower way: the fastest is believed.
        distance.note_heard(&pulse(8, 0, 160), (at(180), wall(180)));
        assert_eq!(told(&distance), Some((6_000, 40_000, 1_000_000)));
        distance.note_sent(9, at(200));
        distance.note_heard(&pulse(9, 1, 0), (at(205), wall(90_205)));
        assert_eq!(told(&distance), Some((4_000, 40_000, -90_203_000)));
    }

    #[test]
    fn an_echo_counts_once_and_a_foreign_one_never() {
        let mut distance = Distance::default();
        distance.note_sent(1, at(0));
        distance.note_sent(2, at(25));
        for (now, echo) in [(30, 2), (55, 2), (60, 1), (65, 0), (70, 99)] {
            distance.note_heard(&pulse(echo, 0, 0), (at(now), Timestamp::ZERO));
        }
        assert_eq!(distance.told(NodeId::new(2)).map(|told| told.round_trips), Some(1));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut distance = Distance::default();
        for sequence in 1..1_000 {
            distance.note_sent(sequence, at(sequence * 25));
            distance.note_heard(&pulse(sequence, 0, 0), (at(sequence * 25 + 1), Timestamp::ZERO));
            distance.note_sent(sequence + 10_000, at(sequence * 25 + 1));
        }
        assert_eq!(distance.trips.len(), KEPT_MAX);
        assert!(distance.sent.len() <= KEPT_MAX);
    }
}
