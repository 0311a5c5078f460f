//! The tables `clients`, `client_secrets`, `signing_keys`, `revoked_tokens`.

use sqlx::PgConnection;
use uuid::Uuid;

use super::clients::{ClientInfo, NewClient};
use super::signing::{Algorithm, SigningKey};
use crate::base::ids::{AppId, ClientSecretId};
use crate::base::scope::Scopes;
use crate::vault::{KeyedHash, Place, Sealed, Vault, VaultError};

/// Keeps a client; `false` where the id is taken.
pub(super) async fn insert_client(
    conn: &mut PgConnection,
    id: &str,
    new: &NewClient<'_>,
    bootstrap: bool,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO clients (id, app_id, name, scopes, token_lifetime, bootstrap)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (id) DO NOTHING",
        id,
        new.app.uuid(),
        new.name,
        &new.scopes.names(),
        i32::try_from(new.token_lifetime.as_secs()).unwrap_or(i32::MAX),
        bootstrap,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn insert_secret(
    conn: &mut PgConnection,
    client: &str,
    hash: &KeyedHash,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO client_secrets (id, client_id, hash) VALUES ($1, $2, $3)",
        ClientSecretId::new().uuid(),
        client,
        hash.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes `hash` the client's only secret. Touches nothing where it is so already, because replicas
/// reload what changes.
pub(super) async fn only_secret(
    conn: &mut PgConnection,
    client: &str,
    hash: &KeyedHash,
) -> sqlx::Result<()> {
    let held = sqlx::query_scalar!(
        "SELECT hash FROM client_secrets WHERE client_id = $1 FOR UPDATE",
        client
    )
    .fetch_all(&mut *conn)
    .await?;
    if let [only] = held.as_slice()
        && hash.matches(only)
    {
        return Ok(());
    }
    sqlx::query!("DELETE FROM client_secrets WHERE client_id = $1", client)
        .execute(&mut *conn)
        .await?;
    insert_secret(conn, client, hash).await
}

pub(super) async fn list_clients(
    conn: &mut PgConnection,
    app: Option<AppId>,
) -> sqlx::Result<Vec<ClientInfo>> {
    let rows = sqlx::query!(
        "SELECT c.id, a.name AS app_name, c.name, c.scopes, c.token_lifetime, c.bootstrap,
                c.created_at, c.disabled_at
         FROM clients c JOIN apps a ON a.id = c.app_id
         WHERE $1::uuid IS NULL OR c.app_id = $1
         ORDER BY a.name, c.created_at, c.id",
        app.map(AppId::uuid),
    )
    .fetch_all(conn)
    .await?;
    let clients = rows.into_iter().map(|row| ClientInfo {
        id: row.id,
        app_name: row.app_name,
        name: row.name,
        scopes: Scopes::from_names(&row.scopes),
        token_lifetime: row.token_lifetime.unsigned_abs(),
        bootstrap: row.bootstrap,
        created_at: row.created_at,
        disabled_at: row.disabled_at,
    });
    Ok(clients.collect())
}

/// Disables a client of this app, or of any; `None` where there is none.
pub(super) async fn disable_client(
    conn: &mut PgConnection,
    app: Option<AppId>,
    id: &str,
) -> sqlx::Result<Option<AppId>> {
    sqlx::query_scalar!(
        "UPDATE clients SET disabled_at = coalesce(disabled_at, strongroom_now())
         WHERE id = $1 AND ($2::uuid IS NULL OR app_id = $2)
         RETURNING app_id AS \"app_id: AppId\"",
        id,
        app.map(AppId::uuid),
    )
    .fetch_optional(conn)
    .await
}

pub(super) async fn disable_bootstraps_except(
    conn: &mut PgConnection,
    keep: Option<&str>,
) -> sqlx::Result<Vec<(String, AppId)>> {
    let rows = sqlx::query!(
        "UPDATE clients SET disabled_at = strongroom_now()
         WHERE bootstrap AND disabled_at IS NULL AND id IS DISTINCT FROM $1
         RETURNING id, app_id AS \"app_id: AppId\"",
        keep,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.app_id)).collect())
}

