//! `strongroom apps`.

mod moving;

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Failure;
use super::identity::acting;
use super::output::{Output, table};
use super::session::Session;
use crate::apps::{self, App, NewApp, Settings};
use crate::common::secret::SecretText;
use crate::config::Environment;
use crate::moves::fence;
use crate::providers::Provider;

/// Apps: applications registered with a bank link. Nothing crosses the boundary between two of them.
#[derive(Debug, Args)]
pub(super) struct Apps {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Set(Set),
    Receive(moving::Receive),
    Export(moving::Export),
    Import(moving::Import),
}

/// Add an app, its secret from a file or from standard input.
///
/// At Dapi: strongroom apps add shop --app-key 1a2b… --app-secret-file /run/secrets/dapi
///
/// At Plaid: strongroom apps add shop --provider plaid --client-id 5f3c… --app-secret-file /run/secrets/plaid
///
/// `DAPI_APP_KEY` and `DAPI_APP_SECRET` describe the app named `default` without this command, `PLAID_CLIENT_ID` and
/// `PLAID_SECRET` the app named `plaid`.
#[derive(Debug, Args)]
struct Add {
    /// What people call it: lower-case letters, digits and hyphens.
    name: String,
    /// The bank link that it is registered with: `dapi` or `plaid`.
    #[arg(long, default_value = "dapi", value_parser = provider)]
    provider: Provider,
    /// Dapi's application key.
    #[arg(long, conflicts_with = "client_id")]
    app_key: Option<String>,
    /// Plaid's `client_id`.
    #[arg(long)]
    client_id: Option<String>,
    /// The file that holds the application's secret; standard input if it is left out.
    #[arg(long, visible_alias = "secret-file")]
    app_secret_file: Option<PathBuf>,
}

/// Change an app's settings.
///
/// Example: strongroom apps set shop --supersede-duplicates true
#[derive(Debug, Args)]
struct Set {
    /// The app's name.
    name: String,
    /// Plaid: end a user's older connection to the same accounts when they link them again.
    #[arg(long)]
    supersede_duplicates: Option<bool>,
    /// Plaid: replace a token that was revealed by another when its reader is done, or after a few minutes.
    #[arg(long)]
    rotate_after_reveal: Option<bool>,
}

fn provider(text: &str) -> Result<Provider, &'static str> {
    Provider::parse(text).ok_or("must be dapi or plaid")
}

/// List apps, without their secrets.
#[derive(Debug, Args)]
struct List {}

impl Apps {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        match self.command {
            Command::Add(add) => add.run(environment, output).await,
            Command::List(_) => list(environment, output).await,
            Command::Set(set) => set.run(environment, output).await,
            Command::Receive(receive) => receive.run(environment, output).await,
            Command::Export(export) => export.run(environment, output).await,
            Command::Import(import) => import.run(environment, output).await,
        }
    }
}

impl Add {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        if !apps::is_name(&self.name) {
            let message = "an app's name is lower-case letters, digits and hyphens, at most 63";
            return Err(Failure::Usage(message.to_owned()));
        }
        let app_key = self.key()?;
        let secret = self.read_secret()?;
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        let actor = acting();
        let (name, provider) = (self.name.as_str(), self.provider);
        let new = NewApp { name, provider, app_key: &app_key, app_secret: &secret };
        let app = apps::add(&mut conn, &vault, &actor, &new).await;
        let app = app.map_err(Failure::other)?;
        output.result(&app, || {
            format!(
                "Added the app `{0}` ({1}).\nMake its first client: \
                 strongroom clients create backend --app {0} --scope \"connections:write connections:read\"",
                app.name, app.id
            )
        });
        Ok(())
    }

    /// Returns the key under which the provider knows the app.
    fn key(&self) -> Result<String, Failure> {
        let (option, other, given) = match self.provider {
            Provider::Dapi => ("--app-key", "--client-id", &self.app_key),
            Provider::Plaid => ("--client-id", "--app-key", &self.client_id),
        };
        let name = self.provider.name();
        let key = given.clone().ok_or_else(|| {
            Failure::Usage(format!("an app at {name} needs {option}, and takes no {other}"))
        })?;
        self.provider
            .check_credential(&key, 1024)
            .map_err(|what| Failure::Usage(format!("{option} {what}")))?;
        Ok(key)
    }

    fn read_secret(&self) -> Result<SecretText, Failure> {
        let mut secret = zeroize::Zeroizing::new(String::new());
        if let Some(path) = &self.app_secret_file {
            *secret = std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        } else {
            if std::io::stdin().is_terminal() {
                let message = "give the secret by --app-secret-file, or on standard input: \
                            strongroom apps add … < secret";
                return Err(Failure::Usage(message.to_owned()));
            }
            std::io::stdin().read_to_string(&mut secret)?;
        }
        let text = secret.trim_start_matches('\u{feff}').trim();
        self.provider
            .check_credential(text, 4096)
            .map_err(|what| Failure::Usage(format!("the app secret {what}")))?;
        Ok(SecretText::new(text.to_owned()))
    }
}

impl Set {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let found = apps::find(&mut session.conn, &self.name).await?;
        let unknown = || Failure::other(format!("there is no app named `{}`", self.name));
        let found = found.ok_or_else(unknown)?;
        if found.provider != Provider::Plaid {
            let message =
                format!("these settings are for apps at Plaid; `{}` is at Dapi", self.name);
            return Err(Failure::Usage(message));
        }
        let settings = Settings {
            supersede_duplicates: self.supersede_duplicates,
            rotate_after_reveal: self.rotate_after_reveal,
        };
        let actor = acting();
        let app = apps::change(&mut session.conn, &actor, &self.name, settings).await?;
        let app = app.ok_or_else(unknown)?;
        output.result(&app, || {
            format!(
                "{}: supersede-duplicates {}, rotate-after-reveal {}",
                app.name, app.supersede_duplicates, app.rotate_after_reveal
            )
        });
        Ok(())
    }
}

/// An app with where it is on its way to another deployment.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    app: App,
    /// `here`, `moving`, `moved` or `arriving`.
    state: &'static str,
}

async fn list(environment: &Environment, output: &Output) -> Result<(), Failure> {
    let mut session = Session::open(environment).await?;
    let apps = apps::list(&mut session.conn).await?;
    let fences = fence::states(&mut session.conn).await?;
    let listed = |app: App| {
        let state = fences.get(&app.id).map_or("here", |state| state.as_str());
        Listed { app, state }
    };
    let apps: Vec<_> = apps.into_iter().map(listed).collect();
    output.result(&apps, || {
        if apps.is_empty() {
            return "There is no app yet; `strongroom apps add` makes one.".to_owned();
        }
        let row = |Listed { app, state }: &Listed| {
            [
                app.name.clone(),
                app.provider.as_str().to_owned(),
                app.app_key.clone(),
                app.id.to_string(),
                app.created_at.date().to_string(),
                (*state).to_owned(),
            ]
        };
        let heading = ["NAME", "PROVIDER", "KEY", "ID", "ADDED", "STATE"];
        table(heading, &apps.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}
