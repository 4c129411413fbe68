//! How prepares are stored in a segment: as they are sent, or sealed with a key of the node ([`crate::keys`]).
//!
//! A sealed prepare, little-endian:
//!
//! | offset | size | name            | meaning                                                                |
//! |-------:|-----:|-----------------|------------------------------------------------------------------------|
//! |      0 |    4 | checksum        | CRC-32 of bytes 4..64                                                  |
//! |      4 |    4 | sealed_checksum | CRC-32 of all that follows byte 64                                     |
//! |      8 |    4 | magic           | `VRVE`                                                                 |
//! |     12 |    4 | body_size       | bytes of the prepare's body                                            |
//! |     16 |    8 | key             | name of the key                                                        |
//! |     24 |    8 | op              | op of the prepare                                                      |
//! |     32 |   12 | nonce           | that of the header; that of the body has its last bit set              |
//! |     44 |   20 | reserved        | zero                                                                   |
//! |     64 |  144 | header          | the prepare's header, and the tag of AES-256-GCM                       |
//! |    208 |    n | body            | the prepare's body, and the tag: 16 bytes more than the body           |
//!
//! Bytes 8..64 are authenticated with both. Whoever has no key can tell by the checksums whether the disk has kept what was
//! written; whoever has it finds the prepare exactly as it was sent, with its own checksums. The two are sealed apart, so that
//! headers can be walked without reading bodies.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ring::aead::{Aad, Nonce, Tag};
use varve_protocol::checksum::checksum;
use varve_protocol::id::Op;
use varve_protocol::limits::{BATCH_BYTES_MAX, NUMBER_MAX};
use varve_protocol::prepare::{
    PREPARE_HEADER_SIZE, PREPARE_MAGIC, PREPARE_MAGIC_AT, Prepare, PrepareError, PrepareHeader,
};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::StorageError;
use crate::keys::{File, FileKey, KeyId, Keys, NONCE_SIZE};
use crate::segment::SegmentHeader;

/// The magic number of what stands in front of a sealed prepare.
pub(crate) const LABEL_MAGIC: [u8; 4] = *b"VRVE";
const MAGIC: u32 = u32::from_le_bytes(LABEL_MAGIC);
/// Where the magic number stands: at the same place as in a prepare.
pub(crate) const MAGIC_AT: usize = PREPARE_MAGIC_AT;
const TAG_SIZE: usize = 16;
/// What is in front of what is sealed.
const LABEL_SIZE: usize = 64;
const HEAD_SIZE: usize = LABEL_SIZE + PREPARE_HEADER_SIZE + TAG_SIZE;
/// What a sealed prepare takes more than one that is not.
const OVERHEAD: usize = LABEL_SIZE + 2 * TAG_SIZE;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    checksum: U32,
    sealed_checksum: U32,
    magic: U32,
    body_size: U32,
    key: U64,
    op: U64,
    nonce: [u8; NONCE_SIZE],
    reserved: [u8; 20],
}

const _: () = assert!(size_of::<Layout>() == LABEL_SIZE, "the byte table is the struct");

/// What stands in front of a sealed prepare, for everybody to read.
#[derive(Clone, Copy)]
pub(crate) struct Label(Layout);

impl Label {
    /// Bytes of it.
    pub(crate) const SIZE: usize = LABEL_SIZE;

    /// The label at the start of `bytes`; none if there is no sound one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (layout, _) = Layout::read_from_prefix(bytes).ok()?;
        let is_sound = layout.checksum.get() == checksum(&layout.as_bytes()[4..])
            && layout.magic.get() == MAGIC
            && layout.body_size.get() as usize <= BATCH_BYTES_MAX
            && (1..=NUMBER_MAX).contains(&layout.op.get());
        is_sound.then_some(Self(layout))
    }

    /// The key that it is sealed with.
    pub(crate) fn key(&self) -> Option<KeyId> {
        KeyId::from_raw(self.0.key.get())
    }

    /// Op of the prepare.
    pub(crate) fn op(&self) -> Op {
        Op::new(self.0.op.get())
    }

    /// Bytes of all of it.
    pub(crate) fn stored_size(&self) -> usize {
        HEAD_SIZE + self.0.body_size.get() as usize + TAG_SIZE
    }

    /// Whether these bytes, which begin with the label, are those that were written.
    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        let sealed = bytes.get(LABEL_SIZE..self.stored_size());
        sealed.is_some_and(|sealed| checksum(sealed) == self.0.sealed_checksum.get())
    }

    fn authenticated(&self) -> Aad<&[u8]> {
        Aad::from(&self.0.as_bytes()[8..])
    }

    fn nonces(&self) -> [Nonce; 2] {
        let mut second = self.0.nonce;
        second[NONCE_SIZE - 1] |= 1;
        [self.0.nonce, second].map(Nonce::assume_unique_for_key)
    }
}

/// How the prepares of one segment are stored.
#[derive(Clone, Debug)]
pub(crate) enum Seal {
    /// As they are sent.
    Plain,
    /// Sealed with the key of this segment.
    With(Arc<FileKey>),
}

