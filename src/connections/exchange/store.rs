//! Inserts connections: pending ones from Connect, and imported ones.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, SessionId, UserId};
use crate::connections::sql::column;
use crate::database::{BatchQuery, Conn, Inconsistent, interval};
use crate::providers::plaid::{Account, Institution};
use crate::providers::{AccessCode, Provider, UserSecret};
use crate::vault::{Binding, KeyedHash, Sealed, WrappedKey};

/// What a submission is decided by, and what its exchange needs, in one snapshot.
#[derive(Debug)]
pub struct Found {
    /// The database's clock, which windows are measured by.
    pub now: OffsetDateTime,
    /// `None` if the app's user has no row yet.
    pub user: Option<(UserId, WrappedKey)>,
    pub erasing: bool,
    /// The connection that was made with this code, and its user.
    pub existing: Option<(ConnectionId, UserId)>,
    /// Another user's connection of the login is active or revoking.
    pub of_another_user: bool,
    /// An older link of the login is being delinked, which goes first.
    pub revoking: bool,
    pub credentials: SealedCredentials,
}

/// Looks up what a submission is decided by. Takes no lock: the insert and the activation enforce the rules.
#[derive(Debug)]
pub struct LookUp {
    pub app: AppId,
    pub client_user_id: String,
    pub code_hash: KeyedHash,
    /// `None` if the exchange is to bring it: then nothing is known of other connections of the login.
    pub login_id: Option<String>,
}

impl BatchQuery for LookUp {
    const NAME: &'static str = "look_up_submission";

    type Output = Found;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Found>> {
        let rows = sqlx::query_file!(
            "src/connections/exchange/look_up.sql",
            &column(inputs, |input| input.app.uuid()),
            column(inputs, |input| input.client_user_id.as_str()) as Vec<&str>,
            column(inputs, |input| input.code_hash.as_bytes()) as Vec<&[u8]>,
            column(inputs, |input| input.login_id.as_deref()) as Vec<Option<&str>>,
        )
        .fetch_all(conn)
        .await?;
        let found = rows.into_iter().map(|row| Found {
            now: row.now,
            user: row.user_id.zip(row.user_key),
            erasing: row.erasing,
            existing: row.existing.zip(row.existing_user),
            of_another_user: row.of_another_user,
            revoking: row.revoking,
            credentials: row.credentials,
        });
        let found: Vec<_> = found.collect();
        if found.len() == inputs.len() {
            return Ok(found);
        }
        // An input without its row: its app or the app's key is gone.
        Err(Inconsistent::new(
            "apps",
            inputs.first().map_or_else(String::new, |it| it.app.to_string()),
        )
        .into())
    }
}

/// Returns the app's name for the user of the connection that was made with this code.
pub async fn user_of_code(
    conn: &mut Conn,
    app: AppId,
    code: &KeyedHash,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT u.client_user_id FROM connections c JOIN users u ON u.id = c.user_id
         WHERE c.app_id = $1 AND c.code_hash = $2",
        app.uuid(),
        code.as_bytes(),
    )
    .fetch_optional(conn)
    .await
}

/// The institution and accounts that a link's metadata names: the browser's claim, until the provider confirms it.
#[derive(Clone, Debug, Default)]
pub struct ClaimedAccounts {
    pub institution: Option<Institution>,
    pub accounts: Option<Vec<Account>>,
}

impl ClaimedAccounts {
    fn institution_id(&self) -> Option<&str> {
        self.institution.as_ref().map(|institution| institution.id.as_str())
    }

    fn institution_name(&self) -> Option<&str> {
        self.institution.as_ref().and_then(|institution| institution.name.as_deref())
    }

    fn accounts_json(&self) -> Option<Json<&[Account]>> {
        self.accounts.as_deref().map(Json)
    }
}

/// A connection to be inserted, with its code or (if it is imported) with its token.
#[derive(Clone, Debug)]
pub struct NewConnection {
    pub app: AppId,
    pub id: ConnectionId,
    pub user: UserId,
    pub provider: Provider,
    /// `None` if the exchange is to bring it.
    pub login_id: Option<String>,
    /// What the link's metadata says that the login is of.
    pub claimed: ClaimedAccounts,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    /// The token opens only with this; a revocation deletes it.
    pub binding: Binding,
    /// `None` if the provider has none, or if the connection comes through Dapi's own wire: then the first call brings
    /// it.
    pub user_secret: Option<Sealed<UserSecret>>,
}

/// The code of a connection to be inserted.
#[derive(Clone, Debug)]
pub struct NewCode {
    pub hash: KeyedHash,
    pub sealed: Sealed<AccessCode>,
    /// Shortens the window of 30 minutes, if the code carries an `exp`.
    pub window_cap: Option<OffsetDateTime>,
    /// Length of the first lease; `None` if the exchange has to wait.
    pub lease: Option<Duration>,
    /// How long the background work waits, if there is no lease.
    pub wait: Duration,
}

