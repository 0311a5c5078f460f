//! What the directory of every replica reads, and the little that it writes back.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::scope::Scopes;
use crate::database::Conn;
use crate::oauth::model::{Fence, Registration, workload};

/// A client with its live secrets.
pub(in crate::oauth) struct ClientRow {
    pub(in crate::oauth) id: String,
    pub(in crate::oauth) app: AppId,
    pub(in crate::oauth) scopes: Scopes,
    pub(in crate::oauth) external_scopes: ExternalScopes,
    pub(in crate::oauth) required_scopes: Vec<String>,
    pub(in crate::oauth) token_lifetime: u32,
    pub(in crate::oauth) reveals_per_minute: Option<u32>,
    pub(in crate::oauth) enabled: bool,
    pub(in crate::oauth) registration: Registration,
    pub(in crate::oauth) secrets: Vec<SecretRow>,
}

pub(in crate::oauth) struct SecretRow {
    pub(in crate::oauth) id: ClientSecretId,
    pub(in crate::oauth) hash: Vec<u8>,
    /// The seconds until it expires, if it does.
    pub(in crate::oauth) left: Option<f64>,
}

/// Loads all clients with their live secrets.
pub(in crate::oauth) async fn load_clients(conn: &mut Conn) -> sqlx::Result<Vec<ClientRow>> {
    let mut secrets = load_secrets(conn).await?;
    let rows = sqlx::query!(
        r#"SELECT id, app_id AS "app_id: AppId", scopes, external_scopes, required_scopes,
                token_lifetime, reveals_per_minute, disabled_at IS NULL AS "enabled!", jwks,
                jwks_uri, workload_issuer, workload_audience, workload_subject, dpop_bound
         FROM clients"#
    )
    .fetch_all(conn)
    .await?;
    let clients = rows.into_iter().map(|row| ClientRow {
        secrets: secrets.remove(&row.id).unwrap_or_default(),
        id: row.id,
        app: row.app_id,
        scopes: Scopes::from_names(&row.scopes),
        external_scopes: ExternalScopes::from_names(row.external_scopes.iter().map(String::as_str)),
        required_scopes: row.required_scopes,
        token_lifetime: row.token_lifetime.unsigned_abs(),
        reveals_per_minute: row.reveals_per_minute.map(i32::unsigned_abs),
        enabled: row.enabled,
        registration: Registration {
            jwks: row.jwks,
            jwks_uri: row.jwks_uri,
            workload: workload(row.workload_issuer, row.workload_audience, row.workload_subject),
            dpop_bound: row.dpop_bound,
        },
    });
    Ok(clients.collect())
}

/// Loads the apps whose callers are kept out.
pub(in crate::oauth) async fn load_fences(conn: &mut Conn) -> sqlx::Result<HashMap<AppId, Fence>> {
    let rows = sqlx::query!(
        r#"SELECT app_id AS "app: AppId", state = 'moved' AS "moved!" FROM app_fences"#
    )
    .fetch_all(conn)
    .await?;
    let fence = |moved| if moved { Fence::Moved } else { Fence::Moving };
    Ok(rows.into_iter().map(|row| (row.app, fence(row.moved))).collect())
}

/// Loads all live secrets by client id.
async fn load_secrets(conn: &mut Conn) -> sqlx::Result<HashMap<String, Vec<SecretRow>>> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: ClientSecretId", client_id, hash,
                extract(epoch FROM expires_at - strongroom_now())::float8 AS "left"
         FROM client_secrets
         WHERE expires_at IS NULL OR expires_at > strongroom_now()"#
    )
    .fetch_all(conn)
    .await?;
    let mut secrets: HashMap<String, Vec<SecretRow>> = HashMap::new();
    for row in rows {
        let secret = SecretRow { id: row.id, hash: row.hash, left: row.left };
        secrets.entry(row.client_id).or_default().push(secret);
    }
    Ok(secrets)
}

/// Returns the generations, which count changes, as `(directory, revocations)`.
pub(in crate::oauth) async fn generations(conn: &mut Conn) -> sqlx::Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT max(generation) FILTER (WHERE of = 'directory') AS "directory!",
                max(generation) FILTER (WHERE of = 'revocations') AS "revocations!"
         FROM oauth_generations"#
    )
    .fetch_one(conn)
    .await?;
    Ok((row.directory, row.revocations))
}

/// Returns tokens revoked after this generation, with the seconds until each expires.
pub(in crate::oauth) async fn revoked_since(
    conn: &mut Conn,
    generation: i64,
) -> sqlx::Result<Vec<(Uuid, f64)>> {
    let rows = sqlx::query!(
        r#"SELECT jti, extract(epoch FROM expires_at - strongroom_now())::float8 AS "left!"
         FROM revoked_tokens WHERE generation > $1"#,
        generation,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.jti, row.left)).collect())
}

/// Inserts the revocation of a token that expires at `expires_at`. Returns `false` if it was
/// revoked before.
pub(in crate::oauth) async fn insert_revoked(
    conn: &mut Conn,
    jti: Uuid,
    client: &str,
    expires_at: OffsetDateTime,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO revoked_tokens (jti, client_id, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (jti) DO NOTHING",
        jti,
        client,
        expires_at,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes revocations of tokens that expired more than an hour ago, which allows for clocks that
/// differ. Returns how many.
pub async fn delete_ended_tokens(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM revoked_tokens WHERE expires_at < (SELECT strongroom_now()) - interval '1 hour'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Records when clients were last used, `ago` in seconds. Writes only what is half a minute newer
/// than the stored time, and skips a row that another transaction has locked: the next round writes
/// it.
pub(in crate::oauth) async fn note_client_uses(
    conn: &mut Conn,
    ids: &[String],
    ago: &[f64],
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: note_client_uses
         WITH
         -- used: times by the database's clock, from ages that need no common clock.
         used AS (
            SELECT id, strongroom_now() - make_interval(secs => ago) AS at
            FROM unnest($1::text[], $2::float8[]) AS given (id, ago)),
         -- due: SKIP LOCKED, because a use is not worth waiting for or deadlocking over.
         due AS (
            SELECT c.id, u.at FROM clients c JOIN used u ON u.id = c.id
            WHERE c.last_used_at IS NULL OR c.last_used_at < u.at - interval '30 seconds'
            FOR UPDATE OF c SKIP LOCKED)
         UPDATE clients c SET last_used_at = due.at FROM due WHERE c.id = due.id",
        ids,
        ago,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records when secrets were last presented, in the same way.
pub(in crate::oauth) async fn note_secret_uses(
    conn: &mut Conn,
    ids: &[Uuid],
    ago: &[f64],
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: note_secret_uses
         WITH
         -- used: times by the database's clock, from ages that need no common clock.
         used AS (
            SELECT id, strongroom_now() - make_interval(secs => ago) AS at
            FROM unnest($1::uuid[], $2::float8[]) AS given (id, ago)),
         -- due: SKIP LOCKED, because a use is not worth waiting for or deadlocking over.
         due AS (
            SELECT s.id, u.at FROM client_secrets s JOIN used u ON u.id = s.id
            WHERE s.last_used_at IS NULL OR s.last_used_at < u.at - interval '30 seconds'
            FOR UPDATE OF s SKIP LOCKED)
         UPDATE client_secrets s SET last_used_at = due.at FROM due WHERE s.id = due.id",
        ids,
        ago,
    )
    .execute(conn)
    .await?;
    Ok(())
}
