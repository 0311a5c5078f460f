//! What the end of a token depends on.

use crate::common::ids::{AppId, ConnectionId};
use crate::database::Conn;
use crate::providers::AccessToken;
use crate::vault::Sealed;

/// Returns whether a connection still holds this token: what an answer says about another one does not count.
pub async fn holds_token(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
    token: &Sealed<AccessToken>,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
            SELECT FROM connections WHERE app_id = $1 AND id = $2 AND access_token = $3) AS "it!""#,
        app.uuid(),
        id.uuid(),
        token.as_bytes(),
    )
    .fetch_one(conn)
    .await
}
