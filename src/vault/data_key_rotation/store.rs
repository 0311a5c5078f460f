//! The columns of `data_keys` that a rotation moves, and the view `sealed_values`.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::place::Place;
use super::{AnySecret, FormerValue, Rotating, with_next};
use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::database::{Conn, interval};
use crate::vault::keys::{KeyOwner, MasterKeyId, OtherKey, WrappedKey};
use crate::vault::seal::{Binding, Sealed};
use crate::vault::{Vault, VaultError};

/// Whose keys are rotated; of every app and user, unless it names them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// This app's key and those of its users.
    pub app: Option<AppId>,
    /// Only this user's key.
    pub user: Option<UserId>,
}

/// Returns up to `limit` keys in the scope that do not rotate and were made before a moment, from `after` on.
async fn due(
    conn: &mut Conn,
    scope: Scope,
    made_before: OffsetDateTime,
    after: Option<DataKeyId>,
    limit: i64,
) -> Result<Vec<WrappedKey>, VaultError> {
    let rows = sqlx::query!(
        r#"-- name: data_keys_to_rotate
         SELECT id AS "id: DataKeyId", purpose, app_id AS "app_id: AppId",
                user_id AS "user_id: UserId", master_key_id AS "master_key_id: MasterKeyId", wrapped
         FROM data_keys
         WHERE id > $4 AND purpose IN ('app', 'user') AND rotation IS NULL AND created_at < $3
           -- Those of apps that move do not rotate.
           AND app_id <> ALL (ARRAY(SELECT f.app_id FROM app_fences f))
           AND ($1::uuid IS NULL OR app_id = $1) AND ($2::uuid IS NULL OR user_id = $2)
         ORDER BY id LIMIT $5"#,
        scope.app.map(AppId::uuid),
        scope.user.map(UserId::uuid),
        made_before,
        after.map_or(Uuid::nil(), DataKeyId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    let keys = rows.into_iter().map(|row| {
        let owner = KeyOwner::from_columns(&row.purpose, row.app_id, row.user_id);
        let owner = owner.filter(|owner| owner.rotates()).ok_or(VaultError::DoesNotOpen)?;
        let (id, master_key_id, wrapped) = (row.id, row.master_key_id, row.wrapped);
        Ok(WrappedKey { id, owner, master_key_id, wrapped, other: None })
    });
    keys.collect()
}

/// What one batch of [`publish`] found and did.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// How many keys there were to rotate.
    pub found: u64,
    /// How many of them rotate now. The others were locked or changed meanwhile, and are left for a later pass.
    pub done: u64,
    /// Where the next batch begins; `None` after the last.
    pub next: Option<DataKeyId>,
}

/// Makes new keys for up to `limit` owners and publishes them beside the present ones. Leaves out rows that are locked or
/// were changed meanwhile.
///
/// # Errors
/// The database's, and as [`Vault::unwrap`].
pub async fn publish(
    conn: &mut Conn,
    vault: &Vault,
    scope: Scope,
    made_before: OffsetDateTime,
    after: Option<DataKeyId>,
    limit: i64,
) -> Result<Published, VaultError> {
    let old = due(conn, scope, made_before, after, limit).await?;
    let found = old.len() as u64;
    let whole = i64::try_from(old.len()).is_ok_and(|found| found == limit);
    let next = old.last().map(|key| key.id).filter(|_| whole);
    let new = with_next(vault, &old).await?;
    let (mut others, mut wrapped) = (Vec::new(), Vec::new());
    for OtherKey { id, wrapped: bytes } in new.iter().filter_map(|key| key.other.clone()) {
        others.push(id.uuid());
        wrapped.push(bytes);
    }
    fail::fail_point!("rotate_data::wrapped");
    let done = sqlx::query!(
        "-- name: publish_data_keys
         WITH locked AS MATERIALIZED (
            SELECT id FROM data_keys WHERE id = ANY ($2) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
         UPDATE data_keys d
         SET master_key_id = $1, wrapped = n.wrapped, other_id = n.other_id, other_wrapped = n.other_wrapped,
             rotation = 'published', rotation_at = strongroom_now()
         FROM locked l, unnest($2::uuid[], $3::bytea[], $4::bytea[], $5::uuid[], $6::bytea[])
              AS n (id, before, wrapped, other_id, other_wrapped)
         WHERE d.id = l.id AND n.id = l.id AND d.wrapped = n.before AND d.rotation IS NULL",
        vault.masters().first().id().as_str(),
        &old.iter().map(|key| key.id.uuid()).collect::<Vec<_>>(),
        &old.into_iter().map(|key| key.wrapped).collect::<Vec<_>>(),
        &new.into_iter().map(|key| key.wrapped).collect::<Vec<_>>(),
        &others,
        &wrapped,
    )
    .execute(conn)
    .await?;
    fail::fail_point!("rotate_data::published");
    Ok(Published { found, done: done.rows_affected(), next })
}

/// Returns how many keys in the scope rotate.
pub async fn count_rotating(conn: &mut Conn, scope: Scope) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"-- name: count_rotating_data_keys
         SELECT count(*) AS "count!" FROM data_keys
         WHERE other_id IS NOT NULL
           AND ($1::uuid IS NULL OR app_id = $1) AND ($2::uuid IS NULL OR user_id = $2)"#,
        scope.app.map(AppId::uuid),
        scope.user.map(UserId::uuid),
    )
    .fetch_one(conn)
    .await
}

