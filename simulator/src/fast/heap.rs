//! The events that are still to come, by time.
//!
//! Events of the same nanosecond come out in an order that the seed shuffles, so that nothing comes to rely on the order in
//! which they were put in. What must stay in order (the frames of one lane) is kept in queues of its own, and the events
//! only say "take the next".

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

#[derive(Debug)]
struct Entry<E> {
    at: Duration,
    shuffle: u64,
    sequence: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Duration, u64, u64) {
        (self.at, self.shuffle, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the standard heap gives the greatest first, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// A queue of events ordered by time.
#[derive(Debug)]
pub(crate) struct EventHeap<E> {
    entries: BinaryHeap<Entry<E>>,
    rng: ChaCha8Rng,
    sequence: u64,
    now: Duration,
}

impl<E> EventHeap<E> {
    /// An empty queue whose ties are broken by `rng`.
    pub(crate) fn new(rng: ChaCha8Rng) -> Self {
        Self { entries: BinaryHeap::new(), rng, sequence: 0, now: Duration::ZERO }
    }

    /// The time of the event that was taken last.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Lets `event` happen at `at`, or now if that is past.
    pub(crate) fn push(&mut self, at: Duration, event: E) {
        self.sequence += 1;
        let at = at.max(self.now);
        self.entries.push(Entry { at, shuffle: self.rng.next_u64(), sequence: self.sequence, event });
    }

    /// Lets `event` happen after `wait`.
    pub(crate) fn push_after(&mut self, wait: Duration, event: E) {
        self.push(self.now + wait, event);
    }

    /// Takes the next event and moves the time to it.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let entry = self.entries.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn events_come_by_time_and_ties_by_seed() {
        let order = |seed| {
            let mut heap = EventHeap::new(stream(seed, "heap"));
            for event in 0..20_u64 {
                heap.push(Duration::from_nanos(event / 10), event);
            }
            std::iter::from_fn(|| heap.pop()).collect::<Vec<_>>()
        };
        let first = order(1);
        assert!(first[..10].iter().all(|event| *event < 10), "earlier events come first: {first:?}");
        assert_eq!(first, order(1), "one seed gives one order");
        assert_ne!(first, order(2), "another seed shuffles ties differently");
    }
}
