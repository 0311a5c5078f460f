//! Claiming due rows of `connections`: the table is its own queue, ordered by `due_at`.
//!
//! A claim takes a lease under a new epoch, commits, and only then is Dapi called. The epoch fences a late outcome:
//! it is recorded only if the row still has it. A lease that ran out without an outcome belonged to a replica that
//! crashed: its call may have reached Dapi.

use std::time::Duration;

use uuid::Uuid;

use crate::apps::SealedCredentials;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::connections::sql::WAIT_FOR_DELINKING;
use crate::database::{Conn, interval};
use crate::providers::{AccessCode, AccessToken, UserSecret};
use crate::vault::{Binding, Sealed, WrappedKey};

/// A connection under a lease, with the sealed secrets that a call to Dapi needs.
#[derive(Debug)]
pub struct Claimed<T> {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    /// `None` if the exchange is to bring it.
    pub login_id: Option<String>,
    pub epoch: i32,
    /// The access code or the access token.
    pub secret: Sealed<T>,
    /// The value that the token is bound to; `None` if an earlier release sealed it.
    pub binding: Option<Binding>,
    /// `None` if the connection came through Dapi's own wire and no call has brought it yet.
    pub user_secret: Option<Sealed<UserSecret>>,
    pub user_key: WrappedKey,
    pub credentials: SealedCredentials,
}

/// Builds a [`Claimed`] from a row of one of the queries below.
macro_rules! claimed {
    ($row:ident) => {
        Claimed {
            app: $row.app_id,
            id: $row.id,
            user: $row.user_id,
            login_id: $row.login_id,
            epoch: $row.lease_epoch,
            secret: $row.secret,
            binding: $row.binding,
            user_secret: $row.user_secret,
            user_key: $row.user_key,
            credentials: $row.credentials,
        }
    };
}

/// Claims those of these rows of the app whose exchange is due, and postpones those that wait for the delinking of an
/// older link of their bank login. Leaves out codes whose earlier attempt went unanswered, except those of the
/// `probing` providers: the code may have been consumed.
pub async fn claim_exchanges(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: Duration,
    probing: &[String],
) -> sqlx::Result<Vec<Claimed<AccessCode>>> {
    let rows = sqlx::query!(
        r#"WITH
         -- Locks by ascending id. SKIP LOCKED: a row that another replica claims is not waited for. `coalesce` hides
         -- `due_at` from the planner, which would otherwise read the index of all due rows instead of these ids.
         due AS MATERIALIZED (
            SELECT c.app_id, c.id,
                   (c.status = 'pending' AND EXISTS (
                       SELECT FROM connections o
                       WHERE o.app_id = c.app_id AND o.login_id = c.login_id
                         AND o.user_id = c.user_id AND o.status = 'revoking')) AS blocked
            FROM connections c
            WHERE c.id = ANY ($2) AND c.app_id = $1
              AND coalesce(c.due_at <= strongroom_now(), false) AND c.code IS NOT NULL
              AND c.code_expires_at > strongroom_now()
              AND (c.provider = ANY ($4) OR (c.leased_until IS NULL AND NOT c.unanswered))
            ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
         -- A lease that ran out stays known as an attempt without an answer.
         postponed AS (
            UPDATE connections c
            SET due_at = strongroom_now() + $5::interval, leased_until = NULL,
                unanswered = c.unanswered OR c.leased_until IS NOT NULL
            FROM due WHERE due.blocked AND c.app_id = due.app_id AND c.id = due.id),
         -- `due_at` is the end of the lease, so that a crash makes the row due again by itself.
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, exchange_attempts = c.exchange_attempts + 1,
                leased_until = t.now + $3::interval, due_at = t.now + $3::interval,
                unanswered = c.unanswered OR c.leased_until IS NOT NULL
            FROM due, (SELECT strongroom_now() AS now) t
            WHERE NOT due.blocked AND c.app_id = due.app_id AND c.id = due.id
            RETURNING c.app_id, c.id, c.user_id, c.login_id, c.lease_epoch, c.code, c.user_secret,
                      c.revocation_binding)
         SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
                c.login_id, c.lease_epoch, c.code AS "secret!: Sealed<AccessCode>",
                c.user_secret AS "user_secret: Sealed<UserSecret>",
                coalesce(c.revocation_binding, b.binding) AS "binding?: Binding",
                key_of(uk) AS "user_key!: WrappedKey",
                credentials_of(a, ak) AS "credentials!: SealedCredentials"
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
         LEFT JOIN token_bindings b ON b.connection_id = c.id"#,
        app.uuid(),
        ids,
        interval(lease),
        probing,
        interval(WAIT_FOR_DELINKING),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| claimed!(row));
    Ok(claimed.collect())
}

