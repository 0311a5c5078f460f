//! What waits for the background work: the table is its own queue, in the order of `due_at`.
//!
//! Whoever claims a row takes a lease under a new epoch, commits, and only then calls Dapi. A lease
//! that ran out without an outcome is somebody's crash: what it was for may have happened.

use std::time::Duration;

use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, TokenLeaseId, UserId};
use crate::base::secret::SecretText;
use crate::connections::model::Failure;
use crate::connections::sql::{WAIT_FOR_DELINKING, interval};
use crate::dapi::{AccessCode, AccessToken, UserSecret};
use crate::database::Conn;
use crate::vault::{Binding, KeyOwner, MasterKeyId, Sealed, WrappedKey};

/// A connection under a lease, with what a call to Dapi needs, sealed.
#[derive(Debug)]
pub struct Claimed<T> {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub dapi_connection_id: String,
    pub epoch: i32,
    /// The code or the token.
    pub secret: Sealed<T>,
    /// What the token is bound to; none if an earlier release sealed it.
    pub binding: Option<Binding>,
    /// Left out where the connection came through Dapi's own wire and no call has brought it yet.
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
}

/// What is claimed, of a row of one of the queries below.
macro_rules! claimed {
    ($row:ident) => {
        Claimed {
            app: $row.app_id,
            id: $row.id,
            user: $row.user_id,
            dapi_connection_id: $row.dapi_connection_id,
            epoch: $row.lease_epoch,
            secret: $row.secret,
            binding: $row.binding,
            user_secret: $row.user_secret,
            user_key: WrappedKey {
                id: $row.user_key_id,
                owner: KeyOwner::User { app: $row.app_id, user: $row.user_id },
                master_key_id: $row.user_master,
                wrapped: $row.user_wrapped,
            },
            credentials: SealedCredentials {
                app: $row.app_id,
                app_key: $row.app_key,
                app_secret: $row.app_secret,
                key: WrappedKey {
                    id: $row.app_key_id,
                    owner: KeyOwner::App($row.app_id),
                    master_key_id: $row.app_master,
                    wrapped: $row.app_wrapped,
                },
            },
        }
    };
}

/// Claims the codes among these rows of the app whose exchange is due, and puts off those that wait for the
/// delinking of an older link of their login. Without `probe` it claims none whose earlier attempt went
/// unanswered.
pub async fn claim_exchanges(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: Duration,
    probe: bool,
) -> sqlx::Result<Vec<Claimed<AccessCode>>> {
    let rows = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
            SELECT c.app_id, c.id,
                   (c.status = 'pending' AND EXISTS (
                       SELECT FROM connections o
                       WHERE o.app_id = c.app_id AND o.dapi_connection_id = c.dapi_connection_id
                         AND o.user_id = c.user_id AND o.status = 'revoking')) AS blocked
            FROM connections c
            WHERE c.id = ANY ($2) AND c.app_id = $1
              AND coalesce(c.due_at <= strongroom_now(), false) AND c.code IS NOT NULL
              AND c.code_expires_at > strongroom_now()
              AND ($4 OR (c.leased_until IS NULL AND NOT c.unanswered))
            ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
         postpone_row AS (
            UPDATE connections c
            SET due_at = strongroom_now() + $5::interval, leased_until = NULL,
                unanswered = c.unanswered OR c.leased_until IS NOT NULL
            FROM due WHERE due.blocked AND c.app_id = due.app_id AND c.id = due.id),
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, exchange_attempts = c.exchange_attempts + 1,
                leased_until = t.now + $3::interval, due_at = t.now + $3::interval,
                unanswered = c.unanswered OR c.leased_until IS NOT NULL
            FROM due, (SELECT strongroom_now() AS now) t
            WHERE NOT due.blocked AND c.app_id = due.app_id AND c.id = due.id
            RETURNING c.app_id, c.id, c.user_id, c.dapi_connection_id, c.lease_epoch, c.code, c.user_secret,
                      c.revocation_binding)
         SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
                c.dapi_connection_id, c.lease_epoch, c.code AS "secret!: Sealed<AccessCode>",
                c.user_secret AS "user_secret: Sealed<UserSecret>",
                coalesce(c.revocation_binding, b.binding) AS "binding?: Binding",
                uk.id AS "user_key_id: DataKeyId", uk.master_key_id AS "user_master: MasterKeyId",
                uk.wrapped AS user_wrapped, a.app_key, a.app_secret AS "app_secret: Sealed<SecretText>",
                ak.id AS "app_key_id: DataKeyId", ak.master_key_id AS "app_master: MasterKeyId",
                ak.wrapped AS app_wrapped
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
         LEFT JOIN token_bindings b ON b.connection_id = c.id"#,
        app.uuid(),
        ids,
        interval(lease),
        probe,
        interval(WAIT_FOR_DELINKING),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| claimed!(row));
    Ok(claimed.collect())
}

