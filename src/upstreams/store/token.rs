//! The cached token: acquiring it, and the lease under which it is fetched.

use std::time::Duration;

use time::OffsetDateTime;

use crate::audit::AuditActor;
use crate::common::ids::{AppId, UpstreamId};
use crate::database::{Conn, interval};
use crate::upstreams::wire::TokenError;
use crate::upstreams::{ClientSecret, UpstreamToken};
use crate::vault::{Sealed, WrappedKey};

/// An upstream as `acquire` finds it.
#[derive(Debug)]
pub(in crate::upstreams) struct Lookup {
    pub(in crate::upstreams) id: UpstreamId,
    pub(in crate::upstreams) base_url: Option<String>,
    /// Present only if the token is valid and its use is in the audit trail.
    pub(in crate::upstreams) token: Option<Sealed<UpstreamToken>>,
    pub(in crate::upstreams) token_epoch: Option<i32>,
    /// Whole seconds until the token expires.
    pub(in crate::upstreams) expires_in: Option<i64>,
    /// Whether a refresh is due and neither leased nor postponed.
    pub(in crate::upstreams) refresh_due: bool,
    /// Seconds until the next token request after a failure.
    pub(in crate::upstreams) cooling: Option<i64>,
    pub(in crate::upstreams) failure: Option<String>,
    pub(in crate::upstreams) failure_detail: Option<String>,
    pub(in crate::upstreams) oauth_error: Option<String>,
    pub(in crate::upstreams) key: WrappedKey,
}

/// Reads an upstream and, if its token is valid, the token, whose use the same statement records:
/// what cannot be recorded is not returned. Locks no row, so that concurrent readers of one token
/// do not block each other. If the upstream is removed at this moment, the use counts as before the
/// removal.
pub(in crate::upstreams) async fn acquire(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    name: &str,
    action: &str,
    reason: &str,
) -> sqlx::Result<Option<Lookup>> {
    sqlx::query_file_as!(
        Lookup,
        "src/upstreams/store/acquire.sql",
        app.uuid(),
        name,
        actor as &AuditActor,
        action,
        reason,
    )
    .fetch_optional(conn)
    .await
}

/// A lease on the token request, with everything that the request needs.
#[derive(Debug)]
pub(in crate::upstreams) struct TokenLease {
    pub(in crate::upstreams) epoch: i32,
    pub(in crate::upstreams) asked_at: OffsetDateTime,
    pub(in crate::upstreams) failures: i32,
    pub(in crate::upstreams) name: String,
    pub(in crate::upstreams) token_url: String,
    pub(in crate::upstreams) client_id: String,
    pub(in crate::upstreams) client_secret: Sealed<ClientSecret>,
    pub(in crate::upstreams) auth: String,
    pub(in crate::upstreams) scope: Option<String>,
    pub(in crate::upstreams) parameters: String,
    pub(in crate::upstreams) key: WrappedKey,
}

/// Claims the lease if a token is due and the lease is free: this statement alone decides which
/// replica asks the upstream. `refused` is the epoch of a token that the upstream's API refused,
/// and the least age at which that makes another one due.
pub(in crate::upstreams) async fn claim_lease(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    time: Duration,
    refused: Option<(i32, Duration)>,
) -> sqlx::Result<Option<TokenLease>> {
    let (epoch, least_age) = refused.unzip();
    sqlx::query_as!(
        TokenLease,
        r#"UPDATE upstreams u SET lease_epoch = u.lease_epoch + 1, leased_until = strongroom_now() + $3
         FROM data_keys k
         WHERE u.app_id = $1 AND u.id = $2 AND k.app_id = u.app_id AND k.purpose = 'app'
           AND (u.leased_until IS NULL OR u.leased_until <= strongroom_now())
           AND (u.retry_at IS NULL OR u.retry_at <= strongroom_now())
           -- A missing token is due, one past its refresh time, and one that the API refused.
           AND (u.token_refresh_at IS NULL OR u.token_refresh_at <= strongroom_now()
                OR (u.token_epoch = $4 AND u.token_asked_at <= strongroom_now() - $5::interval))
         RETURNING u.lease_epoch AS epoch, strongroom_now() AS "asked_at!", u.failures, u.name,
                   u.token_url, u.client_id,
                   u.client_secret AS "client_secret: Sealed<ClientSecret>", u.auth, u.scope,
                   u.parameters::text AS "parameters!",
                   key_of(k) AS "key!: WrappedKey""#,
        app.uuid(),
        id.uuid(),
        interval(time),
        epoch,
        least_age.map(interval),
    )
    .fetch_optional(conn)
    .await
}

