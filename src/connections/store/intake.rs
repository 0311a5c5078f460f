//! How connections come in: from Connect, and imported.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{WAIT_FOR_DELINKING, interval};
use crate::apps::SealedCredentials;
use crate::audit::AuditActor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, SessionId, UserId};
use crate::base::secret::SecretText;
use crate::dapi::{AccessCode, AccessToken, UserSecret};
use crate::vault::{KeyOwner, KeyedHash, MasterKeyId, Sealed, WrappedKey};

/// What is there already when a result is handed in, with everything that its exchange needs.
#[derive(Debug)]
pub(in crate::connections) struct Found {
    pub(in crate::connections) now: OffsetDateTime,
    /// The user, where they are known.
    pub(in crate::connections) user: Option<(UserId, WrappedKey)>,
    /// The connection that this code made, and its user.
    pub(in crate::connections) existing: Option<(ConnectionId, UserId)>,
    /// The login is active or revoking for another user.
    pub(in crate::connections) of_another_user: bool,
    /// An older link of the login is being delinked.
    pub(in crate::connections) revoking: bool,
    pub(in crate::connections) credentials: SealedCredentials,
}

/// Looks up everything that receiving a result depends on, in one statement.
pub(in crate::connections) async fn look_up(
    conn: &mut PgConnection,
    app: AppId,
    client_user_id: &str,
    code_hash: &[u8],
    connection_id: &str,
) -> sqlx::Result<Found> {
    let row = sqlx::query!(
        "SELECT strongroom_now() AS \"now!\", a.app_key, a.app_secret AS \"app_secret: Sealed<SecretText>\",
                ak.id AS \"app_key_id: DataKeyId\", ak.master_key_id AS \"app_master: MasterKeyId\",
                ak.wrapped AS app_wrapped,
                u.id AS \"user_id?: UserId\", uk.id AS \"user_key_id?: DataKeyId\",
                uk.master_key_id AS \"user_master?: MasterKeyId\", uk.wrapped AS \"user_wrapped?\",
                c.id AS \"existing?: ConnectionId\", c.user_id AS \"existing_user?: UserId\",
                EXISTS (SELECT FROM connections o
                        WHERE o.app_id = $1 AND o.connection_id = $4
                          AND o.status IN ('active', 'revoking')
                          AND o.user_id IS DISTINCT FROM u.id) AS \"of_another_user!\",
                EXISTS (SELECT FROM connections o
                        WHERE o.app_id = $1 AND o.connection_id = $4
                          AND o.status = 'revoking' AND o.user_id = u.id) AS \"revoking!\"
         FROM apps a
         JOIN data_keys ak ON ak.app_id = a.id AND ak.purpose = 'app'
         LEFT JOIN users u ON u.app_id = a.id AND u.client_user_id = $2
         LEFT JOIN data_keys uk ON uk.user_id = u.id AND uk.purpose = 'user'
         LEFT JOIN connections c ON c.app_id = a.id AND c.code_hash = $3
         WHERE a.id = $1",
        app.uuid(),
        client_user_id,
        code_hash,
        connection_id,
    )
    .fetch_one(conn)
    .await?;
    let user_key = |user, id, master_key_id, wrapped| WrappedKey {
        id,
        owner: KeyOwner::User { app, user },
        master_key_id,
        wrapped,
    };
    let user = match (row.user_id, row.user_key_id, row.user_master, row.user_wrapped) {
        (Some(user), Some(id), Some(master), Some(wrapped)) => {
            Some((user, user_key(user, id, master, wrapped)))
        }
        _ => None,
    };
    Ok(Found {
        now: row.now,
        user,
        existing: row.existing.zip(row.existing_user),
        of_another_user: row.of_another_user,
        revoking: row.revoking,
        credentials: SealedCredentials {
            app,
            app_key: row.app_key,
            app_secret: row.app_secret,
            key: WrappedKey {
                id: row.app_key_id,
                owner: KeyOwner::App(app),
                master_key_id: row.app_master,
                wrapped: row.app_wrapped,
            },
        },
    })
}

/// A connection to be kept, with its code or, imported, with its token.
pub(in crate::connections) struct NewConnection<'a> {
    pub(in crate::connections) app: AppId,
    pub(in crate::connections) id: ConnectionId,
    pub(in crate::connections) user: UserId,
    pub(in crate::connections) connection_id: &'a str,
    pub(in crate::connections) dapi_user_id: Option<&'a str>,
    pub(in crate::connections) token_id: Option<&'a str>,
    pub(in crate::connections) user_secret: &'a Sealed<UserSecret>,
}