/// A token whose delinking is due, or what became of its revocation meanwhile.
#[derive(Debug)]
pub struct ClaimedDelink {
    pub claimed: Claimed<AccessToken>,
    /// The turn with the token, which the delinking has taken.
    pub token_lease: TokenLeaseId,
    /// Whether Dapi has taken the user secret, or Connect handed it over.
    pub user_secret_proven: bool,
    /// How often Dapi was told, this time included.
    pub attempts: i32,
    /// It was tried for as long as it is going to be, or its order was cancelled.
    pub given_up: bool,
    /// Another connection of the same login is active: delinking this one could cut that one.
    pub login_in_use: bool,
}

/// How soon a delinking looks again for a token that a call has its turn with.
const LOOK_FOR_LEASE: Duration = Duration::from_millis(500);

/// Claims the tokens among these rows of the app whose delinking is due, and takes their turns. Puts off what
/// cannot be told yet: a token that a call has its turn with, which runs to its end, and one whose user secret
/// has not come, without which Dapi delinks nothing. What brings the secret makes the row due again; otherwise
/// somebody looks when it is given up. One statement decides about each row, so that what is due is either
/// claimed or put off, but for what a paused order means: [`hold_paused`](crate::connections::bulk_revocation::store::hold_paused) takes it back.
pub async fn claim_delinks(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: Duration,
    give_up_after: Duration,
) -> sqlx::Result<Vec<ClaimedDelink>> {
    let rows = sqlx::query!(
        r#"WITH locked AS MATERIALIZED (
            SELECT c.app_id, c.id, c.user_secret IS NULL AS secretless,
                   coalesce(c.revocation_released_at, c.revocation_requested_at) + $4::interval AS gives_up_at,
                   EXISTS (SELECT FROM bulk_revocations r
                           WHERE r.id = c.bulk_revocation_id AND r.state = 'cancelled') AS cancelled,
                   EXISTS (SELECT FROM token_leases t
                           WHERE t.connection_id = c.id AND t.ends_at > strongroom_now()) AS in_a_call,
                   EXISTS (SELECT FROM token_leases t WHERE t.connection_id = c.id) AS has_lease
            FROM connections c
            WHERE c.id = ANY ($2) AND c.app_id = $1
              AND coalesce(c.due_at <= strongroom_now(), false) AND c.status = 'revoking'
              AND c.access_token IS NOT NULL
              AND (NOT EXISTS (SELECT FROM bulk_revocations r
                               WHERE r.id = c.bulk_revocation_id AND r.state = 'paused')
                   OR EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
                   OR EXISTS (SELECT FROM connections w
                              WHERE w.app_id = c.app_id AND w.dapi_connection_id = c.dapi_connection_id
                                AND w.user_id = c.user_id AND w.status = 'pending'))
            ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
         decided AS MATERIALIZED (
            SELECT l.*, l.cancelled OR l.gives_up_at <= strongroom_now() AS given_up,
                   CASE WHEN l.in_a_call THEN strongroom_now() + $5::interval
                        WHEN l.secretless AND NOT l.cancelled AND l.gives_up_at > strongroom_now()
                            THEN l.gives_up_at
                   END AS later
            FROM locked l),
         postpone_row AS (
            UPDATE connections c
            SET leased_until = NULL, due_at = d.later,
                revocation_last_error = CASE WHEN d.in_a_call THEN c.revocation_last_error
                                             ELSE 'user_secret_missing' END
            FROM decided d WHERE d.later IS NOT NULL AND c.app_id = d.app_id AND c.id = d.id),
         dead_leases AS MATERIALIZED (
            SELECT t.connection_id FROM token_leases t
            WHERE t.connection_id IN (SELECT id FROM decided WHERE later IS NULL AND has_lease)
            FOR UPDATE SKIP LOCKED),
         taken AS (
            INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
            SELECT id, new_uuid_v7(), strongroom_now() + $3::interval FROM decided
            WHERE later IS NULL
              AND (NOT has_lease OR id IN (SELECT connection_id FROM dead_leases)) ORDER BY id
            ON CONFLICT (connection_id) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
            WHERE t.ends_at <= strongroom_now()
            RETURNING connection_id, lease_id),
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, revocation_attempts = c.revocation_attempts + 1,
                leased_until = t.now + $3::interval, due_at = t.now + $3::interval
            FROM decided d, taken, (SELECT strongroom_now() AS now) t
            WHERE c.app_id = d.app_id AND c.id = d.id AND taken.connection_id = d.id
            RETURNING c.*, taken.lease_id, d.given_up)
         SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
                c.dapi_connection_id, c.lease_epoch, c.access_token AS "secret!: Sealed<AccessToken>",
                c.user_secret AS "user_secret: Sealed<UserSecret>",
                coalesce(c.revocation_binding, b.binding) AS "binding?: Binding", c.user_secret_proven,
                c.revocation_attempts,
                c.lease_id AS "lease_id: TokenLeaseId",
                c.given_up AS "given_up!",
                EXISTS (SELECT FROM connections o
                        WHERE o.app_id = c.app_id AND o.dapi_connection_id = c.dapi_connection_id
                          AND o.status = 'active') AS "login_in_use!",
                uk.id AS "user_key_id: DataKeyId", uk.master_key_id AS "user_master: MasterKeyId",
                uk.wrapped AS user_wrapped, a.app_key, a.app_secret AS "app_secret: Sealed<SecretText>",
                ak.id AS "app_key_id: DataKeyId", ak.master_key_id AS "app_master: MasterKeyId",
                ak.wrapped AS app_wrapped
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
         LEFT JOIN token_bindings b ON b.connection_id = c.id"#,
        app.uuid(),
        ids,
        interval(lease),
        interval(give_up_after),
        interval(LOOK_FOR_LEASE),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| ClaimedDelink {
        token_lease: row.lease_id,
        user_secret_proven: row.user_secret_proven,
        attempts: row.revocation_attempts,
        given_up: row.given_up,
        login_in_use: row.login_in_use,
        claimed: claimed!(row),
    });
    Ok(claimed.collect())
}

