//! What the pages read.

use crate::database::Conn;
use crate::oauth::secrets::SecretInfo;

/// Returns the live secrets of these clients, oldest first.
pub async fn secrets(
    conn: &mut Conn,
    clients: &[String],
) -> sqlx::Result<Vec<(String, SecretInfo)>> {
    let rows = sqlx::query!(
        r#"SELECT client_id, id AS "id: crate::common::ids::ClientSecretId", created_at, expires_at, last_used_at
         FROM client_secrets
         WHERE client_id = ANY ($1) AND (expires_at IS NULL OR expires_at > strongroom_now())
         ORDER BY client_id, created_at, id"#,
        clients,
    )
    .fetch_all(conn)
    .await?;
    let secret = |id, created_at, expires_at, last_used_at| SecretInfo {
        id,
        created_at,
        expires_at,
        last_used_at,
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            (row.client_id, secret(row.id, row.created_at, row.expires_at, row.last_used_at))
        })
        .collect())
}

/// Returns how many tokens a client has taken of this minute's budget, by portions of the replicas.
pub async fn revealed(conn: &mut Conn, client: &str) -> sqlx::Result<i32> {
    let taken = sqlx::query_scalar!(
        "SELECT taken FROM reveal_budgets
         WHERE client_id = $1 AND since > (SELECT strongroom_now()) - interval '1 minute'",
        client,
    )
    .fetch_optional(conn)
    .await?;
    Ok(taken.unwrap_or(0))
}
