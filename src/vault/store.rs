//! The vault's tables: `master_keys` and `data_keys`.

use super::keys::{KeyOwner, MasterKeyId, OtherKey, WrappedKey};
use super::master::MasterKeys;
use super::{Vault, VaultError};
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::database::Conn;

/// Compares every master key with the check value in the database, and verifies that no key that still wraps something
/// is missing. Records nothing.
pub(super) async fn check_masters(conn: &mut Conn, masters: &MasterKeys) -> Result<(), VaultError> {
    let ids: Vec<String> = masters.iter().map(|key| key.id().to_string()).collect();
    let known = sqlx::query!(
        r#"SELECT id AS "id: MasterKeyId", check_value FROM master_keys WHERE id = ANY ($1)"#,
        &ids,
    )
    .fetch_all(&mut *conn)
    .await?;
    for known in known {
        let key = masters.named(&known.id)?;
        if known.check_value != key.check_value() {
            return Err(VaultError::WrongMasterKey(known.id));
        }
    }
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

/// Records the master keys that the database does not know yet. If another replica records one of the same name at the
/// same moment, waits for it.
pub(super) async fn register_masters(
    conn: &mut Conn,
    masters: &MasterKeys,
) -> Result<(), VaultError> {
    for key in masters.iter() {
        sqlx::query!(
            "INSERT INTO master_keys (id, check_value) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
            key.id().as_str(),
            key.check_value(),
        )
        .execute(&mut *conn)
        .await?;
    }
    check_masters(conn, masters).await
}

/// Returns the present point of [`changes_since`].
pub(super) async fn changes_until_now(conn: &mut Conn) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "xmin!""#
    )
    .fetch_one(conn)
    .await
}

/// The changes of data keys since a point, and the next point.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) until: i64,
    /// The keys, and whether each was destroyed. Some may have been returned before.
    pub(super) keys: Vec<(DataKeyId, bool)>,
}

/// Returns the data keys that transactions have changed which had not ended at the point `since`.
pub(super) async fn changes_since(conn: &mut Conn, since: i64) -> sqlx::Result<Changes> {
    let rows = sqlx::query!(
        r#"-- name: data_key_changes
         WITH now AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin)
         SELECT now.xmin::text::bigint AS "until!", c.data_key_id AS "id?: DataKeyId",
                c.destroyed AS "destroyed?"
         -- One row even if nothing has changed.
         FROM now LEFT JOIN data_key_changes c ON c.xid >= ($1::bigint)::text::xid8"#,
        since,
    )
    .fetch_all(conn)
    .await?;
    let until = rows.first().map_or(since, |row| row.until);
    let keys = rows.into_iter().filter_map(|row| row.id.zip(row.destroyed)).collect();
    Ok(Changes { until, keys })
}

/// Deletes changes that every replica has read.
pub async fn delete_old_changes(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM data_key_changes
         WHERE changed_at < (SELECT strongroom_now()) - interval '10 minutes'"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the service's key for one purpose, if it was created.
pub(super) async fn find_service_key(
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
        other: None,
    }))
}

/// Returns the hash keys of the apps that have their own.
pub(super) async fn app_hash_keys(conn: &mut Conn) -> Result<Vec<WrappedKey>, VaultError> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: DataKeyId", purpose, app_id AS "app_id: AppId",
                master_key_id AS "master_key_id: MasterKeyId", wrapped
         FROM data_keys WHERE purpose IN ('code_hash', 'secret_hash') AND app_id IS NOT NULL"#,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let owner = KeyOwner::from_columns(&row.purpose, row.app_id, None);
            let owner = owner.ok_or(VaultError::DoesNotOpen)?;
            let (id, master_key_id, wrapped) = (row.id, row.master_key_id, row.wrapped);
            Ok(WrappedKey { id, owner, master_key_id, wrapped, other: None })
        })
        .collect()
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

