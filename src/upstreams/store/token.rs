//! The cached token: lending it, and the lease under which it is fetched.

use std::time::Duration;

use time::OffsetDateTime;

use super::interval;
use crate::audit::AuditActor;
use crate::base::ids::{AppId, DataKeyId, UpstreamId};
use crate::database::Conn;
use crate::upstreams::wire::TokenError;
use crate::upstreams::{ClientSecret, UpstreamToken};
use crate::vault::{MasterKeyId, Sealed};

/// An upstream as somebody who wants its token finds it.
#[derive(Debug)]
pub(in crate::upstreams) struct Seen {
    pub(in crate::upstreams) id: UpstreamId,
    pub(in crate::upstreams) base_url: Option<String>,
    /// There only where the token is valid and its lending on record.
    pub(in crate::upstreams) token: Option<Sealed<UpstreamToken>>,
    pub(in crate::upstreams) token_epoch: Option<i32>,
    /// Whole seconds of life that the token has left.
    pub(in crate::upstreams) expires_in: Option<i64>,
    /// Whether it is time to fetch another and nobody does or waits.
    pub(in crate::upstreams) refresh_due: bool,
    /// Seconds until somebody may ask again after a failure.
    pub(in crate::upstreams) cooling: Option<i64>,
    pub(in crate::upstreams) failure: Option<String>,
    pub(in crate::upstreams) failure_detail: Option<String>,
    pub(in crate::upstreams) oauth_error: Option<String>,
    pub(in crate::upstreams) key_id: DataKeyId,
    pub(in crate::upstreams) master_key_id: MasterKeyId,
    pub(in crate::upstreams) wrapped: Vec<u8>,
}

/// Reads an upstream and, where its token is valid, the token, whose lending is recorded in the same
/// statement: what cannot be recorded is not lent. No row is locked, so that a thousand who lend the
/// same token do not stand in each other's way; one that is removed in this very moment was lent before.
pub(in crate::upstreams) async fn acquire(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    name: &str,
    action: &str,
    reason: &str,
) -> sqlx::Result<Option<Seen>> {
    sqlx::query_as!(
        Seen,
        r#"WITH held AS MATERIALIZED (
            SELECT u.*, strongroom_now() AS moment FROM upstreams u
            WHERE u.app_id = $1 AND u.name = $2),
         valid AS MATERIALIZED (
            SELECT * FROM held WHERE token_expires_at >= moment + interval '1 second'),
         noted AS MATERIALIZED (
            SELECT record_audit($1, $3, $4, 'ok', NULL, NULL, $5) FROM valid)
         SELECT h.id AS "id!: UpstreamId", h.base_url,
                CASE WHEN (SELECT count(*) FROM noted) = 1 THEN v.access_token END
                    AS "token: Sealed<UpstreamToken>",
                v.token_epoch AS "token_epoch?",
                floor(extract(epoch FROM v.token_expires_at - h.moment))::bigint AS expires_in,
                coalesce(h.token_refresh_at <= h.moment, true)
                    AND coalesce(h.leased_until <= h.moment, true)
                    AND coalesce(h.retry_at <= h.moment, true) AS "refresh_due!",
                CASE WHEN h.retry_at > h.moment
                    THEN ceil(extract(epoch FROM h.retry_at - h.moment))::bigint END AS cooling,
                h.failure, h.failure_detail, h.oauth_error,
                k.id AS "key_id: DataKeyId", k.master_key_id AS "master_key_id: MasterKeyId",
                k.wrapped
         FROM held h
         JOIN data_keys k ON k.app_id = h.app_id AND k.purpose = 'app'
         LEFT JOIN valid v ON true"#,
        app.uuid(),
        name,
        actor as &AuditActor,
        action,
        reason,
    )
    .fetch_optional(conn)
    .await
}

/// A lease on the token request, with everything that it needs.
#[derive(Debug)]
pub(in crate::upstreams) struct Job {
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
    pub(in crate::upstreams) key_id: DataKeyId,
    pub(in crate::upstreams) master_key_id: MasterKeyId,
    pub(in crate::upstreams) wrapped: Vec<u8>,
}

