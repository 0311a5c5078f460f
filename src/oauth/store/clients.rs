//! The tables `clients` and `client_secrets`, for the administration.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use crate::common::external_scopes::ExternalScopes;
use crate::common::ids::{AppId, ClientSecretId};
use crate::common::scope::Scopes;
use crate::database::Conn;
use crate::oauth::model::{
    After, ClientInfo, NewClient, Registration, SecretInfo, Terms, Workload, workload,
};
use crate::vault::KeyedHash;

/// Inserts a client. Returns `false` if the id is taken.
pub(in crate::oauth) async fn insert_client(
    conn: &mut Conn,
    id: &str,
    new: &NewClient<'_>,
    terms: &Terms,
    bootstrap: bool,
) -> sqlx::Result<bool> {
    let Registration { jwks, jwks_uri, workload, dpop_bound } = &terms.registration;
    let [issuer, audience, subject] = parts(workload.as_ref());
    let done = sqlx::query!(
        "INSERT INTO clients (id, app_id, name, scopes, token_lifetime, bootstrap, external_scopes,
                              required_scopes, reveals_per_minute, jwks, jwks_uri, workload_issuer,
                              workload_audience, workload_subject, dpop_bound)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (id) DO NOTHING",
        id,
        new.app.uuid(),
        new.name,
        &new.scopes.names(),
        i32::try_from(new.token_lifetime.as_secs()).unwrap_or(i32::MAX),
        bootstrap,
        &terms.external_scopes.names(),
        &terms.required_scopes,
        terms.reveals_per_minute.map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        jwks.as_ref(),
        jwks_uri.as_deref(),
        issuer,
        audience,
        subject,
        dpop_bound,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The columns of a workload: issuer, audience, subject.
fn parts(workload: Option<&Workload>) -> [Option<&str>; 3] {
    workload.map_or([None; 3], |workload| {
        [&workload.issuer, &workload.audience, &workload.subject].map(|text| Some(text.as_str()))
    })
}

/// Replaces how a client proves who it is.
pub(in crate::oauth) async fn set_registration(
    conn: &mut Conn,
    id: &str,
    registration: &Registration,
) -> sqlx::Result<()> {
    let [issuer, audience, subject] = parts(registration.workload.as_ref());
    sqlx::query!(
        "UPDATE clients
         SET jwks = $2, jwks_uri = $3, workload_issuer = $4, workload_audience = $5,
             workload_subject = $6, dpop_bound = $7
         WHERE id = $1",
        id,
        registration.jwks.as_ref(),
        registration.jwks_uri.as_deref(),
        issuer,
        audience,
        subject,
        registration.dpop_bound,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(in crate::oauth) async fn insert_secret(
    conn: &mut Conn,
    client: &str,
    hash: &KeyedHash,
) -> sqlx::Result<ClientSecretId> {
    let id = ClientSecretId::new();
    sqlx::query!(
        "INSERT INTO client_secrets (id, client_id, hash) VALUES ($1, $2, $3)",
        id.uuid(),
        client,
        hash.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// Makes `hash` the client's only secret. Writes nothing if it is so already, because a write makes
/// every replica reload.
pub(in crate::oauth) async fn only_secret(
    conn: &mut Conn,
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
    insert_secret(conn, client, hash).await?;
    Ok(())
}

struct InfoRow {
    id: String,
    app_name: String,
    name: String,
    scopes: Vec<String>,
    external_scopes: Vec<String>,
    required_scopes: Vec<String>,
    token_lifetime: i32,
    reveals_per_minute: Option<i32>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    workload_issuer: Option<String>,
    workload_audience: Option<String>,
    workload_subject: Option<String>,
    dpop_bound: bool,
    bootstrap: bool,
    created_at: OffsetDateTime,
    disabled_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

impl From<InfoRow> for ClientInfo {
    fn from(row: InfoRow) -> Self {
        Self {
            id: row.id,
            app_name: row.app_name,
            name: row.name,
            scopes: Scopes::from_names(&row.scopes),
            external_scopes: ExternalScopes::from_names(
                row.external_scopes.iter().map(String::as_str),
            ),
            required_scopes: row.required_scopes,
            token_lifetime: row.token_lifetime.unsigned_abs(),
            reveals_per_minute: row.reveals_per_minute.map(i32::unsigned_abs),
            jwks: row.jwks,
            jwks_uri: row.jwks_uri,
            workload: workload(row.workload_issuer, row.workload_audience, row.workload_subject),
            dpop_bound: row.dpop_bound,
            bootstrap: row.bootstrap,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// Returns the clients of one app or of all, newest first, at most `limit` of those behind `after`.
pub(in crate::oauth) async fn list_clients(
    conn: &mut Conn,
    app: Option<AppId>,
    after: Option<&After>,
    limit: i64,
) -> sqlx::Result<Vec<ClientInfo>> {
    let rows = sqlx::query_as!(
        InfoRow,
        "SELECT c.id, a.name AS app_name, c.name, c.scopes, c.external_scopes, c.required_scopes,
                c.token_lifetime, c.reveals_per_minute, c.jwks, c.jwks_uri, c.workload_issuer,
                c.workload_audience, c.workload_subject, c.dpop_bound, c.bootstrap, c.created_at,
                c.disabled_at, c.last_used_at
         FROM clients c JOIN apps a ON a.id = c.app_id
         WHERE ($1::uuid IS NULL OR c.app_id = $1)
           AND ($2::timestamptz IS NULL OR (c.created_at, c.id) < ($2, $3::text))
         ORDER BY c.created_at DESC, c.id DESC
         LIMIT $4",
        app.map(AppId::uuid),
        after.map(|after| after.created_at),
        after.map(|after| after.id.as_str()),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ClientInfo::from).collect())
}

/// Returns a client of this app, or of any.
pub(in crate::oauth) async fn find_client(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> sqlx::Result<Option<ClientInfo>> {
    let row = sqlx::query_as!(
        InfoRow,
        "SELECT c.id, a.name AS app_name, c.name, c.scopes, c.external_scopes, c.required_scopes,
                c.token_lifetime, c.reveals_per_minute, c.jwks, c.jwks_uri, c.workload_issuer,
                c.workload_audience, c.workload_subject, c.dpop_bound, c.bootstrap, c.created_at,
                c.disabled_at, c.last_used_at
         FROM clients c JOIN apps a ON a.id = c.app_id
         WHERE c.id = $1 AND ($2::uuid IS NULL OR c.app_id = $2)",
        id,
        app.map(AppId::uuid),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ClientInfo::from))
}

/// Locks a client of this app, or of any, until the transaction ends; returns its app and whether
/// the environment created it.
pub(in crate::oauth) async fn lock_client(
    conn: &mut Conn,
    app: Option<AppId>,
    id: &str,
) -> sqlx::Result<Option<(AppId, bool)>> {
    let row = sqlx::query!(
        r#"SELECT app_id AS "app_id: AppId", bootstrap FROM clients
         WHERE id = $1 AND ($2::uuid IS NULL OR app_id = $2)
         FOR UPDATE"#,
        id,
        app.map(AppId::uuid),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.app_id, row.bootstrap)))
}

/// Returns the live secrets of a client, oldest first.
pub(in crate::oauth) async fn live_secrets(
    conn: &mut Conn,
    client: &str,
) -> sqlx::Result<Vec<SecretInfo>> {
    sqlx::query_as!(
        SecretInfo,
        r#"SELECT id AS "id: ClientSecretId", created_at, expires_at, last_used_at
         FROM client_secrets
         WHERE client_id = $1 AND (expires_at IS NULL OR expires_at > strongroom_now())
         ORDER BY created_at, id"#,
        client,
    )
    .fetch_all(conn)
    .await
}

/// Makes the client's secrets expire `within` from now, or at their earlier expiry.
pub(in crate::oauth) async fn end_secrets(
    conn: &mut Conn,
    client: &str,
    within: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE client_secrets
         SET expires_at = least(expires_at, strongroom_now() + make_interval(secs => $2))
         WHERE client_id = $1",
        client,
        within.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends one secret now. Returns `false` if the client has no such live secret.
pub(in crate::oauth) async fn end_secret(
    conn: &mut Conn,
    client: &str,
    secret: ClientSecretId,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM client_secrets
         WHERE client_id = $1 AND id = $2
           AND (expires_at IS NULL OR expires_at > strongroom_now())",
        client,
        secret.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes secrets that expired more than a day ago. Returns how many.
pub async fn delete_ended_secrets(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM client_secrets WHERE expires_at < strongroom_now() - interval '1 day'"
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub(in crate::oauth) async fn delete_client(conn: &mut Conn, id: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM clients WHERE id = $1", id).execute(conn).await?;
    Ok(())
}

/// Enables or disables a client. Returns `false` if it was so already.
pub(in crate::oauth) async fn set_disabled(
    conn: &mut Conn,
    id: &str,
    disabled: bool,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE clients SET disabled_at = CASE WHEN $2 THEN strongroom_now() END
         WHERE id = $1 AND (disabled_at IS NOT NULL) <> $2",
        id,
        disabled,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(in crate::oauth) async fn disable_bootstraps_except(
    conn: &mut Conn,
    keep: Option<&str>,
) -> sqlx::Result<Vec<(String, AppId)>> {
    let rows = sqlx::query!(
        r#"UPDATE clients SET disabled_at = strongroom_now()
         WHERE bootstrap AND disabled_at IS NULL AND id IS DISTINCT FROM $1
         RETURNING id, app_id AS "app_id: AppId""#,
        keep,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.app_id)).collect())
}

/// Ensures that the bootstrap client of this id is enabled and has every scope. Returns `false` if
/// the id belongs to another client.
pub(in crate::oauth) async fn enable_bootstrap(
    conn: &mut Conn,
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
        r#"SELECT EXISTS (SELECT FROM clients WHERE id = $1 AND bootstrap) AS "it!""#,
        id
    )
    .fetch_one(conn)
    .await
}

pub(in crate::oauth) async fn app_named(
    conn: &mut Conn,
    name: &str,
) -> sqlx::Result<Option<AppId>> {
    sqlx::query_scalar!(r#"SELECT id AS "id: AppId" FROM apps WHERE name = $1"#, name)
        .fetch_optional(conn)
        .await
}
