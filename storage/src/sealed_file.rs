//! Files that are written whole, beside segments, and sealed like those with a key of the node ([`crate::keys`]).
//!
//! Little-endian:
//!
//! | offset | size | name     | meaning                                                               |
//! |-------:|-----:|----------|-----------------------------------------------------------------------|
//! |      0 |    4 | checksum | CRC-32 of all that follows                                            |
//! |      4 |    4 | magic    | `VRVW`                                                                |
//! |      8 |    8 | key      | name of the key                                                       |
//! |     16 |   12 | nonce    | of AES-256-GCM; the stem of the file's name is authenticated with it |
//! |     28 |    4 | reserved | zero                                                                  |
//! |     32 |    n | sealed   | what the file holds, and the tag: 16 bytes more than that             |
//!
//! Without keys a file is what it holds.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use ring::aead::{Aad, Nonce};
use varve_protocol::checksum::checksum;
use varve_protocol::id::GroupId;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::StorageError;
use crate::identity::Owner;
use crate::keys::{File, KeyId, NONCE_SIZE};

const MAGIC: u32 = u32::from_le_bytes(*b"VRVW");
const LABEL_SIZE: usize = 32;
const TAG_SIZE: usize = 16;

/// What a sealed file takes more than what it holds.
pub(crate) const OVERHEAD: usize = LABEL_SIZE + TAG_SIZE;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Label {
    checksum: U32,
    magic: U32,
    key: U64,
    nonce: [u8; NONCE_SIZE],
    reserved: [u8; 4],
}

const _: () = assert!(size_of::<Label>() == LABEL_SIZE, "the byte table is the struct");

/// What is to be written to a file of a group that holds these bytes.
pub(crate) fn seal(owner: &Owner, group: GroupId, path: &Path, held: Bytes) -> Bytes {
    let newest = owner.keys.newest();
    let Some(key) = newest.and_then(|id| owner.keys.derive(id, owner.identity, group, File::Beside)) else {
        return held;
    };
    let nonce = key.draw_nonce();
    let label = Label {
        checksum: U32::ZERO,
        magic: U32::new(MAGIC),
        key: U64::new(key.id.as_raw()),
        nonce,
        reserved: [0; 4],
    };
    let mut bytes = BytesMut::with_capacity(held.len() + OVERHEAD);
    bytes.extend_from_slice(label.as_bytes());
    bytes.extend_from_slice(&held);
    let tag = key
        .cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            named(path),
            &mut bytes[LABEL_SIZE..],
        )
        .expect("a file is far smaller than what the cipher takes");
    bytes.extend_from_slice(tag.as_ref());
    let sum = checksum(&bytes[4..]).to_le_bytes();
    bytes[..4].copy_from_slice(&sum);
    bytes.freeze()
}

/// Whether a file with these bytes looks as if it were sealed.
pub(crate) fn has_label(bytes: &[u8]) -> bool {
    Label::read_from_prefix(bytes).is_ok_and(|(label, _)| label.magic.get() == MAGIC)
}

/// The key that a file with these bytes is sealed with, if it is sealed, and sound as far as can be told without the key.
pub(crate) fn key_of(bytes: &[u8]) -> Option<KeyId> {
    let (label, rest) = Label::read_from_prefix(bytes).ok()?;
    let is_sealed = label.magic.get() == MAGIC
        && rest.len() >= TAG_SIZE
        && label.checksum.get() == checksum(bytes.get(4..)?);
    KeyId::from_raw(label.key.get()).filter(|_| is_sealed)
}

/// What a file with these bytes holds. One that is not sealed holds what it is; whether that is sound is another matter.
///
/// # Errors
/// `KeyMissing` if it is sealed with a key that is not there.
pub(crate) fn open(
    owner: &Owner,
    group: GroupId,
    path: &Path,
    mut bytes: Vec<u8>,
) -> Result<Bytes, StorageError> {
    let Some(id) = key_of(&bytes) else { return Ok(bytes.into()) };
    let key = owner.keys.derive(id, owner.identity, group, File::Beside);
    let key = key.ok_or_else(|| StorageError::KeyMissing { path: path.to_owned(), key: id })?;
    let mut nonce = [0; NONCE_SIZE];
    nonce.copy_from_slice(&bytes[16..16 + NONCE_SIZE]);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = key.cipher.open_in_place(nonce, named(path), &mut bytes[LABEL_SIZE..]);
    let Ok(size) = opened.map(|held| held.len()) else { return Ok(Bytes::new()) };
    Ok(Bytes::from(bytes).slice(LABEL_SIZE..LABEL_SIZE + size))
}

fn named(path: &Path) -> Aad<&[u8]> {
    Aad::from(path.file_stem().unwrap_or_default().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{ClusterId, NodeId};

    use super::*;
    use crate::identity::Identity;
    use crate::keys::Keys;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const GROUP: GroupId = GroupId::new(7);

    fn owner(keys: Keys) -> Owner {
        Owner { identity: Identity { cluster: ClusterId::new(9), node: NodeId::new(1) }, keys }
    }

    fn path() -> &'static Path {
        Path::new("groups/0000000007/00000000000000000042.transfer")
    }

    #[test]
    fn what_is_sealed_has_these_bytes_and_is_opened_again() {
        let owner = owner(Keys::parse(KEY, [7; 32]).unwrap());
        let held = Bytes::from_static(b"what a file holds");
        let sealed = seal(&owner, GROUP, path(), held.clone());
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = ["56525657", "11bb5a5cbb5b2606"];
        assert_eq!(hex[8..8 + fields.concat().len()], fields.concat());
        assert_eq!((sealed.len(), &sealed[28..32]), (held.len() + OVERHEAD, &[0; 4][..]));
        let renamed = path().with_extension("snapshot");
        assert_eq!(open(&owner, GROUP, &renamed, sealed.to_vec()), Ok(held));
    }

    #[test]
    fn no_damage_passes() {
        let owner = owner(Keys::parse(KEY, [7; 32]).unwrap());
        let held = Bytes::from_static(b"what a file holds");
        let sealed = seal(&owner, GROUP, path(), held.clone());
        for bit in 0..sealed.len() * 8 {
            let mut rotten = sealed.to_vec();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(open(&owner, GROUP, path(), rotten), Ok(held.clone()), "bit {bit}");
        }
        // Somebody who can make the checksum right again has no key.
        let mut forged = sealed.to_vec();
        forged[40] ^= 1;
        let sum = checksum(&forged[4..]).to_le_bytes();
        forged[..4].copy_from_slice(&sum);
        assert_eq!(open(&owner, GROUP, path(), forged), Ok(Bytes::new()));
        let elsewhere = Path::new("groups/0000000007/00000000000000000043.snapshot");
        assert_eq!(open(&owner, GROUP, elsewhere, sealed.to_vec()), Ok(Bytes::new()));
        assert_eq!(open(&owner, GroupId::new(8), path(), sealed.to_vec()), Ok(Bytes::new()));
    }

    #[test]
    fn a_key_that_is_missing_is_named() {
        let held = Bytes::from_static(b"what a file holds");
        let sealed = seal(&owner(Keys::parse(KEY, [7; 32]).unwrap()), GROUP, path(), held.clone());
        let refused = open(&owner(Keys::NONE), GROUP, path(), sealed.to_vec()).unwrap_err();
        assert!(refused.to_string().contains("06265bbb5c5abb11"), "{refused}");
        assert_eq!(seal(&owner(Keys::NONE), GROUP, path(), held.clone()), held);
        assert_eq!(open(&owner(Keys::NONE), GROUP, path(), held.to_vec()), Ok(held));
    }
}
