//! `strongroom clients`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::output::{Output, table};
use super::session::{Session, app};
use crate::base::actor::Actor;
use crate::base::scope::Scopes;
use crate::base::text;
use crate::config::Environment;
use crate::oauth::clients::{
    self, ClientError, ClientInfo, DEFAULT_TOKEN_LIFETIME, MAX_NAME, NewClient, TOKEN_LIFETIMES,
};

/// OAuth clients: who may call the API of an app.
#[derive(Debug, Args)]
pub(super) struct Clients {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a client; prints its id and, this once, its secret.
///
/// Example: strongroom clients create payroll --app shop --scope "connections:read tokens:read"
///
/// Scopes: sessions:create, connections:write, connections:read, connections:revoke, tokens:read,
/// dapi:call, users:erase, upstreams:use, admin.
#[derive(Debug, Args)]
struct Create {
    /// What people call it.
    name: String,
    /// The app that it belongs to.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// The most that its tokens may allow: names with a space between them.
    #[arg(long)]
    scope: String,
    /// How long its access tokens live, in seconds.
    #[arg(long, default_value_t = DEFAULT_TOKEN_LIFETIME,
          value_parser = clap::value_parser!(u32).range(i64::from(*TOKEN_LIFETIMES.start())..=i64::from(*TOKEN_LIFETIMES.end())))]
    token_lifetime: u32,
}

/// List clients, without their secrets.
#[derive(Debug, Args)]
struct List {
    /// Only this app's.
    #[arg(long)]
    app: Option<String>,
}

/// Refuse a client and its tokens from now on, within seconds on every replica.
#[derive(Debug, Args)]
struct Revoke {
    /// The client's id.
    client_id: String,
}

impl Clients {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        match self.command {
            Command::Create(create) => create.run(environment, output).await,
            Command::List(list) => list.run(environment, output).await,
            Command::Revoke(revoke) => revoke.run(environment, output).await,
        }
    }
}

impl Create {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        text::check(&self.name, MAX_NAME)
            .map_err(|what| Failure::Usage(format!("the name {what}")))?;
        let scopes: Scopes =
            self.scope.parse().map_err(|what| Failure::Usage(format!("--scope: {what}")))?;
        if scopes.is_empty() {
            return Err(Failure::Usage(format!(
                "--scope needs one at least of: {}",
                Scopes::all()
            )));
        }
        let Session { mut conn, vault } = Session::open(environment).await?;
        let app = app(&mut conn, &self.app).await?;
        let new = NewClient {
            app: app.id,
            name: &self.name,
            scopes,
            token_lifetime: Duration::from_secs(self.token_lifetime.into()),
        };
        let made = clients::create(&mut conn, &vault, &Actor::operator(), &new).await;
        let made = made.map_err(Failure::other)?;
        let json = json!({
            "clientID": &*made.id,
            "clientSecret": made.secret.expose(),
            "app": app.name,
            "name": self.name,
            "scope": scopes,
            "tokenLifetime": self.token_lifetime,
        });
        output.result(&json, || {
            format!(
                "client_id     {}\nclient_secret {}\n\nThe secret is shown this once; only its hash is kept.",
                made.id,
                made.secret.expose()
            )
        });
        Ok(())
    }
}

impl List {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let only = match &self.app {
            Some(name) => Some(app(&mut session.conn, name).await?.id),
            None => None,
        };
        let clients = clients::list(&mut session.conn, only).await?;
        output.result(&clients, || {
            if clients.is_empty() {
                return "There is no client yet; `strongroom clients create` makes one.".to_owned();
            }
            table(
                ["CLIENT ID", "APP", "NAME", "STATE", "SCOPE"],
                &clients.iter().map(row).collect::<Vec<_>>(),
            )
        });
        Ok(())
    }
}

fn row(client: &ClientInfo) -> [String; 5] {
    let state = match (client.disabled_at, client.bootstrap) {
        (Some(_), _) => "disabled",
        (None, true) => "bootstrap",
        (None, false) => "live",
    };
    [
        client.id.clone(),
        client.app_name.clone(),
        client.name.clone(),
        state.to_owned(),
        client.scopes.to_string(),
    ]
}

impl Revoke {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let id = &self.client_id;
        match clients::disable(&mut session.conn, &Actor::operator(), None, id).await {
            Ok(()) => {
                output.result(&json!({ "clientID": id, "disabled": true }), || {
                    format!("`{id}` and its tokens are refused, within seconds on every replica.")
                });
                Ok(())
            }
            Err(ClientError::Unknown(_)) => Err(Failure::Usage(format!(
                "there is no client `{id}`; `strongroom clients list` shows them"
            ))),
            Err(error) => Err(Failure::other(error)),
        }
    }
}
