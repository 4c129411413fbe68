//! A segment file: a local block of 4096 bytes, then prepares in a row, exactly as they are sent or sealed ([`crate::seal`]), then
//! nothing, zeros, or what was there before: a new file may be written over one that was let go of ([`crate::spare`]).
//!
//! The name is `<base offset, 20 digits>-<first op, 20 digits>.log`. Prepares without records take an op and no offset,
//! so two segments may have the same base offset; the op tells them apart, and the offset lets people find records.
//!
//! The local block is not replicated. Little-endian; what is not named is zero:
//!
//! | offset | size | name            | meaning                                          |
//! |-------:|-----:|-----------------|--------------------------------------------------|
//! |      0 |    4 | checksum        | CRC-32 of bytes 4..128                           |
//! |      4 |    4 | magic           | `VRVS`                                           |
//! |      8 |    4 | version         | 2; 3 if the prepares are sealed                  |
//! |     12 |    1 | node            | whose file this is                               |
//! |     16 |   16 | cluster         | identity of the cluster                          |
//! |     32 |    8 | group           | whose log this is                                |
//! |     40 |    8 | first_op        | op of the first prepare here                     |
//! |     48 |    8 | base_offset     | offset of the first record here                  |
//! |     56 |    8 | parent_view     | view of the prepare before the first one         |
//! |     64 |    4 | parent_checksum | checksum of the prepare before the first one     |
//! |     72 |    8 | key             | name of the key they are sealed with; zero: none |
//! |    512 |   64 | slot            | where an even round began, see below             |
//! |   1024 |   64 | slot            | where an odd round began                         |
//!
//! A round is what one call of `execute` appends here. Its slot is written with it and saved by the same sync:
//!
//! | offset | size | name     | meaning                                          |
//! |-------:|-----:|----------|--------------------------------------------------|
//! |      0 |    4 | checksum | CRC-32 of bytes 4..64                            |
//! |      4 |    4 | magic    | `VRVR`                                           |
//! |      8 |    8 | round    | its number, growing                              |
//! |     16 |    8 | op       | op of its first prepare                          |
//! |     24 |    8 | position | where in this file that prepare begins           |
//! |     32 |    8 | group    | as above                                         |
//! |     40 |    8 | first_op | as above                                         |
//! |     48 |    1 | sealed   | 1 if the log goes on in the next file, else 0    |
//!
//! A file is sealed when the next one is there, durably, and unsealed before that one is removed. So a newest file that is
//! sealed tells that a newer one is lost.

use std::path::{Path, PathBuf};

use varve_protocol::checksum::checksum;
use varve_protocol::id::{GroupId, NodeId, Offset, Op, Timestamp, View};
use varve_protocol::prepare::{PrepareHeader, PrepareId};
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::StorageError;
use crate::identity::Identity;
use crate::index::SparseIndex;
use crate::keys::{KeyId, Keys};
use crate::seal::Seal;

/// Bytes of the local block; the first prepare begins behind it.
pub(crate) const BLOCK_SIZE: usize = 4096;
/// Where the first prepare begins.
pub(crate) const FIRST_POSITION: u64 = BLOCK_SIZE as u64;

const VERSION: u32 = 2;
const VERSION_SEALED: u32 = 3;
const MAGIC: u32 = u32::from_le_bytes(*b"VRVS");
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"VRVR");
const SLOT_SIZE: usize = 64;
const SECTOR: usize = 512;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    magic: U32,
    version: U32,
    node: u8,
    reserved: [u8; 3],
    cluster: U128,
    group: U64,
    first_op: U64,
    base_offset: U64,
    parent_view: U64,
    parent_checksum: U32,
    reserved_checksum: U32,
    key: U64,
    reserved_end: [u8; 48],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SlotLayout {
    checksum: U32,
    magic: U32,
    round: U64,
    op: U64,
    position: U64,
    group: U64,
    first_op: U64,
    sealed: u8,
    reserved: [u8; 15],
}

