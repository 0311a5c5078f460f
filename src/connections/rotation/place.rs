//! Where the token that a rotation brings belongs: wherever the one that it replaces still is.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::connections::rotation::store::ClaimedRotation;
use crate::database::Conn;
use crate::providers::AccessToken;
use crate::vault::{Binding, Sealed};

/// A token of a bank login, and where it is.
#[derive(Debug)]
pub struct Holder {
    pub id: ConnectionId,
    pub user: UserId,
    /// Among the superseded tokens.
    pub kept: bool,
    pub token: Sealed<AccessToken>,
    pub binding: Option<Binding>,
}

/// Returns the tokens of connection `id` and of its login, which the caller has locked: a newer link of the item may have
/// brought the same one.
pub async fn holders(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    login_id: Option<&str>,
) -> sqlx::Result<Vec<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"SELECT c.id AS "id!: ConnectionId", c.user_id AS "user!: UserId", false AS "kept!",
                c.access_token AS "token!: Sealed<AccessToken>",
                coalesce(c.revocation_binding, b.binding) AS "binding?: Binding"
         FROM connections c LEFT JOIN token_bindings b ON b.connection_id = c.id
         WHERE c.app_id = $1 AND (c.login_id = $3 AND c.status IN ('pending', 'active', 'revoking') OR c.id = $2)
           AND c.access_token IS NOT NULL
         UNION ALL
         SELECT c.id, c.user_id, true, k.access_token, k.binding
         FROM connections c JOIN superseded_tokens k ON k.connection_id = c.id
         WHERE c.app_id = $1 AND (c.login_id = $3 OR c.id = $2)"#,
        app.uuid(),
        id.uuid(),
        login_id,
    )
    .fetch_all(conn)
    .await
}

/// Puts the new token where a holder has the replaced one. The rotation of that connection is over.
///
/// # Errors
/// The database's; [`sqlx::Error::RowNotFound`] if it did not take the token, which exists nowhere else: the caller has locked the
/// row, so that something keeps it from being changed, and tries again.
pub async fn place(
    conn: &mut Conn,
    app: AppId,
    holder: &Holder,
    new: &Sealed<AccessToken>,
) -> sqlx::Result<()> {
    let actor = AuditActor::from(&Actor::service());
    let (app, id) = (app.uuid(), holder.id.uuid());
    let done = if holder.kept {
        sqlx::query_file!(
            "src/connections/rotation/place_kept.sql",
            app,
            id,
            new.as_bytes(),
            actor as AuditActor,
        )
        .execute(conn)
        .await?
    } else {
        sqlx::query_file!(
            "src/connections/rotation/place.sql",
            app,
            id,
            new.as_bytes(),
            actor as AuditActor,
        )
        .execute(conn)
        .await?
    };
    // The rows that the statement returns: one for the connection that holds the token.
    if done.rows_affected() == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
}

/// Makes the connection active again, with the new token, if it ended because that was thought to be lost, and if nothing
/// has revoked it or linked its login since. Returns whether it did.
pub async fn give_back(
    conn: &mut Conn,
    claimed: &ClaimedRotation,
    new: &Sealed<AccessToken>,
    reason: &str,
) -> sqlx::Result<bool> {
    // The marking of a bulk revocation waits for this transaction, or is seen by it.
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(arrival_lock($1))", claimed.app.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query_file_scalar!(
        "src/connections/rotation/give_back.sql",
        claimed.app.uuid(),
        claimed.id.uuid(),
        new.as_bytes(),
        claimed.binding.as_ref().map(Binding::as_bytes),
        AuditActor::from(&Actor::service()) as AuditActor,
        reason,
    )
    .fetch_one(conn)
    .await
}

/// Lets a connection that has ended be removed at Plaid with the new token. Returns whether it does: not if another
/// connection of the login would end with it.
pub async fn remove(
    conn: &mut Conn,
    claimed: &ClaimedRotation,
    new: &Sealed<AccessToken>,
    reason: &str,
) -> sqlx::Result<bool> {
    sqlx::query_file_scalar!(
        "src/connections/rotation/remove.sql",
        claimed.app.uuid(),
        claimed.id.uuid(),
        new.as_bytes(),
        claimed.binding.as_ref().map(Binding::as_bytes),
        AuditActor::from(&Actor::service()) as AuditActor,
        reason,
    )
    .fetch_one(conn)
    .await
}
