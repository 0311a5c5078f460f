//! Reads the fields of a request to Dapi: a missing one is `PARAMETER_MISSING`, an invalid one
//! `PARAMETER_ERROR`, an unknown one is ignored.
//!
//! May import: answer.

use serde_json::Value;
use time::Date;
use time::macros::format_description;

use super::answer::{Fields, Refusal, reason};

#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a>(&'a Fields);

impl<'a> Body<'a> {
    pub(super) fn new(fields: &'a Fields) -> Self {
        Self(fields)
    }

    /// Returns the value, unless it is absent or empty: SDKs send `null`, `""` and `[]` for absent.
    fn given(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        })
    }

    pub(super) fn text(self, name: &str) -> Result<&'a str, Refusal> {
        self.text_if_given(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn text_if_given(self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    /// Returns a positive amount of money.
    pub(super) fn amount(self) -> Result<f64, Refusal> {
        let value = self.given("amount").ok_or_else(|| missing("amount"))?;
        match value.as_f64() {
            Some(amount) if amount > 0.0 => Ok(amount),
            _ => Err(wrong("amount", "a number above zero")),
        }
    }

    /// Returns a day in the form `2024-05-31`.
    pub(super) fn day(self, name: &str) -> Result<Date, Refusal> {
        let form = format_description!("[year]-[month]-[day]");
        Date::parse(self.text(name)?, form).map_err(|_| wrong(name, "a date as YYYY-MM-DD"))
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

    /// Returns the objects of a list; none if it is absent.
    pub(super) fn objects(self, name: &str) -> Result<Vec<Body<'a>>, Refusal> {
        let Some(value) = self.given(name) else {
            return Ok(Vec::new());
        };
        let objects = value.as_array().and_then(|items| {
            let bodies = items.iter().map(|item| item.as_object().map(Body));
            bodies.collect::<Option<Vec<_>>>()
        });
        objects.ok_or_else(|| wrong(name, "a list of objects"))
    }
}

pub(super) fn missing(name: &str) -> Refusal {
    reason::PARAMETER_MISSING.because(format!("{name} is missing"))
}

fn wrong(name: &str, wanted: &str) -> Refusal {
    reason::PARAMETER_ERROR.because(format!("{name} has to be {wanted}"))
}
