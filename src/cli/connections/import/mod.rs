//! `strongroom connections import`: the tokens of an old store move in.

mod decrypt;
mod file;

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;

use self::file::{Column, Columns, Format, Line, WrongLine};
use super::super::identity::{self, acting};
use crate::cli::Failure;
use crate::cli::output::{Output, count};
use crate::cli::session::app;
use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::common::trace::TraceContext;
use crate::config::{Config, Environment};
use crate::connections::import::request::{ImportRequest, problem_of};
use crate::connections::import::{Import, Imported, KnownLogin, NotImported, import};
use crate::connections::{ConnectionError, Context};
use crate::database::{MaybeDatabase as _, is_outage};
use crate::providers::{AccessToken, Provider, UserSecret};
use crate::service;
use crate::vault::VaultError;

/// How many tokens are imported at once.
const AT_ONCE: usize = 32;
/// How long one token is tried while the database or a master key is away, and the pause between tries.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(500));
/// How many wrong lines are shown.
const SHOWN: usize = 20;

/// Import the tokens of an old store from a file, or from standard input (`-`).
///
/// CSV with a heading or one JSON object a line, with the fields of `POST /v1/connections/import`: clientUserID,
/// connectionID, accessToken and userSecret for Dapi (userID and tokenID if you have them), clientUserID, itemID and
/// accessToken for Plaid. All lines are checked before the first is imported.
///
/// Can be stopped and run again: a bank login that the user has had here already is left alone, so that nothing
/// that was linked anew meanwhile is replaced and nothing that was revoked comes back. The file is held in memory,
/// about 1 KB a line. Needs the same environment as `serve`.
///
/// Example: strongroom connections import tokens.csv --column accessToken=token --check
#[derive(Debug, Args)]
pub(super) struct ImportFile {
    /// The file; `-` for standard input.
    file: String,
    /// The app.
    #[arg(long, default_value = crate::apps::DEFAULT)]
    app: String,
    /// How the file is written. By its name (.csv, .jsonl) unless this says so.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A column that is named otherwise than its field: FIELD=COLUMN; may be repeated.
    #[arg(long = "column", value_name = "FIELD=COLUMN", value_parser = file::column)]
    columns: Vec<Column>,
    /// Leave out the columns that are no field.
    #[arg(long)]
    ignore_other_columns: bool,
    /// A field that is encrypted in the file; may be repeated.
    #[arg(long = "decrypt", value_name = "FIELD", requires = "decrypt_command", value_parser = file::field)]
    encrypted: Vec<&'static str>,
    /// Decrypts: a shell command that reads one value a line and writes the plain one for each, in order.
    #[arg(long, value_name = "COMMAND", requires = "encrypted")]
    decrypt_command: Option<String>,
    /// Ask the provider whether it takes each token, by one call each; what it refuses is not imported.
    #[arg(long)]
    verify: bool,
    /// Only check the file.
    #[arg(long, conflicts_with = "verify")]
    check: bool,
}

/// What became of the file.
#[derive(Debug, Default)]
struct Tally {
    imported: i64,
    here: i64,
    left: BTreeMap<&'static str, i64>,
    wrong: Vec<WrongLine>,
    /// Why the rest was not tried.
    stopped: Option<String>,
}

impl ImportFile {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let (mut lines, mut wrong) = self.read()?;
        if let Some(command) = &self.decrypt_command {
            decrypt::decrypt(command, &self.encrypted, &mut lines).await?;
        }
        let config = Config::from_environment(environment)?;
        let context = service::context_of_one_round(config).await?;
        identity::resolve(&mut context.pool.acquire().await?, environment).await?;
        let app = app(&mut context.pool.acquire().await?, &self.app).await?;
        let (imports, refused) = self.check_all(lines, app.id, app.provider);
        wrong.extend(refused);
        wrong.sort_by_key(|wrong| wrong.line);
        if !wrong.is_empty() {
            return Err(Failure::Usage(complaint("Nothing was imported.", &wrong)));
        }
        if self.check {
            let total = i64::try_from(imports.len()).unwrap_or(i64::MAX);
            output.result(&json!({ "lines": total, "wrong": [] }), || {
                format!("{} can be imported.", count(total, "token"))
            });
            return Ok(());
        }
        let tally = import_all(&context, app.provider, imports, output).await;
        context.tasks.close();
        context.tasks.wait().await;
        tally.report(output)
    }

    fn read(&self) -> Result<(Vec<Line>, Vec<WrongLine>), Failure> {
        let columns =
            Columns { named: self.columns.clone(), ignore_others: self.ignore_other_columns };
        let format = self.format.or_else(|| Format::of_name(&self.file));
        let format = format.ok_or_else(|| Failure::Usage("--format: csv or jsonl?".to_owned()))?;
        if self.file == "-" {
            if std::io::stdin().is_terminal() {
                return Err(Failure::Usage("standard input is a terminal, not a file".to_owned()));
            }
            return file::read(std::io::stdin().lock(), format, &columns);
        }
        let opened = std::fs::File::open(&self.file);
        let opened = opened.map_err(|error| Failure::Usage(format!("{}: {error}", self.file)))?;
        file::read(opened, format, &columns)
    }

    /// Checks every line by itself, and that none is there twice.
    fn check_all(
        &self,
        lines: Vec<Line>,
        app: AppId,
        provider: Provider,
    ) -> (Vec<(u64, Import)>, Vec<WrongLine>) {
        let (mut imports, mut wrong, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for Line { number, fields } in lines {
            let checked = self.checked(fields, app, provider).and_then(|import| {
                let login = (import.client_user_id.clone(), import.login_id.clone());
                match seen.insert(login, number) {
                    Some(first) => {
                        Err(format!("is of the same user and bank login as line {first}"))
                    }
                    None => Ok(import),
                }
            });
            match checked {
                Ok(import) => imports.push((number, import)),
                Err(error) => wrong.push(WrongLine { line: number, error }),
            }
        }
        (imports, wrong)
    }

    fn checked(
        &self,
        mut fields: BTreeMap<&'static str, SecretText>,
        app: AppId,
        provider: Provider,
    ) -> Result<Import, String> {
        let mut secret = |field| fields.remove(field);
        let (access_token, user_secret) = (secret("accessToken"), secret("userSecret"));
        let mut text = |field| fields.remove(field).map(|value| value.expose().to_owned());
        let request = ImportRequest {
            client_user_id: text("clientUserID"),
            login_id: text("connectionID"),
            item_id: text("itemID"),
            access_token: access_token.map(AccessToken::new),
            user_secret: user_secret.map(UserSecret::new),
            user_id: text("userID"),
            dapi_token_id: text("tokenID"),
            verify: self.verify,
        };
        let trace = self.verify.then(TraceContext::fresh);
        let import = request
            .checked(app, trace, KnownLogin::Leave)
            .map_err(|problem| problem.detail().to_owned())?;
        if import.provider != provider {
            let problem = problem_of(provider, NotImported::OfAnotherProvider(provider));
            return Err(problem.detail().to_owned());
        }
        Ok(import)
    }
}

