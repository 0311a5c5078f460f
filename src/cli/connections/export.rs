//! `strongroom connections export`: moving out.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::super::identity::{self, acting};
use crate::apps::App;
use crate::cli::Failure;
use crate::cli::output::{Output, count};
use crate::cli::session::app;
use crate::common::ids::ConnectionId;
use crate::common::paging::MAX_LIMIT;
use crate::common::text;
use crate::config::{Config, Environment};
use crate::connections::Context;
use crate::connections::input::MAX_REASON;
use crate::connections::model::Status;
use crate::connections::query::search::{self, Search};
use crate::connections::reveal::{self, Reveal, RevealedSecrets};
use crate::providers::{Provider, UserSecret};
use crate::service;

/// How many tokens are read at once.
const AT_ONCE: usize = 16;

/// Export the active connections with their tokens, one JSON object a line, as `import` reads them.
///
/// Every token is audited as read, with the reason, before it is written. The file is readable by you alone; keep it
/// as you keep a master key. Needs the same environment as `serve`.
///
/// Example: strongroom connections export --reason "moving to the new region" --to tokens.jsonl
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: String,
    /// The file to write, which must not exist; standard output if it is left out, unless that is a terminal.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// A line of the export.
#[derive(Serialize)]
struct Exported<'a> {
    #[serde(rename = "clientUserID")]
    client_user_id: &'a str,
    #[serde(rename = "connectionID", skip_serializing_if = "Option::is_none")]
    login_id: Option<&'a str>,
    #[serde(rename = "itemID", skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(rename = "accessToken")]
    access_token: &'a str,
    #[serde(rename = "userSecret", skip_serializing_if = "Option::is_none")]
    user_secret: Option<&'a str>,
    #[serde(rename = "userID", skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(rename = "tokenID", skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
}

impl<'a> Exported<'a> {
    fn new(provider: Provider, secrets: &'a RevealedSecrets) -> Self {
        let login = secrets.login_id.as_deref();
        Self {
            client_user_id: &secrets.client_user_id,
            login_id: login.filter(|_| provider == Provider::Dapi),
            item_id: login.filter(|_| provider == Provider::Plaid),
            access_token: secrets.access_token.expose(),
            user_secret: secrets.user_secret.as_ref().map(UserSecret::expose),
            user_id: secrets.dapi_user_id.as_deref(),
            token_id: secrets.dapi_token_id.as_deref(),
        }
    }
}

impl Export {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        text::check(&self.reason, MAX_REASON)
            .map_err(|what| Failure::Usage(format!("--reason: {what}")))?;
        let config = Config::from_environment(environment)?;
        let context = service::context_of_one_round(config).await?;
        identity::resolve(&mut context.pool.acquire().await?, environment).await?;
        let app = app(&mut context.pool.acquire().await?, &self.app).await?;
        if app.rotate_after_reveal {
            return Err(Failure::Usage(format!(
                "the tokens of `{}` are replaced after they were read, the exported ones too; turn that off before: \
                 strongroom apps set {} --rotate-after-reveal false",
                app.name, app.name
            )));
        }
        let mut file = self.open()?;
        let total = self.write_all(&context, &app, &mut file, output).await?;
        // Not to standard output, where the tokens may go.
        let _ = writeln!(std::io::stderr(), "exported {}", count(total, "token"));
        Ok(())
    }

    /// Opens the file, readable by its owner alone.
    fn open(&self) -> Result<Box<dyn Write + Send>, Failure> {
        let Some(path) = &self.to else {
            if std::io::stdout().is_terminal() {
                let what = "tokens are not written to a terminal; name a file with --to";
                return Err(Failure::Usage(what.to_owned()));
            }
            return Ok(Box::new(std::io::stdout()));
        };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        Ok(Box::new(std::io::BufWriter::new(file)))
    }

    async fn write_all(
        &self,
        context: &Context,
        app: &App,
        file: &mut (dyn Write + Send),
        output: &Output,
    ) -> Result<i64, Failure> {
        let progress = output.progress(None);
        let (mut total, mut cursor) = (0, None);
        loop {
            let search = Search {
                client_user_id: None,
                status: Some(Status::Active),
                attention: None,
                created_by: None,
                created_before: None,
                created_after: None,
                text: None,
                limit: MAX_LIMIT,
                cursor,
            };
            let mut conn = context.pool.acquire().await?;
            let page = search::search(&mut conn, app.id, &search).await?;
            drop(conn);
            let ids = page.items.iter().map(|found| found.connection.id);
            let reading = ids.map(|id| self.reveal(context, app, id));
            let mut reading = futures_util::stream::iter(reading).buffered(AT_ONCE);
            while let Some(secrets) = reading.next().await {
                let Some(secrets) = secrets? else { continue };
                let mut line = zeroize::Zeroizing::new(Vec::new());
                serde_json::to_writer(&mut *line, &Exported::new(app.provider, &secrets))
                    .map_err(Failure::other)?;
                line.push(b'\n');
                file.write_all(&line)?;
                total += 1;
                progress.message(count(total, "token"));
            }
            cursor = page.next;
            if cursor.is_none() {
                file.flush()?;
                return Ok(total);
            }
        }
    }

    /// Reads one token; `None` if it is not active any more.
    async fn reveal(
        &self,
        context: &Context,
        app: &App,
        id: ConnectionId,
    ) -> Result<Option<Box<RevealedSecrets>>, Failure> {
        match reveal::reveal(context, &acting(), app.id, id, &self.reason).await {
            Ok(Reveal::Secrets(secrets)) => Ok(Some(secrets)),
            Ok(Reveal::NotActive(_) | Reveal::Unknown) => Ok(None),
            Ok(Reveal::Busy) => {
                Err(Failure::Other(format!("{id} stays locked by others; try again")))
            }
            Err(error) => Err(Failure::Other(format!("{id}: {error}"))),
        }
    }
}
