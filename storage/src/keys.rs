//! The keys that what is stored is sealed with: AES-256-GCM, a key of its own for each file.
//!
//! An operator gives each node a *key file*: a line of 64 hexadecimal digits for each key, the newest last. What is written from now
//! on is sealed with the newest one; the others are for what was written before. A key is named by what it is (the first eight
//! bytes of its SHA-256, behind a prefix), so a file that names its key can never be read with another one by mistake.
//!
//! No key of the file seals anything itself. From each, HKDF-SHA256 derives one for every file, from the cluster, the node, the
//! group and the place of the file in its log: so nodes may share a key file, and what is sealed is bound to its place. Nonces are
//! random. A file holds far less than the 2^32 messages that are safe under one key with random nonces.
//!
//! What is sealed: all prepares, snapshots, resume points and indexes. What is not, for no word of a user is in it: the names and
//! sizes of files, the local blocks, superblocks and the identity. They say how many prepares there are, how large they are, and
//! the 32-bit checksum of the header that stands before a segment; that is one over bytes nobody knows, so no guess of what
//! a record says can be held against it.
//!
//! What this does not do: hide anything from who can read the memory or the connections of a node, or notice when somebody puts an
//! old state of the whole disk back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use varve_protocol::id::GroupId;
use varve_protocol::mutant::Mutant;

use crate::identity::Identity;

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;

const DIGITS: usize = KEY_SIZE * 2;

/// Bytes of a nonce.
pub(crate) const NONCE_SIZE: usize = 12;

/// What a key is called: a fingerprint of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// The name as it is stored; never zero.
    pub(crate) fn as_raw(self) -> u64 {
        self.0
    }

    /// The name that is stored so; none if it says that there is no key.
    pub(crate) fn from_raw(raw: u64) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }

    fn of(secret: &[u8; KEY_SIZE]) -> Self {
        let named = digest(&SHA256, &[b"varve key id 1".as_slice(), secret].concat());
        let first = named.as_ref().first_chunk().expect("a digest has 32 bytes");
        Self(u64::from_le_bytes(*first).max(1))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a key file. Says nothing of what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysError {
    /// A line is no key.
    #[error("line {line} of the key file is not {DIGITS} hexadecimal digits; `varve key` makes such lines")]
    Line {
        /// Which one, from 1.
        line: usize,
    },
    /// There is no line with a key.
    #[error("there is no key in the key file; `varve key` makes one")]
    Empty,
}

struct Secrets {
    newest: KeyId,
    keys: BTreeMap<KeyId, Prk>,
    /// Only the thread of the disk takes nonces, so nobody ever waits for it.
    nonces: Mutex<ChaCha20Rng>,
}

/// The keys of a node, or none: then nothing is sealed. Clones are the same keys.
#[derive(Clone, Default)]
pub struct Keys(Option<Arc<Secrets>>);

impl Keys {
    /// No keys.
    pub const NONE: Self = Self(None);

    /// Reads the text of a key file. Nonces are drawn from `entropy`, which must never be the same in two lives of a process.
    ///
    /// # Errors
    /// If a line is not a key, or there is none.
    pub fn parse(text: &str, entropy: [u8; 32]) -> Result<Self, KeysError> {
        let mut keys = BTreeMap::new();
        let mut newest = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let secret = parse_key(line).ok_or(KeysError::Line { line: number + 1 })?;
            let id = KeyId::of(&secret);
            keys.insert(id, Salt::new(HKDF_SHA256, &[]).extract(&secret));
            newest = Some(id);
        }
        let newest = newest.ok_or(KeysError::Empty)?;
        let nonces = Mutex::new(ChaCha20Rng::from_seed(entropy));
        Ok(Self(Some(Arc::new(Secrets { newest, keys, nonces }))))
    }

    /// The key that is written with; none: nothing is sealed.
    #[must_use]
    pub fn newest(&self) -> Option<KeyId> {
        self.0.as_ref().map(|secrets| secrets.newest)
    }

    /// The key of one file, derived from this one; none if it is not there.
    pub(crate) fn derive(
        &self,
        id: KeyId,
        identity: Identity,
        group: GroupId,
        file: File,
    ) -> Option<FileKey> {
        let secrets = self.0.as_ref()?;
        let (kind, place) = match file {
            File::Segment { first_op } => (b"segment", first_op),
            File::Beside => (b"beside ", 0),
        };
        let cluster = identity.cluster.as_raw().to_le_bytes();
        let node = [identity.node.as_raw()];
        let (group, place) = (group.as_raw().to_le_bytes(), place.to_le_bytes());
        let info: [&[u8]; 6] = [b"varve 1 ", kind, &cluster, &node, &group, &place];
        let derived = secrets.keys.get(&id)?.expand(&info, &AES_256_GCM);
        let cipher = LessSafeKey::new(UnboundKey::from(derived.expect("a key is short enough for HKDF")));
        Some(FileKey { id, cipher, keys: self.clone() })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|secrets| secrets.keys.keys())).finish()
    }
}

