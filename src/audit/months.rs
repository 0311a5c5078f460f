//! The parts of the trail: partitions by the months of their rows' ids ([ADR 33](../../docs/adr/0033-the-trail-by-months.md)).

use std::ops::Range;

use time::OffsetDateTime;
use uuid::Uuid;

use super::store::first_id_at;
use crate::database::Conn;

/// A part of the trail.
#[derive(Clone, Debug)]
pub struct Month {
    /// Its name: `2026_12`, or `before` for what was there before the trail was divided.
    pub name: String,
    begins_at: OffsetDateTime,
    /// The end, exclusive, in UTC.
    pub ends_at: OffsetDateTime,
}

impl Month {
    /// Returns the range of the ids in it.
    pub(super) fn ids(&self) -> Range<Uuid> {
        first_id_at(self.begins_at)..first_id_at(self.ends_at)
    }
}

/// Adds the parts for this month and the two after it, if they are missing; returns how many were.
///
/// # Errors
/// The database's errors; among them a lock that was not to be had within a second, after which the next round tries again.
pub async fn prepare_months(conn: &mut Conn) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"-- name: prepare_audit_months
           SELECT audit_prepare_months() AS "it!""#
    )
    .fetch_one(conn)
    .await
}

/// Returns the parts that are there and ended `months` months ago or earlier, oldest first.
///
/// # Errors
/// The database's errors.
pub async fn due_months(conn: &mut Conn, months: u32) -> sqlx::Result<Vec<Month>> {
    let months = i32::try_from(months).unwrap_or(i32::MAX);
    sqlx::query_as!(
        Month,
        "SELECT name, begins_at, ends_at FROM audit_months
         WHERE dropped_at IS NULL
           AND (ends_at AT TIME ZONE 'UTC') + make_interval(months => $1) <= strongroom_now() AT TIME ZONE 'UTC'
         ORDER BY ends_at",
        months,
    )
    .fetch_all(conn)
    .await
}
