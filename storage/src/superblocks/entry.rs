//! One entry of a file of superblocks. 64 bytes, little-endian:
//!
//! | offset | size | name           | meaning                                                                 |
//! |-------:|-----:|----------------|-------------------------------------------------------------------------|
//! |      0 |    4 | checksum       | CRC-32 of bytes 4..64                                                   |
//! |      4 |    4 | magic          | `VRVB`                                                                  |
//! |      8 |    1 | version        | 3                                                                       |
//! |      9 |    1 | kind           | 1 the first entry of a file, 2 a superblock, 3 a group was deleted      |
//! |     10 |    1 | has_log        | kind 2: 1 if the group's log has files, which must be there, else 0     |
//! |     11 |    1 | doubts         | kind 2: 1 if the group's log has lost its end, plus 2 if it may lack    |
//! |        |      |                | what the replica acknowledges from memory, else 0                       |
//! |     12 |    4 | place_in_round | entries before this one that were written together with it              |
//! |     16 |    8 | generation     | of the file, growing with each rewrite                                  |
//! |     24 |    8 | sequence       | place in the file, from 0                                               |
//! |     32 |    8 | group          | kind 1: lower half of the cluster id                                    |
//! |     40 |    8 | view           | kind 1: upper half of the cluster id; kind 3: zero                      |
//! |     48 |    8 | log_view       | kind 1: node; kind 3: zero                                              |
//! |     56 |    8 | commit         | kinds 1 and 3: zero                                                     |

use varve_protocol::checksum::checksum;
use varve_protocol::id::{ClusterId, GroupId, NodeId, Op, View};
use varve_protocol::mutant::Mutant;
use varve_protocol::superblock::Superblock;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Change, Kept};
use crate::identity::Identity;

pub(super) const ENTRY_SIZE: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"VRVB");
const VERSION: u8 = 3;
const KIND_START: u8 = 1;
const KIND_SAVE: u8 = 2;
const KIND_DELETE: u8 = 3;

const DOUBT_TORN: u8 = 1;
const DOUBT_UNSYNCED: u8 = 2;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    magic: U32,
    version: u8,
    kind: u8,
    has_log: u8,
    doubts: u8,
    place_in_round: U32,
    generation: U64,
    sequence: U64,
    group: U64,
    view: U64,
    log_view: U64,
    commit: U64,
}

