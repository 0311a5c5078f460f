//! The app's own users and their data keys.
//!
//! May import: common, database, vault.

use crate::common::ids::{AppId, DataKeyId, UserId};
use crate::common::text::{self, InvalidText};
use crate::database::{Conn, Pool};
use crate::vault::{KeyOwner, Vault, VaultError, WrappedKey};

/// How often a look-up is repeated for a user who is erased between insert and look-up.
const ATTEMPTS: u32 = 5;
/// The longest `clientUserID`, in bytes.
pub const MAX_CLIENT_USER_ID: usize = 256;

text::text_schemas! {
    /// The app's own name for a user, at most 256 bytes.
    ClientUserID, text::TEXT, 1 to MAX_CLIENT_USER_ID, "user-42";
}

/// Checks the app's name for a user.
pub fn check_client_user_id(text: &str) -> Result<(), InvalidText> {
    text::check(text, MAX_CLIENT_USER_ID)
}

/// A user, with the key that seals everything held for them.
#[derive(Clone, Debug)]
pub struct User {
    /// The random id that stands for the user everywhere but in the table `users`.
    pub id: UserId,
    /// The user's data key, wrapped by a master key.
    pub key: WrappedKey,
    /// Whether the user is being erased; then nothing new is accepted for them.
    pub erasing: bool,
}

/// Returns the user with this name; `None` if the app never mentioned them.
pub async fn find(conn: &mut Conn, app: AppId, client_user_id: &str) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        r#"SELECT u.id AS "id: UserId", key_of(k) AS "key!: WrappedKey",
                EXISTS (SELECT FROM erasures e WHERE e.user_id = u.id) AS "erasing!"
         FROM users u JOIN data_keys k ON k.user_id = u.id AND k.purpose = 'user'
         WHERE u.app_id = $1 AND u.client_user_id = $2"#,
        app.uuid(),
        client_user_id,
    )
    .fetch_optional(conn)
    .await
}

/// Returns the user with this name, and creates user and data key if the name is new.
///
/// One statement inserts both, so that no user is ever without a key. If two callers create the same user at
/// once, the unique constraint keeps one. No connection is held while a master key wraps the data key.
pub async fn ensure(
    pool: &Pool,
    vault: &Vault,
    app: AppId,
    client_user_id: &str,
) -> Result<User, VaultError> {
    // A user who existed at the insert may be erased before the next look-up.
    for _ in 0..ATTEMPTS {
        if let Some(user) = find(&mut pool.acquire().await?, app, client_user_id).await? {
            return Ok(user);
        }
        let id = UserId::new();
        let key = vault.new_key(KeyOwner::User { app, user: id }).await?;
        add(&mut pool.acquire().await?, app, id, &key, client_user_id).await?;
    }
    Err(VaultError::Database(sqlx::Error::PoolTimedOut))
}

async fn add(
    conn: &mut Conn,
    app: AppId,
    id: UserId,
    key: &WrappedKey,
    client_user_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: add_user
         WITH added AS (
            -- Empty if the name exists: then no key is inserted either.
            INSERT INTO users (id, app_id, client_user_id) VALUES ($1, $2, $3)
            ON CONFLICT (app_id, client_user_id) DO NOTHING
            RETURNING id)
         INSERT INTO data_keys (id, purpose, app_id, user_id, master_key_id, wrapped)
         SELECT $4, 'user', $2, added.id, $5, $6 FROM added",
        id.uuid(),
        app.uuid(),
        client_user_id,
        key.id.uuid(),
        key.master_key_id.as_str(),
        key.wrapped,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the user's present data key; `None` if they are erased.
pub async fn key(conn: &mut Conn, user: UserId) -> sqlx::Result<Option<WrappedKey>> {
    sqlx::query_scalar!(
        r#"SELECT key_of(k) AS "key!: WrappedKey" FROM data_keys k
         WHERE user_id = $1 AND purpose = 'user'"#,
        user.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the id of the user with this name; `None` if the app never mentioned them.
pub async fn id_of(
    conn: &mut Conn,
    app: AppId,
    client_user_id: &str,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: UserId" FROM users WHERE app_id = $1 AND client_user_id = $2"#,
        app.uuid(),
        client_user_id,
    )
    .fetch_optional(conn)
    .await
}

/// Locks a user's row, so that nothing is added for them until the transaction ends. Returns `false` if the
/// row does not exist or is locked, as it is by every insert that refers to it.
pub async fn try_lock(conn: &mut Conn, user: UserId) -> sqlx::Result<bool> {
    let row =
        sqlx::query!("SELECT id FROM users WHERE id = $1 FOR UPDATE SKIP LOCKED", user.uuid())
            .fetch_optional(conn)
            .await?;
    Ok(row.is_some())
}

/// Deletes a user's data key, which makes everything sealed under it unreadable, and the row that links the
/// app's name for the user to the random id. Returns the key's id.
pub async fn destroy(conn: &mut Conn, user: UserId) -> sqlx::Result<Option<DataKeyId>> {
    let key = sqlx::query_scalar!(
        r#"DELETE FROM data_keys WHERE user_id = $1 AND purpose = 'user' RETURNING id AS "id: DataKeyId""#,
        user.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM users WHERE id = $1", user.uuid()).execute(conn).await?;
    Ok(key)
}
