//! The states seen so far, by fingerprint, each with the one it was reached from.

#[allow(clippy::disallowed_types, reason = "only asked for membership, never iterated")]
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// See the module's text. About 30 bytes for each state.
#[derive(Default, Debug)]
pub(super) struct Visited {
    #[allow(clippy::disallowed_types, reason = "only asked for membership, never iterated")]
    seen: HashSet<u64, BuildHasherDefault<AsItIs>>,
    /// In the order of the search: fingerprint, and number of the state before.
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

impl Visited {
    /// Takes note of a state reached from state number `parent`. Says whether it is new.
    pub(super) fn insert(&mut self, fingerprint: u64, parent: u32) -> bool {
        let is_new = self.seen.insert(fingerprint);
        if is_new {
            self.fingerprints.push(fingerprint);
            self.parents.push(parent);
        }
        is_new
    }

    pub(super) fn count(&self) -> usize {
        self.parents.len()
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
