//! The bytes of a journal, which the parent module explains.

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};
use varve_protocol::checksum::checksum;
use varve_protocol::id::{ClusterId, GroupId, NodeId};
use varve_protocol::mark::Mark;
use varve_protocol::prepare::{Prepare, PrepareError};
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{FIRST_POSITION, Held, path};
use crate::disk::DiskFile;
use crate::error::{IoContext, StorageError};
use crate::identity::{Identity, Owner};
use crate::keys::KeyId;
use crate::sealed_file;

pub(super) const BLOCK_SIZE: usize = 4096;
pub(super) const FRAME_HEADER_SIZE: usize = 32;

const SECTOR: usize = 512;
const SLOT_SIZE: usize = 64;
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"VRVJ");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"VRVF");

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SlotLayout {
    checksum: U32,
    magic: U32,
    round: U64,
    generation: U64,
    position: U64,
    cluster: U128,
    node: u8,
    reserved: [u8; 7],
    key: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FrameLayout {
    checksum: U32,
    magic: U32,
    generation: U64,
    position: U64,
    size: U64,
}

const _: () = {
    assert!(size_of::<SlotLayout>() == SLOT_SIZE, "the byte table is the struct");
    assert!(size_of::<FrameLayout>() == FRAME_HEADER_SIZE, "the byte table is the struct");
};

/// Where a round began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) round: u64,
    pub(super) generation: u64,
    pub(super) position: u64,
    /// What frames are sealed with.
    pub(super) key: Option<KeyId>,
}

impl Slot {
    /// That of a file without frames.
    pub(super) fn first(generation: u64, key: Option<KeyId>) -> Self {
        Self { round: 0, generation, position: FIRST_POSITION, key }
    }

    /// That of the next round, in the same place.
    pub(super) fn next(self) -> Self {
        Self { round: self.round + 1, ..self }
    }

    /// Even and odd rounds take turns, each in a sector of its own.
    pub(super) fn position_in_block(&self) -> u64 {
        (SECTOR * (1 + usize::from(self.round % 2 == 1))) as u64
    }

    pub(super) fn encode(&self, identity: Identity) -> [u8; SLOT_SIZE] {
        let mut layout = SlotLayout {
            checksum: U32::ZERO,
            magic: U32::new(SLOT_MAGIC),
            round: U64::new(self.round),
            generation: U64::new(self.generation),
            position: U64::new(self.position),
            cluster: U128::new(identity.cluster.as_raw()),
            node: identity.node.as_raw(),
            reserved: [0; 7],
            key: U64::new(self.key.map_or(0, KeyId::as_raw)),
        };
        layout.checksum = U32::new(checksum(&layout.as_bytes()[4..]));
        zerocopy::transmute!(layout)
    }

    /// The block of a file with this slot and no other.
    pub(super) fn encode_block(&self, identity: Identity) -> Vec<u8> {
        let mut block = vec![0; BLOCK_SIZE];
        let at = usize::try_from(self.position_in_block()).expect("a block is small");
        block[at..at + SLOT_SIZE].copy_from_slice(&self.encode(identity));
        block
    }

    fn decode(sector: &[u8], identity: Identity) -> Option<Self> {
        let (layout, _) = SlotLayout::read_from_prefix(sector).ok()?;
        let is_ours = layout.checksum.get() == checksum(&layout.as_bytes()[4..])
            && layout.magic.get() == SLOT_MAGIC
            && ClusterId::new(layout.cluster.get()) == identity.cluster
            && NodeId::new(layout.node) == identity.node;
        let slot = Self {
            round: layout.round.get(),
            generation: layout.generation.get(),
            position: layout.position.get(),
            key: KeyId::from_raw(layout.key.get()),
        };
        // Nobody has counted so far; somebody who writes checksums himself may say so.
        let may_go_on = slot.round < u64::MAX / 2 && slot.generation < u64::MAX / 2;
        (is_ours && may_go_on && slot.position >= FIRST_POSITION).then_some(slot)
    }
}

/// The newer slot of a file; none if one of the two has rotted, for it may have been the newer one.
pub(super) fn newest_slot<F: DiskFile>(file: &F, owner: &Owner) -> Result<Option<Slot>, StorageError> {
    let mut block = vec![0; BLOCK_SIZE];
    let read = file.read_at(&mut block, 0).or_failed_to("read", path())?;
    if read < BLOCK_SIZE {
        return Ok(None);
    }
    let mut newest: Option<Slot> = None;
    for place in 1..=2 {
        let sector = &block[SECTOR * place..SECTOR * (place + 1)];
        let slot = Slot::decode(sector, owner.identity)
            .filter(|slot| slot.position_in_block() == (SECTOR * place) as u64);
        if slot.is_none() && sector.iter().any(|byte| *byte != 0) {
            return Ok(None);
        }
        newest = newest.into_iter().chain(slot).max_by_key(|slot| slot.round);
    }
    Ok(newest)
}

