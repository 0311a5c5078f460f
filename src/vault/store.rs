//! The vault's tables: `master_keys` and `data_keys`.

use super::keys::{KeyOwner, MasterKeyId, WrappedKey};
use super::master::MasterKeys;
use super::{Vault, VaultError};
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::database::{Conn, Inconsistent};

/// Compares every master key with the check value in the database, records new ones, and verifies that no
/// key that still wraps something is missing.
pub(super) async fn check_masters(conn: &mut Conn, masters: &MasterKeys) -> Result<(), VaultError> {
    for key in masters.iter() {
        let known = sqlx::query_scalar!(
            r#"-- name: check_master_keys
             WITH added AS (
                -- The outer query's snapshot does not contain this row: one of its branches is empty.
                INSERT INTO master_keys (id, check_value) VALUES ($1, $2)
                ON CONFLICT (id) DO NOTHING
                RETURNING check_value)
            SELECT check_value AS "check_value!" FROM added
            UNION ALL SELECT check_value FROM master_keys WHERE id = $1"#,
            key.id().as_str(),
            key.check_value(),
        )
        .fetch_optional(&mut *conn)
        .await?;
        // `None`: another replica is recording the same key at this moment. Its bytes are the same, or that
        // replica reports the mismatch.
        if known.is_some_and(|value| value != key.check_value()) {
            return Err(VaultError::WrongMasterKey(key.id().clone()));
        }
    }
    let ids: Vec<String> = masters.iter().map(|key| key.id().to_string()).collect();
    let missing = sqlx::query_scalar!(
        r#"SELECT m.id AS "id: MasterKeyId" FROM master_keys m
         WHERE m.id <> ALL ($1) AND EXISTS (SELECT FROM data_keys d WHERE d.master_key_id = m.id)
         ORDER BY m.id LIMIT 1"#,
        &ids,
    )
    .fetch_optional(conn)
    .await?;
    missing.map_or(Ok(()), |id| Err(VaultError::UnknownMasterKey(id)))
}

/// Returns the service's key for one purpose, and creates it if it does not exist. Replicas that start at the
/// same moment agree on one, because the insert keeps the first.
pub(super) async fn service_key(
    conn: &mut Conn,
    masters: &MasterKeys,
    owner: KeyOwner,
) -> Result<WrappedKey, VaultError> {
    if let Some(key) = find_service_key(conn, owner).await? {
        return Ok(key);
    }
    insert_key(conn, &masters.new_key(owner)?).await?;
    find_service_key(conn, owner)
        .await?
        .ok_or_else(|| VaultError::Database(Inconsistent::new("data_keys", owner.purpose()).into()))
}

async fn find_service_key(
    conn: &mut Conn,
    owner: KeyOwner,
) -> Result<Option<WrappedKey>, VaultError> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: DataKeyId", master_key_id AS "master_key_id: MasterKeyId", wrapped
         FROM data_keys WHERE purpose = $1 AND app_id IS NULL"#,
        owner.purpose(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| WrappedKey {
        id: row.id,
        owner,
        master_key_id: row.master_key_id,
        wrapped: row.wrapped,
    }))
}

/// Inserts a wrapped key, unless its owner already has one.
pub async fn insert_key(conn: &mut Conn, key: &WrappedKey) -> Result<(), VaultError> {
    sqlx::query!(
        "INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
        key.id.uuid(),
        key.owner.purpose(),
        key.owner.app().map(AppId::uuid),
        key.owner.user().map(UserId::uuid),
        key.master_key_id.as_str(),
        &key.wrapped,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the data key of an app; `None` if the app does not exist.
pub async fn app_key(conn: &mut Conn, app: AppId) -> sqlx::Result<Option<WrappedKey>> {
    sqlx::query_scalar!(
        r#"SELECT key_of(k) AS "key!: WrappedKey" FROM data_keys k WHERE app_id = $1 AND purpose = 'app'"#,
        app.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// How many keys depend on a master key.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// The master key's name.
    pub id: MasterKeyId,
    /// How many data keys it wraps; zero means that it can be retired.
    pub wraps: i64,
}

/// Returns every recorded master key with the number of data keys that it wraps.
pub async fn key_uses(conn: &mut Conn) -> Result<Vec<KeyUse>, VaultError> {
    let uses = sqlx::query_as!(
        KeyUse,
        r#"SELECT m.id AS "id: MasterKeyId", count(d.id) AS "wraps!"
         FROM master_keys m LEFT JOIN data_keys d ON d.master_key_id = m.id
         GROUP BY m.id, m.created_at ORDER BY m.created_at, m.id"#,
    )
    .fetch_all(conn)
    .await?;
    Ok(uses)
}

/// Rewraps up to `limit` data keys that the first master key does not wrap, in one transaction. Returns their
/// number; less than `limit` means that none is left. Can be interrupted and repeated at any time and run on
/// several machines at once: `SKIP LOCKED` shares the rows.
pub async fn rewrap_some(conn: &mut Conn, vault: &Vault, limit: i64) -> Result<usize, VaultError> {
    let mut tx = conn.begin().await?;
    let rows = sqlx::query!(
        r#"SELECT id AS "id: DataKeyId", purpose, app_id AS "app_id: AppId",
                user_id AS "user_id: UserId", master_key_id AS "master_key_id: MasterKeyId", wrapped
         FROM data_keys WHERE master_key_id <> $1
         -- SKIP LOCKED: several machines can rewrap at once, and none waits for an erasure.
         ORDER BY master_key_id, id LIMIT $2 FOR UPDATE SKIP LOCKED"#,
        vault.masters().first().id().as_str(),
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    let count = rows.len();
    for row in rows {
        let owner = KeyOwner::from_columns(&row.purpose, row.app_id, row.user_id)
            .ok_or(VaultError::DoesNotOpen)?;
        let old = WrappedKey {
            id: row.id,
            owner,
            master_key_id: row.master_key_id,
            wrapped: row.wrapped,
        };
        let new = vault.masters().rewrap(&old)?;
        sqlx::query!(
            "UPDATE data_keys SET master_key_id = $2, wrapped = $3 WHERE id = $1",
            new.id.uuid(),
            new.master_key_id.as_str(),
            new.wrapped,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(count)
}

/// Deletes a master key that wraps nothing. Returns `false` if it still does, or is unknown.
pub async fn retire(conn: &mut Conn, id: &MasterKeyId) -> Result<bool, VaultError> {
    let done = sqlx::query!(
        "DELETE FROM master_keys m WHERE m.id = $1
         AND NOT EXISTS (SELECT FROM data_keys d WHERE d.master_key_id = m.id)",
        id.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
