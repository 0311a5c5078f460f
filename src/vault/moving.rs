//! The data keys of an app that moves to another deployment: read at the source, inserted at the target, destroyed at the source.

use super::VaultError;
use super::keys::{KeyOwner, WrappedKey};
use super::store::{app_hash_keys, app_key, find_service_key};
use crate::common::ids::{AppId, UserId};
use crate::database::Conn;

/// Returns the data key of an app, and the keys of its hashes: its own, or the service's if it has none.
///
/// # Errors
/// The database's.
pub async fn keys_of_app(conn: &mut Conn, app: AppId) -> Result<Vec<WrappedKey>, VaultError> {
    let mut keys: Vec<_> = app_key(conn, app).await?.into_iter().collect();
    let hashes = app_hash_keys(conn).await?.into_iter();
    let own: Vec<_> = hashes.filter(|key| key.owner.app() == Some(app)).collect();
    if !own.is_empty() {
        keys.extend(own);
        return Ok(keys);
    }
    for owner in [KeyOwner::CodeHash, KeyOwner::SecretHash] {
        keys.extend(find_service_key(conn, owner).await?);
    }
    Ok(keys)
}

/// The keys of some users.
#[derive(Debug)]
pub struct UsersKeys {
    /// The keys.
    pub keys: Vec<WrappedKey>,
    /// Where the next begin; `None` after the last.
    pub next: Option<String>,
}

/// Returns the data keys of up to `limit` users of an app, by their names from `after` on: in the order of an index that begins with
/// the app, so that none of another app's is read.
///
/// # Errors
/// The database's.
pub async fn keys_of_users(
    conn: &mut Conn,
    app: AppId,
    after: &str,
    limit: i64,
) -> sqlx::Result<UsersKeys> {
    let rows = sqlx::query!(
        r#"-- name: data_keys_of_users
         SELECT u.client_user_id AS name,
                (SELECT key_of(k) FROM data_keys k WHERE k.user_id = u.id AND k.purpose = 'user') AS "key?: WrappedKey"
         FROM users u WHERE u.app_id = $1 AND u.client_user_id > $2
         ORDER BY u.client_user_id LIMIT $3"#,
        app.uuid(),
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let next = rows.last().map(|row| row.name.clone());
    Ok(UsersKeys { keys: rows.into_iter().filter_map(|row| row.key).collect(), next })
}

/// Inserts keys of an app and of users of it, in one statement. Returns how many: a key of a user of another app is left out.
///
/// # Errors
/// The database's, if one is here already.
pub async fn insert_keys(conn: &mut Conn, app: AppId, keys: &[WrappedKey]) -> sqlx::Result<u64> {
    let ids: Vec<_> = keys.iter().map(|key| key.id.uuid()).collect();
    let purposes: Vec<_> = keys.iter().map(|key| key.owner.purpose().to_owned()).collect();
    let users: Vec<_> = keys.iter().map(|key| key.owner.user().map(UserId::uuid)).collect();
    let masters: Vec<_> = keys.iter().map(|key| key.master_key_id.as_str().to_owned()).collect();
    let wrapped: Vec<_> = keys.iter().map(|key| key.wrapped.clone()).collect();
    let done = sqlx::query!(
        "-- name: insert_data_keys
         INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
         SELECT n.id, n.purpose, $1, n.user_id, n.master_key_id, n.wrapped
         FROM unnest($2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bytea[])
              AS n (id, purpose, user_id, master_key_id, wrapped)
         WHERE n.user_id IS NULL OR (SELECT u.app_id FROM users u WHERE u.id = n.user_id) = $1",
        app.uuid(),
        &ids,
        &purposes,
        &users as &[Option<uuid::Uuid>],
        &masters,
        &wrapped,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Destroys the data keys of up to `limit` users of an app that has moved, by their names from `after` on. Returns where the next
/// begin; `None` after the last.
///
/// # Errors
/// The database's.
pub async fn destroy_keys_of_users(
    conn: &mut Conn,
    app: AppId,
    after: &str,
    limit: i64,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"-- name: destroy_keys_of_users
         WITH page AS MATERIALIZED (
            SELECT n.id, n.client_user_id FROM users n WHERE n.app_id = $1 AND n.client_user_id > $2
            ORDER BY n.client_user_id LIMIT $3),
         destroyed AS (
            -- As an array, so that the planner has no other way than to look up each.
            DELETE FROM data_keys k
            WHERE k.user_id = ANY (ARRAY(SELECT id FROM page)) AND k.purpose = 'user'
              AND EXISTS (SELECT FROM app_fences f WHERE f.app_id = $1 AND f.state = 'moved'))
         SELECT max(client_user_id) AS "next?" FROM page"#,
        app.uuid(),
        after,
        limit,
    )
    .fetch_one(conn)
    .await
}
