//! Records as they are printed.
//!
//! * text: the payload as it is, then a newline, so that a file of lines comes back byte for byte; with a key separator,
//!   key and separator stand in front of it; with headers, those and a tab in front of all, the tab alone if there are none;
//! * JSON: one object per line. Bytes that are not UTF-8 are written as `key_hex` and `payload_hex` instead; `headers` is
//!   there if the record has any.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use varve_protocol::id::Offset;
use varve_protocol::record::Record;

use crate::headers;

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
    /// Headers and a tab if they are wanted; key and separator if there are both; payload and newline.
    Text { separator: Option<u8>, has_headers: bool },
    /// One JSON object per line.
    Json,
}

impl Style {
    /// Prints one record.
    pub(crate) fn write(self, out: &mut impl Write, placed: &Placed<'_>) -> io::Result<()> {
        match self {
            Self::Json => serde_json::to_writer(&mut *out, placed)?,
            Self::Text { separator, has_headers } => {
                if has_headers {
                    write!(out, "{}\t", headers::Text(&placed.record.headers))?;
                }
                if let (Some(separator), Some(key)) = (separator, &placed.record.key) {
                    out.write_all(key)?;
                    out.write_all(&[separator])?;
                }
                out.write_all(&placed.record.payload)?;
            }
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
        if !self.record.headers.is_empty() {
            map.serialize_entry("headers", &headers::Json(&self.record.headers))?;
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

    const PAYLOAD: Style = Style::Text { separator: None, has_headers: false };
    const KEYED: Style = Style::Text { separator: Some(b':'), has_headers: false };
    const ALL: Style = Style::Text { separator: Some(b':'), has_headers: true };

    fn printed(style: Style, key: Option<&'static [u8]>, payload: &'static [u8]) -> Vec<u8> {
        let record = Record {
            timestamp: Timestamp::new(5),
            key: key.map(Bytes::from_static),
            payload: Bytes::from_static(payload),
            ..Record::default()
        };
        written(style, &record)
    }

    fn written(style: Style, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        style.write(&mut out, &Placed { partition: 2, offset: Offset::new(7), record }).unwrap();
        out
    }

    #[test]
    fn text_is_the_payload_and_a_newline() {
        assert_eq!(printed(PAYLOAD, Some(b"k"), b"\xffab"), b"\xffab\n");
        assert_eq!(printed(PAYLOAD, None, b""), b"\n");
        assert_eq!(printed(KEYED, Some(b"k"), b"a:b"), b"k:a:b\n");
        assert_eq!(printed(KEYED, None, b"ab"), b"ab\n");
    }

    #[test]
    fn headers_stand_in_front() {
        let mut record = Record { key: Some("k".into()), payload: "p".into(), ..Record::default() };
        assert_eq!(written(ALL, &record), b"\tk:p\n");
        record.headers.insert("hops", 3_u8).unwrap();
        record.headers.insert("trace", "a\tb").unwrap();
        assert_eq!(written(ALL, &record), b"hops:uint8=3 trace=\"a\\tb\"\tk:p\n");
        assert_eq!(written(KEYED, &record), b"k:p\n");
        let json = String::from_utf8(written(Style::Json, &record)).unwrap();
        let expected =
            r#""headers":{"hops":{"kind":"uint8","value":3},"trace":{"kind":"string","value":"a\tb"}}"#;
        assert!(json.contains(expected), "{json}");
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
