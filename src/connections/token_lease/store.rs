//! The tables `token_leases` (one row per token in use) and `token_lease_queue` (one row per waiting caller).
//!
//! A call begins when its lease commits. The same statement locks the connection against a revocation, writes the
//! audit row and reads what the call needs.
//!
//! Lock order: the app's usage lock, connections, token leases.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::connections::sql::{column, output_of};
use crate::database::{BatchQuery, Conn, interval};
use crate::providers::{AccessToken, Provider, UserSecret};
use crate::vault::{Binding, Sealed, WrappedKey};

/// Time after which a position that is not renewed counts as abandoned.
const POSITION_TTL: Duration = Duration::from_secs(15);

/// A request for a token's lease. No bulk revocation of the app commits while its statement runs. Returns `None` if
/// the connection is not active, needs attention or matches a bulk revocation in force; if the lease is not free or
/// another caller comes first; or if the row is locked right now.
#[derive(Debug)]
pub struct AcquireLease {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub lease_id: TokenLeaseId,
    /// The caller's position in the queue, if it has waited.
    pub position: Option<i64>,
    /// Whether a connection that needs attention gives a lease too.
    pub despite_attention: bool,
    /// Time after which the lease ends by itself.
    pub limit: Duration,
    /// The bank link that the call is made at; a connection of another has no lease to give.
    pub provider: Provider,
    /// The provider's path, for the audit trail.
    pub path: &'static str,
}

impl AcquireLease {
    /// Calls of a provider that takes one at a time share a slot, of which there is one lease; others get slots of
    /// their own.
    fn slot(&self) -> Uuid {
        if self.provider.has_serial_calls() { Uuid::nil() } else { self.lease_id.uuid() }
    }
}

/// What the call of an acquired lease needs, sealed.
#[derive(Debug)]
pub struct AcquiredLease {
    pub user: UserId,
    pub access_token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_secret_proven: bool,
    /// No call has succeeded with this token yet, so that the one that it superseded is still kept; or it may have been
    /// replaced.
    pub unproven: bool,
    /// The connection needs attention. The call is made to repair the login, or to try whether it was repaired.
    pub needs_attention: bool,
    pub begun_at: OffsetDateTime,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
}

impl BatchQuery for AcquireLease {
    const NAME: &'static str = "acquire_lease";

    type Output = Option<AcquiredLease>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        let rows = sqlx::query_file!(
            "src/connections/token_lease/acquire.sql",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            &column(inputs, |input| input.lease_id.uuid()),
            column(inputs, |input| input.position) as Vec<Option<i64>>,
            &column(inputs, |input| interval(input.limit)),
            column(inputs, |input| input.path) as Vec<&str>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
            &column(inputs, AcquireLease::slot),
            column(inputs, |input| input.provider.as_str()) as Vec<&str>,
            &column(inputs, |input| input.despite_attention),
        )
        .fetch_all(conn)
        .await?;
        let mut acquired: Vec<_> = inputs.iter().map(|_| None).collect();
        for row in rows {
            *output_of(&mut acquired, row.n)? = Some(AcquiredLease {
                user: row.user,
                access_token: row.access_token,
                binding: row.binding,
                user_secret: row.user_secret,
                user_secret_proven: row.user_secret_proven,
                unproven: row.unproven,
                needs_attention: row.needs_attention,
                begun_at: row.begun_at,
                user_key: row.user_key,
                credentials: row.credentials,
            });
        }
        Ok(acquired)
    }
}

/// The end of a call: releases its lease and records its outcome.
#[derive(Debug, Clone)]
pub struct ReleaseLease {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub user: Option<UserId>,
    pub lease_id: TokenLeaseId,
    pub outcome: &'static str,
    /// The bank link that the call was made at.
    pub provider: Provider,
    /// The provider's path, and the HTTP status if there was an answer.
    pub reason: String,
    /// The call may have reached Dapi, so that `last_used_at` advances.
    pub used: bool,
    /// The kind of refusal for which the connection needs attention from now on.
    pub attention: Option<String>,
    /// When the call began, if it did: a refusal says nothing about a login that was repaired since.
    pub begun_at: Option<OffsetDateTime>,
}

impl BatchQuery for ReleaseLease {
    const NAME: &'static str = "release_lease";

