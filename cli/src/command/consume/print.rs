//! Records as they are printed.
//!
//! * text: the payload as it is, then a newline, so that a file of lines comes back byte for byte; with a key separator,
//!   key and separator stand in front of it;
//! * JSON: one object per line. Bytes that are not UTF-8 are written as `key_hex` and `payload_hex` instead.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use varve_protocol::id::Offset;
use varve_protocol::record::Record;

/// A record with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    pub(crate) record: &'a Record,
}

/// How records are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// Payload and newline.
    Payload,
    /// Key, this byte, payload and newline; without a key as above.
    Keyed(u8),
    /// One JSON object per line.
    Json,
}

impl Style {
    /// Prints one record.
    pub(crate) fn write(self, out: &mut impl Write, placed: &Placed<'_>) -> io::Result<()> {
        match (self, &placed.record.key) {
            (Self::Json, _) => serde_json::to_writer(&mut *out, placed)?,
            (Self::Keyed(separator), Some(key)) => {
                out.write_all(key)?;
                out.write_all(&[separator])?;
                out.write_all(&placed.record.payload)?;
            }
            (Self::Keyed(_), None) | (Self::Payload, _) => out.write_all(&placed.record.payload)?,
        }
        out.write_all(b"\n")
    }
}

impl Serialize for Placed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset.as_raw())?;
        map.serialize_entry("timestamp_us", &self.record.timestamp.as_raw())?;
        if let Some(key) = &self.record.key {
            serialize_bytes(&mut map, ("key", "key_hex"), key)?;
        }
        serialize_bytes(&mut map, ("payload", "payload_hex"), &self.record.payload)?;
        map.end()
    }
}

fn serialize_bytes<M: serde::ser::SerializeMap>(
    map: &mut M,
    (text_name, hex_name): (&'static str, &'static str),
    bytes: &[u8],
) -> Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(text_name, text),
        Err(_) => map.serialize_entry(hex_name, &hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use varve_protocol::id::Timestamp;

    use super::*;

    fn printed(style: Style, key: Option<&'static [u8]>, payload: &'static [u8]) -> Vec<u8> {
        let record = Record {
            timestamp: Timestamp::new(5),
            key: key.map(Bytes::from_static),
            payload: Bytes::from_static(payload),
            ..Record::default()
        };
        let mut out = Vec::new();
        style.write(&mut out, &Placed { partition: 2, offset: Offset::new(7), record: &record }).unwrap();
        out
    }

    #[test]
    fn text_is_the_payload_and_a_newline() {
        assert_eq!(printed(Style::Payload, Some(b"k"), b"\xffab"), b"\xffab\n");
        assert_eq!(printed(Style::Payload, None, b""), b"\n");
        assert_eq!(printed(Style::Keyed(b':'), Some(b"k"), b"a:b"), b"k:a:b\n");
        assert_eq!(printed(Style::Keyed(b':'), None, b"ab"), b"ab\n");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let line = printed(Style::Json, Some(b"k"), b"say \"hi\"\n");
        let expected = r#"{"partition":2,"offset":7,"timestamp_us":5,"key":"k","payload":"say \"hi\"\n"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        let line = printed(Style::Json, Some(b"\x80"), b"\x00\xff");
        let expected = r#"{"partition":2,"offset":7,"timestamp_us":5,"key_hex":"80","payload_hex":"00ff"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
    }
}
