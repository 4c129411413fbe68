//! User headers: what a record says beside its key and payload, as a map from names to typed values.
//!
//! | offset | size | name       | meaning                                                  |
//! |-------:|-----:|------------|----------------------------------------------------------|
//! |      0 |    1 | kind       | what the value is, see below                             |
//! |      1 |    1 | key_size   | bytes of the key, at least 1                             |
//! |      2 |    2 | value_size | bytes of the value                                       |
//! |      4 |    . | key, value | the key is UTF-8; numbers are little-endian              |
//!
//! | kind | value                     | size | | kind | value  | size | | kind | value   | size |
//! |-----:|---------------------------|-----:|-|-----:|--------|-----:|-|-----:|---------|-----:|
//! |    1 | raw bytes                 |    . | |    6 | int32  |    4 | |   11 | uint32  |    4 |
//! |    2 | string, UTF-8             |    . | |    7 | int64  |    8 | |   12 | uint64  |    8 |
//! |    3 | bool, 0 or 1              |    1 | |    8 | int128 |   16 | |   13 | uint128 |   16 |
//! |    4 | int8                      |    1 | |    9 | uint8  |    1 | |   14 | float32 |    4 |
//! |    5 | int16                     |    2 | |   10 | uint16 |    2 | |   15 | float64 |    8 |
//!
//! Headers stand in the order of their keys' bytes, each key once. So the same headers are always the same bytes, which
//! is what is compared. The kinds are those of Apache Iggy.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{HEADER_KEY_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_PER_RECORD_MAX};
use crate::mutant::Mutant;

/// Bytes of a header beside its key and value.
const FRAMING_SIZE: usize = 4;

/// Defines the kinds, and those values that have a fixed size.
macro_rules! kinds {
    ($($kind:ident = $number:literal, $name:literal, $type:ty, $doc:literal;)+) => {
        /// What a value is.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum HeaderKind {
            /// Bytes.
            Raw,
            /// Text.
            String,
            /// True or false.
            Bool,
            $(#[doc = $doc] $kind,)+
        }

        impl HeaderKind {
            /// All of them.
            pub const ALL: &[Self] = &[Self::Raw, Self::String, Self::Bool, $(Self::$kind),+];

            /// The number in a header.
            const fn number(self) -> u8 {
                match self {
                    Self::Raw => 1,
                    Self::String => 2,
                    Self::Bool => 3,
                    $(Self::$kind => $number,)+
                }
            }

            /// The name on the command line and in output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Raw => "raw",
                    Self::String => "string",
                    Self::Bool => "bool",
                    $(Self::$kind => $name,)+
                }
            }

            /// The value that a text says; `None` if it says none of this kind. Raw bytes are those of the text.
            #[must_use]
            pub fn parse(self, text: &str) -> Option<HeaderValue<'_>> {
                match self {
                    Self::Raw => Some(HeaderValue::Raw(text.as_bytes())),
                    Self::String => Some(HeaderValue::String(text)),
                    Self::Bool => text.parse().ok().map(HeaderValue::Bool),
                    $(Self::$kind => text.parse().ok().map(HeaderValue::$kind),)+
                }
            }
        }

        /// A value. Floats are compared as numbers here, and by their bits within [`Headers`].
        #[derive(Clone, Copy, PartialEq, Debug)]
        pub enum HeaderValue<'a> {
            /// Bytes.
            Raw(&'a [u8]),
            /// Text.
            String(&'a str),
            /// True or false.
            Bool(bool),
            $(#[doc = $doc] $kind($type),)+
        }

        impl<'a> HeaderValue<'a> {
            /// What it is.
            #[must_use]
            pub const fn kind(&self) -> HeaderKind {
                match self {
                    Self::Raw(_) => HeaderKind::Raw,
                    Self::String(_) => HeaderKind::String,
                    Self::Bool(_) => HeaderKind::Bool,
                    $(Self::$kind(_) => HeaderKind::$kind,)+
                }
            }

            fn size(&self) -> usize {
                match self {
                    Self::Raw(bytes) => bytes.len(),
                    Self::String(text) => text.len(),
                    Self::Bool(_) => 1,
                    $(Self::$kind(_) => size_of::<$type>(),)+
                }
            }

            fn put(&self, buffer: &mut BytesMut) {
                match self {
                    Self::Raw(bytes) => buffer.extend_from_slice(bytes),
                    Self::String(text) => buffer.extend_from_slice(text.as_bytes()),
                    Self::Bool(is_true) => buffer.put_u8(u8::from(*is_true)),
                    $(Self::$kind(number) => buffer.extend_from_slice(&number.to_le_bytes()),)+
                }
            }

            /// The value of a kind that these bytes are, if they are one.
            fn read(kind: u8, bytes: &'a [u8]) -> Option<Self> {
                match kind {
                    1 => Some(Self::Raw(bytes)),
                    2 => std::str::from_utf8(bytes).ok().map(Self::String),
                    3 => match bytes {
                        [0] => Some(Self::Bool(false)),
                        [1] => Some(Self::Bool(true)),
                        _ => None,
                    },
                    $($number => bytes.try_into().ok().map(<$type>::from_le_bytes).map(Self::$kind),)+
                    _ => None,
                }
            }
        }

        $(impl From<$type> for HeaderValue<'_> {
            fn from(number: $type) -> Self {
                Self::$kind(number)
            }
        })+

        impl fmt::Display for HeaderValue<'_> {
            /// Text as it is, bytes in hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Raw(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
                    Self::String(text) => f.write_str(text),
                    Self::Bool(is_true) => is_true.fmt(f),
                    $(Self::$kind(number) => number.fmt(f),)+
                }
            }
        }
    };
}