const _: () = {
    assert!(size_of::<Layout>() == 128, "the byte table is the struct");
    assert!(size_of::<SlotLayout>() == SLOT_SIZE, "the byte table is the struct");
};

/// What the local block says for the life of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) group: GroupId,
    /// The prepare before the first one; the first op here is the one after its op.
    pub(crate) parent: PrepareId,
    pub(crate) base_offset: Offset,
    /// What the prepares are sealed with; none: they are not.
    pub(crate) key: Option<KeyId>,
}

impl SegmentHeader {
    /// Bytes of it at the beginning of the local block.
    pub(crate) const SIZE: usize = size_of::<Layout>();

    pub(crate) fn first_op(&self) -> Op {
        self.parent.op.next()
    }

    pub(crate) fn file_name(&self) -> String {
        file_name(self.base_offset, self.first_op())
    }

    /// The local block of a new file whose first round has number `round`.
    pub(crate) fn encode(&self, round: u64) -> Vec<u8> {
        self.encode_with(self.first_slot(round))
    }

    /// A local block with one slot.
    pub(crate) fn encode_with(&self, slot: RoundSlot) -> Vec<u8> {
        let mut layout = Layout {
            checksum: U32::ZERO,
            magic: U32::new(MAGIC),
            version: U32::new(if self.key.is_some() { VERSION_SEALED } else { VERSION }),
            node: self.identity.node.as_raw(),
            reserved: [0; 3],
            cluster: U128::new(self.identity.cluster.as_raw()),
            group: U64::new(self.group.as_raw()),
            first_op: U64::new(self.first_op().as_raw()),
            base_offset: U64::new(self.base_offset.as_raw()),
            parent_view: U64::new(self.parent.view.as_raw()),
            parent_checksum: U32::new(self.parent.checksum),
            reserved_checksum: U32::ZERO,
            key: U64::new(self.key.map_or(0, KeyId::as_raw)),
            reserved_end: [0; 48],
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        let mut block = vec![0; BLOCK_SIZE];
        block[..size_of::<Layout>()].copy_from_slice(layout.as_bytes());
        let at = slot.position_in_block();
        block[at..at + SLOT_SIZE].copy_from_slice(&slot.encode(self));
        block
    }

    /// The slot a new file is made with.
    pub(crate) fn first_slot(&self, round: u64) -> RoundSlot {
        RoundSlot { round, op: self.first_op(), position: FIRST_POSITION, is_sealed: false }
    }

    /// Reads the local block of the file at `path`; the name of the file must say the same.
    pub(crate) fn decode(block: &[u8], path: &Path) -> Result<Self, StorageError> {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_file_name);
        let named_op = name.map_or(Op::ZERO, |(_, op)| op);
        let damaged = StorageError::Damaged { path: path.to_owned(), position: 0, op: named_op };
        let Ok((layout, _)) = Layout::read_from_prefix(block) else { return Err(damaged) };
        let is_sound = layout.checksum.get() == checksum(&layout.as_bytes()[4..]);
        if !is_sound || layout.magic.get() != MAGIC || layout.first_op.get() == 0 {
            return Err(damaged);
        }
        let version = layout.version.get();
        let key = KeyId::from_raw(layout.key.get()).filter(|_| version == VERSION_SEALED);
        if version != VERSION && key.is_none() {
            return Err(StorageError::WrongVersion {
                path: path.to_owned(),
                found: version,
                expected: VERSION,
            });
        }
        let header = Self {
            identity: Identity {
                cluster: varve_protocol::id::ClusterId::new(layout.cluster.get()),
                node: NodeId::new(layout.node),
            },
            group: GroupId::new(layout.group.get()),
            parent: PrepareId {
                op: Op::new(layout.first_op.get() - 1),
                view: View::new(layout.parent_view.get()),
                checksum: layout.parent_checksum.get(),
            },
            base_offset: Offset::new(layout.base_offset.get()),
            key,
        };
        if name == Some((header.base_offset, header.first_op())) { Ok(header) } else { Err(damaged) }
    }
}

