//! What hangs on each master key, for operators; and whether a copy of a key is the right one.

use time::OffsetDateTime;

use super::VaultError;
use super::keys::{KeyOwner, MasterKeyId, OtherKey, WrappedKey};
use super::master::MasterKey;
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::database::Conn;

/// A master key that the database knows.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownMasterKey {
    /// The key's name.
    pub id: MasterKeyId,
    /// When it was recorded, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// The data keys of one purpose under one master key.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyGroup {
    /// The master key.
    #[serde(skip)]
    pub master_key: MasterKeyId,
    /// Whose they are: `service`, `code_hash`, `secret_hash`, `app` or `user`.
    pub purpose: String,
    /// How many.
    pub count: i64,
    /// When the oldest was made.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest: OffsetDateTime,
    /// When the newest was made.
    #[serde(with = "time::serde::rfc3339")]
    pub newest: OffsetDateTime,
    /// How many values are sealed under them now.
    pub seals: i64,
    /// How many of these at most are under one data key.
    pub most_seals: i64,
    /// How many of the keys are being rotated: they have a former key or a next one beside them.
    pub rotating: i64,
    /// How many values are sealed under former keys still.
    pub former_seals: i64,
    /// Since when the oldest of these rotations waits for its next step.
    #[serde(with = "time::serde::rfc3339::option")]
    pub rotating_since: Option<OffsetDateTime>,
}

/// Returns every recorded master key, the oldest first.
pub async fn known_masters(conn: &mut Conn) -> sqlx::Result<Vec<KnownMasterKey>> {
    sqlx::query_as!(
        KnownMasterKey,
        r#"SELECT id AS "id: MasterKeyId", created_at FROM master_keys ORDER BY created_at, id"#,
    )
    .fetch_all(conn)
    .await
}

/// Returns the data keys by master key and purpose, with the values that are sealed under them. Reads every sealed value's
/// head: a command's work, not a request's.
pub async fn data_key_groups(conn: &mut Conn) -> sqlx::Result<Vec<DataKeyGroup>> {
    sqlx::query_as!(
        DataKeyGroup,
        r#"-- name: data_key_groups
         WITH counted AS (
            SELECT sealing_key(value) AS key, count(*) AS seals FROM (
                SELECT value FROM sealed_values UNION ALL SELECT private_key FROM signing_keys) v
            WHERE value IS NOT NULL GROUP BY 1)
         SELECT d.master_key_id AS "master_key: MasterKeyId", d.purpose, count(*) AS "count!",
                min(d.created_at) AS "oldest!", max(d.created_at) AS "newest!",
                coalesce(sum(c.seals), 0)::bigint AS "seals!", coalesce(max(c.seals), 0) AS "most_seals!",
                count(d.rotation) AS "rotating!",
                coalesce(sum(f.seals) FILTER (WHERE d.rotation = 'switched'), 0)::bigint AS "former_seals!",
                min(d.rotation_at) AS "rotating_since: _"
         FROM data_keys d
         LEFT JOIN counted c ON c.key = d.id
         LEFT JOIN counted f ON f.key = d.other_id
         GROUP BY d.master_key_id, d.purpose ORDER BY d.master_key_id, d.purpose"#,
    )
    .fetch_all(conn)
    .await
}

/// About how much is sealed, and whether data keys rotate.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// About how many values are sealed under data keys, of every app.
    pub values: i64,
    /// About how many data keys master keys wrap.
    pub data_keys: i64,
    /// Since when a rotation of a data key waits for its next step: the longest of a thousand of them.
    pub rotating_since: Option<OffsetDateTime>,
}

