//! The table `operator_passkeys`.

use time::OffsetDateTime;

use super::model::Credential;
use crate::common::ids::OperatorId;
use crate::database::Conn;

/// A passkey as its operator sees it.
#[derive(Clone, Debug)]
pub struct Passkey {
    /// The credential id.
    pub id: Vec<u8>,
    /// The name that the operator gave it.
    pub label: String,
    /// When it was enrolled.
    pub created_at: OffsetDateTime,
    /// When it last signed in.
    pub last_used_at: Option<OffsetDateTime>,
}

/// A passkey for verification.
pub(super) struct Known {
    pub(super) operator: OperatorId,
    pub(super) algorithm: i16,
    pub(super) public_key: Vec<u8>,
}

/// Returns an operator's passkeys, the oldest first.
///
/// # Errors
/// The database's.
pub async fn list(conn: &mut Conn, operator: OperatorId) -> sqlx::Result<Vec<Passkey>> {
    sqlx::query_as!(
        Passkey,
        "SELECT id, label, created_at, last_used_at FROM operator_passkeys
         WHERE operator_id = $1 ORDER BY created_at LIMIT 100",
        operator.uuid(),
    )
    .fetch_all(conn)
    .await
}

/// Returns whether an operator has a passkey.
///
/// # Errors
/// The database's.
pub async fn has_any(conn: &mut Conn, operator: OperatorId) -> sqlx::Result<bool> {
    Ok(count(conn, operator).await? > 0)
}

pub(super) async fn count(conn: &mut Conn, operator: OperatorId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "it!" FROM operator_passkeys WHERE operator_id = $1"#,
        operator.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Inserts a passkey; returns whether its id is new.
pub(super) async fn insert(
    conn: &mut Conn,
    operator: OperatorId,
    label: &str,
    credential: &Credential,
    sign_count: u32,
) -> sqlx::Result<bool> {
    let (algorithm, public_key) = credential.key.parts();
    let inserted = sqlx::query!(
        "INSERT INTO operator_passkeys (id, operator_id, label, algorithm, public_key, sign_count)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        credential.id,
        operator.uuid(),
        label,
        algorithm,
        public_key,
        i64::from(sign_count),
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn find(conn: &mut Conn, id: &[u8]) -> sqlx::Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        r#"SELECT operator_id AS "operator: OperatorId", algorithm, public_key
           FROM operator_passkeys WHERE id = $1"#,
        id,
    )
    .fetch_optional(conn)
    .await
}

/// Records a use; returns whether the counter grew, or the authenticator has none (§7.2, step 22).
pub(super) async fn advance(conn: &mut Conn, id: &[u8], sign_count: u32) -> sqlx::Result<bool> {
    let advanced = sqlx::query!(
        "UPDATE operator_passkeys SET sign_count = $2, last_used_at = strongroom_now()
         WHERE id = $1 AND (sign_count < $2 OR (sign_count = 0 AND $2 = 0))",
        id,
        i64::from(sign_count),
    )
    .execute(conn)
    .await?;
    Ok(advanced.rows_affected() == 1)
}

/// Removes a passkey of an operator; returns its label.
///
/// # Errors
/// The database's.
pub async fn remove(
    conn: &mut Conn,
    operator: OperatorId,
    id: &[u8],
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "DELETE FROM operator_passkeys WHERE operator_id = $1 AND id = $2 RETURNING label",
        operator.uuid(),
        id,
    )
    .fetch_optional(conn)
    .await
}
