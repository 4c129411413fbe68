//! A replica that has lost its disk, or is to come, go or move: the entry of a group's log that says who has a place from now on,
//! and what replicas tell each other of that in a view change.
//!
//! The body of a prepare of kind `Replacement` is 24 bytes, little-endian:
//!
//! | offset | size | name      | meaning                                                      |
//! |-------:|-----:|-----------|--------------------------------------------------------------|
//! |      0 |    1 | replica   | which place                                                  |
//! |      1 |    1 | node      | the node whose replica stands there; 0: nobody's             |
//! |      2 |    1 | change    | 0 seated, 1 counted, 2 vacated                               |
//! |      3 |    5 | reserved  | zero                                                         |
//! |      8 |    8 | directory | the data directory of that replica; 0: nobody's              |
//! |     16 |    8 | known_at  | the op of the metadata that made it so                       |
//!
//! The op of the entry that seats a replica is its *generation*; who was there when the group was made has generation zero.

use bytes::{BufMut, Bytes, BytesMut};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{DirectoryId, NodeId, Op, ReplicaIndex};
use crate::limits::REPLICAS_MAX;

/// What becomes of a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// A replica stands there from now on. Whether its word counts is as it was for that place; in a vacant one it does not.
    Seated,
    /// The word of the replica that stands there counts from now on.
    Counted,
    /// Nobody stands there.
    Vacated,
}

const CHANGES: [Change; 3] = [Change::Seated, Change::Counted, Change::Vacated];

/// Who has a place from now on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Replacement {
    /// The place.
    pub replica: ReplicaIndex,
    /// What becomes of it.
    pub change: Change,
    /// The node of the replica that stands there: the same as before if that has lost its disk, another if the replica is moved;
    /// zero if the place is vacant.
    pub node: NodeId,
    /// Its data directory; zero if the place is vacant.
    pub directory: DirectoryId,
    /// The op of the metadata that made that directory known, or wanted it here: who knows the metadata only up to an older
    /// one does not replace it by what stood there before.
    pub known_at: Op,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    replica: u8,
    node: u8,
    change: u8,
    reserved: [u8; 5],
    directory: U64,
    known_at: U64,
}

impl Replacement {
    /// The body of the prepare.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let layout = Layout {
            replica: self.replica.as_raw(),
            node: self.node.as_raw(),
            change: self.change as u8,
            reserved: [0; 5],
            directory: U64::new(self.directory.as_raw()),
            known_at: U64::new(self.known_at.as_raw()),
        };
        Bytes::copy_from_slice(layout.as_bytes())
    }

    /// Reads the body of a prepare; `None` if it is none.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let layout = Layout::read_from_bytes(body).ok()?;
        let (node, directory) = (NodeId::new(layout.node), DirectoryId::new(layout.directory.get()));
        let change = *CHANGES.get(usize::from(layout.change))?;
        let is_sound = usize::from(layout.replica) < REPLICAS_MAX
            && layout.reserved == [0; 5]
            && (node == NodeId::ZERO) == (change == Change::Vacated)
            && (directory == DirectoryId::ZERO) == (change == Change::Vacated);
        let known_at = Op::new(layout.known_at.get());
        let replica = ReplicaIndex::new(layout.replica);
        is_sound.then_some(Self { replica, change, node, directory, known_at })
    }
}

/// What a replica knows of the generations of its group, itself included.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Generations {
    /// Its own, which is committed.
    pub own: Op,
    /// Each place that its log has an entry for, committed or not.
    pub known: Vec<Known>,
}

/// What the entries of a log make of a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Known {
    /// The place.
    pub replica: ReplicaIndex,
    /// The newest entry that seats somebody there; zero if there is none.
    pub generation: Op,
    /// Whether the word of who stands there counts.
    pub counts: bool,
    /// The newest entry that changed that; zero if there is none.
    pub counts_since: Op,
}

const KNOWN_SIZE: usize = 18;

impl Generations {
    /// Writes a byte with the number of known ones, the own one, and the known ones, 18 bytes each: place,
    /// generation, whether it counts, and since which op.
    pub(crate) fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u8(u8::try_from(self.known.len()).expect("a group has at most seven replicas"));
        buffer.put_u64_le(self.own.as_raw());
        for Known { replica, generation, counts, counts_since } in &self.known {
            buffer.put_u8(replica.as_raw());
            buffer.put_u64_le(generation.as_raw());
            buffer.put_u8(u8::from(*counts));
            buffer.put_u64_le(counts_since.as_raw());
        }
    }

    /// Reads what [`Self::encode`] wrote, and says how many bytes that were; `None` if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let count = usize::from(*bytes.first()?);
        let size = 9 + count * KNOWN_SIZE;
        if count > REPLICAS_MAX || bytes.len() < size {
            return None;
        }
        let op_at = |at: usize| {
            Op::new(u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes make a u64")))
        };
        let known_at = |index: usize| {
            let at = 9 + index * KNOWN_SIZE;
            let replica = Some(bytes[at]).filter(|place| usize::from(*place) < REPLICAS_MAX)?;
            let counts = Some(bytes[at + 9]).filter(|flag| *flag <= 1)? == 1;
            let replica = ReplicaIndex::new(replica);
            Some(Known { replica, generation: op_at(at + 1), counts, counts_since: op_at(at + 10) })
        };
        let known = (0..count).map(known_at).collect::<Option<_>>()?;
        Some((Self { own: op_at(1), known }, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_has_these_bytes() {
        let (replica, directory) = (ReplicaIndex::new(2), DirectoryId::new(0x0102));
        let replacement = Replacement {
            replica,
            change: Change::Counted,
            node: NodeId::new(5),
            directory,
            known_at: Op::new(9),
        };
        let bytes = replacement.encode();
        assert_eq!(
            bytes[..],
            [[2, 5, 1, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0]].concat()
        );
        assert_eq!(Replacement::decode(&bytes), Some(replacement));
        let vacancy = Replacement {
            change: Change::Vacated,
            node: NodeId::ZERO,
            directory: DirectoryId::ZERO,
            ..replacement
        };
        assert_eq!(Replacement::decode(&vacancy.encode()), Some(vacancy));
        let spoilt = [(0, 7), (1, 0), (2, 2), (2, 3), (3, 1)].map(|(at, byte)| {
            let mut spoilt = bytes.to_vec();
            spoilt[at] = byte;
            spoilt
        });
        for unsound in spoilt.iter().map(Vec::as_slice).chain([&bytes[..23], &[]]) {
            assert_eq!(Replacement::decode(unsound), None, "{unsound:?}");
        }
    }

    #[test]
    fn generations_are_read_back() {
        let known = |replica: u8, generation: u64, counts: bool, since: u64| Known {
            replica: ReplicaIndex::new(replica),
            generation: Op::new(generation),
            counts,
            counts_since: Op::new(since),
        };
        let known = vec![known(1, 0, false, 7), known(2, 300, true, 301)];
        let generations = Generations { own: Op::new(7), known };
        let mut buffer = BytesMut::new();
        generations.encode(&mut buffer);
        assert_eq!(Generations::decode(&buffer), Some((generations, 45)));
        assert_eq!(Generations::decode(&buffer[..44]), None);
        for (at, byte) in [(9, 7), (18, 2)] {
            let mut spoilt = buffer.to_vec();
            spoilt[at] = byte;
            assert_eq!(Generations::decode(&spoilt), None, "no such place, or no such answer");
        }
        assert_eq!(Generations::decode(&[8]), None);
        assert_eq!(Generations::decode(&[]), None);
    }
}
