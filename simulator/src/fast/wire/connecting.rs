//! How connections of the wire come and go: dialled, established, silent, broken.

use std::time::Duration;

use super::{Delivery, Pair, Presence, REDIAL_MAX, Wire, WireEvent};
use crate::fast::heap::EventHeap;
use crate::random::{chance, duration_between};
use crate::trace::Endpoint;

impl Wire {
    /// Lets the ends try to connect, unless they are about to.
    pub(super) fn dial_soon<E: From<WireEvent>>(&mut self, pair: Pair, heap: &mut EventHeap<E>) {
        let connection = self.connections.entry(pair).or_default();
        if connection.is_dialing {
            return;
        }
        connection.is_dialing = true;
        let wait = if pair.is_between_nodes() {
            duration_between(&mut self.rng, Duration::from_millis(1), REDIAL_MAX)
        } else {
            Duration::ZERO
        };
        heap.push_after(wait, WireEvent::Dial(pair, connection.life).into());
    }

    pub(super) fn on_dial<E: From<WireEvent>>(&mut self, pair: Pair, life: u64, heap: &mut EventHeap<E>) {
        let connection = self.connections.entry(pair).or_default();
        if connection.life != life || connection.is_up {
            return;
        }
        connection.is_dialing = false;
        let [low, high] = pair.ends;
        let can_connect = self.is_running(low)
            && self.is_running(high)
            && !self.is_cut(low, high)
            && !self.is_cut(high, low);
        if can_connect {
            self.connect(pair, heap);
        } else if pair.is_between_nodes() {
            if pair.ends.iter().all(|end| self.presence.get(end) != Some(&Presence::Absent)) {
                self.dial_soon(pair, heap);
            }
        } else {
            // The client believes in a connection until its attempt times out.
            let connection = self.connections.entry(pair).or_default();
            connection.told[1] = Some(life);
            heap.push_after(self.link.idle_timeout, WireEvent::Tell(pair, life, high).into());
        }
    }

    fn connect<E: From<WireEvent>>(&mut self, pair: Pair, heap: &mut EventHeap<E>) {
        let round_trip = self.latency() + self.latency();
        self.lives += 1;
        let life = self.lives;
        let connection = self.connections.entry(pair).or_default();
        connection.lanes.clear();
        connection.life = life;
        connection.is_up = true;
        connection.silent_since = [None; 2];
        if !pair.is_between_nodes() {
            self.sessions.insert(life, pair);
        }
        for end in pair.ends {
            let jitter = duration_between(&mut self.rng, Duration::ZERO, round_trip / 2);
            heap.push_after(round_trip + jitter, WireEvent::Establish(pair, life, end).into());
        }
    }

    /// Tells an end that the connection stands, after telling it that the one before is gone if it does not know yet.
    pub(super) fn establish<E: From<WireEvent>>(
        &mut self,
        pair: Pair,
        end: Endpoint,
        heap: &mut EventHeap<E>,
        deliveries: &mut Vec<Delivery>,
    ) {
        let side = pair.side(end);
        let with = pair.other(end);
        let connection = self.connections.entry(pair).or_default();
        let life = connection.life;
        if !connection.is_up || connection.told[side] == Some(life) {
            return;
        }
        if let Some(session) = connection.told[side].replace(life) {
            deliveries.push(Delivery::Down { at: end, with, session });
        }
        deliveries.push(Delivery::Up { at: end, with });
        if matches!(end, Endpoint::Client(_)) {
            for (lane, frame) in std::mem::take(&mut connection.waiting) {
                self.transmit(pair, with, (lane, frame), heap);
            }
        }
    }

    pub(super) fn on_silence<E: From<WireEvent>>(
        &mut self,
        pair: Pair,
        life: u64,
        end: Endpoint,
        heap: &mut EventHeap<E>,
    ) {
        let connection = &self.connections[&pair];
        let Some(since) = connection.silent_since[pair.side(end)] else { return };
        if connection.is_up && connection.life == life && heap.now() >= since + self.link.idle_timeout {
            self.break_off(pair, heap);
        }
    }

    /// Notes for every standing connection which end hears nothing, and lets it notice after the idle time-out.
    pub(super) fn note_silence<E: From<WireEvent>>(&mut self, heap: &mut EventHeap<E>) {
        let now = heap.now();
        let pairs: Vec<Pair> = self.connections.keys().copied().collect();
        for pair in pairs {
            for end in pair.ends {
                let from = pair.other(end);
                let is_silent = self.is_cut(from, end) || !self.is_running(from);
                let idle_timeout = self.link.idle_timeout;
                let connection = self.connections.entry(pair).or_default();
                let silent_since = &mut connection.silent_since[pair.side(end)];
                if !is_silent {
                    *silent_since = None;
                } else if silent_since.is_none() && connection.is_up {
                    *silent_since = Some(now);
                    heap.push(now + idle_timeout, WireEvent::Silence(pair, connection.life, end).into());
                }
            }
        }
    }

    /// The connection is gone. What is in flight is lost, or some of it still arrives; each end is told after a while.
    pub(super) fn break_off<E: From<WireEvent>>(&mut self, pair: Pair, heap: &mut EventHeap<E>) {
        self.lives += 1;
        self.lost += 1;
        let life = self.lives;
        let drains = chance(&mut self.rng, 500);
        let connection = self.connections.entry(pair).or_default();
        self.sessions.remove(&connection.life);
        connection.life = life;
        connection.is_up = false;
        connection.is_dialing = false;
        connection.silent_since = [None; 2];
        if !drains {
            connection.lanes.clear();
        }
        for (side, end) in pair.ends.into_iter().enumerate() {
            let is_cut = self.is_cut(pair.other(end), end);
            let connection = self.connections.entry(pair).or_default();
            if is_cut {
                // What waits for the end of the cut to be sent again is not in flight.
                connection.clear_lanes_to(side);
            }
            if self.presence.get(&end) == Some(&Presence::Absent) {
                connection.told[side] = None;
                connection.clear_lanes_to(side);
            } else if connection.told[side].is_some() {
                let wait = duration_between(&mut self.rng, Duration::from_millis(1), self.link.idle_timeout);
                heap.push_after(wait, WireEvent::Tell(pair, life, end).into());
            }
        }
        if pair.is_between_nodes() {
            self.dial_soon(pair, heap);
        }
    }

    pub(super) fn end_is_gone<E: From<WireEvent>>(
        &mut self,
        pair: Pair,
        end: Endpoint,
        heap: &mut EventHeap<E>,
    ) {
        if self.connections[&pair].is_up {
            self.break_off(pair, heap);
        } else {
            let side = pair.side(end);
            let connection = self.connections.entry(pair).or_default();
            connection.told[side] = None;
            connection.clear_lanes_to(side);
        }
    }
}
