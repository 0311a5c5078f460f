//! What waits for the background work: the table is its own queue, in the order of `due_at`.
//!
//! Whoever claims a row takes a lease under a new epoch, commits, and only then calls Dapi. A lease
//! that ran out without an outcome is somebody's crash: what it was for may have happened.

use std::time::Duration;

use super::{WAIT_FOR_DELINKING, interval};
use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, TurnId, UserId};
use crate::base::secret::SecretText;
use crate::connections::model::Failure;
use crate::dapi::{AccessCode, AccessToken, UserSecret};
use crate::database::Conn;
use crate::vault::{KeyOwner, MasterKeyId, Sealed, WrappedKey};

/// A connection under a lease, with what a call to Dapi needs, sealed.
#[derive(Debug)]
pub(in crate::connections) struct Claimed<T> {
    pub(in crate::connections) app: AppId,
    pub(in crate::connections) id: ConnectionId,
    pub(in crate::connections) user: UserId,
    pub(in crate::connections) connection_id: String,
    pub(in crate::connections) epoch: i32,
    /// The code or the token.
    pub(in crate::connections) secret: Sealed<T>,
    /// Left out where the connection came through Dapi's own wire and no call has brought it yet.
    pub(in crate::connections) user_secret: Option<Sealed<UserSecret>>,
    pub(in crate::connections) user_key: WrappedKey,
    pub(in crate::connections) credentials: SealedCredentials,
}

/// Puts off what waits for the delinking of an older link of its login.
pub(in crate::connections) async fn postpone_blocked(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH blocked AS (
            SELECT c.app_id, c.id FROM connections c
            WHERE c.due_at <= (SELECT strongroom_now()) AND c.status = 'pending' AND c.code IS NOT NULL
              AND c.code_expires_at > strongroom_now()
              AND EXISTS (SELECT FROM connections o
                          WHERE o.app_id = c.app_id AND o.connection_id = c.connection_id
                            AND o.user_id = c.user_id AND o.status = 'revoking')
            FOR UPDATE OF c SKIP LOCKED)
         UPDATE connections c
         SET due_at = strongroom_now() + $1::interval, leased_until = NULL,
             unanswered = c.unanswered OR c.leased_until IS NOT NULL
         FROM blocked WHERE c.app_id = blocked.app_id AND c.id = blocked.id",
        interval(WAIT_FOR_DELINKING),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Claims up to `limit` codes whose exchange is due. Without `probe` none whose earlier attempt went
/// unanswered.
pub(in crate::connections) async fn claim_exchanges(
    conn: &mut Conn,
    limit: i64,
    lease: Duration,
    probe: bool,
) -> sqlx::Result<Vec<Claimed<AccessCode>>> {
    let rows = sqlx::query!(
        "WITH due AS (
            SELECT c.app_id, c.id FROM connections c
            WHERE c.due_at <= (SELECT strongroom_now()) AND c.code IS NOT NULL
              AND c.code_expires_at > strongroom_now()
              AND ($3 OR (c.leased_until IS NULL AND NOT c.unanswered))
              AND NOT (c.status = 'pending' AND EXISTS (
                  SELECT FROM connections o
                  WHERE o.app_id = c.app_id AND o.connection_id = c.connection_id
                    AND o.user_id = c.user_id AND o.status = 'revoking'))
            ORDER BY c.due_at LIMIT $1 FOR UPDATE OF c SKIP LOCKED),
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, exchange_attempts = c.exchange_attempts + 1,
                leased_until = t.now + $2::interval, due_at = t.now + $2::interval,
                unanswered = c.unanswered OR c.leased_until IS NOT NULL
            FROM due, (SELECT strongroom_now() AS now) t
            WHERE c.app_id = due.app_id AND c.id = due.id
            RETURNING c.app_id, c.id, c.user_id, c.connection_id, c.lease_epoch, c.code, c.user_secret)
         SELECT c.app_id AS \"app_id: AppId\", c.id AS \"id: ConnectionId\", c.user_id AS \"user_id: UserId\",
                c.connection_id, c.lease_epoch, c.code AS \"secret!: Sealed<AccessCode>\",
                c.user_secret AS \"user_secret: Sealed<UserSecret>\",
                uk.id AS \"user_key_id: DataKeyId\", uk.master_key_id AS \"user_master: MasterKeyId\",
                uk.wrapped AS user_wrapped, a.app_key, a.app_secret AS \"app_secret: Sealed<SecretText>\",
                ak.id AS \"app_key_id: DataKeyId\", ak.master_key_id AS \"app_master: MasterKeyId\",
                ak.wrapped AS app_wrapped
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'",
        limit,
        interval(lease),
        probe,
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| Claimed {
        app: row.app_id,
        id: row.id,
        user: row.user_id,
        connection_id: row.connection_id,
        epoch: row.lease_epoch,
        secret: row.secret,
        user_secret: row.user_secret,
        user_key: WrappedKey {
            id: row.user_key_id,
            owner: KeyOwner::User { app: row.app_id, user: row.user_id },
            master_key_id: row.user_master,
            wrapped: row.user_wrapped,
        },
        credentials: SealedCredentials {
            app: row.app_id,
            app_key: row.app_key,
            app_secret: row.app_secret,
            key: WrappedKey {
                id: row.app_key_id,
                owner: KeyOwner::App(row.app_id),
                master_key_id: row.app_master,
                wrapped: row.app_wrapped,
            },
        },
    });
    Ok(claimed.collect())
}