/// Imports all of them. Stops at the first that fails for a reason that the others would fail for too.
async fn import_all(
    context: &Context,
    provider: Provider,
    imports: Vec<(u64, Import)>,
    output: &Output,
) -> Tally {
    let total = i64::try_from(imports.len()).unwrap_or(i64::MAX);
    let progress = output.progress(Some(0));
    progress.message("tokens");
    let importing = imports
        .into_iter()
        .map(|(line, import)| async move { (line, import_one(context, &import).await) });
    let mut importing = futures_util::stream::iter(importing).buffer_unordered(AT_ONCE);
    let (mut tally, mut done) = (Tally::default(), 0_i64);
    while let Some((line, imported)) = importing.next().await {
        done += 1;
        progress.steps(done, total);
        match imported {
            Ok(Imported::New(_)) => tally.imported += 1,
            Ok(Imported::Repeated(_)) => tally.here += 1,
            Ok(Imported::Known(_, status)) => *tally.left.entry(status.as_str()).or_default() += 1,
            Ok(Imported::Not(why)) => {
                let error = problem_of(provider, why).detail().to_owned();
                tally.wrong.push(WrongLine { line, error });
            }
            Err(error) => {
                tally.stopped = Some(format!("line {line}: {error}"));
                break;
            }
        }
    }
    tally.wrong.sort_by_key(|wrong| wrong.line);
    tally
}

/// Imports one, and tries again for a while if it could not be tried.
async fn import_one(context: &Context, one: &Import) -> Result<Imported, ConnectionError> {
    let give_up_at = Instant::now() + PATIENCE.0;
    loop {
        let imported = import(context, &acting(), one).await;
        let again = match &imported {
            Ok(Imported::Not(NotImported::Busy(_)))
            | Err(
                ConnectionError::Contended | ConnectionError::Vault(VaultError::Unavailable(_)),
            ) => true,
            Err(error) => error.database().is_some_and(is_outage),
            Ok(_) => false,
        };
        if !again || Instant::now() > give_up_at {
            return imported;
        }
        tokio::time::sleep(PATIENCE.1).await;
    }
}

impl Tally {
    fn report(&self, output: &Output) -> Result<(), Failure> {
        let Self { imported, here, left, wrong, stopped } = self;
        let value = json!({
            "imported": imported, "alreadyHere": here, "leftAlone": left, "wrong": wrong, "stopped": stopped,
        });
        output.result(&value, || {
            let mut lines =
                vec![format!("imported      {imported}"), format!("already here  {here}")];
            let left = left.iter().map(|(status, n)| format!("left alone    {n}, {status} here"));
            lines.extend(left);
            lines.join("\n")
        });
        match stopped {
            Some(why) => Err(Failure::Other(format!("stopped; run it again to go on. {why}"))),
            None if wrong.is_empty() => Ok(()),
            None => Err(Failure::Other(complaint("The rest was imported.", wrong))),
        }
    }
}

/// Describes what is wrong with the lines: the first of them, and how many there are.
fn complaint(consequence: &str, wrong: &[WrongLine]) -> String {
    let total = i64::try_from(wrong.len()).unwrap_or(i64::MAX);
    let shown = wrong.iter().take(SHOWN).map(|it| format!("  line {}: {}", it.line, it.error));
    let mut lines = vec![format!("{} wrong. {consequence}", are(total))];
    lines.extend(shown);
    if wrong.len() > SHOWN {
        lines.push(format!("  and {} more", wrong.len() - SHOWN));
    }
    lines.join("\n")
}

fn are(total: i64) -> String {
    format!("{} {}", count(total, "line"), if total == 1 { "is" } else { "are" })
}
