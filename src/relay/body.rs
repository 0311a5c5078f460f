//! The body of a request: a JSON object whose fields are passed on byte by byte, so that numbers keep their digits.

use std::fmt;

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::http::problem::{Problem, ProblemCode};
use crate::providers::{Field, Provider, UserSecret};

/// The fields of a request's JSON object, in their order, with unparsed values.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<Field>);

/// Returns the fields that only Strongroom fills, folded.
const fn reserved(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Dapi => &["appsecret", "usersecret"],
        Provider::Plaid => &["accesstoken", "clientid", "secret"],
    }
}

impl Fields {
    /// Parses a JSON object.
    ///
    /// # Errors
    /// `invalid_request` if the bytes are not a JSON object, or if it has a field twice: Strongroom and Dapi might not
    /// agree on which one counts (RFC 8259 §4).
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::invalid_field("body", "must be a JSON object"));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let fields = deserializer.deserialize_map(Object);
        let fields = fields.and_then(|fields| deserializer.end().map(|()| fields));
        fields.map(Self).map_err(|error| {
            let detail = if error.is_data() {
                "The body gives a field twice.".to_owned()
            } else {
                format!("The body is not JSON: line {}, column {}.", error.line(), error.column())
            };
            Problem::new(ProblemCode::InvalidRequest, detail)
        })
    }

    /// Returns the value of a field, unless it is `null`.
    pub(super) fn value(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(field, _)| field == name)?;
        (value.get() != "null").then_some(value)
    }

    /// Returns the value of a field, if it is a string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.value(name)?.get()).ok()
    }

    /// Sets a field to a value, in the place of the one that it had.
    ///
    /// # Errors
    /// If the value has no JSON.
    pub(super) fn set(&mut self, name: &str, value: &impl Serialize) -> serde_json::Result<()> {
        let value = serde_json::value::to_raw_value(value)?;
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name.to_owned(), value)),
        }
        Ok(())
    }

    /// Removes a field.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }

    /// Returns the user secret that the request brought, if it is a string that is not empty.
    pub(super) fn user_secret(&self) -> Option<UserSecret> {
        self.text("userSecret").filter(|text| !text.is_empty()).map(UserSecret::new)
    }

    /// Returns the fields to pass on: all except the reserved ones, in any spelling, because the provider may ignore
    /// case. With `app_key`, `appKey` is reserved as well.
    pub(super) fn passed(self, provider: Provider, app_key: bool) -> Vec<Field> {
        let is_reserved = |name: &str| {
            let folded = fold(name);
            reserved(provider).contains(&folded.as_str()) || (app_key && folded == "appkey")
        };
        self.0.into_iter().filter(|(name, _)| !is_reserved(name)).collect()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Folds a name like JSON parsers that ignore case and the style in which words are joined. Go's also folds the long s
/// (U+017F) and the Kelvin sign (U+212A).
fn fold(name: &str) -> String {
    let plain = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(plain).collect()
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Vec<Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Field>, A::Error> {
        let mut fields: Vec<Field> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a field is given twice"));
            }
            if fields.len() == MAX_FIELDS {
                return Err(A::Error::custom("too many fields"));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// The providers' calls have a dozen. The limit bounds the search for duplicates, which is quadratic.
const MAX_FIELDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(json: &str) -> Vec<(String, String)> {
        passed_to(Provider::Dapi, json)
    }

    fn passed_to(provider: Provider, json: &str) -> Vec<(String, String)> {
        let fields = Fields::read(json.as_bytes()).unwrap().passed(provider, false);
        fields.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
    }

    #[test]
    fn fields_are_passed_on_byte_by_byte() {
        let json = r#" {"amount": 12.50, "big": 123456789012345678901234567890, "a": [1e400, {"x":null}]} "#;
        let expected = [
            ("amount", "12.50"),
            ("big", "123456789012345678901234567890"),
            ("a", r#"[1e400, {"x":null}]"#),
        ];
        assert_eq!(passed(json), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn reserved_fields_are_left_out_in_any_spelling() {
        let json = r#"{"APPSECRET":2,"app\u0053ecret":"x","uſerSecret":3,"userSecret":4,"x":5}"#;
        assert_eq!(passed(json), [("x".to_owned(), "5".to_owned())]);
        let fields = Fields::read(br#"{"appKey":"k","x":1}"#).unwrap();
        assert_eq!(fields.passed(Provider::Dapi, true).len(), 1);
        let json = r#"{"access_token":1,"accessToken":2,"ACCESS\u005fTOKEN":3,"acceſs-token":4,"client_id":5,
                       "Client-ID":6,"secret":7,"\u0053ECRET":8,"x":9,"user":{"secret":1},"client_name":"n"}"#;
        let left: Vec<_> =
            passed_to(Provider::Plaid, json).into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["x", "user", "client_name"]);
    }

    #[test]
    fn a_field_is_set_in_its_place_and_null_counts_as_absent() {
        let mut fields = Fields::read(br#"{"a":null,"b":1.50}"#).unwrap();
        assert!(fields.value("a").is_none() && fields.value("c").is_none());
        fields.set("a", &"x").unwrap();
        fields.set("c", &"y").unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"a":"x","b":1.50,"c":"y"}"#);
        fields.remove("b");
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"a":"x","c":"y"}"#);
    }

    #[test]
    fn a_body_that_is_no_object_or_has_a_field_twice_is_refused() {
        let deep = format!("{{\"x\": {}", "[".repeat(100_000));
        for json in ["", "[]", "1", "{", "{}x", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, &deep]
        {
            let problem = Fields::read(json.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), ProblemCode::InvalidRequest);
        }
        assert!(Fields::read(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn a_user_secret_is_read_if_it_is_a_string() {
        let secret = |json: &str| Fields::read(json.as_bytes()).unwrap().user_secret();
        assert_eq!(secret(r#"{"userSecret":"s"}"#).unwrap().expose(), "s");
        assert!(
            secret(r#"{"userSecret":""}"#).is_none() && secret(r#"{"userSecret":7}"#).is_none()
        );
    }
}
