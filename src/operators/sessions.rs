//! Sessions of the console.

use std::net::IpAddr;

use serde::Serialize;
use time::OffsetDateTime;

use super::model::{Operator, OperatorName, Role};
use super::store::{decode_name, decode_role};
use crate::approvals;
use crate::audit::record_everywhere;
use crate::common::actor::Actor;
use crate::common::ids::{OperatorId, OperatorSessionId};
use crate::common::named::named;
use crate::common::secret::secret_text;
use crate::database::Conn;
use crate::vault::{self, KeyedHash, Vault, VaultError};

/// The lifetime of a session, in hours.
pub const SESSION_HOURS: i32 = 12;
/// After how many minutes without a request a session ends.
pub const IDLE_MINUTES: i32 = 30;
/// For how many minutes a proof of who someone is lets them do what cannot be undone.
pub const FRESH_MINUTES: i32 = approvals::FRESH_MINUTES;
const PREFIX: &str = "osess_";
/// Days for which a session is kept after it began: longer than what was decided in it. The trail keeps who signed in by which
/// session, and whose was ended.
const KEPT_DAYS: i32 = 91;
/// Sessions that one statement deletes.
const BATCH: i64 = 500;

secret_text!(
    /// What the console's cookie carries.
    SessionSecret
);

/// How a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By a one-time link.
    Link,
    /// By a passkey.
    Passkey,
    /// By an OpenID provider.
    Oidc,
}

named!(How { Link => "link", Passkey => "passkey", Oidc => "oidc" }, parse);

/// A live session and its operator.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: OperatorSessionId,
    /// The operator's id.
    pub operator: OperatorId,
    /// The operator's name.
    pub name: OperatorName,
    /// The operator's present role.
    pub role: Role,
    /// How the session began.
    pub how: How,
    /// Whether they proved who they are within [`FRESH_MINUTES`].
    pub fresh: bool,
    /// When the session ends, if that is within the hour. To sign in again then begins another.
    pub ends_soon: Option<OffsetDateTime>,
}

fn hash(vault: &Vault, secret: &str) -> KeyedHash {
    vault.secret_hashes().hash(&[b"operator session", secret.as_bytes()])
}

/// Begins a session for an operator, in the transaction that `conn` is in. If the browser has a live one of the same operator, it
/// goes on under a new secret, so that a form that is open in it stays good. Otherwise the one that the browser had ends: a
/// secret that someone planted in a browser never becomes that of a signed-in session.
///
/// # Errors
/// The database's, and that of random numbers.
pub async fn begin(
    conn: &mut Conn,
    vault: &Vault,
    operator: &Operator,
    how: How,
    before: Option<&SessionSecret>,
    actor: &Actor,
) -> Result<SessionSecret, VaultError> {
    let secret = vault::random_token(PREFIX)?;
    let hash = hash(vault, secret.expose());
    let mut id = None;
    if let Some(before) = before {
        id = renew(conn, vault, operator, before, &hash).await?;
        if id.is_none() {
            end_by_secret(conn, vault, before).await?;
        }
    }
    let id = match id {
        Some(id) => id,
        None => insert(conn, &hash, operator, how, actor).await?,
    };
    let detail = format!("{}: {id}: {}", operator.name, how.as_str());
    record_everywhere(conn, actor, "operator.signed_in", &detail).await?;
    Ok(SessionSecret::new(secret))
}

