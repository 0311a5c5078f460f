//! Leases: one call at a time with a token, whichever replica makes it. The tables `token_leases` (who has
//! it) and `token_lease_queue` (who waits).
//!
//! A call starts when its lease_id commits: the same statement locks the connection against a revocation,
//! records the call and reads what it needs.

use std::time::Duration;

use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, TokenLeaseId, UserId};
use crate::base::secret::SecretText;
use crate::connections::sql::{column, interval};
use crate::dapi::{AccessToken, UserSecret};
use crate::database::{BatchQuery, Conn};
use crate::vault::{Binding, KeyOwner, MasterKeyId, Sealed, WrappedKey};

/// How long a position in the queue counts without being heard of.
const ALIVE: Duration = Duration::from_secs(15);

/// A request to call Dapi with a connection's token now. No order of the app is committed while it runs. Its
/// output is `None` if the connection is not active, needs attention or is meant by an order in force, if
/// somebody else has the lease_id or comes first, or if the row is locked at this moment.
#[derive(Debug)]
pub struct AcquireLease {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub lease_id: TokenLeaseId,
    /// Its position among those who wait, where it has waited.
    pub position: Option<i64>,
    /// When the lease_id ends by itself.
    pub limit: Duration,
    /// What is called, for the audit trail.
    pub path: &'static str,
}

/// A lease_id that is taken, with what the call needs, sealed.
#[derive(Debug)]
pub struct AcquiredLease {
    pub user: UserId,
    pub access_token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_secret_proven: bool,
    /// No call has succeeded with the token yet.
    pub unproven: bool,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
}

impl BatchQuery for AcquireLease {
    type Output = Option<AcquiredLease>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        // Leases are taken in the order of their connections, so that two statements that share some
        // cannot wait for each other.
        let rows = sqlx::query!(
            r#"WITH requests AS (
                SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::interval[],
                                     $6::text[], $7::audit_actor[]) WITH ORDINALITY
                AS i (app_id, id, lease_id, position, lasts, path,
                      actor, client_id, session_id, scope, ip, request_id, n)),
             next AS (
                SELECT DISTINCT ON (w.id) w.* FROM requests w
                WHERE NOT EXISTS (
                        SELECT FROM token_lease_queue q
                        WHERE q.connection_id = w.id AND q.alive_until > strongroom_now()
                          AND (w.position IS NULL OR q.position < w.position))
                  AND (w.position IS NULL OR EXISTS (
                        SELECT FROM token_lease_queue q WHERE q.connection_id = w.id AND q.position = w.position))
                ORDER BY w.id, w.position, w.n),
             uses AS MATERIALIZED (
                SELECT a.app_id, begin_use(a.app_id) AS asks
                FROM (SELECT DISTINCT app_id FROM requests ORDER BY app_id) a),
             held AS MATERIALIZED (
                SELECT x.n, x.lease_id, x.position, x.lasts, c.* FROM next x
                JOIN uses e ON e.app_id = x.app_id
                JOIN connections c ON c.app_id = x.app_id AND c.id = x.id
                WHERE c.status = 'active' AND c.attention_type IS NULL
                  AND CASE WHEN e.asks
                           THEN NOT is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at,
                                                        c.created_by, c.ordinal)
                           ELSE true END
                FOR SHARE OF c SKIP LOCKED),
             taken AS (
                INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
                SELECT id, lease_id, strongroom_now() + lasts FROM held ORDER BY id
                ON CONFLICT (connection_id) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
                WHERE t.ends_at <= strongroom_now()
                RETURNING lease_id),
             begun AS (SELECT h.* FROM held h JOIN taken t USING (lease_id)),
             left_queue AS (
                DELETE FROM token_lease_queue q USING begun b
                WHERE q.connection_id = b.id AND q.position = b.position),
             noted AS (
                INSERT INTO audit_events (
                    app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
                    user_id, connection_id, reason)
                SELECT b.app_id, 'dapi.call', 'begun', w.actor, w.client_id, w.session_id, w.scope,
                       w.ip, w.request_id, b.user_id, b.id, w.path
                FROM begun b JOIN requests w USING (n))
             SELECT b.n AS "n!", b.user_id AS "user: UserId", b.app_id AS "app: AppId",
                    b.access_token AS "access_token!: Sealed<AccessToken>",
                    tb.binding AS "binding?: Binding",
                    b.user_secret AS "user_secret: Sealed<UserSecret>", b.user_secret_proven,
                    b.unproven, uk.id AS "user_key_id: DataKeyId", uk.master_key_id AS "user_master: MasterKeyId",
                    uk.wrapped AS user_wrapped, a.app_key, a.app_secret AS "app_secret: Sealed<SecretText>",
                    ak.id AS "app_key_id: DataKeyId", ak.master_key_id AS "app_master: MasterKeyId",
                    ak.wrapped AS app_wrapped
             FROM begun b
             JOIN data_keys uk ON uk.user_id = b.user_id AND uk.purpose = 'user'
             JOIN apps a ON a.id = b.app_id
             JOIN data_keys ak ON ak.app_id = b.app_id AND ak.purpose = 'app'
             LEFT JOIN token_bindings tb ON tb.connection_id = b.id"#,
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            &column(inputs, |input| input.lease_id.uuid()),
            column(inputs, |input| input.position) as Vec<Option<i64>>,
            &column(inputs, |input| interval(input.limit)),
            column(inputs, |input| input.path) as Vec<&str>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
        )
        .fetch_all(conn)
        .await?;
        let mut taken: Vec<_> = inputs.iter().map(|_| None).collect();
        for row in rows {
            *output_of(&mut taken, row.n)? = Some(AcquiredLease {
                user: row.user,
                access_token: row.access_token,
                binding: row.binding,
                user_secret: row.user_secret,
                user_secret_proven: row.user_secret_proven,
                unproven: row.unproven,
                user_key: WrappedKey {
                    id: row.user_key_id,
                    owner: KeyOwner::User { app: row.app, user: row.user },
                    master_key_id: row.user_master,
                    wrapped: row.user_wrapped,
                },
                credentials: SealedCredentials {
                    app: row.app,
                    app_key: row.app_key,
                    app_secret: row.app_secret,
                    key: WrappedKey {
                        id: row.app_key_id,
                        owner: KeyOwner::App(row.app),
                        master_key_id: row.app_master,
                        wrapped: row.app_wrapped,
                    },
                },
            });
        }
        Ok(taken)
    }
}

