//! `strongroom clients`.

mod proofs;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;

use self::proofs::{ProofArgs, Set};
use super::Failure;
use super::identity::acting;
use super::output::{Output, table};
use super::session::{Session, app};
use crate::common::external_scopes::ExternalScopes;
use crate::common::scope::Scopes;
use crate::common::secret::SecretText;
use crate::config::{Environment, Reader, read_allow_private_addresses};
use crate::oauth::clients::{
    self, ClientError, ClientInfo, DEFAULT_TOKEN_LIFETIME, NewClient, TOKEN_LIFETIMES, Terms,
};
use crate::oauth::registration;
use crate::oauth::secrets::{self, DEFAULT_OVERLAP, MAX_OVERLAP, Made, SecretInfo, Shown};
use crate::outbound::Reach;

/// OAuth clients: who may call the API of an app.
#[derive(Debug, Args)]
pub(super) struct Clients {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Box<Create>),
    List(List),
    Show(Show),
    Set(Box<Set>),
    #[command(visible_alias = "revoke")]
    Disable(Disable),
    Enable(Enable),
    Delete(Delete),
    RotateSecret(RotateSecret),
}

/// Make a client; prints its id and, this once, its secret. With keys or a workload it gets no secret.
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
    #[arg(long, default_value = "")]
    scope: String,
    /// Scopes of other APIs that its tokens may carry. Strongroom honours none of them.
    #[arg(long, default_value = "")]
    other_scope: String,
    /// Scopes that its token requests have to name; without any, a request that names none gets all.
    #[arg(long, default_value = "")]
    required_scope: String,
    /// Tokens that it may read in the clear within a minute, where that should differ from
    /// `STRONGROOM_REVEALS_PER_MINUTE`.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    reveals_per_minute: Option<u32>,
    /// How long its access tokens live, in seconds.
    #[arg(long, default_value_t = DEFAULT_TOKEN_LIFETIME,
          value_parser = clap::value_parser!(u32).range(i64::from(*TOKEN_LIFETIMES.start())..=i64::from(*TOKEN_LIFETIMES.end())))]
    token_lifetime: u32,
    #[command(flatten)]
    proofs: ProofArgs,
    /// It gets tokens that are bound to a key alone (DPoP).
    #[arg(long)]
    dpop_bound: bool,
}

/// List clients, without their secrets.
#[derive(Debug, Args)]
struct List {
    /// Only this app's.
    #[arg(long)]
    app: Option<String>,
}

/// Show one client and its live secrets: when each was made, last used, and when it ends.
#[derive(Debug, Args)]
struct Show {
    /// The client's id.
    client_id: String,
}

/// Refuse a client and its tokens from now on, within five seconds on every replica.
#[derive(Debug, Args)]
struct Disable {
    /// The client's id.
    client_id: String,
}

/// Let a client in again that was disabled; tokens that it had count again until they end.
#[derive(Debug, Args)]
struct Enable {
    /// The client's id.
    client_id: String,
}

/// Delete a client with its secrets; its tokens end within five seconds on every replica.
#[derive(Debug, Args)]
struct Delete {
    /// The client's id.
    client_id: String,
    /// Do not ask before it is done; without a terminal nothing is asked.
    #[arg(long)]
    yes: bool,
}

/// Give a client a new secret, printed this once, and the old one an end.
///
/// Two secrets live side by side until then: hand the new one out, wait until `clients show` says that
/// the old one is not used any more. A secret that leaked: --old-ends-in 0.
#[derive(Debug, Args)]
struct RotateSecret {
    /// The client's id.
    client_id: String,
    /// How long the old secret lives on, in seconds.
    #[arg(long, default_value_t = DEFAULT_OVERLAP,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_OVERLAP)))]
    old_ends_in: u32,
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
            Command::Show(show) => show.run(environment, output).await,
            Command::Set(set) => set.run(environment, output).await,
            Command::Disable(it) => Change::Disable.run(&it.client_id, environment, output).await,
            Command::Enable(it) => Change::Enable.run(&it.client_id, environment, output).await,
            Command::Delete(it) => {
                output.confirm(&format!("Delete the client `{}`.", it.client_id), it.yes)?;
                Change::Delete.run(&it.client_id, environment, output).await
            }
            Command::RotateSecret(rotate) => rotate.run(environment, output).await,
        }
    }
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|name| !name.is_empty())
}