/// Inserts a pending connection with its sealed code, usually under its first lease. The output is `false` if the
/// app has received the code before.
#[derive(Clone, Debug)]
pub struct NewIntent {
    pub actor: AuditActor,
    pub connection: NewConnection,
    pub code: NewCode,
}

impl BatchQuery for NewIntent {
    const NAME: &'static str = "insert_intent";

    type Output = bool;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<bool>> {
        let inserted = sqlx::query_file_scalar!(
            "src/connections/exchange/insert_intent.sql",
            &column(inputs, |input| input.connection.app.uuid()),
            &column(inputs, |input| input.connection.id.uuid()),
            &column(inputs, |input| input.connection.user.uuid()),
            column(inputs, |input| input.connection.login_id.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.connection.dapi_user_id.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.connection.dapi_token_id.as_deref()) as Vec<Option<&str>>,
            column(inputs, |input| input.code.hash.as_bytes()) as Vec<&[u8]>,
            column(inputs, |input| input.code.sealed.as_bytes()) as Vec<&[u8]>,
            column(inputs, |input| input.connection.user_secret.as_ref().map(Sealed::as_bytes))
                as Vec<Option<&[u8]>>,
            column(inputs, |input| input.code.window_cap) as Vec<Option<OffsetDateTime>>,
            column(inputs, |input| input.code.lease.map(interval)) as Vec<Option<PgInterval>>,
            &column(inputs, |input| interval(input.code.wait)),
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
            column(inputs, |input| input.connection.binding.as_bytes()) as Vec<&[u8]>,
            column(inputs, |input| input.connection.provider.as_str()) as Vec<&str>,
            column(inputs, |input| input.connection.claimed.institution_id()) as Vec<Option<&str>>,
            column(inputs, |input| input.connection.claimed.institution_name())
                as Vec<Option<&str>>,
            column(inputs, |input| input.connection.claimed.accounts_json())
                as Vec<Option<Json<&[Account]>>>,
        )
        .fetch_all(conn)
        .await?;
        Ok(column(inputs, |input| inserted.contains(&input.connection.id)))
    }
}

/// Renews the first lease of an intent whose COMMIT went unanswered. Returns whether the intent is there and
/// untouched: with its first epoch (0 without a lease) nothing else has claimed it, so it is still ours.
pub async fn renew_first_lease(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    lease: Option<Duration>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE connections
         SET leased_until = t.now + $3::interval, due_at = coalesce(t.now + $3::interval, due_at)
         FROM (SELECT strongroom_now() AS now) t
         WHERE app_id = $1 AND id = $2 AND status IN ('pending', 'revoking') AND code IS NOT NULL
           AND lease_epoch = ($3::interval IS NOT NULL)::int AND (leased_until IS NULL) = ($3::interval IS NULL)",
        app.uuid(),
        id.uuid(),
        lease.map(interval),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a session may submit a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionResultOutcome {
    /// The result is recorded, now or before.
    Recorded,
    /// The session has reached its limit of other results.
    Exhausted,
    /// The session is deleted, with its user.
    Gone,
}

/// Records that a session submitted a connection, if it has submitted fewer than `most` others. Locks the session
/// until the transaction ends, so it cannot be deleted before the connection is there.
pub async fn insert_session_result(
    conn: &mut Conn,
    session: SessionId,
    id: ConnectionId,
    most: i64,
) -> sqlx::Result<SessionResultOutcome> {
    // Serialises concurrent requests of one browser: the count below sees what they committed.
    let found =
        sqlx::query!("SELECT id FROM connect_sessions WHERE id = $1 FOR UPDATE", session.uuid())
            .fetch_optional(&mut *conn)
            .await?;
    if found.is_none() {
        return Ok(SessionResultOutcome::Gone);
    }
    let recorded = sqlx::query_scalar!(
        r#"-- name: insert_session_result
         WITH others AS (
            SELECT count(*) AS n FROM connect_session_results WHERE session_id = $1 AND connection_id <> $2),
         recorded AS (
            INSERT INTO connect_session_results (session_id, connection_id)
            SELECT $1, $2 FROM others WHERE n < $3
            ON CONFLICT DO NOTHING)
         -- Does not see what `recorded` inserts, only what was there before the statement.
         SELECT n < $3 OR EXISTS (
             SELECT FROM connect_session_results WHERE session_id = $1 AND connection_id = $2) AS "it!"
         FROM others"#,
        session.uuid(),
        id.uuid(),
        most,
    )
    .fetch_one(conn)
    .await?;
    Ok(if recorded { SessionResultOutcome::Recorded } else { SessionResultOutcome::Exhausted })
}