kinds! {
    Int8 = 4, "int8", i8, "A signed number of 8 bits.";
    Int16 = 5, "int16", i16, "A signed number of 16 bits.";
    Int32 = 6, "int32", i32, "A signed number of 32 bits.";
    Int64 = 7, "int64", i64, "A signed number of 64 bits.";
    Int128 = 8, "int128", i128, "A signed number of 128 bits.";
    Uint8 = 9, "uint8", u8, "A number of 8 bits.";
    Uint16 = 10, "uint16", u16, "A number of 16 bits.";
    Uint32 = 11, "uint32", u32, "A number of 32 bits.";
    Uint64 = 12, "uint64", u64, "A number of 64 bits.";
    Uint128 = 13, "uint128", u128, "A number of 128 bits.";
    Float32 = 14, "float32", f32, "A floating-point number of 32 bits.";
    Float64 = 15, "float64", f64, "A floating-point number of 64 bits.";
}

impl<'a> From<&'a str> for HeaderValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(text)
    }
}

impl<'a> From<&'a [u8]> for HeaderValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Raw(bytes)
    }
}

impl From<bool> for HeaderValue<'_> {
    fn from(is_true: bool) -> Self {
        Self::Bool(is_true)
    }
}

impl fmt::Display for HeaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is no kind of header: it is raw, string, bool, int8 to int128, uint8 to uint128, float32 or float64"
)]
pub struct UnknownHeaderKind(String);

impl FromStr for HeaderKind {
    type Err = UnknownHeaderKind;

    fn from_str(name: &str) -> Result<Self, UnknownHeaderKind> {
        let found = Self::ALL.iter().copied().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownHeaderKind(name.to_owned()))
    }
}

/// Why a header does not go into a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The key is empty or too long.
    #[error("the key of a header is 1 to {HEADER_KEY_BYTES_MAX} bytes long, and not {size}")]
    KeySize {
        /// Its size.
        size: usize,
    },
    /// The record has as many as it may.
    #[error("a record has at most {HEADERS_PER_RECORD_MAX} headers")]
    TooMany,
    /// All together are too large.
    #[error(
        "headers of {size} bytes are over the limit of {HEADERS_BYTES_MAX} per record; put content into the payload"
    )]
    TooLarge {
        /// The size of all with framing.
        size: usize,
    },
}