    type Output = ();

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<()>> {
        // One statement: a connection that needs attention says so no later than its lease is free, so that the
        // next caller cannot make a call that might lock the account.
        sqlx::query_file!(
            "src/connections/token_lease/release.sql",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            column(inputs, |input| input.user.map(UserId::uuid)) as Vec<Option<Uuid>>,
            &column(inputs, |input| input.lease_id.uuid()),
            column(inputs, |input| input.outcome) as Vec<&str>,
            column(inputs, |input| input.reason.as_str()) as Vec<&str>,
            &column(inputs, |input| input.used),
            column(inputs, |input| input.attention.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
            column(inputs, |input| input.provider.as_str()) as Vec<&str>,
            column(inputs, |input| input.begun_at) as Vec<Option<OffsetDateTime>>,
        )
        .execute(conn)
        .await?;
        Ok(inputs.iter().map(|_| ()).collect())
    }
}

/// Returns the sealed token of an active connection, and its binding.
pub async fn held_token(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<(Sealed<AccessToken>, Option<Binding>)>> {
    let row = sqlx::query!(
        r#"SELECT c.access_token AS "token!: Sealed<AccessToken>", b.binding AS "binding?: Binding"
         FROM connections c LEFT JOIN token_bindings b ON b.connection_id = c.id
         WHERE c.app_id = $1 AND c.id = $2 AND c.status = 'active'"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.token, row.binding)))
}

/// Releases a token lease by its id, without a record of a call: a delinking's or a verification's. Does nothing if
/// another call has taken it over.
pub async fn release_by_id(
    conn: &mut Conn,
    id: ConnectionId,
    lease_id: TokenLeaseId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM token_leases WHERE connection_id = $1 AND lease_id = $2",
        id.uuid(),
        lease_id.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Acquires the lease of a token that has no connection yet, under an id derived from the token. Returns `false`
/// while another call has it.
pub async fn acquire_lease_by_name(
    conn: &mut Conn,
    name: ConnectionId,
    lease: TokenLeaseId,
    lasts: Duration,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
         VALUES ($1, $2, strongroom_now() + $3::interval)
         ON CONFLICT (connection_id, slot) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
         WHERE t.ends_at <= strongroom_now()",
        name.uuid(),
        lease.uuid(),
        interval(lasts),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Appends a position to a token's queue. Returns `None` if `most` callers wait already.
pub async fn join_queue(conn: &mut Conn, id: ConnectionId, most: i64) -> sqlx::Result<Option<i64>> {
    let mut tx = conn.begin().await?;
    // Serializes the callers of one queue: two counts at the same time could exceed `most`.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('queue' || $1::uuid::text, 0))",
        id.uuid(),
    )
    .execute(&mut *tx)
    .await?;
    let position = sqlx::query_scalar!(
        "INSERT INTO token_lease_queue (connection_id, alive_until)
         SELECT $1, strongroom_now() + $3::interval
         WHERE (SELECT count(*) FROM token_lease_queue
                WHERE connection_id = $1 AND alive_until > strongroom_now()) < $2
         RETURNING position",
        id.uuid(),
        most,
        interval(POSITION_TTL),
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(position)
}

/// Renews these positions. Returns those that still exist.
pub async fn stay_in_queue(
    conn: &mut Conn,
    id: ConnectionId,
    positions: &[i64],
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        "UPDATE token_lease_queue SET alive_until = strongroom_now() + $3::interval
         WHERE connection_id = $1 AND position = ANY($2)
         RETURNING position",
        id.uuid(),
        positions,
        interval(POSITION_TTL),
    )
    .fetch_all(conn)
    .await
}

pub async fn leave_queue(conn: &mut Conn, id: ConnectionId, position: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM token_lease_queue WHERE connection_id = $1 AND position = $2",
        id.uuid(),
        position,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the leases and positions that dead replicas left behind, long enough after their end that no caller can
/// come back to them. Returns how many positions it deleted.
pub async fn delete_expired_leases(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_expired_leases
         WITH leases AS (
            DELETE FROM token_leases WHERE ends_at < (SELECT strongroom_now()) - interval '1 hour')
         DELETE FROM token_lease_queue WHERE alive_until < (SELECT strongroom_now()) - interval '1 minute'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Stores the user secret that a call through Dapi's own wire brought, unless the connection has a proven one. Makes
/// a delinking that waits for the secret due at once.
pub async fn store_user_secret(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    user_secret: &Sealed<UserSecret>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "-- name: store_user_secret
         WITH changed AS (
            UPDATE connections
            SET user_secret = $3, user_secret_proven = false,
                due_at = CASE WHEN status = 'revoking' AND leased_until IS NULL AND due_at IS NOT NULL
                              THEN strongroom_now() ELSE due_at END
            WHERE app_id = $1 AND id = $2 AND status IN ('active', 'revoking')
              AND by_wire AND (user_secret IS NULL OR NOT user_secret_proven)
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $4, 'connection.user_secret_received', 'ok', user_id, id, NULL)
         FROM changed",
        app.uuid(),
        id.uuid(),
        user_secret.as_bytes(),
        actor as &AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks this user secret as proven, if the connection still has it.
pub async fn prove_user_secret(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    user_secret: &Sealed<UserSecret>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE connections SET user_secret_proven = true
         WHERE app_id = $1 AND id = $2 AND user_secret = $3",
        app.uuid(),
        id.uuid(),
        user_secret.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
