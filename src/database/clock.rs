//! The database's clock, by which everything is decided that replicas have to agree on.

use time::OffsetDateTime;

use super::Conn;

/// Returns the time by the database's clock.
///
/// # Errors
/// Returns the database's error.
pub async fn now(conn: &mut Conn) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar!(r#"SELECT strongroom_now() AS "it!""#).fetch_one(conn).await
}
