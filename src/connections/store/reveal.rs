//! Reading a token in the clear: one statement that locks, records and reads.

use sqlx::PgConnection;

use crate::audit::AuditActor;
use crate::base::ids::{AppId, ConnectionId, DataKeyId, UserId};
use crate::dapi::{AccessToken, UserSecret};
use crate::vault::{MasterKeyId, Sealed};

/// The row that a token is told by, for one who may read it.
#[derive(Debug)]
pub(in crate::connections) struct Revealed {
    pub(in crate::connections) user: UserId,
    pub(in crate::connections) client_user_id: String,
    pub(in crate::connections) connection_id: String,
    pub(in crate::connections) dapi_user_id: Option<String>,
    pub(in crate::connections) token_id: Option<String>,
    pub(in crate::connections) access_token: Sealed<AccessToken>,
    pub(in crate::connections) user_secret: Sealed<UserSecret>,
    pub(in crate::connections) key_id: DataKeyId,
    pub(in crate::connections) master_key_id: MasterKeyId,
    pub(in crate::connections) wrapped: Vec<u8>,
}

/// Reads an active connection's secrets and records that it was read, in one statement: the row is
/// locked against a revocation until the audit row is committed. `None` where the connection is not
/// active, not there, or locked in this moment.
pub(in crate::connections) async fn reveal(
    conn: &mut PgConnection,
    actor: &AuditActor,
    app: AppId,
    id: ConnectionId,
    reason: &str,
) -> sqlx::Result<Option<Revealed>> {
    sqlx::query_as!(
        Revealed,
        "WITH held AS MATERIALIZED (
            SELECT * FROM connections
            WHERE app_id = $1 AND id = $2 AND status = 'active'
            FOR SHARE SKIP LOCKED),
         noted AS MATERIALIZED (
            SELECT record_audit(app_id, $3, 'token.revealed', 'ok', user_id, id, $4) FROM held)
         SELECT h.user_id AS \"user: UserId\", u.client_user_id, h.connection_id, h.dapi_user_id, h.token_id,
                h.access_token AS \"access_token!: Sealed<AccessToken>\",
                h.user_secret AS \"user_secret!: Sealed<UserSecret>\",
                k.id AS \"key_id: DataKeyId\", k.master_key_id AS \"master_key_id: MasterKeyId\", k.wrapped
         FROM held h
         JOIN noted ON true
         JOIN users u ON u.id = h.user_id
         JOIN data_keys k ON k.user_id = h.user_id AND k.purpose = 'user'",
        app.uuid(),
        id.uuid(),
        actor as &AuditActor,
        reason,
    )
    .fetch_optional(conn)
    .await
}

/// The token that an active connection holds.
pub(in crate::connections) async fn held_token(
    conn: &mut PgConnection,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Sealed<AccessToken>>> {
    sqlx::query_scalar!(
        "SELECT access_token AS \"token!: Sealed<AccessToken>\" FROM connections
         WHERE app_id = $1 AND id = $2 AND status = 'active'",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await
}
