//! JSON objects written by other services, of which only some members matter: whatever the other members hold,
//! and however badly they are written, must not make those unreadable.
//!
//! An answer may begin with a byte order mark, contain bytes that are not UTF-8, raw control characters or
//! unpaired surrogates in strings, repeat a member, nest arbitrarily deep, hold values of unexpected types, be
//! followed by other text, or break off. The caller decides what may be read from an object that is not
//! [`whole`](Object::is_whole).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Decodes a body: UTF-8 or UTF-16, without its byte order mark. Invalid sequences, and control characters
/// within JSON strings, become U+FFFD.
#[must_use]
pub fn text(body: &[u8]) -> Zeroizing<String> {
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [first, 0, ..] if *first != 0 => utf16(body, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf16(body, u16::from_be_bytes),
        body => utf8(body),
    };
    without_controls(Zeroizing::new(text))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| Some(unit(pair.try_into().ok()?)));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Replaces control characters inside strings, where RFC 8259 §7 forbids them.
fn without_controls(text: Zeroizing<String>) -> Zeroizing<String> {
    if !text.bytes().any(|byte| byte < 0x20) {
        return text;
    }
    let (mut inside, mut escaped) = (false, false);
    let replaced = text.chars().map(|c| {
        let quote = c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        inside ^= quote;
        if inside && c.is_ascii_control() { char::REPLACEMENT_CHARACTER } else { c }
    });
    Zeroizing::new(replaced.collect())
}

/// Returns whether a body is one complete JSON object, whatever follows it.
#[must_use]
pub fn is_object(body: &[u8]) -> bool {
    Object::read(&text(body), &[]).is_some_and(|object| object.is_closed())
}

/// An object of which only the requested members are known.
#[derive(Debug)]
pub struct Object<'a> {
    members: Vec<(&'static str, &'a RawValue)>,
    closed: bool,
    whole: bool,
}

impl<'a> Object<'a> {
    /// Reads the object at the beginning of `text`, as far as possible; returns `None` if there is none.
    #[must_use]
    pub fn read(text: &'a str, names: &[&'static str]) -> Option<Self> {
        let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '\0']);
        if !text.starts_with('{') {
            return None;
        }
        let mut members = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_map(Members { names, found: &mut members });
        let closed = read.is_ok();
        let whole = closed && deserializer.end().is_ok();
        Some(Self { members, closed, whole })
    }

    /// Returns whether the closing brace was found.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether the closing brace was found and nothing follows it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        self.members.iter().filter(move |(found, _)| *found == name).map(|(_, value)| *value)
    }

    /// Returns a member's raw value: of several, the last, as most parsers do (RFC 8259 §4).
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.all(name).last().map(RawValue::get)
    }

    /// Returns a string member in which no character was replaced.
    #[must_use]
    pub fn exact(&self, name: &str) -> Option<String> {
        let text: String = serde_json::from_str(self.raw(name)?).ok()?;
        (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(text)
    }

    /// Returns a string member in which no character was replaced, or a number, as text.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<String> {
        let raw = self.raw(name)?;
        let number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if number { Some(raw.to_owned()) } else { self.exact(name) }
    }

    /// Returns a member as text: a string's content, or another value's JSON; `None` for `null`.
    #[must_use]
    pub fn words(&self, name: &str) -> Option<String> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()))
    }

    /// Returns a boolean member, also written as a string or as 1 and 0; `None` if it occurs several times with
    /// different values.
    #[must_use]
    pub fn yes(&self, name: &str) -> Option<bool> {
        let mut said = self.all(name).map(|value| yes(value.get()));
        let first = said.next()?;
        if said.all(|other| other == first) { first } else { None }
    }
}

