//! `strongroom upstreams`.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::identity::acting;
use super::output::{Output, table};
use super::session::{Session, app};
use crate::config::{Environment, Reader, read_allow_private_addresses};
use crate::outbound::Reach;
use crate::upstreams::admin::{self, AdminError};
use crate::upstreams::model::{Auth, Change, Draft, Edit, Preset, Upstream};
use crate::upstreams::{ClientSecret, store};

const EXAMPLES: &str = "\
Examples:
  A system that is known:
    strongroom upstreams add danaconnect --preset danaconnect --client-id ID < secret

  One whose URLs are your installation's, and that wants JSON:
    strongroom upstreams add kaisa --preset kaisa --auth json --client-id ID \\
      --token-url https://kaisa.example/oauth/token --base-url https://kaisa.example/api \\
      --client-secret-file /run/secrets/kaisa

  Any other:
    strongroom upstreams add crm --client-id ID --scope \"contacts:read\" --parameter audience=crm \\
      --token-url https://crm.example/oauth/v2/token --base-url https://crm.example/v2 < secret";

/// Upstreams: other APIs that an app reaches with OAuth 2.0 client credentials.
///
/// Strongroom keeps the client secret, fetches short-lived tokens with it, and gives them to clients with
/// the scope upstreams:use: by POST /v1/upstreams/NAME/token, or without showing them by
/// /v1/upstreams/NAME/proxy/PATH.
#[derive(Debug, Args)]
pub(super) struct Upstreams {
    /// The app that they belong to.
    #[arg(long, global = true, default_value = crate::apps::DEFAULT)]
    app: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Box<Add>),
    List(List),
    Show(Show),
    Change(Box<ChangeArgs>),
    Remove(Remove),
}

/// Add an upstream, its client secret from a file or from standard input.
///
/// URLs are https and lead to public addresses, unless `STRONGROOM_ALLOW_PRIVATE_ADDRESSES=true`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
struct Add {
    /// What it is called in paths: lower-case letters, digits and hyphens.
    name: String,
    /// A system whose settings are known: what is given beside it goes before.
    #[arg(long, value_enum, default_value = "generic")]
    preset: Preset,
    #[command(flatten)]
    settings: SettingArgs,
}

/// List upstreams, without their secrets.
#[derive(Debug, Args)]
struct List {}

/// Show one upstream, the times of its token and its last failure.
#[derive(Debug, Args)]
struct Show {
    /// The upstream.
    name: String,
}

/// Change an upstream; what is left out stays. Its cached token is dropped, and a failure's wait ends.
///
/// A new secret: strongroom upstreams change crm --client-secret-file /run/secrets/crm
///
/// A new token URL or base URL needs the secret beside it: a secret is sent elsewhere only by a
/// caller who knows it.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// The upstream.
    name: String,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Remove an upstream with its secret and its cached token.
#[derive(Debug, Args)]
struct Remove {
    /// The upstream.
    name: String,
    /// Do not ask before it is done; without a terminal nothing is asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct SettingArgs {
    /// Where tokens come from.
    #[arg(long)]
    token_url: Option<String>,
    /// The id by which the upstream knows this app.
    #[arg(long)]
    client_id: Option<String>,
    /// The file that holds the client secret; `add` reads standard input where it is left out.
    #[arg(long)]
    client_secret_file: Option<PathBuf>,
    /// How id and secret are sent.
    #[arg(long, value_enum)]
    auth: Option<Auth>,
    /// The scope to ask for; `change` removes it by an empty one.
    #[arg(long)]
    scope: Option<String>,
    /// A further parameter of the token request, such as audience=crm. Nothing secret: it is shown.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Where calls go; `change` removes it by an empty one.
    #[arg(long)]
    base_url: Option<String>,
}

