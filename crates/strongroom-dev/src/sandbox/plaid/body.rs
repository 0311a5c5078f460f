//! Reads the fields of a request to Plaid: a missing one is `MISSING_FIELDS`, an invalid one `INVALID_FIELD`, an
//! unknown one is ignored.
//!
//! May import: answer.

use serde_json::{Value, json};
use time::Date;
use time::macros::format_description;

use super::answer::{Fields, Refusal, reason};

/// The longest body that the journal keeps, in bytes.
const LONGEST_KEPT: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a>(&'a Fields);

impl<'a> Body<'a> {
    pub(super) fn new(fields: &'a Fields) -> Self {
        Self(fields)
    }

    fn given(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text_if_given(self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    pub(super) fn text(self, name: &str) -> Result<&'a str, Refusal> {
        match self.text_if_given(name)? {
            None => Err(missing(name)),
            Some("") => Err(wrong(name, "a non-empty string")),
            Some(text) => Ok(text),
        }
    }

    /// Returns a day in the form `2024-05-31`.
    pub(super) fn day(self, name: &str) -> Result<Date, Refusal> {
        let form = format_description!("[year]-[month]-[day]");
        Date::parse(self.text(name)?, form).map_err(|_| wrong(name, "a date as YYYY-MM-DD"))
    }

    /// Returns a whole number from `from` to `to`; `default` if it is absent.
    pub(super) fn number(
        self,
        name: &str,
        from: usize,
        to: usize,
        default: usize,
    ) -> Result<usize, Refusal> {
        let Some(value) = self.given(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| (from..=to).contains(number))
            .ok_or_else(|| wrong(name, &format!("an integer from {from} to {to}")))
    }

    /// Returns a list of strings; `None` if it is absent.
    pub(super) fn texts(self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.given(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.map(Some).ok_or_else(|| wrong(name, "a list of strings"))
    }

    /// Returns a list of strings that is not empty.
    pub(super) fn some_texts(self, name: &str) -> Result<Vec<String>, Refusal> {
        match self.texts(name)? {
            None => Err(missing(name)),
            Some(texts) if texts.is_empty() => Err(wrong(name, "a list that is not empty")),
            Some(texts) => Ok(texts),
        }
    }

    pub(super) fn object_if_given(self, name: &str) -> Result<Option<Body<'a>>, Refusal> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Body(fields))),
            Some(_) => Err(wrong(name, "an object")),
        }
    }

    pub(super) fn object(self, name: &str) -> Result<Body<'a>, Refusal> {
        self.object_if_given(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn value(self, name: &str) -> Value {
        self.given(name).cloned().unwrap_or(Value::Null)
    }

    /// Returns the fields for the journal with the secrets replaced; `None` if they are too long.
    pub(super) fn without_secrets(self) -> Option<Value> {
        let mut kept = self.0.clone();
        for name in ["secret", "access_token", "public_token", "link_token"] {
            if let Some(value) = kept.get_mut(name) {
                *value = json!("(secret)");
            }
        }
        let kept = Value::Object(kept);
        (kept.to_string().len() <= LONGEST_KEPT).then_some(kept)
    }
}

/// Parses the fields of a JSON body.
pub(super) fn parse(body: &[u8]) -> Result<Fields, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(reason::INVALID_BODY.because("body must be a JSON object")),
        Err(_) => Err(reason::INVALID_BODY.because("body could not be parsed as JSON")),
    }
}

pub(super) fn missing(name: &str) -> Refusal {
    reason::MISSING_FIELDS.because(format!("the following required fields are missing: {name}"))
}

pub(super) fn wrong(name: &str, wanted: &str) -> Refusal {
    reason::INVALID_FIELD.because(format!("{name} must be {wanted}"))
}