impl Seal {
    /// How the segment at `path` is sealed.
    ///
    /// # Errors
    /// `KeyMissing` if it is sealed with a key that is not there.
    pub(crate) fn of(header: &SegmentHeader, keys: &Keys, path: &Path) -> Result<Self, StorageError> {
        let Some(id) = header.key else { return Ok(Self::Plain) };
        let file = File::Segment { first_op: header.first_op().as_raw() };
        let key = keys.derive(id, header.identity, header.group, file);
        let key = key.ok_or_else(|| StorageError::KeyMissing { path: path.to_owned(), key: id })?;
        Ok(Self::With(Arc::new(key)))
    }

    /// The magic number that every stored prepare has at [`MAGIC_AT`].
    pub(crate) fn magic(&self) -> [u8; 4] {
        match self {
            Self::Plain => PREPARE_MAGIC,
            Self::With(_) => LABEL_MAGIC,
        }
    }

    /// Bytes from which the header of a stored prepare can be told.
    pub(crate) fn head_size(&self) -> usize {
        match self {
            Self::Plain => PREPARE_HEADER_SIZE,
            Self::With(_) => HEAD_SIZE,
        }
    }

    /// Bytes that the prepare of this header takes.
    pub(crate) fn stored_size(&self, header: &PrepareHeader) -> usize {
        match self {
            Self::Plain => header.total_size(),
            Self::With(_) => header.total_size() + OVERHEAD,
        }
    }

    /// Bytes that each prepare takes more than it has.
    pub(crate) fn overhead(&self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::With(_) => OVERHEAD as u64,
        }
    }

    /// A prepare as it is stored.
    pub(crate) fn store(&self, prepare: &Prepare) -> Vec<Bytes> {
        match self {
            Self::Plain => prepare.chunks().into(),
            Self::With(key) => vec![seal(key, prepare)],
        }
    }

    /// The header of the prepare that is stored at the start of `bytes`; none if there is no sound one.
    ///
    /// # Errors
    /// When there is one, and another release has written it: that is no damage, and must not be taken for it.
    pub(crate) fn header(&self, bytes: &[u8]) -> Result<Option<PrepareHeader>, PrepareError> {
        let decoded = match self {
            Self::Plain => PrepareHeader::decode(bytes),
            Self::With(key) => {
                let Some((label, header)) = open_header(key, bytes) else { return Ok(None) };
                let is_labelled = |header: &PrepareHeader| {
                    header.op() == label.op() && self.stored_size(header) == label.stored_size()
                };
                match PrepareHeader::decode(&header) {
                    Ok(header) if !is_labelled(&header) => return Ok(None),
                    decoded => decoded,
                }
            }
        };
        match decoded {
            Ok(header) => Ok(Some(header)),
            Err(other @ PrepareError::Version { .. }) => Err(other),
            Err(_) => Ok(None),
        }
    }

    /// The prepare that is stored in these bytes; none if it is not sound.
    pub(crate) fn prepare(&self, bytes: &Bytes) -> Option<Prepare> {
        match self {
            Self::Plain => Prepare::decode(bytes).ok(),
            Self::With(key) => {
                let header = self.header(bytes).ok().flatten()?;
                let label = Label::decode(bytes).filter(|label| label.matches(bytes))?;
                let mut opened = BytesMut::with_capacity(header.total_size() + TAG_SIZE);
                opened.extend_from_slice(header.as_bytes());
                opened.extend_from_slice(bytes.get(HEAD_SIZE..label.stored_size())?);
                let [_, nonce] = label.nonces();
                let body = &mut opened[PREPARE_HEADER_SIZE..];
                key.cipher.open_in_place(nonce, label.authenticated(), body).ok()?;
                opened.truncate(header.total_size());
                Prepare::decode(&opened.freeze()).ok()
            }
        }
    }
}

/// The label and the header of a sealed prepare, if they are what was sealed.
fn open_header(key: &FileKey, bytes: &[u8]) -> Option<(Label, [u8; PREPARE_HEADER_SIZE])> {
    let label = Label::decode(bytes)?;
    let mut head = [0; PREPARE_HEADER_SIZE + TAG_SIZE];
    head.copy_from_slice(bytes.get(LABEL_SIZE..HEAD_SIZE)?);
    let [nonce, _] = label.nonces();
    let opened = key.cipher.open_in_place(nonce, label.authenticated(), &mut head).ok()?;
    Some((label, (&*opened).try_into().ok()?))
}

