//! The table `signing_keys`.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::algorithm::Algorithm;
use crate::database::Conn;
use crate::oauth::model::KeyInfo;
use crate::oauth::signing::{PrivateKey, SigningKey};
use crate::vault::{AadContext, Sealed, Vault, VaultError};

fn aad(id: Uuid) -> AadContext {
    AadContext { table: "signing_keys", column: "private_key", app: None, user: None, row: id }
}

/// Loads all signing keys, the latest to sign first, with the seconds until each starts to, if that
/// is to come.
pub(in crate::oauth) async fn load_signing_keys(
    conn: &mut Conn,
    vault: &Vault,
) -> Result<Vec<(SigningKey, Option<f64>)>, VaultError> {
    let rows = sqlx::query!(
        r#"SELECT id, algorithm, private_key AS "private_key: Sealed<PrivateKey>",
                CASE WHEN signs_from > strongroom_now()
                     THEN extract(epoch FROM signs_from - strongroom_now())::float8 END AS until
         FROM signing_keys ORDER BY signs_from DESC, created_at DESC, id DESC"#,
    )
    .fetch_all(conn)
    .await?;
    let open = |id: Uuid, algorithm: &str, sealed: Sealed<PrivateKey>| {
        let private = sealed.open(vault.service_key(), &aad(id))?;
        let algorithm = Algorithm::parse(algorithm).ok_or(VaultError::DoesNotOpen)?;
        SigningKey::from_private(algorithm, &private).ok_or(VaultError::DoesNotOpen)
    };
    rows.into_iter()
        .map(|row| Ok((open(row.id, &row.algorithm, row.private_key)?, row.until)))
        .collect()
}

/// Returns the views of all signing keys, newest first.
pub(in crate::oauth) async fn list_signing_keys(conn: &mut Conn) -> sqlx::Result<Vec<KeyInfo>> {
    sqlx::query_as!(
        KeyInfo,
        r#"SELECT kid, algorithm, created_at, signs_from, retired_at,
                CASE WHEN signs_from > strongroom_now() THEN 'next'
                     WHEN retired_at <= strongroom_now() THEN 'verifies'
                     ELSE 'signs' END AS "state!"
         FROM signing_keys ORDER BY signs_from DESC, created_at DESC, id DESC"#
    )
    .fetch_all(conn)
    .await
}

/// Locks the table against other changes of signing keys, until the transaction ends; readers go
/// on.
pub(in crate::oauth) async fn lock_signing_keys(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::query!("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE").execute(conn).await?;
    Ok(())
}

/// Returns the newest key: its algorithm and for how many seconds it has signed, negative if it
/// does not yet.
pub(in crate::oauth) async fn newest_signing_key(
    conn: &mut Conn,
) -> sqlx::Result<Option<(String, f64)>> {
    let row = sqlx::query!(
        r#"SELECT algorithm, extract(epoch FROM strongroom_now() - signs_from)::float8 AS "age!"
         FROM signing_keys WHERE retired_at IS NULL"#
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.algorithm, row.age)))
}

/// Inserts a key that signs in `ahead` from now and retires the newest at that moment. A successor
/// that has not signed yet is retired without ever signing.
pub(in crate::oauth) async fn succeed_signing_key(
    conn: &mut Conn,
    vault: &Vault,
    private: &PrivateKey,
    key: &SigningKey,
    ahead: Duration,
) -> Result<OffsetDateTime, VaultError> {
    // The kid is derived from the key, so the row's id may be too: it only has to be unique.
    let id = crate::common::ids::DataKeyId::new().uuid();
    let sealed = Sealed::seal(private, vault.service_key(), &aad(id))?;
    let signs_from = sqlx::query_scalar!(
        r#"SELECT strongroom_now() + make_interval(secs => $1) AS "it!""#,
        ahead.as_secs_f64(),
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE signing_keys SET retired_at = $1, signs_from = least(signs_from, $1)
         WHERE retired_at IS NULL",
        signs_from,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO signing_keys (id, kid, algorithm, private_key, signs_from)
         VALUES ($1, $2, $3, $4, $5)",
        id,
        key.kid(),
        key.algorithm().as_str(),
        sealed.as_bytes(),
        signs_from,
    )
    .execute(&mut *conn)
    .await?;
    Ok(signs_from)
}

/// Deletes a retired key. Returns `false` if there is none of this id.
pub(in crate::oauth) async fn delete_retired_key(conn: &mut Conn, kid: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM signing_keys WHERE kid = $1 AND retired_at <= strongroom_now()",
        kid,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes keys that were retired longer ago than `lifetime`, so that their last token has expired.
/// Returns their ids.
pub(in crate::oauth) async fn delete_spent_keys(
    conn: &mut Conn,
    lifetime: Duration,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "DELETE FROM signing_keys
         WHERE retired_at < (SELECT strongroom_now()) - make_interval(secs => $1) RETURNING kid",
        lifetime.as_secs_f64(),
    )
    .fetch_all(conn)
    .await
}