const _: () = assert!(size_of::<Layout>() == ENTRY_SIZE, "the byte table is the struct");

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Whose file this is.
    Start(Identity),
    Change(Change),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) place_in_round: u32,
    pub(super) content: Content,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_SIZE] {
        let nothing = (false, 0);
        let (kind, (has_log, doubts), numbers) = match self.content {
            Content::Start(identity) => (KIND_START, nothing, numbers_of_identity(identity)),
            Content::Change(Change::Save(Kept { superblock, has_log })) => {
                (KIND_SAVE, (has_log, doubts_of(superblock)), numbers_of_superblock(superblock))
            }
            Content::Change(Change::Delete(group)) => (KIND_DELETE, nothing, [group.as_raw(), 0, 0, 0]),
        };
        let [group, view, log_view, commit] = numbers.map(U64::new);
        let mut layout = Layout {
            checksum: U32::ZERO,
            magic: U32::new(MAGIC),
            version: VERSION,
            kind,
            has_log: has_log.into(),
            doubts,
            place_in_round: U32::new(self.place_in_round),
            generation: U64::new(self.generation),
            sequence: U64::new(self.sequence),
            group,
            view,
            log_view,
            commit,
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        zerocopy::transmute!(layout)
    }

    /// The entry in these bytes; none if they are too few, rotten, or of a version this build cannot read.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let layout = Layout::read_from_bytes(bytes).ok()?;
        let is_sound = layout.checksum.get() == checksum(&bytes[4..])
            && layout.magic.get() == MAGIC
            && layout.version == VERSION;
        if !is_sound {
            return None;
        }
        let numbers = [layout.group, layout.view, layout.log_view, layout.commit].map(U64::get);
        let content = match layout.kind {
            KIND_START => Content::Start(identity_of_numbers(numbers)?),
            KIND_SAVE => Content::Change(Change::Save(Kept {
                superblock: superblock_of_numbers(numbers, layout.doubts),
                has_log: layout.has_log == 1,
            })),
            KIND_DELETE => Content::Change(Change::Delete(GroupId::new(numbers[0]))),
            _ => return None,
        };
        let place_in_round = layout.place_in_round.get();
        Some(Self {
            generation: layout.generation.get(),
            sequence: layout.sequence.get(),
            place_in_round,
            content,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a cluster id are meant")]
fn numbers_of_identity(identity: Identity) -> [u64; 4] {
    let cluster = identity.cluster.as_raw();
    [cluster as u64, (cluster >> 64) as u64, identity.node.as_raw().into(), 0]
}

fn identity_of_numbers(numbers: [u64; 4]) -> Option<Identity> {
    let cluster = ClusterId::new(u128::from(numbers[0]) | u128::from(numbers[1]) << 64);
    Some(Identity { cluster, node: NodeId::new(u8::try_from(numbers[2]).ok()?) })
}

fn doubts_of(superblock: Superblock) -> u8 {
    let is_torn = superblock.is_torn && !Mutant::TornForgotten.is_on();
    let torn = if is_torn { DOUBT_TORN } else { 0 };
    let unsynced = if superblock.is_unsynced { DOUBT_UNSYNCED } else { 0 };
    torn | unsynced
}

fn numbers_of_superblock(superblock: Superblock) -> [u64; 4] {
    let Superblock { group, view, log_view, commit, is_torn: _, is_unsynced: _ } = superblock;
    [group.as_raw(), view.as_raw(), log_view.as_raw(), commit.as_raw()]
}

fn superblock_of_numbers(numbers: [u64; 4], doubts: u8) -> Superblock {
    Superblock {
        group: GroupId::new(numbers[0]),
        view: View::new(numbers[1]),
        log_view: View::new(numbers[2]),
        commit: Op::new(numbers[3]),
        is_torn: doubts & DOUBT_TORN != 0,
        is_unsynced: doubts & DOUBT_UNSYNCED != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(content: Content) -> String {
        let entry = Entry { generation: 2, sequence: 5, place_in_round: 1, content };
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes), Some(entry));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_entry_has_these_bytes() {
        let superblock = Superblock {
            group: GroupId::new(7),
            view: View::new(8),
            log_view: View::new(6),
            commit: Op::new(300),
            is_torn: true,
            is_unsynced: true,
        };
        let fields = [
            "37c78edc",
            "56525642",
            "03",
            "02",
            "0103",
            "01000000",
            "0200000000000000",
            "0500000000000000",
            "0700000000000000",
            "0800000000000000",
            "0600000000000000",
            "2c01000000000000",
        ];
        let kept = Kept { superblock, has_log: true };
        assert_eq!(hex(Content::Change(Change::Save(kept))), fields.concat());
    }

    #[test]
    fn the_other_kinds_have_these_bytes() {
        let deleted = hex(Content::Change(Change::Delete(GroupId::new(7))));
        assert_eq!(deleted[16..24], *"03030000");
        assert_eq!(deleted[64..], *"0700000000000000000000000000000000000000000000000000000000000000");
        let cluster = ClusterId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let start = hex(Content::Start(Identity { cluster, node: NodeId::new(3) }));
        assert_eq!(start[16..24], *"03010000");
        assert_eq!(start[64..], *"100f0e0d0c0b0a09080706050403020103000000000000000000000000000000");
    }

    #[test]
    fn no_flipped_bit_passes() {
        let entry = Entry {
            generation: 2,
            sequence: 5,
            place_in_round: 1,
            content: Content::Change(Change::Delete(GroupId::new(7))),
        };
        for bit in 0..ENTRY_SIZE * 8 {
            let mut bytes = entry.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&bytes), None);
        }
    }
}