pub(super) fn encode(owner: &Owner, (generation, position): (u64, u64), prepares: &[Prepare]) -> Bytes {
    let size: usize = prepares.iter().map(|prepare| prepare.header().total_size()).sum();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_SIZE + size);
    if owner.keys.newest().is_some() {
        let mut plain = BytesMut::with_capacity(size);
        prepares.iter().for_each(|prepare| prepare.encode(&mut plain));
        let sealed = sealed_file::seal(owner, GroupId::METADATA, path(), plain.freeze());
        frame.extend_from_slice(&[0; FRAME_HEADER_SIZE]);
        frame.extend_from_slice(&sealed);
    } else {
        frame.extend_from_slice(&[0; FRAME_HEADER_SIZE]);
        prepares.iter().for_each(|prepare| prepare.encode(&mut frame));
    }
    let layout = FrameLayout {
        checksum: U32::ZERO,
        magic: U32::new(FRAME_MAGIC),
        generation: U64::new(generation),
        position: U64::new(position),
        size: U64::new((frame.len() - FRAME_HEADER_SIZE) as u64),
    };
    frame[..FRAME_HEADER_SIZE].copy_from_slice(layout.as_bytes());
    let sum = checksum(&frame[4..]).to_le_bytes();
    frame[..4].copy_from_slice(&sum);
    frame.freeze()
}

/// Reads all frames that count.
pub(super) fn read<F: DiskFile>(file: &F, owner: &Owner) -> Result<Held, StorageError> {
    let slot = newest_slot(file, owner)?;
    let mut held = Held { prepares: BTreeMap::new(), slot, locked: None };
    let Some(slot) = held.slot else {
        Mark::JournalDamaged.hit();
        return Ok(held);
    };
    let (mut position, mut is_at_slot) = (FIRST_POSITION, false);
    loop {
        is_at_slot |= position == slot.position;
        let Some((body, end)) = read_frame(file, slot.generation, position)? else { break };
        let body = match sealed_file::open(owner, GroupId::METADATA, path(), body) {
            Err(locked @ StorageError::KeyMissing { .. }) => {
                held.locked = Some(locked);
                return Ok(held);
            }
            opened => opened?,
        };
        if !take_prepares(body, &mut held.prepares)? {
            break;
        }
        position = end;
    }
    if !is_at_slot {
        Mark::JournalDamaged.hit();
        tracing::error!(position, "the journal is damaged");
        held.slot = None;
    }
    Ok(held)
}

/// The body of the frame at `position`, and where the next one begins; none if there is no sound one of this generation.
fn read_frame<F: DiskFile>(
    file: &F,
    generation: u64,
    position: u64,
) -> Result<Option<(Vec<u8>, u64)>, StorageError> {
    let mut header = [0; FRAME_HEADER_SIZE];
    let read = file.read_at(&mut header, position).or_failed_to("read", path())?;
    let layout: FrameLayout = zerocopy::transmute!(header);
    let size = layout.size.get();
    let left = file.size().or_failed_to("read the size of", path())?.saturating_sub(position);
    let is_here = read == FRAME_HEADER_SIZE
        && layout.magic.get() == FRAME_MAGIC
        && layout.generation.get() == generation
        && layout.position.get() == position
        && size <= left;
    let Some(size) = is_here.then(|| usize::try_from(size).ok()).flatten() else { return Ok(None) };
    let mut frame = vec![0; FRAME_HEADER_SIZE + size];
    let read = file.read_at(&mut frame, position).or_failed_to("read", path())?;
    if read < frame.len() || layout.checksum.get() != checksum(&frame[4..]) {
        return Ok(None);
    }
    Ok(Some((frame.split_off(FRAME_HEADER_SIZE), position + (FRAME_HEADER_SIZE + size) as u64)))
}

/// Takes the prepares of a frame; says whether it holds nothing else.
///
/// # Errors
/// When another release has written them: that is no damage.
fn take_prepares(body: Bytes, prepares: &mut BTreeMap<GroupId, Vec<Prepare>>) -> Result<bool, StorageError> {
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let prepare = match Prepare::decode(&rest) {
            Ok(prepare) => prepare,
            Err(other @ PrepareError::Version { .. }) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, other)).or_failed_to("read", path());
            }
            Err(_) => return Ok(false),
        };
        rest = rest.slice(prepare.header().total_size()..);
        found.push(prepare);
    }
    for prepare in found {
        prepares.entry(prepare.header().group()).or_default().push(prepare);
    }
    Ok(true)
}
