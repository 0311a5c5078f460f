//! The demo's client of the app at Plaid. The bootstrap client, of which there is one, belongs to the app at Dapi.

use std::time::Duration;

use strongroom_dev::demo::AppClient;
use strongroom_dev::folder::{Client, Folder};

use crate::apps;
use crate::cli::Failure;
use crate::cli::session::app;
use crate::common::actor::Actor;
use crate::common::scope::Scopes;
use crate::database::Conn;
use crate::oauth::clients::{self, ClientError, DEFAULT_TOKEN_LIFETIME, NewClient};
use crate::providers::Provider;
use crate::service::Service;

const APP: &str = apps::name_of(Provider::Plaid);

/// Returns the client that the folder keeps; creates one if this database does not know it.
pub(super) async fn ensure(service: &Service, folder: &Folder) -> Result<AppClient, Failure> {
    let context = service.context();
    let mut conn = context.pool.acquire().await?;
    let client = match folder.plaid_client() {
        Some(kept) if is_usable(&mut conn, &kept.id).await? => kept,
        _ => {
            let new = NewClient {
                app: app(&mut conn, APP).await?.id,
                name: "demo",
                scopes: Scopes::all(),
                token_lifetime: Duration::from_secs(DEFAULT_TOKEN_LIFETIME.into()),
            };
            let made = clients::create(&mut conn, &context.vault, &Actor::operator(), &new).await;
            let made = made.map_err(Failure::other)?;
            let client = Client { id: made.id.to_string(), secret: made.secret };
            folder.keep_plaid_client(&client).map_err(Failure::other)?;
            client
        }
    };
    Ok(AppClient { app: APP, id: client.id, secret: client.secret })
}

/// Returns whether the database has this client, enabled and of this app.
async fn is_usable(conn: &mut Conn, id: &str) -> Result<bool, Failure> {
    match clients::find(conn, None, id).await {
        Ok(found) => Ok(found.app_name == APP && found.disabled_at.is_none()),
        Err(ClientError::Unknown(_)) => Ok(false),
        Err(error) => Err(Failure::other(error)),
    }
}
