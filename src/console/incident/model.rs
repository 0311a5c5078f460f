//! What the form asks for. No I/O.

use serde::Deserialize;
use time::OffsetDateTime;

use crate::common::text;
use crate::connections::bulk_revocation::{DEFAULT_PER_SECOND, MAX_PER_SECOND, RevocationFilter};
use crate::connections::input::MAX_NAME;
use crate::connections::model::RevocationKind;
use crate::console::fields;
use crate::console::forms::{self, Invalid};
use crate::users::check_client_user_id;

/// Users or connections that one form names at most.
pub const MAX_NAMED: usize = 500;

/// The fields of the form. Between the dry run and the order they travel as hidden fields: names of users belong in no URL.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// `delink` or `invalidate`.
    #[serde(default)]
    pub kind: String,
    /// One in a line.
    #[serde(default)]
    pub users: String,
    /// One in a line.
    #[serde(default)]
    pub connections: String,
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub after: String,
    #[serde(default)]
    pub before: String,
    /// `true` for every connection of the app.
    #[serde(default)]
    pub all: String,
    #[serde(default)]
    pub rate: String,
    #[serde(default)]
    pub reason: String,
    /// Makes a form that is sent twice one order.
    #[serde(default)]
    pub key: String,
}

/// Returns what the form calls a field.
fn label(field: &str) -> &'static str {
    match field {
        "kind" => "How",
        "users" => "Users",
        "connections" => "Connections or bank logins",
        "client" => "Handed in by client",
        "after" => "Received at or after",
        "before" => "Received before",
        "rate" => "Delinkings a second, at most",
        _ => "Which",
    }
}

fn invalid(field: &'static str, what: &impl std::fmt::Display) -> Invalid {
    Invalid::new(field, label(field), what)
}

impl Asked {
    /// Returns how connections are revoked.
    pub fn kind(&self) -> Result<RevocationKind, Invalid> {
        RevocationKind::parse(&self.kind).ok_or_else(|| invalid("kind", &"choose one"))
    }

    /// Returns the rate.
    pub fn rate(&self) -> Result<i32, Invalid> {
        let rate = self.rate.trim();
        if rate.is_empty() {
            return Ok(DEFAULT_PER_SECOND);
        }
        let rate = rate.parse().ok().filter(|rate| (1..=MAX_PER_SECOND).contains(rate));
        rate.ok_or_else(|| invalid("rate", &format!("a whole number from 1 to {MAX_PER_SECOND}")))
    }

    /// Returns the reason, which an order needs.
    pub fn reason(&self) -> Result<&str, Invalid> {
        forms::reason(&self.reason)
    }

    /// Returns which connections are meant.
    pub fn filter(&self) -> Result<RevocationFilter, Invalid> {
        let users = lines("users", &self.users)?;
        for user in users.iter().flatten() {
            check_client_user_id(user).map_err(|what| invalid("users", &what))?;
        }
        let connections = lines("connections", &self.connections)?;
        for name in connections.iter().flatten() {
            text::check(name, MAX_NAME).map_err(|what| invalid("connections", &what))?;
        }
        let client = Some(self.client.trim()).filter(|client| !client.is_empty());
        if let Some(client) = client {
            text::check(client, MAX_NAME).map_err(|what| invalid("client", &what))?;
        }
        let matching = RevocationFilter {
            client_user_ids: users,
            connection_ids: connections,
            created_before: moment("before", &self.before)?,
            created_after: moment("after", &self.after)?,
            client_id: client.map(str::to_owned),
            all: self.all == "true",
        };
        matching.check().map_err(|_| {
            invalid(
                "all",
                &"name users, connections, a client or a time, or every connection, and not both",
            )
        })?;
        Ok(matching)
    }
}

fn lines(field: &'static str, text: &str) -> Result<Option<Vec<String>>, Invalid> {
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.len() > MAX_NAMED {
        return Err(invalid(field, &format!("at most {MAX_NAMED} lines; the API takes more")));
    }
    Ok((!lines.is_empty()).then_some(lines))
}

/// Reads a time, if there is one.
fn moment(field: &'static str, text: &str) -> Result<Option<OffsetDateTime>, Invalid> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = fields::moment(text);
    parsed.map(Some).ok_or_else(|| invalid(field, &"a time such as 2026-01-31T12:00"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_form_without_a_filter_means_nothing_rather_than_everything() {
        assert_eq!(Asked::default().filter().map_err(|invalid| invalid.field), Err("all"));
    }

    #[test]
    fn everything_beside_something_narrower_is_refused() {
        let asked = Asked { all: "true".to_owned(), users: "ada".to_owned(), ..Asked::default() };
        assert!(asked.filter().is_err());
    }

    #[test]
    fn times_are_utc_and_empty_lines_are_none() {
        let asked = Asked {
            before: "2026-11-27T12:30".to_owned(),
            users: " ada \n\n bob\n".to_owned(),
            ..Asked::default()
        };
        let filter = asked.filter().unwrap();
        assert_eq!(filter.created_before, Some(datetime!(2026-11-27 12:30 UTC)));
        assert_eq!(filter.client_user_ids, Some(vec!["ada".to_owned(), "bob".to_owned()]));
    }

    #[test]
    fn a_rate_is_in_its_bounds() {
        for (text, rate) in [
            ("", Some(20)),
            ("1", Some(1)),
            ("1000", Some(1000)),
            ("0", None),
            ("1001", None),
            ("x", None),
        ] {
            let asked = Asked { rate: text.to_owned(), ..Asked::default() };
            assert_eq!(asked.rate().ok(), rate, "{text}");
        }
    }
}