fn yes(raw: &str) -> Option<bool> {
    match raw.trim_matches('"').trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Collects members one by one, so that an object that breaks off yields those before.
struct Members<'n, 'a> {
    names: &'n [&'static str],
    found: &'n mut Vec<(&'static str, &'a RawValue)>,
}

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name(self.names))? {
            match name {
                Some(name) => self.found.push((name, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
            if self.found.len() > MOST_MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
        }
        Ok(())
    }
}

/// The most occurrences of requested members, counted over all of them.
const MOST_MEMBERS: usize = 64;

/// The name of a member, if it was requested. Read as bytes, because unpaired surrogates are not text.
struct Name<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|name| name.as_bytes() == bytes).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["success", "accessToken", "tokenID"];

    fn token(body: &[u8]) -> Option<String> {
        Object::read(&text(body), &NAMES)?.exact("accessToken")
    }

    #[test]
    fn a_member_that_counts_survives_whatever_stands_around_it() {
        let deep = format!(r#"{{"x":{}{},"accessToken":"t"}}"#, "[".repeat(9000), "]".repeat(9000));
        let huge = format!(r#"{{"x":"{}","accessToken":"t"}}"#, "y".repeat(200_000));
        for body in [
            br#"{"accessToken":"t"}"#.as_slice(),
            b"\xef\xbb\xbf \r\n{\"accessToken\":\"t\"}\n",
            b"{\"msg\":\"caf\xe9\",\"accessToken\":\"t\"}",
            b"{\"m\xffg\":1,\"accessToken\":\"t\"}",
            b"{\"msg\":\"a\nb\0\t\",\"accessToken\":\"t\"}",
            br#"{"msg":"\ud800","\udc00":1,"accessToken":"t"}"#,
            br#"{"msg":"a\\\" \\","accessToken":"t"}"#,
            br#"{"x":1,"x":2,"accessToken":"s","accessToken":"t"}"#,
            br#"{"accessToken":"t","x":1e999999,"y":[{}]}"#,
            br#"{"accessToken":"t"} and more"#,
            br#"{"accessToken":"t","x":NaN}"#,
            br#"{"accessToken":"t","x":"#,
            deep.as_bytes(),
            huge.as_bytes(),
        ] {
            assert_eq!(token(body).as_deref(), Some("t"), "{}", String::from_utf8_lossy(body));
        }
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let units = "{\"accessToken\":\"t\"}".encode_utf16().flat_map(unit);
            assert_eq!(token(&units.collect::<Vec<_>>()).as_deref(), Some("t"));
            let units = "\u{feff}{\"accessToken\":\"t\"}".encode_utf16().flat_map(unit);
            assert_eq!(token(&units.collect::<Vec<_>>()).as_deref(), Some("t"));
        }
    }

    #[test]
    fn a_member_that_is_not_exact_is_none() {
        for body in [
            b"{\"accessToken\":\"t\xff\"}".as_slice(),
            b"{\"accessToken\":\"t\n\"}",
            br#"{"accessToken":"t\ud800"}"#,
            br#"{"accessToken":"t"#,
            br#"{"accessToken":7}"#,
            br#"{"accessToken":["t"]}"#,
            br#"{"data":{"accessToken":"t"}}"#,
            br#"[{"accessToken":"t"}]"#,
            br#"[true,"t"]"#,
            br#""accessToken""#,
            b"",
            b"\0",
            b"\xff\xfe",
        ] {
            assert_eq!(token(body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn yes_and_no_are_read_in_every_spelling_and_not_where_they_disagree() {
        let yes = |json: &str| Object::read(json, &NAMES).unwrap().yes("success");
        for json in [r#"{"success":true}"#, r#"{"success":"True"}"#, r#"{"success": 1}"#] {
            assert_eq!(yes(json), Some(true), "{json}");
        }
        for json in [r#"{"success":false,"success":false}"#, r#"{"success":"0"}"#] {
            assert_eq!(yes(json), Some(false), "{json}");
        }
        for json in [
            "{}",
            r#"{"success":null}"#,
            r#"{"success":"yes"}"#,
            r#"{"success":[true]}"#,
            r#"{"success":true,"success":false}"#,
        ] {
            assert_eq!(yes(json), None, "{json}");
        }
    }

    #[test]
    fn it_is_told_how_far_an_object_went() {
        let read = |json: &str| {
            let object = Object::read(json, &NAMES).unwrap();
            (object.is_closed(), object.is_whole())
        };
        assert_eq!(read("{} \n"), (true, true));
        assert_eq!(read("{} x"), (true, false));
        assert_eq!(read(r#"{"success":true"#), (false, false));
    }

    #[test]
    fn an_id_may_be_a_number() {
        let id = |json: &str| Object::read(json, &NAMES).unwrap().id("tokenID");
        assert_eq!(id(r#"{"tokenID":42}"#).as_deref(), Some("42"));
        assert_eq!(id(r#"{"tokenID":"a"}"#).as_deref(), Some("a"));
        assert_eq!(id(r#"{"tokenID":null}"#), None);
        assert_eq!(id(r#"{"tokenID":{"x":1}}"#), None);
    }
}