/// Makes sure that the bootstrap client of this id works and may do everything; `false` where the id
/// belongs to another client.
pub(super) async fn enable_bootstrap(
    conn: &mut PgConnection,
    id: &str,
    app: AppId,
) -> sqlx::Result<bool> {
    let scopes = Scopes::all().names();
    sqlx::query!(
        "UPDATE clients SET disabled_at = NULL, app_id = $2, scopes = $3
         WHERE id = $1 AND bootstrap
           AND (disabled_at IS NOT NULL OR app_id <> $2 OR scopes <> $3)",
        id,
        app.uuid(),
        &scopes,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM clients WHERE id = $1 AND bootstrap) AS \"it!\"",
        id
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn default_app(conn: &mut PgConnection) -> sqlx::Result<Option<AppId>> {
    sqlx::query_scalar!("SELECT id AS \"id: AppId\" FROM apps WHERE name = 'default'")
        .fetch_optional(conn)
        .await
}

/// A client as the directory holds it.
pub(super) struct ClientRow {
    pub(super) id: String,
    pub(super) app: AppId,
    pub(super) scopes: Vec<String>,
    pub(super) token_lifetime: i32,
    pub(super) enabled: bool,
    /// Hashes of secrets that have not ended, with the seconds that each has left.
    pub(super) secrets: Vec<(Vec<u8>, Option<f64>)>,
}

/// All clients, or the one of this id.
pub(super) async fn load_clients(
    conn: &mut PgConnection,
    id: Option<&str>,
) -> sqlx::Result<Vec<ClientRow>> {
    let rows = sqlx::query!(
        "SELECT c.id, c.app_id AS \"app_id: AppId\", c.scopes, c.token_lifetime,
                c.disabled_at IS NULL AS \"enabled!\",
                coalesce(array_agg(s.hash) FILTER (WHERE s.hash IS NOT NULL), '{}') AS \"hashes!\",
                coalesce(array_agg(extract(epoch FROM s.expires_at - strongroom_now())::float8)
                         FILTER (WHERE s.hash IS NOT NULL), '{}') AS \"left: Vec<Option<f64>>\"
         FROM clients c
         LEFT JOIN client_secrets s ON s.client_id = c.id
              AND (s.expires_at IS NULL OR s.expires_at > strongroom_now())
         WHERE $1::text IS NULL OR c.id = $1
         GROUP BY c.id",
        id,
    )
    .fetch_all(conn)
    .await?;
    let clients = rows.into_iter().map(|row| ClientRow {
        id: row.id,
        app: row.app_id,
        scopes: row.scopes,
        token_lifetime: row.token_lifetime,
        enabled: row.enabled,
        secrets: row.hashes.into_iter().zip(row.left.unwrap_or_default()).collect(),
    });
    Ok(clients.collect())
}

/// How often the directory and the revocations changed, as `(directory, revocations)`.
pub(super) async fn generations(conn: &mut PgConnection) -> sqlx::Result<(i64, i64)> {
    let row = sqlx::query!(
        "SELECT max(generation) FILTER (WHERE of = 'directory') AS \"directory!\",
                max(generation) FILTER (WHERE of = 'revocations') AS \"revocations!\"
         FROM oauth_generations"
    )
    .fetch_one(conn)
    .await?;
    Ok((row.directory, row.revocations))
}

/// Tokens revoked after the generation that is known, with the seconds that each has left.
pub(super) async fn revoked_since(
    conn: &mut PgConnection,
    generation: i64,
) -> sqlx::Result<Vec<(Uuid, f64)>> {
    let rows = sqlx::query!(
        "SELECT jti, extract(epoch FROM expires_at - strongroom_now())::float8 AS \"left!\"
         FROM revoked_tokens WHERE generation > $1",
        generation,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.jti, row.left)).collect())
}

/// Forgets revoked tokens that ran out by themselves an hour ago: clocks differ.
pub async fn forget_ended_tokens(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM revoked_tokens WHERE expires_at < (SELECT strongroom_now()) - interval '1 hour'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

fn signing_key_place(id: Uuid) -> Place {
    Place { table: "signing_keys", column: "private_key", app: None, user: None, row: id }
}

/// The signing keys: the one that signs first, then those that only verify.
pub(super) async fn load_signing_keys(
    conn: &mut PgConnection,
    vault: &Vault,
) -> Result<Vec<SigningKey>, VaultError> {
    let rows = sqlx::query!(
        "SELECT id, algorithm, private_key AS \"private_key: Sealed<super::signing::PrivateKey>\"
         FROM signing_keys ORDER BY retired_at NULLS FIRST, created_at DESC, id DESC",
    )
    .fetch_all(conn)
    .await?;
    let open = |id: Uuid, algorithm: &str, sealed: Sealed<super::signing::PrivateKey>| {
        let private = sealed.open(vault.service_key(), &signing_key_place(id))?;
        let algorithm = Algorithm::parse(algorithm).ok_or(VaultError::DoesNotOpen)?;
        SigningKey::from_private(algorithm, &private).ok_or(VaultError::DoesNotOpen)
    };
    rows.into_iter().map(|row| open(row.id, &row.algorithm, row.private_key)).collect()
}

/// Makes sure that there is a key that signs. Replicas that start at the same moment agree on one.
pub async fn ensure_signing_key(
    conn: &mut PgConnection,
    vault: &Vault,
    algorithm: Algorithm,
) -> Result<(), VaultError> {
    let exists = sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM signing_keys WHERE retired_at IS NULL) AS \"it!\""
    )
    .fetch_one(&mut *conn)
    .await?;
    if exists {
        return Ok(());
    }
    let private = SigningKey::generate(algorithm).ok_or(VaultError::NoRandomness)?;
    let key = SigningKey::from_private(algorithm, &private).ok_or(VaultError::DoesNotOpen)?;
    // The kid is derived from the key, so the row's id may be too: it only has to be unique.
    let id = crate::base::ids::DataKeyId::new().uuid();
    let sealed = Sealed::seal(&private, vault.service_key(), &signing_key_place(id))?;
    let mut tx = sqlx::Connection::begin(conn).await?;
    sqlx::query!("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
    sqlx::query!(
        "INSERT INTO signing_keys (id, kid, algorithm, private_key)
         SELECT $1, $2, $3, $4
         WHERE NOT EXISTS (SELECT FROM signing_keys WHERE retired_at IS NULL)",
        id,
        key.kid(),
        algorithm.as_str(),
        sealed.as_bytes(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
