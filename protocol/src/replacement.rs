//! A replica that has lost its disk, or is to be moved: the entry of a group's log that puts another in its place, and what
//! replicas tell each other of that in a view change.
//!
//! The body of a prepare of kind `Replacement` is 24 bytes, little-endian:
//!
//! | offset | size | name      | meaning                                                      |
//! |-------:|-----:|-----------|--------------------------------------------------------------|
//! |      0 |    1 | replica   | whose place in the member list                               |
//! |      1 |    1 | node      | the node whose replica stands there from now on              |
//! |      2 |    6 | reserved  | zero                                                         |
//! |      8 |    8 | directory | the data directory of that replica                           |
//! |     16 |    8 | known_at  | the op of the metadata that made it so                       |
//!
//! The op of the entry is the *generation* of the replica that it puts there; who was there when the group was made has
//! generation zero.

use bytes::{BufMut, Bytes, BytesMut};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{DirectoryId, NodeId, Op, ReplicaIndex};
use crate::limits::REPLICAS_MAX;

/// Which replica is replaced, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Replacement {
    /// Its place in the member list.
    pub replica: ReplicaIndex,
    /// The node of the new one: the same as before if that has lost its disk, another if the replica is moved.
    pub node: NodeId,
    /// Its data directory.
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
    reserved: [u8; 6],
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
            reserved: [0; 6],
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
        let is_sound = usize::from(layout.replica) < REPLICAS_MAX
            && layout.reserved == [0; 6]
            && node != NodeId::ZERO
            && directory != DirectoryId::ZERO;
        let known_at = Op::new(layout.known_at.get());
        is_sound.then_some(Self { replica: ReplicaIndex::new(layout.replica), node, directory, known_at })
    }
}

/// What a replica knows of the generations of its group, itself included.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Generations {
    /// Its own, which is committed.
    pub own: Op,
    /// The newest of each replica that was replaced in its log, committed or not.
    pub known: Vec<(ReplicaIndex, Op)>,
}

const KNOWN_SIZE: usize = 9;

impl Generations {
    /// Writes a byte with the number of known ones, the own one, and the known ones, 9 bytes each.
    pub(crate) fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u8(u8::try_from(self.known.len()).expect("a group has at most seven replicas"));
        buffer.put_u64_le(self.own.as_raw());
        for (replica, generation) in &self.known {
            buffer.put_u8(replica.as_raw());
            buffer.put_u64_le(generation.as_raw());
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
            (ReplicaIndex::new(bytes[at]), op_at(at + 1))
        };
        Some((Self { own: op_at(1), known: (0..count).map(known_at).collect() }, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_has_these_bytes() {
        let (replica, directory) = (ReplicaIndex::new(2), DirectoryId::new(0x0102));
        let replacement = Replacement { replica, node: NodeId::new(5), directory, known_at: Op::new(9) };
        let bytes = replacement.encode();
        assert_eq!(
            bytes[..],
            [[2, 5, 0, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0]].concat()
        );
        assert_eq!(Replacement::decode(&bytes), Some(replacement));
        let mut spoilt = bytes.to_vec();
        spoilt[0] = 7;
        for unsound in [&bytes[..23], &spoilt[..], &[0; 24], &[]] {
            assert_eq!(Replacement::decode(unsound), None);
        }
    }

    #[test]
    fn generations_are_read_back() {
        let known = vec![(ReplicaIndex::new(1), Op::new(7)), (ReplicaIndex::new(2), Op::new(300))];
        let generations = Generations { own: Op::new(7), known };
        let mut buffer = BytesMut::new();
        generations.encode(&mut buffer);
        assert_eq!(Generations::decode(&buffer), Some((generations, 27)));
        assert_eq!(Generations::decode(&buffer[..26]), None);
        assert_eq!(Generations::decode(&[8]), None);
        assert_eq!(Generations::decode(&[]), None);
    }
}
