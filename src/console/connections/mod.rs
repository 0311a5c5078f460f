//! Connections: a search, the life of one as a timeline, and its revocation.

pub mod ending;
mod model;
pub mod page;
pub mod routes;
mod store;
pub mod timeline;

use model::ON_A_PAGE;
pub use model::{Far, Life, Query};

use std::collections::HashMap;

use crate::audit::{self, Linked};
use crate::common::ids::{
    AppId, ApprovalId, AuditEventId, BulkRevocationId, ConnectionId, OperatorSessionId, SessionId,
};
use crate::common::paging::Page;
use crate::connections::query::search::{self, Found};
use crate::console::fields;
use crate::database::{self, Conn};

/// Returns a page of the connections that match.
pub async fn find(conn: &mut Conn, app: AppId, query: &Query) -> sqlx::Result<Page<Found>> {
    match query.incident() {
        Some(Ok(id)) => {
            let (far, cursor) = (query.far(), query.cursor.parse().ok());
            return search::of_bulk_revocation(conn, app, id, far.progress(), cursor, ON_A_PAGE)
                .await;
        }
        Some(Err(_)) => return Ok(Page { items: Vec::new(), next: None }),
        None => {}
    }
    let at = database::now(conn).await?;
    search::search(conn, app, &query.search(at)).await
}

/// Returns the page of what the text names if that is no connection: an incident, a request for approval, a session. Whoever has
/// an id from a chat need not know of what it is.
pub async fn elsewhere(conn: &mut Conn, app: AppId, query: &Query) -> sqlx::Result<Option<String>> {
    let Some(text) = fields::given(&query.text) else { return Ok(None) };
    if let Ok(id) = text.parse::<BulkRevocationId>() {
        return Ok(Some(format!("/apps/{app}/incident/{id}")));
    }
    if let Ok(id) = text.parse::<ApprovalId>() {
        return Ok(Some(format!("/apps/{app}/approvals/{id}")));
    }
    if let Ok(id) = text.parse::<OperatorSessionId>() {
        return Ok(Some(format!("/operators#{id}")));
    }
    let Ok(session) = text.parse::<SessionId>() else { return Ok(None) };
    let user = store::user_of_session(conn, app, session).await?;
    Ok(user.map(|user| format!("/apps/{app}/users/{user}")))
}

/// Reads all that is known of one connection, and verifies the link of each row of its trail.
pub async fn life(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<Option<Life>> {
    let Some(found) = search::with_history(conn, app, id).await? else { return Ok(None) };
    let Some(standing) = store::standing(conn, app, id).await? else { return Ok(None) };
    let links: HashMap<AuditEventId, Linked> = audit::check(conn, app, &found.history).await?;
    let events = store::events(conn, app, found.found.user, id).await?;
    Ok(Some(Life { at: database::now(conn).await?, found, standing, links, events }))
}
