//! Clients: who may do what, when each secret was last used, and what a thief of it could do.

pub mod page;
pub mod routes;
mod store;
mod thief;

use std::collections::HashMap;

use crate::common::ids::AppId;
use crate::database::Conn;
use crate::oauth::clients::{self, ClientError, ClientInfo};
use crate::oauth::secrets::{self, SecretInfo};

/// Clients that the list shows.
const LISTED: i64 = 200;

/// A client in the list.
#[derive(Debug)]
pub struct Listed {
    /// The client.
    pub client: ClientInfo,
    /// Its live secrets, oldest first.
    pub secrets: Vec<SecretInfo>,
}

/// A client with what its page shows.
#[derive(Debug)]
pub struct Shown {
    /// The client.
    pub client: ClientInfo,
    /// Its live secrets, oldest first.
    pub secrets: Vec<SecretInfo>,
    /// Tokens that it has revealed within this minute.
    pub revealed: i32,
    /// Tokens that it may reveal in a minute.
    pub budget: u32,
}

/// Reads the clients of the app, newest first, with their secrets.
pub async fn list(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<Listed>> {
    let clients = clients::list(conn, Some(app), None, LISTED).await?;
    let ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    let mut of_client: HashMap<_, Vec<_>> = HashMap::new();
    for (client, secret) in store::secrets(conn, &ids).await? {
        of_client.entry(client).or_default().push(secret);
    }
    let listed = clients.into_iter().map(|client| {
        let secrets = of_client.remove(&client.id).unwrap_or_default();
        Listed { client, secrets }
    });
    Ok(listed.collect())
}

/// Reads a client of the app. `default_budget` is the service's own.
pub async fn show(
    conn: &mut Conn,
    app: AppId,
    id: &str,
    default_budget: u32,
) -> Result<Shown, ClientError> {
    let client = clients::find(conn, Some(app), id).await?;
    Ok(Shown {
        secrets: secrets::live(conn, id).await?,
        revealed: store::revealed(conn, id).await?,
        budget: client.reveals_per_minute.unwrap_or(default_budget),
        client,
    })
}