/// Returns up to `limit` keys in the scope that rotate, by the id of their other key, from `after` on.
///
/// # Errors
/// The database's.
pub async fn rotating(
    conn: &mut Conn,
    scope: Scope,
    after: Option<DataKeyId>,
    limit: i64,
) -> Result<Vec<Rotating>, VaultError> {
    let rows = sqlx::query!(
        r#"-- name: rotating_data_keys
         SELECT key_of(d) AS "key!: WrappedKey", other_id AS "other!: DataKeyId",
                rotation = 'switched' AS "switched!",
                greatest(extract(epoch FROM strongroom_now() - rotation_at), 0)::float8 AS "seconds!"
         FROM data_keys d
         WHERE other_id > $3
           AND ($1::uuid IS NULL OR app_id = $1) AND ($2::uuid IS NULL OR user_id = $2)
         ORDER BY other_id LIMIT $4"#,
        scope.app.map(AppId::uuid),
        scope.user.map(UserId::uuid),
        after.map_or(Uuid::nil(), DataKeyId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    let keys = rows.into_iter().map(|row| Rotating {
        key: row.key,
        other: row.other,
        switched: row.switched,
        lasts: Duration::try_from_secs_f64(row.seconds).unwrap_or_default(),
    });
    Ok(keys.collect())
}

/// Lets the new keys of these rows seal, if they have been published for so long. Returns how many. Leaves out rows that
/// are locked.
pub async fn switch(
    conn: &mut Conn,
    keys: &[&Rotating],
    published_for: Duration,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: switch_data_keys
         WITH locked AS MATERIALIZED (
            -- FOR UPDATE: the id changes. A row that somebody seals under at this moment comes later.
            SELECT id FROM data_keys
            WHERE id = ANY ($1) AND rotation = 'published'
              AND rotation_at <= strongroom_now() - $2::interval
            ORDER BY id FOR UPDATE SKIP LOCKED)
         UPDATE data_keys d
         SET id = d.other_id, wrapped = d.other_wrapped, other_id = d.id, other_wrapped = d.wrapped,
             created_at = d.rotation_at, rotation = 'switched', rotation_at = strongroom_now()
         FROM locked l WHERE d.id = l.id AND d.rotation = 'published'",
        &keys.iter().map(|key| key.key.id.uuid()).collect::<Vec<_>>(),
        interval(published_for),
    )
    .execute(conn)
    .await?;
    fail::fail_point!("rotate_data::switched");
    Ok(done.rows_affected())
}

/// Loads values of an owner that are sealed under a former key; the condition names the owner, so that an index finds them.
macro_rules! values_of {
    ($conn:ident, $limit:ident, $after:ident, $former:ident, $owner:tt, $id:expr) => {
        sqlx::query_as!(
            FormerValue,
            "-- name: values_under_a_former_key\n" + r#"SELECT place AS "place!: Place", row_id AS "row!", value AS "sealed!: Sealed<AnySecret>",
                    binding AS "binding: Binding"
             FROM sealed_values v WHERE "# + $owner + r#" AND sealing_key(v.value) = $2
               AND (place COLLATE "C", row_id) > ($3, $4)
             ORDER BY place COLLATE "C", row_id LIMIT $5"#,
            $id,
            $former.uuid(),
            $after.0,
            $after.1,
            $limit,
        )
        .fetch_all($conn)
        .await
    };
}

/// Returns values that are sealed under a former key of their owner, by place and row, from `after` on.
pub(super) async fn values_under(
    conn: &mut Conn,
    owner: KeyOwner,
    former: DataKeyId,
    after: Option<(Place, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<FormerValue>> {
    let after = after.map_or(("", Uuid::nil()), |(place, row)| (place.as_str(), row));
    match owner {
        KeyOwner::User { user, .. } => {
            values_of!(conn, limit, after, former, "v.user_id = $1", user.uuid())
        }
        KeyOwner::App(app) => {
            values_of!(
                conn,
                limit,
                after,
                former,
                "v.user_id IS NULL AND v.app_id = $1",
                app.uuid()
            )
        }
        _ => Ok(Vec::new()),
    }
}

/// Destroys the former key of a row, if nothing is sealed under it and the new one has sealed for so long. Returns whether
/// it did. Part of a transaction with the audit event of the rotation.
pub async fn destroy_former(
    tx: &mut Conn,
    rotating: &Rotating,
    switched_for: Duration,
) -> sqlx::Result<bool> {
    let (id, former, owner) = (rotating.key.id, rotating.other, rotating.key.owner);
    // Conflicts with the lock of everything that is being stored under either key.
    let locked = sqlx::query!(
        "SELECT id FROM data_keys
         WHERE id = $1 AND other_id = $2 AND rotation = 'switched'
           AND rotation_at <= strongroom_now() - $3::interval
         FOR UPDATE SKIP LOCKED",
        id.uuid(),
        former.uuid(),
        interval(switched_for),
    )
    .fetch_optional(&mut *tx)
    .await?;
    // A statement of its own: it sees what was committed before the lock was granted.
    if locked.is_none() || !values_under(tx, owner, former, None, 1).await?.is_empty() {
        return Ok(false);
    }
    sqlx::query!(
        "-- name: destroy_former_data_key
         WITH destroyed AS (INSERT INTO destroyed_data_keys (id) VALUES ($2))
         UPDATE data_keys
         SET other_id = NULL, other_wrapped = NULL, rotation = NULL, rotation_at = NULL
         WHERE id = $1",
        id.uuid(),
        former.uuid(),
    )
    .execute(tx)
    .await?;
    Ok(true)
}