/// The headers of a record: a map in the order of its keys. Empty ones cost nothing; a clone shares the memory.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// Sound, as the table above has it.
    bytes: Bytes,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header, or gives the one with this key another value.
    ///
    /// # Errors
    /// When the key is empty or too long, or the headers are too many or too large; nothing is changed then.
    pub fn insert<'v>(&mut self, key: &str, value: impl Into<HeaderValue<'v>>) -> Result<(), HeaderError> {
        let key_size = u8::try_from(key.len()).ok().filter(|size| *size > 0);
        let key_size = key_size.ok_or(HeaderError::KeySize { size: key.len() })?;
        let value = value.into();
        let (mut before, mut others, mut replaced) = (0, 0, 0);
        for header in Walk(&self.bytes) {
            let header = header.expect("headers are verified when they are made");
            others += usize::from(header.key != key);
            before += if header.key < key { header.total_size() } else { 0 };
            replaced += if header.key == key { header.total_size() } else { 0 };
        }
        let size = self.bytes.len() - replaced + FRAMING_SIZE + key.len() + value.size();
        if others == HEADERS_PER_RECORD_MAX {
            return Err(HeaderError::TooMany);
        }
        let value_size = u16::try_from(value.size()).ok().filter(|_| size <= HEADERS_BYTES_MAX);
        let value_size = value_size.ok_or(HeaderError::TooLarge { size })?;
        let mut bytes = BytesMut::with_capacity(size);
        bytes.extend_from_slice(&self.bytes[..before]);
        bytes.put_u8(value.kind().number());
        bytes.put_u8(key_size);
        bytes.put_u16_le(value_size);
        bytes.extend_from_slice(key.as_bytes());
        value.put(&mut bytes);
        bytes.extend_from_slice(&self.bytes[before + replaced..]);
        self.bytes = bytes.freeze();
        Ok(())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<HeaderValue<'_>> {
        self.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Keys and values, in the order of the keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, HeaderValue<'_>)> {
        Walk(&self.bytes).map(|header| {
            let header = header.expect("headers are verified when they are made");
            (header.key, header.value)
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Their bytes in a record.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Headers whose bytes [`are_sound`] has verified.
    pub(super) fn from_sound(bytes: Bytes) -> Self {
        Self { bytes }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Whether these bytes are headers: whole, of known kinds, in order, and within their limits.
pub(super) fn are_sound(bytes: &[u8]) -> bool {
    if bytes.len() > HEADERS_BYTES_MAX {
        return false;
    }
    let mut last = "";
    let mut count = 0;
    Walk(bytes).all(|header| {
        count += 1;
        header.is_some_and(|header| {
            let is_in_order = header.key > last || Mutant::HeadersUnordered.is_on();
            last = header.key;
            is_in_order && count <= HEADERS_PER_RECORD_MAX
        })
    })
}

struct Header<'a> {
    key: &'a str,
    value: HeaderValue<'a>,
}

impl Header<'_> {
    fn total_size(&self) -> usize {
        FRAMING_SIZE + self.key.len() + self.value.size()
    }
}

/// Reads headers one after the other; `None` for one that is not sound, which is the last.
struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = Option<Header<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let read = || {
            let ([kind, key_size, low, high], rest) = bytes.split_first_chunk::<FRAMING_SIZE>()?;
            let (key, rest) =
                rest.split_at_checked(usize::from(*key_size)).filter(|(key, _)| !key.is_empty())?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
            let header =
                Header { key: std::str::from_utf8(key).ok()?, value: HeaderValue::read(*kind, value)? };
            Some((header, rest))
        };
        Some(read().map(|(header, rest)| {
            self.0 = rest;
            header
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_again_by_name_and_number() {
        for kind in HeaderKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            let text = if *kind == HeaderKind::Bool { "true" } else { "7" };
            let value = kind.parse(text).expect("the text says one");
            let mut bytes = BytesMut::new();
            value.put(&mut bytes);
            assert_eq!(HeaderValue::read(kind.number(), &bytes), Some(value));
            assert_eq!((value.kind(), value.size()), (*kind, bytes.len()));
        }
        assert!("int7".parse::<HeaderKind>().is_err());
    }

    #[test]
    fn a_text_that_says_no_value_is_refused() {
        let table = [
            (HeaderKind::Bool, "1"),
            (HeaderKind::Int8, "128"),
            (HeaderKind::Uint8, "-1"),
            (HeaderKind::Int64, "5.0"),
            (HeaderKind::Float64, "five"),
        ];
        for (kind, text) in table {
            assert_eq!(kind.parse(text), None, "{kind} {text}");
        }
    }

    #[test]
    fn limits_hold_and_a_refused_header_changes_nothing() {
        let mut headers = Headers::new();
        for number in 0..HEADERS_PER_RECORD_MAX {
            headers.insert(&format!("k{number}"), 7_u8).expect("there is room");
        }
        let full = headers.clone();
        assert_eq!(headers.insert("one more", true), Err(HeaderError::TooMany));
        headers.insert("k7", "another value for one that is there").expect("it is replaced");
        headers.insert("k7", 7_u8).expect("it is replaced again");
        assert_eq!(headers, full);

        let mut headers = Headers::new();
        for (key, size) in [(String::new(), 0), ("x".repeat(256), 256)] {
            assert_eq!(headers.insert(&key, 1_u8), Err(HeaderError::KeySize { size }));
        }
        headers.insert(&"x".repeat(HEADER_KEY_BYTES_MAX), 1_u8).expect("that is as long as a key may be");
        let large = vec![7; HEADERS_BYTES_MAX - FRAMING_SIZE - 1];
        let size = HEADERS_BYTES_MAX + headers.as_bytes().len();
        assert_eq!(headers.insert("k", large.as_slice()), Err(HeaderError::TooLarge { size }));
        let mut alone = Headers::new();
        alone.insert("k", large.as_slice()).expect("alone it fits");
        assert!(are_sound(alone.as_bytes()));
        assert!(alone.insert("k", [large.as_slice(), &[7]].concat().as_slice()).is_err());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let table: [(&str, &[u8]); 12] = [
            ("no kind", &[0, 1, 1, 0, b'k', 0]),
            ("an unknown kind", &[16, 1, 1, 0, b'k', 0]),
            ("no key", &[9, 0, 1, 0, 0]),
            ("a key that is no UTF-8", &[9, 1, 1, 0, 0xff, 0]),
            ("a string that is no UTF-8", &[2, 1, 1, 0, b'k', 0xff]),
            ("a bool of 2", &[3, 1, 1, 0, b'k', 2]),
            ("a number of another size", &[10, 1, 1, 0, b'k', 0]),
            ("a value that is cut", &[1, 1, 2, 0, b'k', 0]),
            ("a key that is cut", &[1, 2, 0, 0, b'k']),
            ("a cut header", &[9, 1, 1]),
            ("a key twice", &[9, 1, 1, 0, b'k', 0, 9, 1, 1, 0, b'k', 0]),
            ("keys in no order", &[9, 1, 1, 0, b'l', 0, 9, 1, 1, 0, b'k', 0]),
        ];
        for (what, bytes) in table {
            assert!(!are_sound(bytes), "{what}");
        }
        assert!(are_sound(&[9, 1, 1, 0, b'k', 0, 9, 1, 1, 0, b'l', 0]));
        let many: Vec<u8> =
            (0..=255_u8).flat_map(|byte| [9, 2, 1, 0, b'0' + byte / 64, byte % 64, 0]).collect();
        assert!(are_sound(&many));
        let large = [[1, 1, 0xff, 0xff, b'k'].as_slice(), &[7; 0xffff]].concat();
        assert!(large.len() > HEADERS_BYTES_MAX && !are_sound(&large), "too large");
        assert!(!are_sound(&[many.as_slice(), &[9, 1, 1, 0, b'z', 0]].concat()), "one too many");
    }
}
