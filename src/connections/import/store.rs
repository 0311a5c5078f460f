//! Inserting an imported token, and looking for the connection that has it already.

use crate::audit::AuditActor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::exchange::store::NewConnection;
use crate::connections::model::{Status, Verification};
use crate::connections::sql::{WAIT_FOR_DELINKING, parse_status};
use crate::database::{Conn, interval};
use crate::providers::AccessToken;
use crate::vault::Sealed;

/// Inserts an imported token: as `active`, or as `pending` if an older link has to be delinked first.
pub async fn insert_imported(
    conn: &mut Conn,
    actor: &AuditActor,
    new: &NewConnection,
    token: &Sealed<AccessToken>,
    active: bool,
    verification: &Verification,
) -> sqlx::Result<()> {
    let attention = match verification {
        Verification::Proven { attention } => attention.as_deref(),
        Verification::Unproven => None,
    };
    sqlx::query_file!(
        "src/connections/import/insert_imported.sql",
        new.app.uuid(),
        new.id.uuid(),
        new.user.uuid(),
        new.login_id,
        new.dapi_user_id,
        new.dapi_token_id,
        token.as_bytes(),
        new.user_secret.as_ref().map(Sealed::as_bytes),
        active,
        interval(WAIT_FOR_DELINKING),
        actor as &AuditActor,
        *verification == Verification::Unproven,
        attention,
        new.binding.as_bytes(),
        new.provider.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds a user's active connection of a bank login.
pub async fn active_of_login(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
    login_id: &str,
) -> sqlx::Result<Option<ConnectionId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: ConnectionId" FROM connections
         WHERE app_id = $1 AND login_id = $2 AND user_id = $3 AND status = 'active'"#,
        app.uuid(),
        login_id,
        user.uuid(),
    )
    .fetch_optional(conn)
    .await
}

/// Finds the newest connection that a user has had of a bank login, in whatever status, unless its code never brought a
/// token.
pub async fn newest_of_login(
    conn: &mut Conn,
    app: AppId,
    user: UserId,
    login_id: &str,
) -> sqlx::Result<Option<(ConnectionId, Status)>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: ConnectionId", status FROM connections
         WHERE app_id = $1 AND login_id = $2 AND user_id = $3
           AND status NOT IN ('rejected', 'expired')
         ORDER BY created_at DESC, id DESC LIMIT 1"#,
        app.uuid(),
        login_id,
        user.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.id, parse_status(&row.status)?))).transpose()
}
