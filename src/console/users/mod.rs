//! A person's page: their links and sessions, and their erasure with its receipt. Opening it is recorded in the trail.

mod model;
pub mod page;
pub mod routes;
mod store;

pub use model::{Goes, Person, Shown};

use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, UserId};
use crate::connections::erasure;
use crate::connections::query::search::{self, Search};
use crate::database::{self, Conn};

/// Connections that are shown.
const LINKS: u8 = 100;

/// Reads a person, or the erasure of one who is gone. Records that it was looked at.
pub async fn open(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: UserId,
) -> sqlx::Result<Option<Shown>> {
    let erasure = match erasure::store::erasure_of_user(conn, app, id).await? {
        Some(erasure) => erasure::find(conn, app, erasure).await?,
        None => None,
    };
    let person = match store::user(conn, app, id).await? {
        Some(user) => {
            let links = search::search(conn, app, &of_user(&user.client_user_id)).await?.items;
            Some(Person {
                links,
                sessions: store::sessions(conn, app, id).await?,
                goes: store::goes(conn, app, id).await?,
                user,
            })
        }
        None => None,
    };
    if person.is_none() && erasure.is_none() {
        return Ok(None);
    }
    record_view(conn, actor, app, id).await?;
    Ok(Some(Shown { at: database::now(conn).await?, id, person, erasure }))
}

/// Records that somebody looked at a person: before what they see of them is sent.
pub async fn record_view(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: UserId,
) -> sqlx::Result<()> {
    let event = audit::Event {
        app,
        action: "user.viewed",
        outcome: "ok",
        user: Some(id),
        connection: None,
        reason: None,
    };
    audit::record(conn, actor, &event).await
}

/// Returns the app's name for a user; `None` once they are erased.
pub async fn name_of(conn: &mut Conn, app: AppId, id: UserId) -> sqlx::Result<Option<String>> {
    Ok(store::user(conn, app, id).await?.map(|user| user.client_user_id))
}

/// Returns a user's name and what their erasure would destroy; `None` once they are erased.
pub async fn goes(conn: &mut Conn, app: AppId, id: UserId) -> sqlx::Result<Option<(String, Goes)>> {
    let Some(name) = name_of(conn, app, id).await? else { return Ok(None) };
    Ok(Some((name, store::goes(conn, app, id).await?)))
}

fn of_user(client_user_id: &str) -> Search<'_> {
    Search {
        client_user_id: Some(client_user_id),
        status: None,
        attention: None,
        created_by: None,
        created_before: None,
        created_after: None,
        text: None,
        limit: LINKS,
        cursor: None,
    }
}
