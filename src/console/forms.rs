//! Forms that cannot be used come back as they were filled in, with what is wrong said above them and at the field.

use maud::{Markup, html};

use super::parts::{Notice, notice};
use crate::common::text;
use crate::connections::input::MAX_REASON;

/// What is wrong with a form: the field, and how. The form is shown again with what was filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field's name and id.
    pub field: &'static str,
    /// What the form calls it.
    pub label: &'static str,
    /// What to change.
    pub what: String,
}

impl Invalid {
    /// Says what is wrong with a field.
    pub fn new(field: &'static str, label: &'static str, what: impl std::fmt::Display) -> Self {
        Self { field, label, what: what.to_string() }
    }
}

/// Returns the reason of what cannot be undone, without the white space around it.
pub fn reason(text: &str) -> Result<&str, Invalid> {
    let reason = text.trim();
    let checked = text::check(reason, MAX_REASON);
    checked.map_err(|what| Invalid::new("reason", "Reason", what)).map(|()| reason)
}

/// Says above a form what is wrong with it, with the way to the field.
pub fn refused(title: &str, invalid: &Invalid) -> Markup {
    notice(
        Notice::Danger,
        title,
        &html! { p { a href={ "#" (invalid.field) } { (invalid.label) } ": " (invalid.what) } },
    )
}

/// How a field is marked: whether it is wrong, and what describes it.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The value of `aria-invalid`.
    pub invalid: Option<&'static str>,
    /// The value of `aria-describedby`.
    pub described_by: Option<String>,
    /// What stands below the field.
    pub error: Markup,
}

impl Marks {
    /// Returns how this field is marked, which has the help text `help` if it has one.
    pub fn of(invalid: Option<&Invalid>, field: &str, help: Option<&str>) -> Self {
        let Some(invalid) = invalid.filter(|invalid| invalid.field == field) else {
            return Self { described_by: help.map(str::to_owned), ..Self::default() };
        };
        let error = format!("{field}-error");
        let described_by = help.map_or_else(|| error.clone(), |help| format!("{error} {help}"));
        Self {
            invalid: Some("true"),
            described_by: Some(described_by),
            error: html! { p.error id=(error) { (invalid.what) } },
        }
    }
}

/// Returns the field for the reason of what cannot be undone, with what was typed.
#[must_use]
pub fn reason_field(value: &str, invalid: Option<&Invalid>) -> Markup {
    let marks = Marks::of(invalid, "reason", Some("reason-help"));
    html! {
        div.field {
            label for="reason" { "Reason" }
            input id="reason" name="reason" required maxlength=(MAX_REASON) autocomplete="off" value=(value)
                aria-invalid=[marks.invalid] aria-describedby=[&marks.described_by];
            (marks.error)
            p.help id="reason-help" { "It stays in the trail. No names, no account numbers." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_described_by_its_error_and_its_help_and_no_other_is() {
        let invalid = reason("   ").unwrap_err();
        let marks = Marks::of(Some(&invalid), "reason", Some("reason-help"));
        assert_eq!(marks.invalid, Some("true"));
        assert_eq!(marks.described_by.as_deref(), Some("reason-error reason-help"));
        assert!(marks.error.into_string().contains("id=\"reason-error\""));
        let other = Marks::of(Some(&invalid), "rate", Some("rate-help"));
        assert_eq!((other.invalid, other.described_by.as_deref()), (None, Some("rate-help")));
        assert!(other.error.into_string().is_empty());
    }

    #[test]
    fn a_reason_is_taken_without_the_space_around_it() {
        assert_eq!(reason(" stolen "), Ok("stolen"));
        assert!(reason(&"x".repeat(MAX_REASON + 1)).is_err());
    }
}