/// The position of the n-th request's output; the first is 1.
fn output_of<T>(outputs: &mut [T], n: i64) -> sqlx::Result<&mut T> {
    let position = usize::try_from(n).ok().and_then(|n| outputs.get_mut(n.checked_sub(1)?));
    position.ok_or_else(|| sqlx::Error::Decode("a row that nobody asked for".into()))
}

/// The end of a call: its lease_id is free, and what came of it is on record.
#[derive(Debug, Clone)]
pub struct ReleaseLease {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub user: Option<UserId>,
    pub lease_id: TokenLeaseId,
    pub outcome: &'static str,
    /// What was called, and the HTTP status where there was one.
    pub reason: String,
    /// The token was used, as far as is known.
    pub used: bool,
    /// The `type` by which the connection needs attention from now on.
    pub attention: Option<String>,
}

impl BatchQuery for ReleaseLease {
    type Output = ();

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<()>> {
        // What needs attention says so before its lease_id is free. When a connection was used is noted by the
        // minute, and not at all where somebody has locked it in this moment.
        sqlx::query!(
            "WITH ended AS (
                SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                                     $7::bool[], $8::text[], $9::audit_actor[])
                AS i (app_id, id, user_id, lease_id, outcome, reason, used, attention,
                      actor, client_id, session_id, scope, ip, request_id)),
             marks AS (
                SELECT DISTINCT ON (id) app_id, id, attention FROM ended
                WHERE used OR attention IS NOT NULL ORDER BY id, attention),
             stale AS MATERIALIZED (
                SELECT c.app_id, c.id, NULL::text AS attention FROM marks m
                JOIN connections c ON c.app_id = m.app_id AND c.id = m.id
                WHERE m.attention IS NULL AND (
                    c.last_used_at IS NULL OR c.last_used_at <= strongroom_now() - interval '1 minute')
                FOR NO KEY UPDATE OF c SKIP LOCKED),
             refused AS MATERIALIZED (
                SELECT c.app_id, c.id, m.attention FROM marks m
                JOIN connections c ON c.app_id = m.app_id AND c.id = m.id
                WHERE m.attention IS NOT NULL AND c.status = 'active' AND c.attention_type IS NULL
                ORDER BY c.id FOR NO KEY UPDATE OF c),
             marked AS (
                UPDATE connections c
                SET last_used_at = t.now, attention_type = coalesce(x.attention, c.attention_type),
                    attention_since = CASE WHEN x.attention IS NULL THEN c.attention_since ELSE t.now END
                FROM (SELECT * FROM stale UNION ALL SELECT * FROM refused) x,
                     (SELECT strongroom_now() AS now) t
                WHERE c.app_id = x.app_id AND c.id = x.id
                RETURNING c.app_id, c.id, c.user_id, x.attention),
             mine AS MATERIALIZED (
                SELECT t.connection_id, t.lease_id FROM token_leases t
                JOIN ended e ON t.connection_id = e.id AND t.lease_id = e.lease_id
                ORDER BY t.connection_id FOR UPDATE OF t),
             freed AS (
                DELETE FROM token_leases t USING mine m
                WHERE t.connection_id = m.connection_id AND t.lease_id = m.lease_id)
             INSERT INTO audit_events (
                 app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
                 user_id, connection_id, reason)
             SELECT app_id, 'dapi.call', outcome, actor, client_id, session_id, scope, ip, request_id,
                    user_id, id, reason
             FROM ended
             UNION ALL
             SELECT app_id, 'connection.attention_set', 'ok', 'service', NULL, NULL, NULL, NULL, NULL,
                    user_id, id, attention
             FROM marked WHERE attention IS NOT NULL",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            column(inputs, |input| input.user.map(UserId::uuid)) as Vec<Option<Uuid>>,
            &column(inputs, |input| input.lease_id.uuid()),
            column(inputs, |input| input.outcome) as Vec<&str>,
            column(inputs, |input| input.reason.as_str()) as Vec<&str>,
            &column(inputs, |input| input.used),
            column(inputs, |input| input.attention.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
        )
        .execute(conn)
        .await?;
        Ok(inputs.iter().map(|_| ()).collect())
    }
}