fn parameter(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl SettingArgs {
    fn given_parameters(&self) -> Option<BTreeMap<String, String>> {
        let given = self.parameters.iter().cloned().collect();
        (!self.parameters.is_empty()).then_some(given)
    }

    fn secret_from_file(&self) -> Result<Option<ClientSecret>, Failure> {
        let Some(path) = &self.client_secret_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
        let text = text.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        Ok(Some(secret(&text)))
    }
}

fn secret(text: &str) -> ClientSecret {
    ClientSecret::new(text.trim_start_matches('\u{feff}').trim().to_owned())
}

fn secret_from_input() -> Result<ClientSecret, Failure> {
    if std::io::stdin().is_terminal() {
        let message = "give the secret by --client-secret-file, or on standard input: \
                    strongroom upstreams add … < secret";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    std::io::stdin().read_to_string(&mut text)?;
    Ok(secret(&text))
}

impl Upstreams {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let allowed = Some(read_allow_private_addresses(&mut reader));
        let reach = Reach::allowing_private_addresses(reader.finish(allowed)?);
        // Read before the database is opened, so that a missing file is reported at once.
        let command = Prepared::from(self.command)?;
        let mut session = Session::open(environment).await?;
        let app = app(&mut session.conn, &self.app).await?;
        command.run(&mut session, &app, reach, output).await
    }
}

/// A command with the contents of its files.
enum Prepared {
    Add(Draft),
    List,
    Show(String),
    Change(String, Change),
    Remove(Remove),
}

impl Prepared {
    fn from(command: Command) -> Result<Self, Failure> {
        Ok(match command {
            Command::Add(add) => Self::Add(add.draft()?),
            Command::List(_) => Self::List,
            Command::Show(show) => Self::Show(show.name),
            Command::Change(edit) => Self::Change(edit.name.clone(), edit.change()?),
            Command::Remove(remove) => Self::Remove(remove),
        })
    }

    async fn run(
        self,
        session: &mut Session,
        app: &crate::apps::App,
        reach: Reach,
        output: &Output,
    ) -> Result<(), Failure> {
        let (conn, vault, actor) = (&mut session.conn, &session.vault, acting());
        match self {
            Self::Add(draft) => {
                let added = admin::add(conn, vault, &actor, app.id, draft, reach).await;
                let added = added.map_err(|error| failure("", error))?;
                output.result(&added, || {
                    format!("Added the upstream `{}`.\n\n{}", added.name, described(&added))
                });
            }
            Self::List => list(&store::list(conn, app.id).await?, output),
            Self::Show(name) => {
                let found = store::find(conn, app.id, &name).await?;
                let found = found.ok_or_else(|| failure(&name, AdminError::Unknown))?;
                output.result(&found, || described(&found));
            }
            Self::Change(name, change) => {
                let changed =
                    admin::change(conn, vault, &actor, app.id, &name, change, reach).await;
                let changed = changed.map_err(|error| failure(&name, error))?;
                output.result(&changed, || {
                    format!("ChangeOutcome the upstream `{name}`.\n\n{}", described(&changed))
                });
            }
            Self::Remove(Remove { name, yes }) => {
                output.confirm(&format!("Remove the upstream `{name}`."), yes)?;
                let removed = admin::remove(conn, &actor, app.id, &name).await;
                removed.map_err(|error| failure(&name, error))?;
                output.result(&json!({ "name": name, "removed": true }), || {
                    format!("Removed the upstream `{name}` with its secret and its token.")
                });
            }
        }
        Ok(())
    }
}

fn failure(name: &str, error: AdminError) -> Failure {
    match error {
        AdminError::Invalid(invalid) => Failure::Usage(invalid.to_string()),
        AdminError::Unknown => Failure::Usage(format!(
            "there is no upstream `{name}`; `strongroom upstreams list` shows them"
        )),
        error => Failure::other(error),
    }
}

impl Add {
    fn draft(self) -> Result<Draft, Failure> {
        let secret = match self.settings.secret_from_file()? {
            Some(secret) => secret,
            None => secret_from_input()?,
        };
        let parameters = self.settings.given_parameters();
        Ok(Draft {
            name: Some(self.name),
            preset: Some(self.preset),
            token_url: self.settings.token_url,
            client_id: self.settings.client_id,
            client_secret: Some(secret),
            auth: self.settings.auth,
            scope: self.settings.scope,
            parameters,
            base_url: self.settings.base_url,
        })
    }
}

impl ChangeArgs {
    fn change(self) -> Result<Change, Failure> {
        let edit = |text: Option<String>| text.map_or(Edit::Keep, |text| Edit::from(Some(text)));
        Ok(Change {
            client_secret: self.settings.secret_from_file()?,
            parameters: self.settings.given_parameters(),
            token_url: self.settings.token_url,
            client_id: self.settings.client_id,
            auth: self.settings.auth,
            scope: edit(self.settings.scope),
            base_url: edit(self.settings.base_url),
        })
    }
}

fn list(upstreams: &[Upstream], output: &Output) {
    output.result(&upstreams, || {
        if upstreams.is_empty() {
            return "There is no upstream yet; `strongroom upstreams add` makes one.".to_owned();
        }
        let row = |upstream: &Upstream| {
            [
                upstream.name.clone(),
                upstream.auth.as_str().to_owned(),
                upstream.token_url.clone(),
                state(upstream),
            ]
        };
        table(
            ["NAME", "AUTH", "TOKEN URL", "TOKEN"],
            &upstreams.iter().map(row).collect::<Vec<_>>(),
        )
    });
}

fn state(upstream: &Upstream) -> String {
    match (&upstream.failure, &upstream.token) {
        (Some(failure), _) => {
            let message = failure.oauth_error.as_deref().unwrap_or(&failure.detail);
            format!("{}: {message}", failure.kind.as_str())
        }
        (None, Some(token)) => {
            let ends = token.expires_at.truncate_to_second();
            ends.format(&Rfc3339).map_or_else(|_| "held".to_owned(), |ends| format!("until {ends}"))
        }
        (None, None) => "none yet".to_owned(),
    }
}

fn described(upstream: &Upstream) -> String {
    let none = || "-".to_owned();
    let parameters: Vec<_> =
        upstream.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let lines = [
        ("name", upstream.name.clone()),
        ("token URL", upstream.token_url.clone()),
        ("client id", upstream.client_id.clone()),
        ("auth", upstream.auth.as_str().to_owned()),
        ("scope", upstream.scope.clone().unwrap_or_else(none)),
        ("parameters", Some(parameters.join(" ")).filter(|t| !t.is_empty()).unwrap_or_else(none)),
        ("base URL", upstream.base_url.clone().unwrap_or_else(none)),
        ("token", state(upstream)),
    ];
    lines.map(|(name, value)| format!("{name:<10}  {value}")).join("\n")
}
