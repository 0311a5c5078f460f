//! Incident: many connections are revoked at once; the dry run before, and the progress after.

mod model;
pub mod order;
pub mod page;
pub mod routes;

pub use model::Asked;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::bulk_revocation::{self, DryRun, RevocationFilter};
use crate::connections::model::Connection;
use crate::connections::query::store::ViewQuery;
use crate::database::{BatchQuery as _, Conn};

/// What a bulk revocation would revoke now, with the newest of them.
#[derive(Debug)]
pub struct Preview {
    /// How many.
    pub matched: i64,
    /// The newest of them.
    pub sample: Vec<Connection>,
}

/// Counts what would be revoked, and reads the newest of them.
pub async fn preview(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<Preview> {
    let DryRun { matched, sample } = bulk_revocation::dry_run(conn, app, matching).await?;
    let asked: Vec<_> = sample.iter().map(|id: &ConnectionId| ViewQuery { app, id: *id }).collect();
    let sample = ViewQuery::run(conn, &asked).await?.into_iter().flatten().collect();
    Ok(Preview { matched, sample })
}
