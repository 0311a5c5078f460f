//! Audit: the trail with its filters, its export, and the check of its chain in the reader's browser.

pub mod page;
mod query;
pub mod routes;

pub use query::Query;

use uuid::Uuid;

use crate::audit::{self, AuditEvent, Standing};
use crate::common::ids::AuditEventId;
use crate::common::paging::Page;
use crate::database::Conn;

/// Rows on a page.
const ON_A_PAGE: u8 = 100;

/// The page's content.
#[derive(Debug)]
pub struct Trail {
    /// The rows, newest first.
    pub events: Page<AuditEvent>,
    /// Where the chain stands.
    pub standing: Standing,
}

/// Reads a page of the trail.
pub async fn read(
    conn: &mut Conn,
    filter: &audit::Filter,
    after: Option<Uuid>,
) -> sqlx::Result<Trail> {
    let events = audit::list(conn, filter, after, i64::from(ON_A_PAGE) + 1).await?;
    let events = Page::from_query(events, ON_A_PAGE, |event| AuditEventId::uuid(event.id));
    Ok(Trail { events, standing: audit::standing(conn, filter.app).await? })
}