/// Returns about how much is sealed, without reading any of it: from what PostgreSQL knows of the sizes of its tables, and never
/// less than the last `ANALYZE` found. However much there is, it takes the same time.
///
/// # Errors
/// The database's.
pub async fn estimate(conn: &mut Conn) -> sqlx::Result<Estimate> {
    sqlx::query_as!(
        Estimate,
        r#"-- name: estimate_sealed_values
         WITH
         -- Where the values are, as the view has it: a column is one value of a row, or none.
         sealed AS (
            SELECT DISTINCT d.refobjid AS oid, d.refobjsubid
            FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                AND d.refclassid = 'pg_class'::regclass
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE r.ev_class = 'sealed_values'::regclass AND a.atttypid = 'bytea'::regtype),
         -- A table that was never analysed has as many rows as fit in: one with a value is longer than 64 bytes.
         sizes AS (
            SELECT c.oid, CASE WHEN c.reltuples < 0 THEN pg_relation_size(c.oid) / 64.0 ELSE c.reltuples END AS tuples
            FROM pg_class c WHERE c.oid = 'data_keys'::regclass OR c.oid IN (SELECT oid FROM sealed))
         SELECT (SELECT coalesce(sum(s.tuples), 0)::bigint FROM sealed JOIN sizes s USING (oid)) AS "values!",
                (SELECT tuples::bigint FROM sizes WHERE oid = 'data_keys'::regclass) AS "data_keys!",
                (SELECT min(k.rotation_at) FROM (
                    SELECT rotation_at FROM data_keys WHERE other_id IS NOT NULL ORDER BY other_id LIMIT 1000) k) AS "rotating_since: _""#,
    )
    .fetch_one(conn)
    .await
}

/// What a trial of a key against the database found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The database knows no master key of this name.
    Unknown,
    /// The key is another than the one that the database knows under this name.
    Another,
    /// The key is the right one, and opened so many data keys, all that were tried.
    Opens(usize),
    /// The key is the right one by its check value, and yet a data key does not open: that row is damaged.
    Damaged(DataKeyId),
}

/// Tries a key: compares its check value, and opens up to `limit` data keys that it wraps, the oldest and the newest.
///
/// # Errors
/// The database's, and an outage of a key that is elsewhere.
pub async fn try_key(conn: &mut Conn, key: &MasterKey, limit: i64) -> Result<Trial, VaultError> {
    let known =
        sqlx::query_scalar!("SELECT check_value FROM master_keys WHERE id = $1", key.id().as_str())
            .fetch_optional(&mut *conn)
            .await?;
    match known {
        None => return Ok(Trial::Unknown),
        Some(known) if known != key.check_value() => return Ok(Trial::Another),
        Some(_) => {}
    }
    let samples = samples(conn, key.id(), limit).await?;
    for wrapped in &samples {
        for wrapped in std::iter::once(wrapped.clone()).chain(wrapped.other()) {
            match key.open(&wrapped).await {
                Ok(_) => {}
                Err(VaultError::DoesNotOpen) => return Ok(Trial::Damaged(wrapped.id)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Trial::Opens(samples.len()))
}

async fn samples(
    conn: &mut Conn,
    id: &MasterKeyId,
    limit: i64,
) -> Result<Vec<WrappedKey>, VaultError> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id!: DataKeyId", purpose AS "purpose!", app_id AS "app_id: AppId",
                user_id AS "user_id: UserId", wrapped AS "wrapped!",
                other_id AS "other_id: DataKeyId", other_wrapped
         FROM (
            (SELECT * FROM data_keys WHERE master_key_id = $1 ORDER BY id LIMIT $2)
            UNION
            (SELECT * FROM data_keys WHERE master_key_id = $1 ORDER BY id DESC LIMIT $2)) k"#,
        id.as_str(),
        limit / 2,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let owner = KeyOwner::from_columns(&row.purpose, row.app_id, row.user_id);
            let owner = owner.ok_or(VaultError::DoesNotOpen)?;
            let (master_key_id, wrapped) = (id.clone(), row.wrapped);
            let other = OtherKey::from_columns(row.other_id, row.other_wrapped);
            Ok(WrappedKey { id: row.id, owner, master_key_id, wrapped, other })
        })
        .collect()
}