/// Returns up to `limit` data keys that the first master key does not wrap, and that come after `after`.
async fn foreign_keys(
    conn: &mut Conn,
    first: &MasterKeyId,
    after: Option<DataKeyId>,
    limit: i64,
) -> Result<Vec<WrappedKey>, VaultError> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: DataKeyId", purpose, app_id AS "app_id: AppId",
                user_id AS "user_id: UserId", master_key_id AS "master_key_id: MasterKeyId", wrapped,
                other_id AS "other_id: DataKeyId", other_wrapped
         FROM data_keys WHERE master_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3"#,
        first.as_str(),
        after.map_or(uuid::Uuid::nil(), DataKeyId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let owner = KeyOwner::from_columns(&row.purpose, row.app_id, row.user_id);
            let owner = owner.ok_or(VaultError::DoesNotOpen)?;
            let (id, master_key_id, wrapped) = (row.id, row.master_key_id, row.wrapped);
            let other = OtherKey::from_columns(row.other_id, row.other_wrapped);
            Ok(WrappedKey { id, owner, master_key_id, wrapped, other })
        })
        .collect()
}

/// Data keys that the first master key has wrapped anew, and that are not written yet.
#[derive(Debug)]
pub struct RewrapBatch {
    old: Vec<WrappedKey>,
    new: Vec<WrappedKey>,
    /// Where the next batch begins; `None` after the last.
    pub next: Option<DataKeyId>,
}

/// How many data keys are wrapped anew at once: few enough that none waits too long for its turn at a slow engine.
const REWRAPS_AT_ONCE: usize = 100;

/// Rewraps up to `limit` data keys that the first master key does not wrap, from `after` on. Can be interrupted and
/// repeated at any time and run on several machines at once. No transaction is open while the master keys are used:
/// [`RewrapBatch::write`] follows.
pub async fn rewrap_some(
    conn: &mut Conn,
    vault: &Vault,
    after: Option<DataKeyId>,
    limit: i64,
) -> Result<RewrapBatch, VaultError> {
    let masters = vault.masters();
    let old = foreign_keys(conn, masters.first().id(), after, limit).await?;
    let whole = i64::try_from(old.len()).is_ok_and(|found| found == limit);
    let next = old.last().map(|key| key.id).filter(|_| whole);
    let mut new = Vec::with_capacity(old.len());
    for step in old.chunks(REWRAPS_AT_ONCE) {
        let step = step.iter().map(|key| masters.rewrap(key));
        new.extend(futures_util::future::try_join_all(step).await?);
    }
    fail::fail_point!("rewrap::wrapped");
    Ok(RewrapBatch { old, new, next })
}

impl RewrapBatch {
    /// Returns how many keys there were to wrap anew.
    #[must_use]
    pub fn found(&self) -> usize {
        self.old.len()
    }

    /// Writes the keys whose rows are still what they were opened from. Returns how many: an erasure or another run has
    /// the others.
    pub async fn write(&self, conn: &mut Conn) -> Result<u64, VaultError> {
        let Some(first) = self.new.first() else { return Ok(0) };
        let ids: Vec<_> = self.new.iter().map(|key| key.id.uuid()).collect();
        let before: Vec<_> = self.old.iter().map(|key| key.wrapped.clone()).collect();
        let wrapped: Vec<_> = self.new.iter().map(|key| key.wrapped.clone()).collect();
        // The other key of one that rotates goes with it.
        let other = |key: &WrappedKey| key.other.as_ref().map(|other| other.wrapped.clone());
        let others: Vec<_> = self.new.iter().map(other).collect();
        let updated = sqlx::query!(
            "-- name: rewrap_data_keys
             WITH locked AS MATERIALIZED (
                -- SKIP LOCKED: several machines can rewrap at once, and none waits for an erasure.
                -- NO KEY: what is being sealed under a key does not keep it from being rewrapped.
                SELECT id FROM data_keys WHERE id = ANY ($2) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
             UPDATE data_keys d SET master_key_id = $1, wrapped = n.wrapped, other_wrapped = n.other
             FROM locked l,
                  unnest($2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[])
                  AS n (id, before, wrapped, other_before, other)
             WHERE d.id = l.id AND n.id = l.id AND d.wrapped = n.before
               AND d.other_wrapped IS NOT DISTINCT FROM n.other_before",
            first.master_key_id.as_str(),
            &ids,
            &before,
            &wrapped,
            &self.old.iter().map(other).collect::<Vec<_>>() as &[Option<Vec<u8>>],
            &others as &[Option<Vec<u8>>],
        )
        .execute(conn)
        .await?;
        fail::fail_point!("rewrap::written");
        Ok(updated.rows_affected())
    }
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
