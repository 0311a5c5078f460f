//! The table `operators`.

use super::OperatorError;
use super::model::{Operator, OperatorName, Role};
use crate::approvals::Permitted;
use crate::audit::record_everywhere;
use crate::common::actor::Actor;
use crate::common::ids::OperatorId;
use crate::database::Conn;

/// A row as PostgreSQL has it.
struct Row {
    id: OperatorId,
    name: String,
    role: String,
    os_user: Option<String>,
    created_at: time::OffsetDateTime,
    disabled_at: Option<time::OffsetDateTime>,
}

impl TryFrom<Row> for Operator {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            name: decode_name(row.name)?,
            role: decode_role(&row.role)?,
            os_user: row.os_user,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
        })
    }
}

pub(super) fn decode_name(name: String) -> sqlx::Result<OperatorName> {
    OperatorName::try_from(name).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn decode_role(role: &str) -> sqlx::Result<Role> {
    Role::parse(role).ok_or_else(|| sqlx::Error::Decode("not a role".into()))
}

/// Adds an operator.
///
/// # Errors
/// [`OperatorError::Taken`]; the database's.
pub async fn add(
    conn: &mut Conn,
    _: &Permitted,
    actor: &Actor,
    name: &OperatorName,
    role: Role,
    os_user: Option<&str>,
) -> Result<Operator, OperatorError> {
    let mut tx = conn.begin().await?;
    let added = sqlx::query_as!(
        Row,
        r#"INSERT INTO operators (id, name, role, os_user) VALUES ($1, $2, $3, $4)
           ON CONFLICT DO NOTHING
           RETURNING id AS "id: OperatorId", name, role, os_user, created_at, disabled_at"#,
        OperatorId::new().uuid(),
        name.as_str(),
        role.as_str(),
        os_user,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let operator: Operator = added.ok_or(OperatorError::Taken)?.try_into()?;
    let detail = format!("{name}: {}", role.as_str());
    record_everywhere(&mut tx, actor, "operator.added", &detail).await?;
    tx.commit().await?;
    Ok(operator)
}

/// Returns every operator, by name; at most a thousand.
pub async fn list(conn: &mut Conn) -> sqlx::Result<Vec<Operator>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: OperatorId", name, role, os_user, created_at, disabled_at
           FROM operators ORDER BY name LIMIT 1000"#,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Operator::try_from).collect()
}

/// Returns the operator of this name, disabled or not.
pub async fn find(conn: &mut Conn, name: &OperatorName) -> sqlx::Result<Option<Operator>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: OperatorId", name, role, os_user, created_at, disabled_at
           FROM operators WHERE name = $1"#,
        name.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(Operator::try_from).transpose()
}

/// Returns the operator whom the command line takes a user of the operating system for, disabled or not.
pub async fn by_os_user(conn: &mut Conn, user: &str) -> sqlx::Result<Option<Operator>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: OperatorId", name, role, os_user, created_at, disabled_at
           FROM operators WHERE os_user = $1"#,
        user,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Operator::try_from).transpose()
}

/// Locks an operator's row; returns their role.
pub(super) async fn lock(conn: &mut Conn, name: &OperatorName) -> sqlx::Result<Option<Role>> {
    let role =
        sqlx::query_scalar!("SELECT role FROM operators WHERE name = $1 FOR UPDATE", name.as_str())
            .fetch_optional(conn)
            .await?;
    role.map(|role| decode_role(&role)).transpose()
}

/// Gives an operator another role. Their sessions have it from their next request on.
///
/// # Errors
/// [`OperatorError::Unknown`]; the database's.
pub async fn change_role(
    conn: &mut Conn,
    _: &Permitted,
    actor: &Actor,
    name: &OperatorName,
    role: Role,
) -> Result<(), OperatorError> {
    let mut tx = conn.begin().await?;
    let changed = sqlx::query!(
        "UPDATE operators SET role = $2 WHERE name = $1",
        name.as_str(),
        role.as_str()
    )
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Err(OperatorError::Unknown(name.clone()));
    }
    let detail = format!("{name}: {}", role.as_str());
    record_everywhere(&mut tx, actor, "operator.role_changed", &detail).await?;
    tx.commit().await?;
    Ok(())
}

/// Disables an operator: ends their sessions and links. Returns whether they were enabled before.
///
/// # Errors
/// [`OperatorError::Unknown`]; the database's.
pub async fn disable(
    conn: &mut Conn,
    actor: &Actor,
    name: &OperatorName,
) -> Result<bool, OperatorError> {
    let mut tx = conn.begin().await?;
    let before = sqlx::query!(
        r#"SELECT id AS "id: OperatorId", disabled_at FROM operators WHERE name = $1 FOR UPDATE"#,
        name.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let before = before.ok_or_else(|| OperatorError::Unknown(name.clone()))?;
    if before.disabled_at.is_some() {
        return Ok(false);
    }
    end_everything(&mut tx, before.id).await?;
    record_everywhere(&mut tx, actor, "operator.disabled", name.as_str()).await?;
    tx.commit().await?;
    Ok(true)
}

async fn end_everything(conn: &mut Conn, id: OperatorId) -> sqlx::Result<()> {
    sqlx::query!("UPDATE operators SET disabled_at = strongroom_now() WHERE id = $1", id.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "UPDATE operator_sessions SET ended_at = strongroom_now(), ended_by = 'disabled'
         WHERE operator_id = $1 AND ended_at IS NULL",
        id.uuid(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM operator_links WHERE operator_id = $1", id.uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns an operator who is not disabled, and keeps them from being disabled until the transaction ends.
pub(super) async fn enabled(conn: &mut Conn, id: OperatorId) -> sqlx::Result<Option<Operator>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: OperatorId", name, role, os_user, created_at, disabled_at
           FROM operators WHERE id = $1 AND disabled_at IS NULL FOR SHARE"#,
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    row.map(Operator::try_from).transpose()
}