impl Create {
    fn scopes(&self) -> Result<Scopes, Failure> {
        self.scope.parse().map_err(|what| Failure::Usage(format!("--scope: {what}")))
    }

    fn terms(&self) -> Result<Terms, Failure> {
        let external_scopes = ExternalScopes::new(names(&self.other_scope))
            .map_err(|what| Failure::Usage(format!("--other-scope: {what}")))?;
        let required_scopes = names(&self.required_scope).map(str::to_owned).collect();
        let registration = self.proofs.registration(self.dpop_bound)?;
        let reveals_per_minute = self.reveals_per_minute;
        Ok(Terms { external_scopes, required_scopes, reveals_per_minute, registration })
    }

    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let (scopes, terms) = (self.scopes()?, self.terms()?);
        let reach = reach(environment)?;
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let app = app(&mut conn, &self.app).await?;
        let new = NewClient {
            app: app.id,
            name: &self.name,
            scopes,
            token_lifetime: Duration::from_secs(self.token_lifetime.into()),
        };
        clients::check(&new, &terms).map_err(|what| Failure::Usage(what.to_string()))?;
        registration::check(&terms.registration, reach)
            .map_err(|what| Failure::Usage(what.to_string()))?;
        let operator = acting();
        let (id, secret) = if terms.registration.authenticates() {
            let id = clients::create_without_secret(&mut conn, &operator, &new, &terms).await;
            (id.map_err(Failure::other)?, None)
        } else {
            let made = clients::create_on(&mut conn, &vault, &operator, &new, &terms).await;
            let made = made.map_err(Failure::other)?;
            (made.id, Some(made.secret))
        };
        let client = clients::find(&mut conn, None, &id).await.map_err(Failure::other)?;
        let secret = secret.as_ref().map(SecretText::expose);
        output.result(&Made { client: &client, client_secret: secret }, || match secret {
            Some(secret) => format!(
                "client_id     {id}\nclient_secret {secret}\n\nThe secret is shown this once; only its hash is kept."
            ),
            None => format!("client_id     {id}\n\nIt has no secret: it proves itself by its keys."),
        });
        Ok(())
    }
}

/// Returns which addresses keys may be fetched from.
fn reach(environment: &Environment) -> Result<Reach, Failure> {
    let mut reader = Reader::new(environment);
    let allowed = read_allow_private_addresses(&mut reader);
    Ok(Reach::allowing_private_addresses(reader.finish(Some(allowed))?))
}

impl Set {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let (change, reach) = (self.change()?, reach(environment)?);
        let mut session = Session::open(environment).await?;
        let (conn, id) = (&mut session.conn, &self.client_id);
        clients::change(conn, &acting(), None, id, None, &change, reach).await.map_err(failure)?;
        let client = clients::find(conn, None, id).await.map_err(failure)?;
        let secrets = secrets::live(conn, id).await?;
        output.result(&Shown { client: &client, secrets: &secrets }, || describe(&client));
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
        let clients = clients::list(&mut session.conn, only, None, i64::MAX).await?;
        output.result(&clients, || {
            if clients.is_empty() {
                return "There is no client yet; `strongroom clients create` makes one.".to_owned();
            }
            table(
                ["CLIENT ID", "APP", "NAME", "STATE", "LAST USED", "SCOPE"],
                &clients.iter().map(row).collect::<Vec<_>>(),
            )
        });
        Ok(())
    }
}

fn state(client: &ClientInfo) -> &'static str {
    match (client.disabled_at, client.bootstrap) {
        (Some(_), _) => "disabled",
        (None, true) => "bootstrap",
        (None, false) => "live",
    }
}

fn row(client: &ClientInfo) -> [String; 6] {
    [
        client.id.clone(),
        client.app_name.clone(),
        client.name.clone(),
        state(client).to_owned(),
        moment(client.last_used_at, "never"),
        all_scopes(client),
    ]
}

fn all_scopes(client: &ClientInfo) -> String {
    [client.scopes.names(), client.external_scopes.names()].concat().join(" ")
}

/// Formats a time to the second, or `otherwise`.
pub(super) fn moment(at: Option<OffsetDateTime>, otherwise: &str) -> String {
    let whole = at.and_then(|at| at.replace_nanosecond(0).ok());
    let text = whole.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| otherwise.to_owned())
}

/// Converts an error about a client that the command line named.
fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Unknown(id) => Failure::Usage(format!(
            "there is no client `{id}`; `strongroom clients list` shows them"
        )),
        ClientError::Registration(invalid) => Failure::Usage(invalid.to_string()),
        error => Failure::other(error),
    }
}