/// Ends those of these pending connections whose window closed and whose lease is not alive. Returns
/// their ids.
pub async fn expire_codes(conn: &mut Conn, ids: &[Uuid]) -> sqlx::Result<Vec<ConnectionId>> {
    let (unknown, unused) = (Failure::window_closed(true), Failure::window_closed(false));
    sqlx::query_scalar!(
        r#"WITH due AS (
            SELECT app_id, id FROM connections
            WHERE id = ANY ($1) AND coalesce(due_at <= strongroom_now(), false) AND status = 'pending'
              AND code IS NOT NULL AND code_expires_at <= strongroom_now()
            ORDER BY id FOR UPDATE SKIP LOCKED),
         swept AS (
            UPDATE connections c
            SET status = 'expired', code = NULL, user_secret = NULL, due_at = NULL, leased_until = NULL,
                failure_type = CASE WHEN c.unanswered OR c.leased_until IS NOT NULL THEN $2 ELSE $3 END,
                failure_detail = CASE WHEN c.unanswered OR c.leased_until IS NOT NULL THEN $4 ELSE $5 END
            FROM due WHERE c.app_id = due.app_id AND c.id = due.id
            RETURNING c.app_id, c.id, c.user_id, c.failure_type),
         noted AS (
            SELECT id, record_audit(app_id, $6, 'connection.expired', 'expired', user_id, id, failure_type)
            FROM swept)
         SELECT id AS "id: ConnectionId" FROM noted"#,
        ids,
        unknown.kind,
        unused.kind,
        unknown.detail,
        unused.detail,
        AuditActor::from(&Actor::service()) as AuditActor,
    )
    .fetch_all(conn)
    .await
}

/// Forgets connect sessions that ended a day ago, with the list of what they handed in.
pub async fn delete_ended_sessions(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM connect_sessions WHERE expires_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// How much waits, for the metrics.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Pending connections, and the age of the oldest in seconds.
    pub pending: (i64, f64),
    /// Revocations that Dapi has not confirmed, and the age of the oldest in seconds.
    pub revoking: (i64, f64),
    /// Active connections whose user has to link the login again.
    pub needing_attention: i64,
}

/// Counts what waits.
pub async fn backlog(conn: &mut Conn) -> sqlx::Result<Backlog> {
    let row = sqlx::query!(
        r#"WITH waiting AS (
            SELECT status, created_at, revocation_requested_at FROM connections WHERE due_at IS NOT NULL
            UNION ALL
            SELECT status, created_at, revocation_requested_at FROM connections
            WHERE status = 'revoking' AND due_at IS NULL)
         SELECT count(*) FILTER (WHERE status = 'pending') AS "pending!",
                coalesce(extract(epoch FROM max(strongroom_now() - created_at)
                    FILTER (WHERE status = 'pending'))::float8, 0) AS "oldest_pending!",
                count(*) FILTER (WHERE status = 'revoking') AS "revoking!",
                coalesce(extract(epoch FROM max(strongroom_now() - revocation_requested_at)
                    FILTER (WHERE status = 'revoking'))::float8, 0) AS "oldest_revoking!",
                (SELECT count(*) FROM connections
                 WHERE attention_type IS NOT NULL AND status = 'active') AS "needing_attention!"
         FROM waiting"#,
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: (row.pending, row.oldest_pending),
        revoking: (row.revoking, row.oldest_revoking),
        needing_attention: row.needing_attention,
    })
}