/// A claimed token whose delinking is due, or whose revocation ends without a call.
#[derive(Debug)]
pub struct ClaimedDelink {
    pub claimed: Claimed<AccessToken>,
    /// The token lease that the delinking has acquired.
    pub token_lease: TokenLeaseId,
    /// The token and all that is sent with it are known to be right.
    pub proven: bool,
    /// Attempts, this one included.
    pub attempts: i32,
    /// The time for attempts is over, or its bulk revocation was cancelled: it ends unconfirmed, without a call.
    pub given_up: bool,
    /// Another connection of the same bank login is active: delinking this one could cut that one off.
    pub login_in_use: bool,
}

/// Interval at which a delinking tries again for a token that is under a call's lease.
const LEASE_RETRY: Duration = Duration::from_millis(500);

/// Claims those of these rows of the app whose delinking is due, and acquires their token leases. Postpones a token that
/// is under a call's lease, because the call runs to its end, and one whose user secret has not come yet, without which
/// Dapi delinks nothing: the call that brings the secret makes the row due again, and otherwise it is due when its
/// time for attempts is over.
///
/// One statement, so that every due row is either claimed or postponed, except tokens of a paused bulk revocation, which
/// [`hold_paused`](crate::connections::bulk_revocation::store::hold_paused) holds again.
///
/// Lock order: connections, token leases.
#[expect(clippy::too_many_lines, reason = "one statement, which makes most of it")]
pub async fn claim_delinks(
    conn: &mut Conn,
    app: AppId,
    ids: &[Uuid],
    lease: Duration,
    give_up_after: Duration,
) -> sqlx::Result<Vec<ClaimedDelink>> {
    let rows = sqlx::query!(
        r#"WITH
         -- Locks by ascending id; SKIP LOCKED and `coalesce` as in `claim_exchanges`. A token of a paused bulk
         -- revocation is due only for an erasure or for a new link of the same bank login.
         locked AS MATERIALIZED (
            SELECT c.app_id, c.id, c.provider = 'dapi' AND c.user_secret IS NULL AS secretless,
                   coalesce(c.revocation_released_at, c.revocation_requested_at) + $4::interval AS gives_up_at,
                   EXISTS (SELECT FROM bulk_revocations r
                           WHERE r.id = c.bulk_revocation_id AND r.state = 'cancelled') AS cancelled,
                   EXISTS (SELECT FROM token_leases t
                           WHERE t.connection_id = c.id AND t.ends_at > strongroom_now()) AS in_a_call,
                   EXISTS (SELECT FROM token_leases t
                           WHERE t.connection_id = c.id
                             AND t.slot = '00000000-0000-0000-0000-000000000000') AS has_lease
            FROM connections c
            WHERE c.id = ANY ($2) AND c.app_id = $1
              AND coalesce(c.due_at <= strongroom_now(), false) AND c.status = 'revoking'
              AND c.access_token IS NOT NULL
              AND (NOT EXISTS (SELECT FROM bulk_revocations r
                               WHERE r.id = c.bulk_revocation_id AND r.state = 'paused')
                   OR EXISTS (SELECT FROM erasures e WHERE e.user_id = c.user_id)
                   OR EXISTS (SELECT FROM connections w
                              WHERE w.app_id = c.app_id AND w.login_id = c.login_id
                                AND w.user_id = c.user_id AND w.status = 'pending'))
            ORDER BY c.id FOR UPDATE OF c SKIP LOCKED),
         -- `later` is null for the rows to claim. Evaluated once, so that the CTEs below agree.
         decided AS MATERIALIZED (
            SELECT l.*, l.cancelled OR l.gives_up_at <= strongroom_now() AS given_up,
                   CASE WHEN l.in_a_call THEN strongroom_now() + $5::interval
                        WHEN l.secretless AND NOT l.cancelled AND l.gives_up_at > strongroom_now()
                            THEN l.gives_up_at
                   END AS later
            FROM locked l),
         -- The error of a real attempt is kept; only a missing user secret overwrites it.
         postponed AS (
            UPDATE connections c
            SET leased_until = NULL, due_at = d.later,
                revocation_last_error = CASE WHEN d.in_a_call THEN c.revocation_last_error
                                             ELSE 'user_secret_missing' END
            FROM decided d WHERE d.later IS NOT NULL AND c.app_id = d.app_id AND c.id = d.id),
         -- The INSERT below would wait for a locked lease row; a connection whose lease row is locked is left out.
         free_leases AS MATERIALIZED (
            SELECT t.connection_id FROM token_leases t
            WHERE t.slot = '00000000-0000-0000-0000-000000000000' AND t.connection_id IN (SELECT id FROM decided WHERE later IS NULL AND has_lease)
            FOR UPDATE SKIP LOCKED),
         -- Takes over a lease that ran out, but not one that is alive.
         acquired AS (
            INSERT INTO token_leases AS t (connection_id, lease_id, ends_at)
            SELECT id, new_uuid_v7(), strongroom_now() + $3::interval FROM decided
            WHERE later IS NULL
              AND (NOT has_lease OR id IN (SELECT connection_id FROM free_leases)) ORDER BY id
            ON CONFLICT (connection_id, slot) DO UPDATE SET lease_id = excluded.lease_id, ends_at = excluded.ends_at
            WHERE t.ends_at <= strongroom_now()
            RETURNING connection_id, lease_id),
         -- Only with the token's lease: without it, the row stays due and the next round tries again.
         claimed AS (
            UPDATE connections c
            SET lease_epoch = c.lease_epoch + 1, revocation_attempts = c.revocation_attempts + 1,
                leased_until = t.now + $3::interval, due_at = t.now + $3::interval
            FROM decided d, acquired, (SELECT strongroom_now() AS now) t
            WHERE c.app_id = d.app_id AND c.id = d.id AND acquired.connection_id = d.id
            RETURNING c.*, acquired.lease_id, d.given_up)
         SELECT c.app_id AS "app_id: AppId", c.id AS "id: ConnectionId", c.user_id AS "user_id: UserId",
                c.login_id, c.lease_epoch, c.access_token AS "secret!: Sealed<AccessToken>",
                c.user_secret AS "user_secret: Sealed<UserSecret>",
                coalesce(c.revocation_binding, b.binding) AS "binding?: Binding",
                -- What is sent is known to be right: by Dapi's user secret, by a token that has worked.
                -- A token that may have been replaced by another is refused although its item lives.
                CASE c.provider WHEN 'dapi' THEN c.user_secret_proven
                     ELSE NOT c.unproven AND coalesce(c.rotation NOT IN ('sent', 'unanswered'), true) END AS "proven!",
                c.revocation_attempts,
                c.lease_id AS "lease_id: TokenLeaseId",
                c.given_up AS "given_up!",
                EXISTS (SELECT FROM connections o
                        WHERE o.app_id = c.app_id AND o.login_id = c.login_id
                          AND o.status = 'active') AS "login_in_use!",
                key_of(uk) AS "user_key!: WrappedKey",
                credentials_of(a, ak) AS "credentials!: SealedCredentials"
         FROM claimed c
         JOIN data_keys uk ON uk.user_id = c.user_id AND uk.purpose = 'user'
         JOIN apps a ON a.id = c.app_id
         JOIN data_keys ak ON ak.app_id = c.app_id AND ak.purpose = 'app'
         LEFT JOIN token_bindings b ON b.connection_id = c.id"#,
        app.uuid(),
        ids,
        interval(lease),
        interval(give_up_after),
        interval(LEASE_RETRY),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| ClaimedDelink {
        token_lease: row.lease_id,
        proven: row.proven,
        attempts: row.revocation_attempts,
        given_up: row.given_up,
        login_in_use: row.login_in_use,
        claimed: claimed!(row),
    });
    Ok(claimed.collect())
}
