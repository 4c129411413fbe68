//! How the records of a batch are compressed. Chosen when a topic is made, and never changed.
//!
//! | number | name | what stands behind the header of a batch                                             |
//! |-------:|------|---------------------------------------------------------------------------------------|
//! |      0 | none | the records                                                                           |
//! |      1 | lz4  | the records as one LZ4 block, without a size in front (lz4.org, block format)          |
//! |      2 | zstd | the records as one Zstandard frame, without a dictionary or a checksum (RFC 8878)     |
//!
//! The header of a batch has the size of the records uncompressed, which bounds what is allocated and what a decoder may
//! write. That everything is as it was is for the checksums of the prepare to say.

#![allow(
    missing_docs,
    reason = "rkyv derives undocumented mirrors of variants with fields; ours are documented"
)]

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

/// Zstandard's own default. A batch of 1 MiB takes some milliseconds.
const ZSTD_LEVEL: i32 = 3;

thread_local! {
    // A context is some hundred kilobytes of tables: too much to be made for each batch.
    static ZSTD_COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).expect("a compressor takes a level that exists"));
    static ZSTD_DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::new(Decompressor::default());
}

/// How records are compressed. Archived: the order of variants is the format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Archive, Serialize, Deserialize)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Fast, to a moderate size.
    Lz4,
    /// Slower, to a smaller size.
    Zstd,
}

impl Compression {
    /// All of them, the default first.
    pub const ALL: &[Self] = &[Self::None, Self::Lz4, Self::Zstd];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The number in a batch.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The one with this number, if this build knows it.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|compression| compression.number() == number)
    }

    /// These bytes compressed; `None` if that does not make them smaller.
    pub(crate) fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let compressed = match self {
            Self::None => None,
            Self::Lz4 => Some(lz4_flex::block::compress(bytes)),
            Self::Zstd => {
                let mut compressed = Vec::with_capacity(bytes.len());
                let size = ZSTD_COMPRESSOR
                    .with_borrow_mut(|compressor| compressor.compress_to_buffer(bytes, &mut compressed));
                // What does not fit has not become smaller.
                size.ok().map(|_| compressed)
            }
        };
        compressed.filter(|compressed| compressed.len() < bytes.len())
    }

    /// Fills `to` with what these bytes were before they were compressed; says whether they were exactly that much. Never
    /// writes anywhere else, whatever the bytes are.
    #[must_use]
    pub(crate) fn decompress(self, bytes: &[u8], to: &mut [u8]) -> bool {
        let written = match self {
            Self::None => None,
            Self::Lz4 => lz4_flex::block::decompress_into(bytes, to).ok(),
            Self::Zstd => ZSTD_DECOMPRESSOR
                .with_borrow_mut(|decompressor| decompressor.decompress_to_buffer(bytes, to))
                .ok(),
        };
        written == Some(to.len())
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no compression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no compression: it is none, lz4 or zstd")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        let found = Self::ALL.iter().copied().find(|compression| compression.name() == name);
        found.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_again() {
        for compression in Compression::ALL {
            assert_eq!(compression.name().parse(), Ok(*compression));
            assert_eq!(Compression::from_number(compression.number()), Some(*compression));
        }
        assert!("gzip".parse::<Compression>().is_err());
        assert_eq!(Compression::from_number(3), None);
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let compressed = compression.compress(&[7; 1000]).expect("that gets smaller");
            let mut back = [0; 1000];
            assert!(compression.decompress(&compressed, &mut back), "{compression}");
            assert_eq!(back, [7; 1000]);
            assert_eq!(compression.compress(b"does not"), None, "{compression}");
            assert_eq!(compression.compress(b""), None, "{compression}");
        }
        assert_eq!(Compression::None.compress(&[7; 1000]), None);
    }

    #[test]
    fn nothing_is_written_beyond_what_was_announced() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let compressed = compression.compress(&[7; 1000]).expect("that gets smaller");
            for size in (0..1000).step_by(37) {
                let mut guarded = [9; 1100];
                assert!(!compression.decompress(&compressed, &mut guarded[..size]), "{compression} {size}");
                assert_eq!(guarded[size..], [9; 1100][size..], "{compression} {size}");
            }
            assert!(
                !compression.decompress(&compressed, &mut [0; 1001]),
                "{compression}: more than there is"
            );
        }
    }
}
