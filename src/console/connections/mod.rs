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
use crate::common::ids::{AppId, AuditEventId, ConnectionId};
use crate::common::paging::Page;
use crate::connections::query::search::{self, Found};
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

/// Reads all that is known of one connection, and verifies the link of each row of its trail.
pub async fn life(conn: &mut Conn, app: AppId, id: ConnectionId) -> sqlx::Result<Option<Life>> {
    let Some(found) = search::with_history(conn, app, id).await? else { return Ok(None) };
    let Some(standing) = store::standing(conn, app, id).await? else { return Ok(None) };
    let links: HashMap<AuditEventId, Linked> = audit::check(conn, app, &found.history).await?;
    let events = store::events(conn, app, found.found.user, id).await?;
    Ok(Some(Life { at: database::now(conn).await?, found, standing, links, events }))
}