/// Where a round of writes began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RoundSlot {
    pub(crate) round: u64,
    pub(crate) op: Op,
    pub(crate) position: u64,
    /// There is a next file, which begins with that op.
    pub(crate) is_sealed: bool,
}

impl RoundSlot {
    /// Even and odd rounds take turns, each in a sector of its own, so that a torn slot never takes the one before
    /// with it.
    pub(crate) fn position_in_block(&self) -> usize {
        SECTOR * (1 + usize::from(self.round % 2 == 1))
    }

    pub(crate) fn encode(&self, header: &SegmentHeader) -> [u8; SLOT_SIZE] {
        let mut layout = SlotLayout {
            checksum: U32::ZERO,
            magic: U32::new(SLOT_MAGIC),
            round: U64::new(self.round),
            op: U64::new(self.op.as_raw()),
            position: U64::new(self.position),
            group: U64::new(header.group.as_raw()),
            first_op: U64::new(header.first_op().as_raw()),
            sealed: self.is_sealed.into(),
            reserved: [0; 15],
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        zerocopy::transmute!(layout)
    }

    fn decode(bytes: &[u8], header: &SegmentHeader) -> Option<Self> {
        let (layout, _) = SlotLayout::read_from_prefix(bytes).ok()?;
        let is_ours = layout.checksum.get() == checksum(&layout.as_bytes()[4..])
            && layout.magic.get() == SLOT_MAGIC
            && layout.group.get() == header.group.as_raw()
            && layout.first_op.get() == header.first_op().as_raw();
        let slot = Self {
            round: layout.round.get(),
            op: Op::new(layout.op.get()),
            position: layout.position.get(),
            is_sealed: layout.sealed == 1,
        };
        is_ours.then_some(slot)
    }
}

/// The two slots of a segment as found on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slots {
    /// The one of the newest round among the readable ones.
    pub(crate) newest: Option<RoundSlot>,
    /// Whether each slot is readable or was never written.
    pub(crate) are_sound: bool,
}

impl Slots {
    pub(crate) fn decode(block: &[u8], header: &SegmentHeader) -> Self {
        let mut slots = Self { newest: None, are_sound: true };
        for place in 1..=2 {
            let sector = block.get(SECTOR * place..SECTOR * (place + 1)).unwrap_or(&[]);
            let slot =
                RoundSlot::decode(sector, header).filter(|slot| slot.position_in_block() == SECTOR * place);
            let is_blank = !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
            slots.are_sound &= slot.is_some() || is_blank;
            slots.newest = slots.newest.into_iter().chain(slot).max_by_key(|slot| slot.round);
        }
        slots
    }
}

/// What is known of one segment file without reading it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) index: SparseIndex,
    pub(crate) seal: Seal,
    /// Position behind the last prepare.
    pub(crate) end: u64,
    /// The newest timestamp of all that was ever here; zero if nothing was.
    pub(crate) newest: Timestamp,
}

impl Segment {
    /// A segment without prepares, in directory `dir`.
    ///
    /// # Errors
    /// `KeyMissing` if it is sealed with a key that is not there.
    pub(crate) fn new(dir: &Path, header: SegmentHeader, keys: &Keys) -> Result<Self, StorageError> {
        let path = dir.join(header.file_name());
        let seal = Seal::of(&header, keys, &path)?;
        Ok(Self {
            header,
            path,
            index: SparseIndex::default(),
            seal,
            end: FIRST_POSITION,
            newest: Timestamp::ZERO,
        })
    }

    /// Notes a prepare behind all the ones before.
    pub(crate) fn note(&mut self, header: &PrepareHeader, position: u64) {
        self.index.push(header, position);
        self.newest = self.newest.max(header.timestamp());
    }

    /// The oldest timestamp here; none if nothing is.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.index.entries().first().map(|first| first.timestamp)
    }

    /// The first op, and where it begins.
    pub(crate) fn start(&self) -> (Op, u64) {
        (self.header.first_op(), FIRST_POSITION)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == FIRST_POSITION
    }

    pub(crate) fn damaged(&self, position: u64, op: Op) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), position, op }
    }
}

