//! Connections as they were when an event was written, from the columns that its trigger kept.

use serde::{Deserialize, Deserializer};
use time::serde::rfc3339;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use super::view::Row;
use crate::connections::model::Connection;

/// Converts a snapshot of the view's columns, which is JSON, by the conversion that `GET` uses. Returns `None` for what is
/// not a snapshot of the connection with this id.
#[must_use]
pub fn connection(id: Uuid, snapshot: &str) -> Option<Connection> {
    let row: Row = serde_json::from_str(snapshot).ok()?;
    if row.id.uuid() == id { Connection::try_from(row).ok() } else { None }
}

/// Reads an id as PostgreSQL writes it: without the prefix that it has for callers.
pub(super) fn id<'de, D: Deserializer<'de>, T: From<Uuid>>(json: D) -> Result<T, D::Error> {
    Uuid::deserialize(json).map(T::from)
}

/// Reads such an id, or null.
pub(super) fn optional_id<'de, D: Deserializer<'de>, T: From<Uuid>>(
    json: D,
) -> Result<Option<T>, D::Error> {
    Option::<Uuid>::deserialize(json).map(|id| id.map(T::from))
}

/// Reads a time as PostgreSQL writes it, in the time zone of the session that wrote it.
pub(super) fn time<'de, D: Deserializer<'de>>(json: D) -> Result<OffsetDateTime, D::Error> {
    rfc3339::deserialize(json).map(|time| time.to_offset(UtcOffset::UTC))
}

/// Reads such a time, or null.
pub(super) fn optional_time<'de, D: Deserializer<'de>>(
    json: D,
) -> Result<Option<OffsetDateTime>, D::Error> {
    let time = rfc3339::option::deserialize(json)?;
    Ok(time.map(|time| time.to_offset(UtcOffset::UTC)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn snapshot() -> Value {
        json!({
            "app_id": Uuid::nil(), "id": ID, "status": "active", "client_user_id": "user-1", "provider": "dapi",
            "login_id": "login-1", "created_at": "2026-11-20T10:00:00.123456+02:00", "activated_at": null,
            "revocation_attempts": 0,
        })
    }

    #[test]
    fn a_time_is_that_of_the_row_in_whatever_time_zone_the_snapshot_was_taken() {
        let found = connection(ID, &snapshot().to_string()).unwrap();
        assert_eq!(found.created_at, datetime!(2026-11-20 08:00:00.123456 UTC));
        assert_eq!(found.created_at.offset(), UtcOffset::UTC);
    }

    #[test]
    fn a_column_that_an_earlier_release_did_not_keep_is_absent() {
        assert!(connection(ID, &snapshot().to_string()).unwrap().duplicate_of.is_none());
    }

    #[test]
    fn what_is_not_a_snapshot_of_the_connection_is_none_of_it() {
        assert!(connection(Uuid::nil(), &snapshot().to_string()).is_none());
        for other in ["null", "{}", "[]", "7", ""] {
            assert!(connection(ID, other).is_none(), "{other}");
        }
    }
}
