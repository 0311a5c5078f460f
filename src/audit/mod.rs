//! The audit trail: append-only rows that tell every change and every reading of a secret.
//!
//! A row is written in the transaction of what it tells, by the SQL function `record_audit`, which
//! statements of other rooms call with an [`AuditActor`]. It names a user by the random `usr_` id
//! alone and never holds a secret.
//!
//! Knows: base.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::base::actor::{Actor, Who};
use crate::base::ids::{AppId, AuditEventId, ConnectionId, SessionId, UserId};

/// An [`Actor`] as `record_audit` takes it: PostgreSQL's composite type `audit_actor`.
#[derive(Clone, Debug, sqlx::Type)]
#[sqlx(type_name = "audit_actor")]
pub struct AuditActor {
    actor: Cow<'static, str>,
    client_id: Option<Arc<str>>,
    session_id: Option<Uuid>,
    scope: Option<Cow<'static, str>>,
    ip: Option<String>,
    request_id: Option<Uuid>,
}

impl From<&Actor> for AuditActor {
    fn from(actor: &Actor) -> Self {
        let (word, client_id, session_id, scope) = match &actor.who {
            Who::Client { id, scope } => {
                ("client", Some(Arc::clone(id)), None, Some(scope.as_str()))
            }
            Who::ClientBySecret(id) => ("client", Some(Arc::clone(id)), None, None),
            Who::Session(id) => ("session", None, Some(SessionId::uuid(*id)), None),
            Who::Operator => ("operator", None, None, None),
            Who::Service => ("service", None, None, None),
        };
        Self {
            actor: Cow::Borrowed(word),
            client_id,
            session_id,
            scope: scope.map(Cow::Borrowed),
            ip: actor.ip.map(|ip| ip.to_string()),
            request_id: actor.request_id,
        }
    }
}

/// What happened to whom.
#[derive(Debug)]
pub struct Event<'a> {
    /// The app.
    pub app: AppId,
    /// What was done, such as `client.created`.
    pub action: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// The user that it concerns.
    pub user: Option<UserId>,
    /// The connection that it concerns.
    pub connection: Option<ConnectionId>,
    /// The reason that was given, or what else is worth knowing.
    pub reason: Option<&'a str>,
}

/// A row of the trail, as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its id.
    pub id: AuditEventId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What was done.
    pub action: String,
    /// How it ended.
    pub outcome: String,
    /// Who: `client`, `session`, `operator` or `service`.
    pub actor: String,
    /// Which client.
    #[serde(rename = "clientID")]
    pub client_id: Option<String>,
    /// Which connect session.
    #[serde(rename = "sessionID")]
    pub session_id: Option<SessionId>,
    /// By which scope.
    pub scope: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// By which request.
    #[serde(rename = "requestID")]
    pub request_id: Option<Uuid>,
    /// Why, or what else is worth knowing.
    pub reason: Option<String>,
}

/// How much of one connection's history is shown at most: its latest rows.
const HISTORY: i64 = 1000;

/// Everything that the trail tells of a connection, oldest first; of more than a thousand rows the latest
/// thousand.
pub async fn of_connection(
    conn: &mut PgConnection,
    app: AppId,
    connection: ConnectionId,
) -> sqlx::Result<Vec<Entry>> {
    let mut entries = sqlx::query_as!(
        Entry,
        "SELECT id AS \"id: AuditEventId\", at, action, outcome, actor, client_id,
                session_id AS \"session_id: SessionId\", scope, ip, request_id, reason
         FROM audit_events WHERE connection_id = $1 AND app_id = $2
         ORDER BY id DESC LIMIT $3",
        connection.uuid(),
        app.uuid(),
        HISTORY,
    )
    .fetch_all(conn)
    .await?;
    // Within one millisecond ids are in no order.
    entries.sort_by_key(|entry| (entry.at, entry.id));
    Ok(entries)
}

/// Records an event, in the transaction that `conn` is in.
pub async fn record(conn: &mut PgConnection, actor: &Actor, event: &Event<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT record_audit($1, $2, $3, $4, $5, $6, $7)",
        event.app.uuid(),
        AuditActor::from(actor) as AuditActor,
        event.action,
        event.outcome,
        event.user.map(UserId::uuid),
        event.connection.map(ConnectionId::uuid),
        event.reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}