/// The name of the segment that begins there.
pub(crate) fn file_name(base_offset: Offset, first_op: Op) -> String {
    format!("{:020}-{:020}.log", base_offset.as_raw(), first_op.as_raw())
}

/// What the name of a segment says; none if it is not one.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, Op)> {
    let (base_offset, first_op) = name.strip_suffix(".log")?.split_once('-')?;
    let parsed = (Offset::new(base_offset.parse().ok()?), Op::new(first_op.parse().ok()?));
    (file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: Identity {
                cluster: varve_protocol::id::ClusterId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
                node: NodeId::new(3),
            },
            group: GroupId::new(7),
            parent: PrepareId { op: Op::new(41), view: View::new(5), checksum: 0xaabb_ccdd },
            base_offset: Offset::new(1000),
            key: None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_local_block_has_these_bytes() {
        let block = header().encode(9);
        let fields = [
            "bd2dad23",
            "56525653",
            "02000000",
            "03",
            "000000",
            "100f0e0d0c0b0a090807060504030201",
            "0700000000000000",
            "2a00000000000000",
            "e803000000000000",
            "0500000000000000",
            "ddccbbaa",
        ];
        assert_eq!(hex(&block[..68]), fields.concat());
        let fields = [
            "ef067128",
            "56525652",
            "0900000000000000",
            "2a00000000000000",
            "0010000000000000",
            "0700000000000000",
            "2a00000000000000",
        ];
        assert_eq!(hex(&block[1024..1072]), fields.concat());
        let named: usize =
            [&block[68..1024], &block[1072..]].concat().iter().map(|byte| usize::from(*byte)).sum();
        assert_eq!((block.len(), named), (BLOCK_SIZE, 0), "the rest is zero");
    }

    #[test]
    fn a_local_block_is_read_back() {
        let path = Path::new("00000000000000001000-00000000000000000042.log");
        let block = header().encode(9);
        assert_eq!(SegmentHeader::decode(&block, path), Ok(header()));
        let slots = Slots { newest: Some(header().first_slot(9)), are_sound: true };
        assert_eq!(Slots::decode(&block, &header()), slots);
        let misplaced = Path::new("00000000000000001000-00000000000000000043.log");
        assert!(SegmentHeader::decode(&block, misplaced).is_err_and(|error| error.is_repairable()));
    }

    #[test]
    fn a_local_block_names_the_key() {
        let sealed = SegmentHeader { key: KeyId::from_raw(0x0102), ..header() };
        let block = sealed.encode(9);
        assert_eq!(
            (hex(&block[8..12]), hex(&block[64..88])),
            ("03000000".into(), "ddccbbaa00000000020100000000000000000000".to_owned() + "00000000")
        );
        let path = Path::new("00000000000000001000-00000000000000000042.log");
        assert_eq!(SegmentHeader::decode(&block, path), Ok(sealed));
    }

    #[test]
    fn a_block_of_another_version_is_refused() {
        let mut block = header().encode(9);
        block[8] = 3;
        let sum = checksum(&block[4..128]).to_le_bytes();
        block[..4].copy_from_slice(&sum);
        let path = Path::new("00000000000000001000-00000000000000000042.log");
        let refusal = StorageError::WrongVersion { path: path.to_owned(), found: 3, expected: 2 };
        assert_eq!(SegmentHeader::decode(&block, path), Err(refusal));
    }

    #[test]
    fn names_say_where_a_segment_begins() {
        let name = file_name(Offset::new(12), Op::new(34));
        assert_eq!(name, "00000000000000000012-00000000000000000034.log");
        assert_eq!(parse_file_name(&name), Some((Offset::new(12), Op::new(34))));
        for other in ["12-34.log", "00000000000000000012.log", &name[..44], ".log", "-.log", "snapshot-12"] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