fn seal(key: &FileKey, prepare: &Prepare) -> Bytes {
    let header = prepare.header();
    let mut label = Label(Layout {
        checksum: U32::ZERO,
        sealed_checksum: U32::ZERO,
        magic: U32::new(MAGIC),
        body_size: U32::new(u32::try_from(prepare.body().len()).expect("a body within limits fits 32 bits")),
        key: U64::new(key.id.as_raw()),
        op: U64::new(header.op().as_raw()),
        nonce: key.draw_nonce(),
        reserved: [0; 20],
    });
    let mut bytes = BytesMut::with_capacity(label.stored_size());
    bytes.extend_from_slice(label.0.as_bytes());
    let mut parts = label.nonces().into_iter().zip([header.as_bytes(), prepare.body()]);
    for (nonce, part) in &mut parts {
        let start = bytes.len();
        bytes.extend_from_slice(part);
        let tag: Tag = key
            .cipher
            .seal_in_place_separate_tag(nonce, label.authenticated(), &mut bytes[start..])
            .expect("a prepare is far smaller than what the cipher takes");
        bytes.extend_from_slice(tag.as_ref());
    }
    label.0.sealed_checksum = U32::new(checksum(&bytes[LABEL_SIZE..]));
    label.0.checksum = U32::new(checksum(&label.0.as_bytes()[4..]));
    bytes[..LABEL_SIZE].copy_from_slice(label.0.as_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{
        ClusterId, Epoch, GroupId, NodeId, Offset, ProducerId, RequestNumber, Timestamp, View,
    };
    use varve_protocol::prepare::{PrepareFields, PrepareId, PrepareKind};
    use varve_protocol::version::Version;

    use super::*;
    use crate::identity::Identity;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn with_key(group: u64, first_op: u64) -> Seal {
        let keys = Keys::parse(KEY, [7; 32]).unwrap();
        let header = SegmentHeader {
            identity: Identity { cluster: ClusterId::new(9), node: NodeId::new(1) },
            group: GroupId::new(group),
            parent: PrepareId { op: Op::new(first_op - 1), ..PrepareId::ROOT },
            base_offset: Offset::ZERO,
            key: keys.newest(),
        };
        Seal::of(&header, &keys, Path::new("a segment")).unwrap()
    }

    fn prepare() -> Prepare {
        let fields = PrepareFields {
            version: Version::FIRST,
            cluster: ClusterId::new(9),
            group: GroupId::new(3),
            view: View::new(2),
            parent: PrepareId { op: Op::new(5), view: View::new(1), checksum: 0x0102_0304 },
            epoch: Epoch::ZERO,
            kind: PrepareKind::Noop,
            base_offset: Offset::new(8),
            record_count: 0,
            timestamp: Timestamp::new(77),
            producer: ProducerId::new(0),
            request: RequestNumber::new(0),
        };
        let body = Bytes::from_static(b"what it says");
        Prepare::seal(fields, body)
    }

    fn sealed() -> Bytes {
        let [sealed] = &with_key(3, 1).store(&prepare())[..] else { panic!("it is stored in one piece") };
        sealed.clone()
    }

    #[test]
    fn a_sealed_prepare_has_these_bytes() {
        let sealed = sealed();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        let label = ["56525645", "0c000000", "11bb5a5cbb5b2606", "0600000000000000"];
        assert_eq!(hex[16..64], label.concat());
        assert_eq!(
            (sealed.len(), &sealed[44..64]),
            (prepare().header().total_size() + OVERHEAD, &[0; 20][..])
        );
        // The nonce is drawn from a known seed, so all of it is known; also that a key is derived as it always was.
        assert_eq!(format!("{:08x}", checksum(&sealed)), "d7a2905e");
    }

    #[test]
    fn a_sealed_prepare_is_opened_again_and_only_in_its_place() {
        let seal = with_key(3, 1);
        let sealed = seal.store(&prepare()).remove(0);
        assert_eq!(seal.header(&sealed[..HEAD_SIZE]), Ok(Some(*prepare().header())));
        assert_eq!(seal.prepare(&sealed), Some(prepare()));
        for elsewhere in [with_key(4, 1), with_key(3, 2), Seal::Plain] {
            assert!(elsewhere.header(&sealed) == Ok(None) && elsewhere.prepare(&sealed).is_none());
        }
        let again = &seal.store(&prepare())[0];
        assert!(again[..64] != sealed[..64] && again[64..] != sealed[64..], "no nonce is drawn twice");
    }

    #[test]
    fn no_damage_passes_with_or_without_the_key() {
        let (seal, sound) = (with_key(3, 1), sealed());
        let matches = |bytes: &[u8]| Label::decode(bytes).is_some_and(|label| label.matches(bytes));
        assert!(matches(&sound));
        assert!((0..sound.len()).all(|size| seal.prepare(&sound.slice(..size)).is_none()), "cut short");
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.to_vec();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches(&rotten) && seal.prepare(&rotten.into()).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn who_can_make_the_checksums_right_has_no_key() {
        let (seal, sound) = (with_key(3, 1), sealed());
        for at in 12..sound.len() {
            let mut forged = sound.to_vec();
            forged[at] ^= 1;
            let sums = [(64..forged.len(), 4..8), (4..64, 0..4)];
            for (what, sum) in sums {
                let right = checksum(&forged[what]).to_le_bytes();
                forged[sum].copy_from_slice(&right);
            }
            assert!(seal.prepare(&forged.into()).is_none(), "byte {at}");
        }
    }
}