async fn insert(
    conn: &mut Conn,
    hash: &KeyedHash,
    operator: &Operator,
    how: How,
    actor: &Actor,
) -> sqlx::Result<OperatorSessionId> {
    let id = OperatorSessionId::new();
    sqlx::query!(
        "INSERT INTO operator_sessions (id, hash, operator_id, how, ip, expires_at)
         VALUES ($1, $2, $3, $4, $5, strongroom_now() + make_interval(hours => $6))",
        id.uuid(),
        hash.as_bytes(),
        operator.id.uuid(),
        how.as_str(),
        actor.ip.as_ref().map(IpAddr::to_string),
        SESSION_HOURS,
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// Gives the operator's live session a new secret, and notes that they proved again who they are. It ends no later for that: one
/// that ends within the hour is not renewed. Returns `None` if the secret is of no such session.
async fn renew(
    conn: &mut Conn,
    vault: &Vault,
    operator: &Operator,
    before: &SessionSecret,
    after: &KeyedHash,
) -> sqlx::Result<Option<OperatorSessionId>> {
    let before = hash(vault, before.expose());
    sqlx::query_scalar!(
        r#"-- name: renew_operator_session
         UPDATE operator_sessions s
         SET hash = $3, authenticated_at = strongroom_now(), last_seen_at = strongroom_now()
         WHERE s.hash = $1 AND s.operator_id = $2 AND s.ended_at IS NULL
           AND s.expires_at > strongroom_now() + interval '1 hour'
           AND s.last_seen_at > strongroom_now() - make_interval(mins => $4)
         RETURNING s.id AS "id: OperatorSessionId""#,
        before.as_bytes(),
        operator.id.uuid(),
        after.as_bytes(),
        IDLE_MINUTES,
    )
    .fetch_optional(conn)
    .await
}

async fn end_by_secret(conn: &mut Conn, vault: &Vault, secret: &SessionSecret) -> sqlx::Result<()> {
    let hash = hash(vault, secret.expose());
    sqlx::query!(
        "UPDATE operator_sessions SET ended_at = strongroom_now(), ended_by = 'signed in anew'
         WHERE hash = $1 AND ended_at IS NULL",
        hash.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the session of this secret if it is live: not ended, not expired, not idle for too long, of an operator who is
/// not disabled. Notes about once a minute that it was seen, if it counts as such: what a page asks for by itself does not, so that a
/// session ends at a desk that nobody is at.
///
/// # Errors
/// The database's.
pub async fn find(
    conn: &mut Conn,
    vault: &Vault,
    secret: &SessionSecret,
    seen: bool,
) -> sqlx::Result<Option<SignedIn>> {
    if !vault::is_token(PREFIX, secret.expose()) {
        return Ok(None);
    }
    let hash = hash(vault, secret.expose());
    let row = sqlx::query!(
        r#"SELECT s.id AS "session: OperatorSessionId", o.id AS "operator: OperatorId", o.name, o.role, s.how,
                  s.authenticated_at > strongroom_now() - make_interval(mins => $2) AS "fresh!",
                  s.last_seen_at < strongroom_now() - interval '1 minute' AS "unseen!",
                  CASE WHEN s.expires_at <= strongroom_now() + interval '1 hour' THEN s.expires_at END AS ends_soon
           FROM operator_sessions s JOIN operators o ON o.id = s.operator_id
           WHERE s.hash = $1 AND s.ended_at IS NULL AND o.disabled_at IS NULL
             AND s.expires_at > strongroom_now()
             AND s.last_seen_at > strongroom_now() - make_interval(mins => $3)"#,
        hash.as_bytes(),
        FRESH_MINUTES,
        IDLE_MINUTES,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if seen && row.unseen {
        sqlx::query!(
            "UPDATE operator_sessions SET last_seen_at = strongroom_now() WHERE id = $1",
            row.session.uuid(),
        )
        .execute(conn)
        .await?;
    }
    Ok(Some(SignedIn {
        session: row.session,
        operator: row.operator,
        name: decode_name(row.name)?,
        role: decode_role(&row.role)?,
        how: decode_how(&row.how)?,
        fresh: row.fresh,
        ends_soon: row.ends_soon,
    }))
}

/// Returns the session of this secret, live or not, if it began within the last day and its operator is not disabled: whose the
/// forms of a browser are that was signed in.
///
/// # Errors
/// The database's.
pub async fn find_ended(
    conn: &mut Conn,
    vault: &Vault,
    secret: &SessionSecret,
) -> sqlx::Result<Option<OperatorSessionId>> {
    if !vault::is_token(PREFIX, secret.expose()) {
        return Ok(None);
    }
    let hash = hash(vault, secret.expose());
    sqlx::query_scalar!(
        r#"SELECT s.id AS "id: OperatorSessionId"
           FROM operator_sessions s JOIN operators o ON o.id = s.operator_id
           WHERE s.hash = $1 AND o.disabled_at IS NULL
             AND s.created_at > strongroom_now() - interval '1 day'"#,
        hash.as_bytes(),
    )
    .fetch_optional(conn)
    .await
}

/// Returns the sessions of an operator that began within the last day, the newest first; at most a hundred.
///
/// # Errors
/// The database's.
pub async fn recent(conn: &mut Conn, operator: OperatorId) -> sqlx::Result<Vec<OperatorSessionId>> {
    sqlx::query_scalar!(
        r#"SELECT s.id AS "id: OperatorSessionId" FROM operator_sessions s
           WHERE s.operator_id = $1 AND s.created_at > (SELECT strongroom_now()) - interval '1 day'
           ORDER BY s.created_at DESC LIMIT 100"#,
        operator.uuid(),
    )
    .fetch_all(conn)
    .await
}

fn decode_how(how: &str) -> sqlx::Result<How> {
    How::parse(how).ok_or_else(|| sqlx::Error::Decode("not a way to sign in".into()))
}

/// A session as lists show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedSession {
    /// The session's id.
    pub id: OperatorSessionId,
    /// The operator's name.
    pub operator: String,
    /// How it began.
    pub how: How,
    /// The address from which it began.
    pub ip: Option<String>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its last request came, to the minute.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    /// When it ends at the latest.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Returns the live sessions, the newest first; at most a thousand.
///
/// # Errors
/// The database's.
pub async fn list(conn: &mut Conn) -> sqlx::Result<Vec<ListedSession>> {
    let rows = sqlx::query!(
        r#"-- name: list_operator_sessions
           SELECT s.id AS "id: OperatorSessionId", o.name, s.how, s.ip, s.created_at, s.last_seen_at, s.expires_at
           -- By the index of each operator's sessions: ended ones are kept for months.
           FROM operators o CROSS JOIN LATERAL (
               SELECT s.* FROM operator_sessions s
               WHERE s.operator_id = o.id
                 AND s.created_at > (SELECT strongroom_now()) - make_interval(hours => $2 + 1)
                 AND s.ended_at IS NULL AND s.expires_at > strongroom_now()
                 AND s.last_seen_at > strongroom_now() - make_interval(mins => $1)) s
           WHERE o.disabled_at IS NULL
           ORDER BY s.created_at DESC LIMIT 1000"#,
        IDLE_MINUTES,
        SESSION_HOURS,
    )
    .fetch_all(conn)
    .await?;
    let listed = rows.into_iter().map(|row| {
        Ok(ListedSession {
            id: row.id,
            operator: row.name,
            how: decode_how(&row.how)?,
            ip: row.ip,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            expires_at: row.expires_at,
        })
    });
    listed.collect()
}

/// Ends a session; returns whether it was not ended before.
///
/// # Errors
/// The database's.
pub async fn end(conn: &mut Conn, actor: &Actor, id: OperatorSessionId) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let operator = sqlx::query_scalar!(
        "UPDATE operator_sessions s SET ended_at = strongroom_now(), ended_by = 'ended'
         FROM operators o WHERE s.id = $1 AND s.ended_at IS NULL AND o.id = s.operator_id
         RETURNING o.name",
        id.uuid(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(operator) = operator else { return Ok(false) };
    let detail = format!("{operator}: {id}");
    record_everywhere(&mut tx, actor, "operator.session_ended", &detail).await?;
    tx.commit().await?;
    Ok(true)
}

/// Deletes sessions that began more than ninety-one days ago, and so ended long since. Returns how many.
///
/// # Errors
/// The database's.
pub async fn delete_old(conn: &mut Conn) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "-- name: delete_old_operator_sessions
         WITH old AS (
            -- By the index of each operator's sessions: there are few operators, and no index of all sessions by time.
            SELECT own.id FROM operators o CROSS JOIN LATERAL (
                SELECT s.id FROM operator_sessions s
                WHERE s.operator_id = o.id
                  AND s.created_at < (SELECT strongroom_now()) - make_interval(days => $1)
                ORDER BY s.created_at LIMIT $2) own
            LIMIT $2)
         DELETE FROM operator_sessions s USING old WHERE s.id = old.id",
        KEPT_DAYS,
        BATCH,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