/// Takes the lease, where a token is due and nobody holds one: this is the one place that decides who
/// asks the upstream, for all replicas. `refused` is the epoch of a token that the upstream's API did
/// not take; it is due then whatever its age, but for one so young that another would not help.
pub(in crate::upstreams) async fn lease(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    time: Duration,
    refused: Option<(i32, Duration)>,
) -> sqlx::Result<Option<Job>> {
    let (epoch, least_age) = refused.unzip();
    sqlx::query_as!(
        Job,
        r#"UPDATE upstreams u SET lease_epoch = u.lease_epoch + 1, leased_until = strongroom_now() + $3
         FROM data_keys k
         WHERE u.app_id = $1 AND u.id = $2 AND k.app_id = u.app_id AND k.purpose = 'app'
           AND (u.leased_until IS NULL OR u.leased_until <= strongroom_now())
           AND (u.retry_at IS NULL OR u.retry_at <= strongroom_now())
           AND (u.token_refresh_at IS NULL OR u.token_refresh_at <= strongroom_now()
                OR (u.token_epoch = $4 AND u.token_asked_at <= strongroom_now() - $5::interval))
         RETURNING u.lease_epoch AS epoch, strongroom_now() AS "asked_at!", u.failures, u.name,
                   u.token_url, u.client_id,
                   u.client_secret AS "client_secret: Sealed<ClientSecret>", u.auth, u.scope,
                   u.parameters::text AS "parameters!",
                   k.id AS "key_id: DataKeyId",
                   k.master_key_id AS "master_key_id: MasterKeyId", k.wrapped"#,
        app.uuid(),
        id.uuid(),
        interval(time),
        epoch,
        least_age.map(interval),
    )
    .fetch_optional(conn)
    .await
}

/// Whether somebody holds the lease.
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

/// Keeps a token that was fetched under `epoch`, for as long as it lives from when it was asked for; it
/// is due for another before its end, by 10 to 20 % of its life and at most five minutes, drawn by lot, so
/// that many upstreams of one system are not asked in one moment. `false` where the lease has passed on.
pub(in crate::upstreams) async fn conclude_with_token(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    job: &Job,
    token: &Sealed<UpstreamToken>,
    lifetime: Duration,
    actor: &AuditActor,
) -> sqlx::Result<bool> {
    let recorded = sqlx::query_scalar!(
        r#"WITH kept AS (
            UPDATE upstreams SET
                access_token = $4, token_epoch = $3, token_asked_at = $5,
                token_refresh_at = $5::timestamptz + $6::interval
                    - least($6, interval '25 minutes') * (0.1 + 0.1 * random()),
                token_expires_at = $5::timestamptz + $6::interval, leased_until = NULL,
                failures = 0, failure = NULL, failure_detail = NULL, oauth_error = NULL, retry_at = NULL
            WHERE app_id = $1 AND id = $2 AND lease_epoch = $3
            RETURNING name),
         noted AS MATERIALIZED (
            SELECT record_audit($1, $7, 'upstream.token_fetched', 'ok', NULL, NULL, name) FROM kept)
         SELECT count(*) AS "count!" FROM noted"#,
        app.uuid(),
        id.uuid(),
        job.epoch,
        token.as_bytes(),
        job.asked_at,
        interval(lifetime),
        actor as &AuditActor,
    )
    .fetch_one(conn)
    .await?;
    Ok(recorded == 1)
}

/// Notes that the token request under this lease failed, and that nobody asks again for `wait`. A token
/// that is still valid stays.
pub(in crate::upstreams) async fn conclude_with_trouble(
    conn: &mut Conn,
    app: AppId,
    id: UpstreamId,
    job: &Job,
    trouble: &TokenError,
    wait: Duration,
    actor: &AuditActor,
) -> sqlx::Result<bool> {
    let recorded = sqlx::query_scalar!(
        r#"WITH kept AS (
            UPDATE upstreams SET
                failures = failures + 1, failure = $4, failure_detail = $5, oauth_error = $6,
                retry_at = strongroom_now() + $7, leased_until = NULL
            WHERE app_id = $1 AND id = $2 AND lease_epoch = $3
            RETURNING name),
         noted AS MATERIALIZED (
            SELECT record_audit($1, $8, 'upstream.token_fetched', 'failed', NULL, NULL, name) FROM kept)
         SELECT count(*) AS "count!" FROM noted"#,
        app.uuid(),
        id.uuid(),
        job.epoch,
        trouble.kind.as_str(),
        trouble.detail,
        trouble.oauth_error,
        interval(wait),
        actor as &AuditActor,
    )
    .fetch_one(conn)
    .await?;
    Ok(recorded == 1)
}
