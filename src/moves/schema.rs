//! The shape of the database: an app moves between databases of the same migrations alone.

use super::MoveError;
use super::folder::sha256;
use crate::database::Conn;

/// Returns a digest of the migrations that were applied.
pub(super) async fn digest(conn: &mut Conn) -> Result<String, MoveError> {
    // Not checked at build time: the migrator, which makes this table, is no part of the schema.
    let text: String = sqlx::query_scalar(
        "SELECT string_agg(version || ' ' || encode(checksum, 'hex'), ',' ORDER BY version) FROM _sqlx_migrations",
    )
    .fetch_one(conn)
    .await?;
    Ok(sha256(&text))
}

/// Returns a table's columns as a list for SQL, without those that are left out.
pub(super) async fn columns(
    conn: &mut Conn,
    table: &str,
    omitted: &[&str],
) -> Result<String, MoveError> {
    let omitted: Vec<_> = omitted.iter().map(|name| (*name).to_owned()).collect();
    let columns = sqlx::query_scalar!(
        r#"SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS "list!" FROM pg_attribute
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attname <> ALL ($2::text[])"#,
        table,
        &omitted,
    )
    .fetch_one(conn)
    .await?;
    Ok(columns)
}