/// A token whose delinking is due, or what became of its revocation meanwhile.
#[derive(Debug)]
pub(in crate::connections) struct ClaimedDelink {
    pub(in crate::connections) claimed: Claimed<AccessToken>,
    /// The turn with the token, which the delinking has taken.
    pub(in crate::connections) turn: TurnId,
    /// Whether Dapi has taken the user secret, or Connect handed it over.
    pub(in crate::connections) user_secret_proven: bool,
    /// How often Dapi was told, this time included.
    pub(in crate::connections) attempts: i32,
    /// It was tried for as long as it is going to be, or its order was cancelled.
    pub(in crate::connections) given_up: bool,
    /// Another connection of the same login is active: delinking this one could cut that one.
    pub(in crate::connections) login_in_use: bool,
}

/// Claims up to `limit` tokens whose delinking is due and whose turn is free, and takes that turn.
pub(in crate::connections) async fn claim_delinks(
    conn: &mut Conn,
    limit: i64,
    lease: Duration,
    give_up_after: Duration,
) -> sqlx::Result<Vec<ClaimedDelink>> {
    let rows = sqlx::query!(
        "WITH due AS (
            SELECT c.app_id, c.id FROM connections c
            WHERE c.due_at <= (SELECT strongroom_now()) AND c.status = 'revoking'
              AND c.access_token IS NOT NULL
              AND (c.user_secret IS NOT NULL
                   OR coalesce(c.revocation_released_at, c.revocation_requested_at) + $3::interval
                       <= strongroom_now()
                   OR EXISTS (SELECT FROM revocation_orders r
                              WHERE r.id = c.revocation_order AND r.state = 'cancelled'))
              AND NOT EXISTS (SELECT FROM token_turns t
                              WHERE t.connection_id = c.id AND t.ends_at > strongroom_now())
            ORDER BY c.due_at LIMIT $1 FOR UPDATE SKIP LOCKED),
         taken AS (
            INSERT INTO token_turns AS t (connection_id, turn, ends_at)
            SELECT id, new_uuid_v7(), strongroom_now() + $2::interval FROM due ORDER BY id
            ON CONFLICT (connection_id) DO UPDATE SET turn = excluded.turn, ends_at = excluded.ends_at
            WHERE t.ends_at <= strongroom_now()
            RETURNING connection_id, turn),
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, revocation_attempts = c.revocation_attempts + 1,
                leased_until = t.now + $2::interval, due_at = t.now + $2::interval
            FROM due, taken, (SELECT strongroom_now() AS now) t
            WHERE c.app_id = due.app_id AND c.id = due.id AND taken.connection_id = due.id
            RETURNING c.*, taken.turn)
         SELECT c.app_id AS \"app_id: AppId\", c.id AS \"id: ConnectionId\", c.user_id AS \"user_id: UserId\",
                c.connection_id, c.lease_epoch, c.access_token AS \"secret!: Sealed<AccessToken>\",
                c.user_secret AS \"user_secret: Sealed<UserSecret>\", c.user_secret_proven,
                c.revocation_attempts,
                c.turn AS \"turn: TurnId\",
                (coalesce(c.revocation_released_at, c.revocation_requested_at) + $3::interval
                    <= strongroom_now()
                 OR EXISTS (SELECT FROM revocation_orders r
                            WHERE r.id = c.revocation_order AND r.state = 'cancelled')) AS \"given_up!\",
                EXISTS (SELECT FROM connections o
                        WHERE o.app_id = c.app_id AND o.connection_id = c.connection_id
                          AND o.status = 'active') AS \"login_in_use!\",
                uk.id AS \"user_key_id: DataKeyId\", uk.master_key_id AS \"user_master: MasterKeyId\",
                uk.wrapped AS user_wrapped, a.app_key, a.app_secret AS \"app_secret: Sealed<SecretText>\",
                ak.id AS \"app_key_id: DataKeyId\", ak.master_key_id AS \"app_master: MasterKeyId\",
                ak.wrapped AS app_wrapped
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'",
        limit,
        interval(lease),
        interval(give_up_after),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| ClaimedDelink {
        turn: row.turn,
        user_secret_proven: row.user_secret_proven,
        attempts: row.revocation_attempts,
        given_up: row.given_up,
        login_in_use: row.login_in_use,
        claimed: Claimed {
            app: row.app_id,
            id: row.id,
            user: row.user_id,
            connection_id: row.connection_id,
            epoch: row.lease_epoch,
            secret: row.secret,
            user_secret: row.user_secret,
            user_key: WrappedKey {
                id: row.user_key_id,
                owner: KeyOwner::User { app: row.app_id, user: row.user_id },
                master_key_id: row.user_master,
                wrapped: row.user_wrapped,
            },
            credentials: SealedCredentials {
                app: row.app_id,
                app_key: row.app_key,
                app_secret: row.app_secret,
                key: WrappedKey {
                    id: row.app_key_id,
                    owner: KeyOwner::App(row.app_id),
                    master_key_id: row.app_master,
                    wrapped: row.app_wrapped,
                },
            },
        },
    });
    Ok(claimed.collect())
}

