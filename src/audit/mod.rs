//! The audit trail: append-only rows that record every change and every reading of a secret.
//!
//! A row is written in the transaction of the change that it records: by the SQL function `record_audit`,
//! which statements of other modules call with an [`AuditActor`], or, in the batched statements of
//! `connections`, by one INSERT for the whole batch. It names a user by the random `usr_` id alone and
//! never holds a secret.
//!
//! The background work links committed rows into a hash chain per app (`chain`). `verify` finds the first
//! link at which a chain is broken; a `checkpoint`, kept elsewhere, reveals a chain that was truncated or
//! rewritten as a whole. A `handover` continues the chain of an app that was moved here. Both tables are divided by `months`; a month that is over long enough leaves as an `archive`.
//!
//! May import: common, database, http.

pub mod archive;
mod archived;
pub mod chain;
mod checkpoint;
pub mod handover;
mod links;
mod metrics;
mod model;
mod months;
pub mod routes;
mod store;
mod verify;

pub use checkpoint::{Checkpoint, SignedCheckpoint, TYP as CHECKPOINT_TYP, checkpoint};
pub use links::{
    COUNTED_WAITING, ExportedLink, Linked, PIECE as LINKS_IN_A_PIECE, Standing, check, of_request,
    piece, standing, time_of,
};
pub use metrics::Metrics;
pub use model::{AuditEvent, Head};
pub use months::{Month, due_months, prepare_months};
pub use store::{Filter, list};
pub use verify::{Break, Fault, Known, Report, verify};

use std::borrow::Cow;
use std::sync::Arc;

use uuid::Uuid;

use crate::common::actor::{Actor, Who};
use crate::common::ids::{AppId, ConnectionId, SessionId, UserId};
use crate::database::Conn;

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
                ("client".into(), Some(Arc::clone(id)), None, Some(scope.as_str()))
            }
            Who::ClientBySecret(id) => ("client".into(), Some(Arc::clone(id)), None, None),
            Who::Session(id) => ("session".into(), None, Some(SessionId::uuid(*id)), None),
            // In the field that links hash since their first version, so that a name cannot be exchanged.
            Who::Operator(Some(name)) => (format!("operator: {name}").into(), None, None, None),
            Who::Operator(None) => ("operator".into(), None, None, None),
            Who::Service => ("service".into(), None, None, None),
        };
        Self {
            actor: word,
            client_id,
            session_id,
            scope: scope.map(Cow::Borrowed),
            ip: actor.ip.map(|ip| ip.to_string()),
            request_id: actor.request_id,
        }
    }
}

/// One change to record, without the actor.
#[derive(Debug)]
pub struct Event<'a> {
    /// The app whose trail gets the row.
    pub app: AppId,
    /// What was done, such as `client.created`. Part of the link's hash: never rename one.
    pub action: &'static str,
    /// `ok`, `failed`, or the connection's new status.
    pub outcome: &'static str,
    /// The user that the change affects.
    pub user: Option<UserId>,
    /// The connection that the change affects.
    pub connection: Option<ConnectionId>,
    /// The caller's reason, or another detail worth keeping. Never a secret.
    pub reason: Option<&'a str>,
}

/// Records an event in the transaction that `conn` is in.
pub async fn record(conn: &mut Conn, actor: &Actor, event: &Event<'_>) -> sqlx::Result<()> {
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

/// Records a change that affects every app, such as a new signing key, in each app's trail.
pub async fn record_everywhere(
    conn: &mut Conn,
    actor: &Actor,
    action: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT record_audit(id, $1, $2, 'ok', NULL, NULL, $3) FROM apps",
        AuditActor::from(actor) as AuditActor,
        action,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The most rows that a history returns.
const HISTORY: i64 = 1000;

/// Returns the events of one connection, oldest first; of more than a thousand, the latest thousand.
pub async fn history(
    conn: &mut Conn,
    app: AppId,
    connection: ConnectionId,
) -> sqlx::Result<Vec<AuditEvent>> {
    let filter = Filter { connection: Some(connection), ..Filter::of(app) };
    let mut events = list(conn, &filter, None, HISTORY).await?;
    events.reverse();
    Ok(events)
}
