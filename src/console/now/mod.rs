//! Now: what lives at the bank though it is revoked here, what is in flight, and what needs somebody.

mod model;
pub mod page;
pub mod routes;
mod store;

pub use model::{Count, Database, Now, Process};

use crate::approvals;
use crate::audit;
use crate::common::ids::AppId;
use crate::connections::Context;
use crate::connections::model::Status;
use crate::connections::query::search::{self, StatusCount};
use crate::console::keys;
use crate::database::{self, Conn};

/// Reads what the database says about the app.
async fn read(conn: &mut Conn, app: AppId) -> sqlx::Result<Database> {
    let counts = search::stats(conn, app).await?;
    let count = |status| count(&counts, status);
    Ok(Database {
        at: database::now(conn).await?,
        active: count(Status::Active),
        revoking: count(Status::Revoking),
        pending: count(Status::Pending),
        orphaned: count(Status::Orphaned),
        unconfirmed: store::unconfirmed(conn, app).await?,
        codes: store::codes(conn, app).await?,
        attention: store::attention(conn, app).await?,
        approvals: approvals::pending_count(conn, Some(app), None).await?
            + approvals::pending_count(conn, None, None).await?,
        orders: store::orders(conn, app).await?,
        upstreams: store::upstreams(conn, app).await?,
        webhooks: store::webhooks(conn, app).await?,
        chain: audit::standing(conn, app).await?,
        keys: keys::due(conn).await?,
    })
}

fn count(counts: &[StatusCount], status: Status) -> Count {
    let found = counts.iter().find(|count| count.status == status);
    found.map_or_else(Count::default, |it| Count {
        total: it.total,
        oldest: Some(it.oldest_created_at),
    })
}

/// Reads what this process knows by itself.
#[must_use]
pub fn process(context: &Context) -> Process {
    let outages = context.vault.outages().into_iter();
    Process {
        answers_waiting: context.metrics.answers_waiting.get(),
        answers_lost: context.metrics.answers_lost.get(),
        key_outages: outages
            .map(|outage| (outage.key.to_string(), outage.cause.clone(), outage.lasts.as_secs()))
            .collect(),
    }
}

/// Reads both; without the database, what this process knows.
pub async fn load(context: &Context, app: AppId) -> Now {
    let database = async { read(&mut context.pool.acquire().await?, app).await };
    let database = database.await.inspect_err(|error| {
        tracing::warn!(cause = %error, "the console could not read the database");
    });
    Now { process: process(context), database: database.ok() }
}
