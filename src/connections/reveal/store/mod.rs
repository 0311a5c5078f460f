//! Reading a token in the clear: one statement that locks, records and reads.

mod budget;

pub use budget::*;

use crate::audit::AuditActor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, UserId};
use crate::connections::sql::column;
use crate::dapi::{AccessToken, UserSecret};
use crate::database::{BatchQuery, Conn};
use crate::vault::{Binding, MasterKeyId, Sealed};

/// The row that a token is told by, for one who may read it.
#[derive(Debug)]
pub struct Revealed {
    pub user: UserId,
    pub client_user_id: String,
    pub dapi_connection_id: String,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    pub access_token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
    pub user_secret: Option<Sealed<UserSecret>>,
    pub key_id: DataKeyId,
    pub master_key_id: MasterKeyId,
    pub wrapped: Vec<u8>,
}

/// A wish to read an active connection's secrets. That they were read is recorded in the same
/// statement, and the row is locked against a revocation, and the app against an order, until that is
/// committed. It comes to nothing where the connection is not active, where an order in force means it,
/// and where it is not there or locked in this moment.
#[derive(Debug)]
pub struct Reveal {
    pub actor: AuditActor,
    pub app: AppId,
    pub id: ConnectionId,
    pub reason: String,
}

impl BatchQuery for Reveal {
    type Output = Option<Revealed>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        let rows = sqlx::query!(
            r#"WITH requests AS (
                SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::audit_actor[])
                    WITH ORDINALITY
                    AS i (app_id, id, reason, actor, client_id, session_id, scope, ip, request_id, n)),
             uses AS MATERIALIZED (
                SELECT a.app_id, begin_use(a.app_id) AS asks
                FROM (SELECT DISTINCT app_id FROM requests ORDER BY app_id) a),
             held AS MATERIALIZED (
                SELECT w.n, c.* FROM requests w
                JOIN uses e ON e.app_id = w.app_id
                JOIN connections c ON c.app_id = w.app_id AND c.id = w.id
                WHERE c.status = 'active'
                  AND CASE WHEN e.asks
                           THEN NOT is_bulk_revoked(c.app_id, c.id, c.user_id, c.created_at,
                                                        c.created_by, c.ordinal)
                           ELSE true END
                FOR SHARE OF c SKIP LOCKED),
             noted AS (
                INSERT INTO audit_events (
                    app_id, action, outcome, actor, client_id, session_id, scope, ip, request_id,
                    user_id, connection_id, reason)
                SELECT h.app_id, 'token.revealed', 'ok', w.actor, w.client_id, w.session_id, w.scope,
                       w.ip, w.request_id, h.user_id, h.id, w.reason
                FROM held h JOIN requests w USING (n))
             SELECT h.n AS "n!", h.user_id AS "user: UserId", u.client_user_id, h.dapi_connection_id,
                    h.dapi_user_id, h.dapi_token_id,
                    h.access_token AS "access_token!: Sealed<AccessToken>",
                    b.binding AS "binding?: Binding",
                    h.user_secret AS "user_secret: Sealed<UserSecret>",
                    k.id AS "key_id: DataKeyId", k.master_key_id AS "master_key_id: MasterKeyId",
                    k.wrapped
             FROM held h
             JOIN users u ON u.id = h.user_id
             JOIN data_keys k ON k.user_id = h.user_id AND k.purpose = 'user'
             LEFT JOIN token_bindings b ON b.connection_id = h.id"#,
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
            column(inputs, |input| input.reason.as_str()) as Vec<&str>,
            column(inputs, |input| input.actor.clone()) as Vec<AuditActor>,
        )
        .fetch_all(conn)
        .await?;
        let mut revealed: Vec<_> = inputs.iter().map(|_| None).collect();
        for row in rows {
            let place = usize::try_from(row.n).ok().and_then(|n| revealed.get_mut(n - 1));
            let place =
                place.ok_or_else(|| sqlx::Error::Decode("a row that nobody asked for".into()))?;
            *place = Some(Revealed {
                user: row.user,
                client_user_id: row.client_user_id,
                dapi_connection_id: row.dapi_connection_id,
                dapi_user_id: row.dapi_user_id,
                dapi_token_id: row.dapi_token_id,
                access_token: row.access_token,
                binding: row.binding,
                user_secret: row.user_secret,
                key_id: row.key_id,
                master_key_id: row.master_key_id,
                wrapped: row.wrapped,
            });
        }
        Ok(revealed)
    }
}

/// A user's active connection of this bank login.
pub async fn active_of_login(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
    dapi_connection_id: &str,
) -> sqlx::Result<Option<ConnectionId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ConnectionId" FROM connections
         WHERE app_id = $1 AND dapi_connection_id = $2 AND user_id = $3 AND status = 'active'"#,
        app.uuid(),
        dapi_connection_id,
        user.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// The token that an active connection holds, and what it is bound to.
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
