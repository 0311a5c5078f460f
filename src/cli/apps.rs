//! `strongroom apps`.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use super::output::{Output, table};
use super::session::Session;
use crate::apps::{self, App};
use crate::common::actor::Actor;
use crate::common::secret::SecretText;
use crate::common::text;
use crate::config::Environment;

/// Apps: Dapi applications. Nothing crosses the boundary between two of them.
#[derive(Debug, Args)]
pub(super) struct Apps {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    List(List),
}

/// Add an app, its secret from a file or from standard input.
///
/// Example: strongroom apps add shop --app-key 1a2b… --app-secret-file /run/secrets/dapi
///
/// `DAPI_APP_KEY` and `DAPI_APP_SECRET` describe the app named `default` without this command.
#[derive(Debug, Args)]
struct Add {
    /// What people call it: lower-case letters, digits and hyphens.
    name: String,
    /// Dapi's application key.
    #[arg(long)]
    app_key: String,
    /// The file that holds Dapi's application secret; standard input where it is left out.
    #[arg(long)]
    app_secret_file: Option<PathBuf>,
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
        }
    }
}

impl Add {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        if !apps::is_name(&self.name) {
            let message = "an app's name is lower-case letters, digits and hyphens, at most 63";
            return Err(Failure::Usage(message.to_owned()));
        }
        text::check_line(&self.app_key, 1024)
            .map_err(|what| Failure::Usage(format!("--app-key {what}")))?;
        let secret = self.read_secret()?;
        let Session { mut conn, vault } = Session::open(environment).await?;
        let actor = Actor::operator();
        let app = apps::add(&mut conn, &vault, &actor, &self.name, &self.app_key, &secret).await;
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
        text::check_line(text, 4096)
            .map_err(|what| Failure::Usage(format!("the app secret {what}")))?;
        Ok(SecretText::new(text.to_owned()))
    }
}

async fn list(environment: &Environment, output: &Output) -> Result<(), Failure> {
    let mut session = Session::open(environment).await?;
    let apps = apps::list(&mut session.conn).await?;
    output.result(&apps, || {
        if apps.is_empty() {
            return "There is no app yet; `strongroom apps add` makes one.".to_owned();
        }
        let row = |app: &App| {
            [
                app.name.clone(),
                app.app_key.clone(),
                app.id.to_string(),
                app.created_at.date().to_string(),
            ]
        };
        table(["NAME", "APP KEY", "ID", "ADDED"], &apps.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}