/// The code of a connection to be kept.
pub(in crate::connections) struct NewCode<'a> {
    pub(in crate::connections) hash: &'a KeyedHash,
    pub(in crate::connections) sealed: &'a Sealed<AccessCode>,
    /// Caps the window of 30 minutes, where the code tells when it runs out.
    pub(in crate::connections) ends: Option<OffsetDateTime>,
    /// How long the first lease lives; `None` where the exchange has to wait.
    pub(in crate::connections) lease: Option<Duration>,
    /// When somebody looks at it, where it has no lease.
    pub(in crate::connections) wait: Duration,
}

/// Keeps the intent: a pending connection with its sealed code, under its first lease as a rule.
/// `false` where the code was received before.
pub(in crate::connections) async fn insert_pending(
    conn: &mut PgConnection,
    actor: &AuditActor,
    new: &NewConnection<'_>,
    code: &NewCode<'_>,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "WITH added AS (
            INSERT INTO connections (
                app_id, id, user_id, status, connection_id, dapi_user_id, token_id,
                code_hash, code, user_secret, code_expires_at,
                lease_epoch, exchange_attempts, leased_until, due_at)
            SELECT $1, $2, $3, 'pending', $4, $5, $6, $7, $8, $9,
                   least(t.now + interval '30 minutes', $10::timestamptz),
                   ($11::interval IS NOT NULL)::int, ($11::interval IS NOT NULL)::int,
                   t.now + $11::interval, t.now + coalesce($11::interval, $12::interval)
            FROM (SELECT strongroom_now() AS now) t
            ON CONFLICT (app_id, code_hash) DO NOTHING
            RETURNING app_id, id, user_id)
         SELECT record_audit(app_id, $13, 'connection.received', 'pending', user_id, id, NULL) FROM added",
        new.app.uuid(),
        new.id.uuid(),
        new.user.uuid(),
        new.connection_id,
        new.dapi_user_id,
        new.token_id,
        code.hash.as_bytes(),
        code.sealed.as_bytes(),
        new.user_secret.as_bytes(),
        code.ends,
        code.lease.map(interval),
        interval(code.wait),
        actor as &AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Keeps an imported token: active, or pending where an older link's delinking goes first.
pub(in crate::connections) async fn insert_imported(
    conn: &mut PgConnection,
    actor: &AuditActor,
    new: &NewConnection<'_>,
    token: &Sealed<AccessToken>,
    active: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH added AS (
            INSERT INTO connections (
                app_id, id, user_id, status, connection_id, dapi_user_id, token_id,
                access_token, user_secret, activated_at, due_at)
            SELECT $1, $2, $3, CASE WHEN $9 THEN 'active' ELSE 'pending' END, $4, $5, $6, $7, $8,
                   CASE WHEN $9 THEN strongroom_now() END,
                   CASE WHEN NOT $9 THEN strongroom_now() + $10::interval END
            RETURNING app_id, id, user_id, status)
         SELECT record_audit(app_id, $11, 'connection.imported', status, user_id, id, NULL) FROM added",
        new.app.uuid(),
        new.id.uuid(),
        new.user.uuid(),
        new.connection_id,
        new.dapi_user_id,
        new.token_id,
        token.as_bytes(),
        new.user_secret.as_bytes(),
        active,
        interval(WAIT_FOR_DELINKING),
        actor as &AuditActor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a session handed in a connection. `false` where it has handed in `most` others.
pub(in crate::connections) async fn note_session_result(
    conn: &mut PgConnection,
    session: SessionId,
    id: ConnectionId,
    most: i64,
) -> sqlx::Result<bool> {
    // Serialises what one browser does at once.
    sqlx::query!("SELECT id FROM connect_sessions WHERE id = $1 FOR UPDATE", session.uuid())
        .fetch_optional(&mut *conn)
        .await?;
    sqlx::query_scalar!(
        "WITH others AS (
            SELECT count(*) AS n FROM connect_session_results WHERE session_id = $1 AND connection_id <> $2),
         noted AS (
            INSERT INTO connect_session_results (session_id, connection_id)
            SELECT $1, $2 FROM others WHERE n < $3
            ON CONFLICT DO NOTHING)
         SELECT n < $3 OR EXISTS (
             SELECT FROM connect_session_results WHERE session_id = $1 AND connection_id = $2) AS \"it!\"
         FROM others",
        session.uuid(),
        id.uuid(),
        most,
    )
    .fetch_one(conn)
    .await
}
