//! The states worth remembering, each with the one it was reached from.
//!
//! A state with more messages in flight, all else being equal, can do everything that one with fewer can: messages may
//! stay on their way for ever. So of the states with equal replicas only those with the most messages are kept and gone on
//! from; whatever is reached with a part of their messages is passed over.
//!
//! All but the messages is kept as a fingerprint of 64 bits.

#[allow(clippy::disallowed_types, reason = "only looked up, never iterated")]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What is in flight in one state: a piece of the arena.
#[derive(Clone, Copy, Debug)]
struct Network {
    /// The number of that state.
    number: u32,
    start: usize,
    length: u32,
    /// A bit for each message, many sharing one: what is no part by these bits is none.
    bits: u64,
}

/// See the module's text.
#[derive(Default, Debug)]
pub(super) struct Visited {
    #[allow(clippy::disallowed_types, reason = "only looked up, never iterated")]
    networks: HashMap<u64, Vec<Network>, BuildHasherDefault<AsItIs>>,
    arena: Vec<u32>,
    /// In the order of the search: fingerprint of the whole state, and number of the state before.
    fingerprints: Vec<u64>,
    parents: Vec<u32>,
}

/// A fingerprint is hashed already.
#[derive(Default, Debug)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed")
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// A state as it is looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    /// Of all but the messages.
    pub(super) group: u64,
    /// Of all.
    pub(super) whole: u64,
    /// Ascending.
    pub(super) network: &'a [u32],
}

impl Visited {
    /// Takes note of a state reached from state number `parent`. Says whether it can do anything that none before it can.
    pub(super) fn insert(&mut self, key: Key<'_>, parent: u32) -> bool {
        let bits = bits(key.network);
        let known = self.networks.entry(key.group).or_default();
        let arena = &self.arena;
        let of = |other: &Network| &arena[other.start..other.start + other.length as usize];
        if known.iter().any(|other| bits & !other.bits == 0 && is_part(key.network, of(other))) {
            return false;
        }
        known.retain(|other| other.bits & !bits != 0 || !is_part(of(other), key.network));
        let length = u32::try_from(key.network.len()).expect("messages can be numbered");
        let number = u32::try_from(self.parents.len()).expect("the states of a search can be numbered");
        known.push(Network { number, start: self.arena.len(), length, bits });
        self.arena.extend_from_slice(key.network);
        self.fingerprints.push(key.whole);
        self.parents.push(parent);
        true
    }

    /// Whether one of the first `count` states that were taken note of can do all that this one of them can, and more.
    pub(super) fn is_outdone(&self, key: Key<'_>, count: usize) -> bool {
        let bits = bits(key.network);
        self.networks.get(&key.group).is_some_and(|known| {
            known.iter().filter(|other| (other.number as usize) < count && bits & !other.bits == 0).any(
                |other| {
                    let network = &self.arena[other.start..other.start + other.length as usize];
                    network.len() > key.network.len() && is_part(key.network, network)
                },
            )
        })
    }

    /// States taken note of.
    pub(super) fn count(&self) -> usize {
        self.parents.len()
    }

    /// States that differ in more than what is in flight.
    pub(super) fn groups(&self) -> usize {
        self.networks.len()
    }

    /// The fingerprints of the states on the way to state number `last`, without the first state.
    pub(super) fn way_to(&self, last: u32) -> Vec<u64> {
        let before = |number: &u32| (*number != 0).then(|| self.parents[*number as usize]);
        let mut way: Vec<_> = std::iter::successors(Some(last), before)
            .take_while(|number| *number != 0)
            .map(|number| self.fingerprints[number as usize])
            .collect();
        way.reverse();
        way
    }
}

fn bits(network: &[u32]) -> u64 {
    network.iter().fold(0, |bits, envelope| bits | 1 << (envelope % 64))
}

/// Whether all of `part` is in `whole`; both ascend.
fn is_part(part: &[u32], whole: &[u32]) -> bool {
    let mut rest = whole.iter();
    part.len() <= whole.len() && part.iter().all(|wanted| rest.by_ref().any(|found| found == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_fewer_messages_is_passed_over() {
        let mut visited = Visited::default();
        let key = |network| Key { group: 1, whole: 0, network };
        assert!(visited.insert(key(&[1, 3]), 0));
        assert!(!visited.insert(key(&[3]), 0));
        assert!(!visited.insert(key(&[1, 3]), 0));
        assert!(visited.insert(key(&[1, 2]), 0));
        assert!(visited.insert(key(&[1, 2, 3]), 0));
        assert!(visited.is_outdone(key(&[1, 3]), 3));
        assert!(!visited.is_outdone(key(&[1, 3]), 2));
        assert!(!visited.is_outdone(key(&[1, 2, 3]), 3));
        assert!(visited.insert(Key { group: 2, whole: 0, network: &[3] }, 0));
        assert_eq!((visited.count(), visited.groups()), (4, 2));
    }
}
