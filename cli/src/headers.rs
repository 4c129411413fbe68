//! Headers of records as they are typed and printed.
//!
//! * text: `key=value` for a string, `key:kind=value` for anything else; the value of a raw one in hexadecimal digits. The key
//!   ends at the first `=`, and at the last `:` before that if there is one. `key:string=value` is a string, too;
//! * JSON: an object of keys, each with `kind` and `value`. A value is a boolean, a number or a text as JSON has them; numbers
//!   of 128 bits, and floats that are none, are texts, for few readers of JSON can hold them.

use std::fmt;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use varve_client::{HeaderKind, HeaderValue, Headers};

/// One header as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Typed(Headers);

/// Reads a header.
pub(crate) fn parse(text: &str) -> Result<Typed, String> {
    let form = "a header is KEY=VALUE, or KEY:KIND=VALUE with a kind like int64";
    let (name, value) = text.split_once('=').ok_or(form)?;
    let (key, kind) = match name.rsplit_once(':') {
        Some((key, kind)) => (key, kind.parse::<HeaderKind>().map_err(|error| error.to_string())?),
        None => (name, HeaderKind::String),
    };
    let raw = (kind == HeaderKind::Raw).then(|| unhex(value));
    let value = match &raw {
        Some(Some(bytes)) => HeaderValue::Raw(bytes),
        Some(None) => return Err("a raw header is a row of hexadecimal digits, two for each byte".to_owned()),
        None => kind.parse(value).ok_or_else(|| format!("`{value}` is no {kind}"))?,
    };
    let mut headers = Headers::new();
    headers.insert(key, value).map_err(|error| error.to_string())?;
    Ok(Typed(headers))
}

/// All headers that were typed as one map, or what is wrong with that.
pub(crate) fn together(typed: &[Typed]) -> Result<Headers, String> {
    let mut all = Headers::new();
    for (key, value) in typed.iter().flat_map(|one| one.0.iter()) {
        if all.get(key).is_some() {
            return Err(format!("header `{key}` is given twice; a record has each key once"));
        }
        all.insert(key, value).map_err(|error| error.to_string())?;
    }
    Ok(all)
}

/// Headers as text in one line, a space between two of them.
pub(crate) struct Text<'a>(pub(crate) &'a Headers);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.0.iter().enumerate() {
            let space = if place > 0 { " " } else { "" };
            write!(f, "{space}{}", key.escape_debug())?;
            if let HeaderValue::String(text) = value {
                write!(f, "={text:?}")?;
            } else {
                write!(f, ":{}={value}", value.kind())?;
            }
        }
        Ok(())
    }
}

/// Headers as JSON.
pub(crate) struct Json<'a>(pub(crate) &'a Headers);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0.iter() {
            map.serialize_entry(key, &JsonValue(value))?;
        }
        map.end()
    }
}

struct JsonValue<'a>(HeaderValue<'a>);

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("kind", self.0.kind().name())?;
        match self.0 {
            HeaderValue::Bool(is_true) => map.serialize_entry("value", &is_true)?,
            HeaderValue::Int8(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Int16(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Int32(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Int64(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Uint8(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Uint16(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Uint32(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Uint64(number) => map.serialize_entry("value", &number)?,
            HeaderValue::Float32(number) if number.is_finite() => map.serialize_entry("value", &number)?,
            HeaderValue::Float64(number) if number.is_finite() => map.serialize_entry("value", &number)?,
            HeaderValue::Raw(_)
            | HeaderValue::String(_)
            | HeaderValue::Int128(_)
            | HeaderValue::Uint128(_)
            | HeaderValue::Float32(_)
            | HeaderValue::Float64(_) => map.serialize_entry("value", &self.0.to_string())?,
        }
        map.end()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(texts: &[&str]) -> Headers {
        let typed: Vec<Typed> = texts.iter().map(|text| parse(text).unwrap()).collect();
        together(&typed).unwrap()
    }

    #[test]
    fn headers_are_typed_by_kind() {
        let headers = typed(&["trace=a=b", "n:int64=-5", "a:b:string=c", "raw:raw=00fF", "on:bool=true"]);
        let found: Vec<_> = headers.iter().collect();
        let expected = [
            ("a:b", HeaderValue::String("c")),
            ("n", HeaderValue::Int64(-5)),
            ("on", HeaderValue::Bool(true)),
            ("raw", HeaderValue::Raw(&[0x00, 0xff])),
            ("trace", HeaderValue::String("a=b")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_header_is_refused_and_says_why() {
        let table = [
            ("trace", "KEY=VALUE"),
            ("=x", "1 to 255 bytes"),
            ("n:int65=5", "`int65` is no kind"),
            ("n:int8=500", "`500` is no int8"),
            ("n:bool=yes", "`yes` is no bool"),
            ("r:raw=0", "hexadecimal"),
            ("r:raw=zz", "hexadecimal"),
        ];
        for (text, says) in table {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let twice = together(&[parse("a=1").unwrap(), parse("a:int8=1").unwrap()]).unwrap_err();
        assert!(twice.contains("`a` is given twice"), "{twice}");
    }

    #[test]
    fn headers_are_printed_in_one_line() {
        let headers = typed(&["trace=a \"b\"\n", "n:uint8=5", "f:float64=2.5", "r:raw=00ff"]);
        assert_eq!(Text(&headers).to_string(), r#"f:float64=2.5 n:uint8=5 r:raw=00ff trace="a \"b\"\n""#);
    }

    #[test]
    fn json_says_kind_and_value() {
        let headers = typed(&[
            "a=x",
            "b:bool=false",
            "c:int64=-5",
            "d:uint128=7",
            "e:float32=1.5",
            "f:float64=NaN",
            "g:raw=0a",
        ]);
        let json = serde_json::to_string(&Json(&headers)).unwrap();
        let expected = r#"{"a":{"kind":"string","value":"x"},"b":{"kind":"bool","value":false},"#.to_owned()
            + r#""c":{"kind":"int64","value":-5},"d":{"kind":"uint128","value":"7"},"#
            + r#""e":{"kind":"float32","value":1.5},"f":{"kind":"float64","value":"NaN"},"#
            + r#""g":{"kind":"raw","value":"0a"}}"#;
        assert_eq!(json, expected);
    }
}
