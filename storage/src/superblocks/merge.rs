//! Two copies of a file of superblocks, read as one. Pure.
//!
//! A round is written to copy a and synced before anything of it is written to copy b, and it is acknowledged when copy
//! b is synced. So a crash tears one copy at most, and at its end; and an entry that was acknowledged is in both.
//!
//! | generations | entry n of a | entry n of b | verdict                                                              |
//! |-------------|--------------|--------------|----------------------------------------------------------------------|
//! | same        | sound        | sound        | taken; they must be equal                                            |
//! | same        | sound        | not          | taken from a: b was torn, is behind, or is rotten                    |
//! | same        | not          | sound        | taken from b: a is rotten                                            |
//! | same        | not          | not, and nothing behind it either | the end: the round was torn in a and never reached b |
//! | same        | not          | not, and something there or behind | whose promise it was cannot be told: error          |
//! | differ      | -            | -            | a crash in a rewrite, or one copy is lost: the newer one if it is whole, else the other if it is; else error |
//!
//! At an end, what copy a holds behind it must be of the torn round; if it is of a later one, it is an error too.
//! If the copies are not equal in the end, both are rewritten.

use std::path::PathBuf;

use super::COPY_NAMES;
use super::entry::{Content, ENTRY_SIZE, Entry};
use crate::error::StorageError;
use crate::identity::Identity;

/// What two copies say together.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) generation: u64,
    /// From the first entry of the file on.
    pub(super) entries: Vec<Entry>,
    /// Both copies say it, and nothing else.
    pub(super) are_equal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing, or zeros: never written, or the size survived a crash and the bytes did not.
    Blank,
    Bad,
    Good(Entry),
}

/// One copy; behind the last place everything is blank.
struct Parsed {
    generation: Option<u64>,
    places: Vec<Place>,
}

impl Parsed {
    fn new(bytes: &[u8], identity: Identity) -> Self {
        let found: Vec<_> = bytes.chunks(ENTRY_SIZE).map(|chunk| (Entry::decode(chunk), chunk)).collect();
        let generation = found.iter().find_map(|(entry, _)| entry.map(|entry| entry.generation));
        let mut places = Vec::with_capacity(found.len());
        for (sequence, (entry, chunk)) in (0..).zip(found) {
            let fits = |entry: &Entry| {
                entry.sequence == sequence
                    && Some(entry.generation) == generation
                    && u64::from(entry.place_in_round) <= sequence
                    && (entry.content == Content::Start(identity)) == (sequence == 0)
            };
            places.push(match entry.filter(fits) {
                Some(entry) => Place::Good(entry),
                None if chunk.iter().all(|byte| *byte == 0) => Place::Blank,
                None => Place::Bad,
            });
        }
        while places.last() == Some(&Place::Blank) {
            places.pop();
        }
        Self { generation, places }
    }

    fn place(&self, sequence: usize) -> Place {
        self.places.get(sequence).copied().unwrap_or(Place::Blank)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.places.iter().filter_map(|place| match place {
            Place::Good(entry) => Some(*entry),
            Place::Blank | Place::Bad => None,
        })
    }

    fn is_whole(&self) -> bool {
        !self.places.is_empty() && self.entries().count() == self.places.len()
    }
}

/// Reads two copies as one.
pub(super) fn merge(copies: [&[u8]; 2], identity: Identity) -> Result<Merged, StorageError> {
    let [a, b] = copies.map(|bytes| Parsed::new(bytes, identity));
    match (a.generation, b.generation) {
        (Some(generation), Some(other)) if generation == other => merge_same(generation, &a, &b),
        (Some(_) | None, Some(_) | None) => choose(a, b),
    }
}

fn choose(a: Parsed, b: Parsed) -> Result<Merged, StorageError> {
    let (newer, older) = if a.generation >= b.generation { (a, b) } else { (b, a) };
    // Generations go on from the newest one seen, even if it is not the one that can be read.
    let generation = newer.generation.max(older.generation).unwrap_or_default();
    [newer, older]
        .into_iter()
        .find(Parsed::is_whole)
        .map(|copy| Merged { generation, entries: copy.entries().collect(), are_equal: false })
        .ok_or_else(|| damaged(0))
}

fn merge_same(generation: u64, a: &Parsed, b: &Parsed) -> Result<Merged, StorageError> {
    let mut entries = Vec::with_capacity(a.places.len());
    for sequence in 0.. {
        match (a.place(sequence), b.place(sequence)) {
            (Place::Good(one), Place::Good(other)) if one != other => return Err(damaged(sequence)),
            (Place::Good(entry), _) | (_, Place::Good(entry)) => entries.push(entry),
            (Place::Blank | Place::Bad, Place::Blank | Place::Bad) => break,
        }
    }
    let end = entries.len();
    let is_later_round = |entry: Entry| entry.sequence - u64::from(entry.place_in_round) > end as u64;
    if end == 0 || b.places.len() > end || a.entries().any(is_later_round) {
        return Err(damaged(end));
    }
    let are_equal = [a, b].iter().all(|copy| copy.is_whole() && copy.places.len() == end);
    Ok(Merged { generation, entries, are_equal })
}

fn damaged(sequence: usize) -> StorageError {
    StorageError::SuperblocksDamaged { path: PathBuf::from(COPY_NAMES[1]), entry: sequence as u64 }
}
