//! The fields of forms and of query strings, as browsers send them.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::parts::encoded;

/// The longest text of a field that narrows a list, in bytes.
pub const MAX_TEXT: usize = 256;

/// Returns a field that narrows a list without the white space around it; `None` if it is empty, as forms send those that
/// were left out, or too long.
pub fn given(field: &str) -> Option<&str> {
    let field = field.trim();
    (!field.is_empty() && field.len() <= MAX_TEXT).then_some(field)
}

/// Reads a time in UTC as `datetime-local` writes it.
pub fn local(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc)
}

/// Reads a time as RFC 3339 has it, or in UTC as `datetime-local` writes it.
pub fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| local(text))
}

/// Returns the query string of the fields that are not empty.
pub fn query_string(fields: &[(&str, &str)]) -> String {
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_is_read_in_both_forms_and_the_browsers_own_is_utc() {
        let at = datetime!(2026-11-27 03:04 UTC);
        assert_eq!(moment("2026-11-27T03:04"), Some(at));
        assert_eq!(moment("2026-11-27T04:04:00+01:00"), Some(at));
        assert_eq!(local("2026-11-27T04:04:00+01:00"), None);
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn a_query_string_has_the_fields_that_say_something() {
        assert_eq!(
            query_string(&[("text", "a&b"), ("user", ""), ("cursor", "7")]),
            "text=a%26b&cursor=7"
        );
    }
}