impl Show {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let conn = &mut session.conn;
        let client = clients::find(conn, None, &self.client_id).await.map_err(failure)?;
        let secrets = secrets::live(conn, &client.id).await?;
        output.result(&Shown { client: &client, secrets: &secrets }, || {
            let row = |secret: &SecretInfo| {
                [
                    secret.id.to_string(),
                    moment(Some(secret.created_at), ""),
                    moment(secret.last_used_at, "never"),
                    moment(secret.expires_at, "stays"),
                ]
            };
            let secrets = table(
                ["SECRET", "MADE", "LAST USED", "ENDS"],
                &secrets.iter().map(row).collect::<Vec<_>>(),
            );
            format!("{}\n\n{secrets}", describe(&client))
        });
        Ok(())
    }
}

fn describe(client: &ClientInfo) -> String {
    let reveals = client.reveals_per_minute.map_or("as everywhere".to_owned(), |n| n.to_string());
    let lines = [
        ("client_id", client.id.clone()),
        ("name", client.name.clone()),
        ("app", client.app_name.clone()),
        ("state", state(client).to_owned()),
        ("scope", all_scopes(client)),
        ("required scope", client.required_scopes.join(" ")),
        ("token lifetime", format!("{} s", client.token_lifetime)),
        ("reveals a minute", reveals),
        ("keys", keys(client)),
        ("workload", workload(client)),
        ("tokens", if client.dpop_bound { "bound to keys" } else { "bearer, or bound" }.to_owned()),
        ("made", moment(Some(client.created_at), "")),
        ("last used", moment(client.last_used_at, "never")),
    ];
    let line = |(name, value): &(&str, String)| format!("{name:16}  {value}");
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn keys(client: &ClientInfo) -> String {
    let count = |jwks: &serde_json::Value| jwks["keys"].as_array().map_or(0, Vec::len);
    match (&client.jwks, &client.jwks_uri) {
        (Some(jwks), _) => format!("{} in its registration", count(jwks)),
        (None, Some(uri)) => uri.clone(),
        (None, None) => "none".to_owned(),
    }
}

fn workload(client: &ClientInfo) -> String {
    client.workload.as_ref().map_or_else(
        || "none".to_owned(),
        |it| format!("{} of {} for {}", it.subject, it.issuer, it.audience),
    )
}

/// An operation on a client as a whole.
#[derive(Clone, Copy)]
enum Change {
    Disable,
    Enable,
    Delete,
}

impl Change {
    async fn run(
        self,
        id: &str,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let (conn, operator) = (&mut session.conn, acting());
        let (word, outcome) = match self {
            Self::Disable => {
                clients::disable(conn, &operator, None, id).await.map_err(failure)?;
                ("disabled", "and its tokens are refused, within seconds on every replica.")
            }
            Self::Enable => {
                clients::enable(conn, &operator, None, id).await.map_err(failure)?;
                ("enabled", "is let in again, within seconds on every replica.")
            }
            Self::Delete => {
                clients::delete(conn, &operator, None, id).await.map_err(failure)?;
                ("deleted", "is gone with its tokens, within seconds on every replica.")
            }
        };
        output.result(&json!({ "clientID": id, word: true }), || format!("`{id}` {outcome}"));
        Ok(())
    }
}

impl RotateSecret {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let overlap = Duration::from_secs(self.old_ends_in.into());
        let (id, operator) = (&self.client_id, acting());
        let new = secrets::rotate(&mut conn, &vault, &operator, None, id, overlap).await;
        let new = new.map_err(|error| match error {
            ClientError::TwoSecrets => Failure::Usage(format!(
                "{error}: wait for the end that `strongroom clients show {id}` shows, or give \
                 --old-ends-in 0"
            )),
            error => failure(error),
        })?;
        let json = json!({
            "clientID": id,
            "id": new.id,
            "clientSecret": new.secret.expose(),
            "secrets": new.live,
        });
        output.result(&json, || {
            let old = match self.old_ends_in {
                0 => "The old secret has ended.".to_owned(),
                seconds => format!("The old secret ends in {seconds} seconds."),
            };
            format!(
                "client_id     {id}\nclient_secret {}\n\nThe secret is shown this once. {old}",
                new.secret.expose()
            )
        });
        Ok(())
    }
}