/// Frees the lease_id that a delinking took, whichever lease it was under: the lease lasted as long.
pub async fn release_delink_lease(
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

/// Takes the lease of a token that is not here yet, by a name that only this token has; `false` while
/// somebody else has it.
pub async fn take_lease_by_name(
    conn: &mut Conn,
    name: ConnectionId,
    lease: TokenLeaseId,
    lasts: Duration,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
         VALUES ($1, $2, strongroom_now() + $3::interval)
         ON CONFLICT (connection_id) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
         WHERE t.ends_at <= strongroom_now()",
        name.uuid(),
        lease.uuid(),
        interval(lasts),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a position at the end of a connection's queue; `None` where `most` wait already.
pub async fn join_queue(conn: &mut Conn, id: ConnectionId, most: i64) -> sqlx::Result<Option<i64>> {
    let mut tx = conn.begin().await?;
    // One at a time, so that there are never more than `most`.
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
        interval(ALIVE),
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(position)
}

/// Says that somebody still waits at these places; returns those that are still there.
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
        interval(ALIVE),
    )
    .fetch_all(conn)
    .await
}

/// Gives a position up.
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

/// Forgets leases and places that dead replicas left behind, long enough after their end that nobody can
/// come back to them.
pub async fn delete_expired_leases(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH leases AS (
            DELETE FROM token_leases WHERE ends_at < (SELECT strongroom_now()) - interval '1 hour')
         DELETE FROM token_lease_queue WHERE alive_until < (SELECT strongroom_now()) - interval '1 minute'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the user secret that a call through Dapi's own wire brought, where none is there that Dapi is
/// known to take. What waits for it to be delinked is looked at now.
pub async fn store_user_secret(
    conn: &mut Conn,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    user_secret: &Sealed<UserSecret>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH changed AS (
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

/// Dapi has taken this user secret: from now on it stays.
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