/// What a derived key is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum File {
    /// The segment that begins with this op.
    Segment { first_op: u64 },
    /// What lies beside the segments of a group.
    Beside,
}

/// The key of one file.
pub(crate) struct FileKey {
    pub(crate) id: KeyId,
    pub(crate) cipher: LessSafeKey,
    keys: Keys,
}

impl FileKey {
    /// A nonce that nothing else is sealed with, nor anything with the one whose last bit differs.
    pub(crate) fn draw_nonce(&self) -> [u8; NONCE_SIZE] {
        let mut nonce = [0; NONCE_SIZE];
        if let Some(secrets) = &self.keys.0
            && !Mutant::NonceRepeated.is_on()
        {
            secrets.nonces.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut nonce);
        }
        nonce[NONCE_SIZE - 1] &= !1;
        nonce
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({})", self.id)
    }
}

fn parse_key(digits: &str) -> Option<[u8; KEY_SIZE]> {
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_SIZE];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use varve_protocol::id::{ClusterId, NodeId};

    use super::*;

    const FIRST: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SECOND: &str = "FF0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn parse(text: &str) -> Result<Option<KeyId>, KeysError> {
        Keys::parse(text, [7; 32]).map(|keys| keys.newest())
    }

    #[test]
    fn the_last_key_of_a_file_is_written_with() {
        let first = parse(FIRST).unwrap();
        let both = format!("# the old one\n{FIRST}\n\n  {SECOND} # since May\n");
        let keys = Keys::parse(&both, [7; 32]).unwrap();
        assert_ne!(keys.newest(), first);
        assert_eq!(keys.newest(), parse(SECOND).unwrap());
        assert_eq!(first.unwrap().to_string(), "06265bbb5c5abb11", "a name is for good");
        let said = format!("{keys:?}");
        assert!(said.contains("06265bbb5c5abb11") && !said.contains("0a0b0c"), "{said}");
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        assert_eq!(parse("# nothing\n\n"), Err(KeysError::Empty));
        for wrong in
            [&FIRST[1..], &format!("{FIRST}0"), &FIRST.replace('a', "g"), &FIRST.replacen('0', "é", 1)]
        {
            assert_eq!(parse(&format!("\n{wrong}")), Err(KeysError::Line { line: 2 }), "{wrong}");
        }
    }

    #[test]
    fn every_file_has_a_key_of_its_own() {
        let keys = Keys::parse(&format!("{SECOND}\n{FIRST}"), [7; 32]).unwrap();
        let identity = |node| Identity { cluster: ClusterId::new(9), node: NodeId::new(node) };
        let [id, other] = [FIRST, SECOND].map(|text| parse(text).unwrap().unwrap());
        let sealed = |id, node, group, file| {
            let key = keys.derive(id, identity(node), GroupId::new(group), file).unwrap();
            let mut text = *b"what is sealed";
            let nonce = ring::aead::Nonce::assume_unique_for_key([1; 12]);
            let tag =
                key.cipher.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), &mut text).unwrap();
            (text, tag.as_ref().to_vec())
        };
        let segment = |first_op| File::Segment { first_op };
        let all = [
            sealed(id, 1, 3, segment(1)),
            sealed(other, 1, 3, segment(1)),
            sealed(id, 2, 3, segment(1)),
            sealed(id, 1, 4, segment(1)),
            sealed(id, 1, 3, segment(2)),
            sealed(id, 1, 3, File::Beside),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(
            Keys::parse(FIRST, [7; 32])
                .unwrap()
                .derive(other, identity(1), GroupId::new(3), segment(1))
                .is_none()
        );
    }

    #[test]
    fn nonces_come_in_pairs_and_never_twice() {
        let keys = Keys::parse(FIRST, [7; 32]).unwrap();
        let identity = Identity { cluster: ClusterId::new(9), node: NodeId::new(1) };
        let key = keys.derive(keys.newest().unwrap(), identity, GroupId::new(3), File::Beside).unwrap();
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| key.draw_nonce()).collect();
        assert!(drawn.len() == 1000 && drawn.iter().all(|nonce| nonce[11] % 2 == 0));
    }
}
