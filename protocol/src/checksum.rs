//! CRC-32 (IEEE 802.3, as in zlib) over everything that is stored or sent. It detects accidents, not attackers:
//! those are kept out by TLS.

/// The CRC-32 of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The CRC-32 of several chunks as if they were one.
#[must_use]
pub fn checksum_chunks(chunks: &[bytes::Bytes]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for chunk in chunks {
        hasher.update(chunk);
    }
    hasher.finalize()
}