/// A connection that has to be looked at one by one, by its login.
#[derive(Debug)]
pub(in crate::connections) struct Due {
    pub(in crate::connections) app: AppId,
    pub(in crate::connections) id: ConnectionId,
    pub(in crate::connections) user: UserId,
    pub(in crate::connections) connection_id: String,
}

/// Pending connections that hold their token and are due to be looked at.
pub(in crate::connections) async fn due_held_tokens(
    conn: &mut Conn,
    limit: i64,
) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as!(
        Due,
        "SELECT app_id AS \"app: AppId\", id AS \"id: ConnectionId\", user_id AS \"user: UserId\", connection_id
         FROM connections
         WHERE due_at <= (SELECT strongroom_now()) AND status = 'pending' AND access_token IS NOT NULL
         ORDER BY due_at LIMIT $1",
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Codes that no attempt will follow any more though they are not at their end: the window of a
/// revoked one closed, or a lease died and `probe` forbids another.
pub(in crate::connections) async fn due_without_attempt(
    conn: &mut Conn,
    probe: bool,
    limit: i64,
) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as!(
        Due,
        "SELECT app_id AS \"app: AppId\", id AS \"id: ConnectionId\", user_id AS \"user: UserId\", connection_id
         FROM connections
         WHERE due_at <= (SELECT strongroom_now()) AND code IS NOT NULL
           AND ((status = 'revoking' AND code_expires_at <= strongroom_now())
                OR (NOT $1 AND (leased_until IS NOT NULL OR unanswered)
                    AND code_expires_at > strongroom_now()))
         ORDER BY due_at LIMIT $2",
        probe,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Ends up to `limit` pending connections whose window closed and whose lease is not alive. Returns
/// their ids.
pub(in crate::connections) async fn sweep_expired(
    conn: &mut Conn,
    limit: i64,
) -> sqlx::Result<Vec<ConnectionId>> {
    let (unknown, unused) = (Failure::window_closed(true), Failure::window_closed(false));
    sqlx::query_scalar!(
        "WITH due AS (
            SELECT app_id, id FROM connections
            WHERE due_at <= (SELECT strongroom_now()) AND status = 'pending' AND code IS NOT NULL
              AND code_expires_at <= strongroom_now()
            ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED),
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
         SELECT id AS \"id: ConnectionId\" FROM noted",
        limit,
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
pub(in crate::connections) async fn forget_ended_sessions(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM connect_sessions WHERE expires_at < (SELECT strongroom_now()) - interval '1 day'",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// In how long somebody has to look at something again; `None` where nothing waits.
pub(in crate::connections) async fn next_due(conn: &mut Conn) -> sqlx::Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        "SELECT extract(epoch FROM least(
            (SELECT min(due_at) FROM connections WHERE due_at IS NOT NULL),
            (SELECT min(next_release_at) FROM revocation_orders
             WHERE finished_at IS NULL AND state <> 'paused' AND erasure IS NULL),
            (SELECT min(mark_at) FROM revocation_orders WHERE marked_at IS NULL),
            (SELECT min(due_at) FROM erasures WHERE due_at IS NOT NULL)) - strongroom_now())::float8",
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// How much waits, for the metrics.
#[derive(Debug, Default)]
pub(in crate::connections) struct Backlog {
    /// Pending connections, and the age of the oldest in seconds.
    pub(in crate::connections) pending: (i64, f64),
    /// Revocations that Dapi has not confirmed, and the age of the oldest in seconds.
    pub(in crate::connections) revoking: (i64, f64),
}

/// Counts what waits.
pub(in crate::connections) async fn backlog(conn: &mut Conn) -> sqlx::Result<Backlog> {
    let row = sqlx::query!(
        "WITH waiting AS (
            SELECT status, created_at, revocation_requested_at FROM connections WHERE due_at IS NOT NULL
            UNION ALL
            SELECT status, created_at, revocation_requested_at FROM connections
            WHERE status = 'revoking' AND due_at IS NULL)
         SELECT count(*) FILTER (WHERE status = 'pending') AS \"pending!\",
                coalesce(extract(epoch FROM max(strongroom_now() - created_at)
                    FILTER (WHERE status = 'pending'))::float8, 0) AS \"oldest_pending!\",
                count(*) FILTER (WHERE status = 'revoking') AS \"revoking!\",
                coalesce(extract(epoch FROM max(strongroom_now() - revocation_requested_at)
                    FILTER (WHERE status = 'revoking'))::float8, 0) AS \"oldest_revoking!\"
         FROM waiting",
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: (row.pending, row.oldest_pending),
        revoking: (row.revoking, row.oldest_revoking),
    })
}