/// Returns whether a replica holds the lease.
pub(in crate::upstreams) async fn is_leased(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
) -> sqlx::Result<bool> {
    let leased = sqlx::query_scalar!(
        "SELECT leased_until > strongroom_now() FROM upstreams WHERE app_id = $1 AND id = $2",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(leased.flatten().unwrap_or(false))
}

/// Records a token that was fetched under the lease's epoch. It lives for `lifetime` from the
/// request on, and is due for a refresh 10 to 20 % of that earlier, at most five minutes, at
/// random, so that many upstreams of one system are not asked at once. Returns `false` if the lease
/// has passed on.
pub(in crate::upstreams) async fn record_token(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    lease: &TokenLease,
    token: &Sealed<UpstreamToken>,
    lifetime: Duration,
    actor: &AuditActor,
) -> sqlx::Result<bool> {
    let recorded = sqlx::query_scalar!(
        r#"-- name: record_upstream_token
         WITH updated AS (
            UPDATE upstreams SET
                access_token = $4, token_epoch = $3, token_asked_at = $5,
                token_refresh_at = $5::timestamptz + $6::interval
                    - least($6, interval '25 minutes') * (0.1 + 0.1 * random()),
                token_expires_at = $5::timestamptz + $6::interval, leased_until = NULL,
                failures = 0, failure = NULL, failure_detail = NULL, oauth_error = NULL, retry_at = NULL
            WHERE app_id = $1 AND id = $2 AND lease_epoch = $3
            RETURNING name),
         -- recorded: MATERIALIZED, so that the function runs; no row if the epoch moved on.
         recorded AS MATERIALIZED (
            SELECT record_audit($1, $7, 'upstream.token_fetched', 'ok', NULL, NULL, name) FROM updated)
         SELECT count(*) AS "count!" FROM recorded"#,
        app.uuid(),
        id.uuid(),
        lease.epoch,
        token.as_bytes(),
        lease.asked_at,
        interval(lifetime),
        actor as &AuditActor,
    )
    .fetch_one(conn)
    .await?;
    Ok(recorded == 1)
}

/// Records that the token request under this lease failed and postpones the next one by `wait`. A
/// token that is still valid stays. Returns `false` if the lease has passed on.
pub(in crate::upstreams) async fn record_failure(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    lease: &TokenLease,
    error: &TokenError,
    wait: Duration,
    actor: &AuditActor,
) -> sqlx::Result<bool> {
    let recorded = sqlx::query_scalar!(
        r#"-- name: record_upstream_failure
         WITH updated AS (
            UPDATE upstreams SET
                failures = failures + 1, failure = $4, failure_detail = $5, oauth_error = $6,
                retry_at = strongroom_now() + $7, leased_until = NULL
            WHERE app_id = $1 AND id = $2 AND lease_epoch = $3
            RETURNING name),
         -- recorded: MATERIALIZED, so that the function runs; no row if the epoch moved on.
         recorded AS MATERIALIZED (
            SELECT record_audit($1, $8, 'upstream.token_fetched', 'failed', NULL, NULL, name) FROM updated)
         SELECT count(*) AS "count!" FROM recorded"#,
        app.uuid(),
        id.uuid(),
        lease.epoch,
        error.kind.as_str(),
        error.detail,
        error.oauth_error,
        interval(wait),
        actor as &AuditActor,
    )
    .fetch_one(conn)
    .await?;
    Ok(recorded == 1)
}
