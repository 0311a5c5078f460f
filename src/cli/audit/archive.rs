//! `strongroom audit archive`, and `strongroom audit verify --archive`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::apps;
use crate::audit::archive::{self, ArchiveError, ArchiveStatement, Archived, Job, TYP};
use crate::audit::{Checkpoint, due_months};
use crate::cli::output::{Output, count};
use crate::cli::session::Session;
use crate::cli::{Failure, identity};
use crate::config::{Environment, HttpConfig, Reader, read_audit_retention};
use crate::oauth::statements;

/// Move the months of the trail that are over long enough into files, and drop them from the database.
///
/// `STRONGROOM_AUDIT_RETENTION_MONTHS` says how many whole months stay after a month's end. Each app's month becomes one
/// signed file of JSON lines, compressed with zstd, which is complete, read back and on record before anything is dropped.
/// Run again after an interruption, it goes on. It takes the owner's connection (`STRONGROOM_MIGRATE_DATABASE_URL`).
///
/// Example: strongroom audit archive /mnt/archive
#[derive(Debug, Args)]
pub(super) struct Archive {
    /// The folder for the files. Keep them out of reach of the database's owner.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Only show which months are due.
    #[arg(long)]
    check: bool,
}

impl Archive {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(environment);
        let retention = read_audit_retention(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let (retention, http) = reader.finish(Some((retention, http)))?;
        let Some(retention) = retention else {
            let message =
                "STRONGROOM_AUDIT_RETENTION_MONTHS is not set: the trail is kept for ever";
            return Err(Failure::Usage(message.to_owned()));
        };
        let mut session = Session::open_as_owner(environment).await?;
        let months = due_months(&mut session.conn, retention).await?;
        if self.check {
            let names: Vec<_> = months.iter().map(|month| month.name.as_str()).collect();
            output.result(&json!({ "due": names }), || match names.as_slice() {
                [] => "No month is due.".to_owned(),
                names => format!("Due: {}.", names.join(", ")),
            });
            return Ok(());
        }
        let folder = self.folder.canonicalize().ok().filter(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| {
            Failure::Usage(format!("{} is no folder that there is", self.folder.display()))
        })?;
        let url = http.public_url.as_str();
        let signer = statements::signer_of_now(&mut session.conn, &session.vault, url).await?;
        let keys = statements::key_set(&mut session.conn, &session.vault).await?;
        keep_keys(&folder, &keys)?;
        let job = Job { folder: &folder, signer: &signer, actor: &identity::acting() };
        let mut archived: Vec<Archived> = Vec::new();
        for month in &months {
            let apps = apps::list(&mut session.conn).await?;
            let apps: Vec<_> = apps.into_iter().map(|app| (app.id, app.name)).collect();
            let files = archive::archive_month(&mut session.conn, month, &apps, &job).await;
            archived.extend(files.map_err(|error| failure(&error))?);
        }
        output.result(&json!({ "archived": archived }), || describe(&archived));
        Ok(())
    }
}

fn describe(archived: &[Archived]) -> String {
    if archived.is_empty() {
        return "Nothing to do: no month is due.".to_owned();
    }
    let lines = archived.iter().map(|it| {
        format!("{} {}: {} in {}", it.app, it.month, count(it.links, "link"), it.file.display())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn failure(error: &ArchiveError) -> Failure {
    Failure::other(error.to_string())
}

/// Writes the keys that verify the files beside them, as a key set of each day: signing keys are rotated away.
fn keep_keys(folder: &Path, keys: &[Value]) -> Result<(), Failure> {
    let kids = keys.iter().filter_map(|key| key.get("kid").and_then(Value::as_str));
    for kid in kids {
        let path = folder.join(format!("{kid}.jwks.json"));
        let of_kid = |key: &&Value| key.get("kid").and_then(Value::as_str) == Some(kid);
        let set = json!({ "keys": keys.iter().filter(of_kid).collect::<Vec<_>>() });
        std::fs::write(&path, format!("{set}\n"))
            .map_err(|error| Failure::other(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

/// Returns the statements that a key verifies.
pub(super) fn proved(statements: &[String], keys: &[Value]) -> Vec<ArchiveStatement> {
    let opened = statements.iter().filter_map(|jws| statements::open(jws, TYP, keys).ok());
    opened.filter_map(|claims| serde_json::from_value(claims).ok()).collect()
}

/// The result for one file.
#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    month: Option<String>,
    links: i64,
    /// What is wrong; `null` if nothing is.
    broken: Option<String>,
}

/// Checks files alone, without the chain in the database.
pub(super) fn verify_files(
    files: &[PathBuf],
    keys: &[Value],
    points: &[Checkpoint],
    output: &Output,
) -> Result<(), Failure> {
    let checked: Vec<_> = files.iter().map(|file| verify_file(file, keys, points)).collect();
    let ok = checked.iter().all(|it| it.broken.is_none());
    output.result(&json!({ "ok": ok, "archives": checked }), || {
        let lines = checked.iter().map(|it| match &it.broken {
            None => format!("{}: whole. Links that hold: {}.", it.file.display(), it.links),
            Some(what) => format!("{}: BROKEN: {what}.", it.file.display()),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    if ok { Ok(()) } else { Err(Failure::other("an archive is not what was written")) }
}

fn verify_file(file: &Path, keys: &[Value], points: &[Checkpoint]) -> Checked {
    let checked =
        archive::read(file, points).map_err(|error| error.to_string()).and_then(|contents| {
            let claims =
                statements::open(&contents.jws, TYP, keys).map_err(|error| error.to_string())?;
            let statement: ArchiveStatement =
                serde_json::from_value(claims).map_err(|error| error.to_string())?;
            contents.check(&statement).map_err(|error| error.to_string())?;
            Ok(statement)
        });
    let file = file.to_owned();
    match checked {
        Ok(statement) => {
            Checked { file, month: Some(statement.month), links: statement.links, broken: None }
        }
        Err(what) => Checked { file, month: None, links: 0, broken: Some(what) },
    }
}
