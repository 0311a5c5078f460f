//! `strongroom apps receive`, `export` and `import`: an app moves to another deployment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::apps::{self, App};
use crate::cli::Failure;
use crate::cli::audit::{handovers, with_kept_keys};
use crate::cli::identity::acting;
use crate::cli::output::{Output, count};
use crate::cli::session::{self, Session};
use crate::common::signer::Signer;
use crate::config::{Environment, HttpConfig, Reader};
use crate::database::{self, Conn};
use crate::moves::keys::ImportKey;
use crate::moves::{Manifest, MoveError, TYP, export, fence, import, keys};
use crate::oauth::statements;

/// Make an import key for an app that is to move here. Give what is printed to the source; nothing in it is secret.
///
/// Example: strongroom apps receive --output json > import-key.json
#[derive(Debug, Args)]
pub(super) struct Receive {}

/// Move an app to another deployment: fence it here, wait for what is in flight, and write all of it to a folder.
///
/// From then on the app's callers get 503 `app_moving`; with the receipt of the import 410 `app_moved`. Killed, it can be run
/// again. docs/runbooks/moving-an-app.md has the whole way.
///
/// Example: strongroom apps export shop /mnt/shop --for import-key.json
///
/// After the import: `strongroom apps export shop --receipt RECEIPT`
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The app's name.
    app: String,
    /// The folder, which exists.
    #[arg(required_unless_present_any = ["abort", "receipt"], requires = "key")]
    folder: Option<PathBuf>,
    /// What `strongroom apps receive` printed at the target.
    #[arg(long = "for", value_name = "FILE", id = "key", requires = "folder")]
    key: Option<PathBuf>,
    /// Wait at most this many seconds for what is in flight; then the app serves again.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u32,
    /// A key set of this deployment that was kept (`/.well-known/jwks.json`), for when the key is gone that signed the archives of
    /// the trail, or where the app came from. May be repeated.
    #[arg(long, value_name = "FILE", requires = "folder")]
    jwks: Vec<PathBuf>,
    /// Do not ask whether the fingerprint of the import key is that of the target.
    #[arg(long, requires = "folder")]
    yes: bool,
    /// End the app here: the text that its import has printed.
    #[arg(long, value_name = "RECEIPT", conflicts_with_all = ["folder", "abort"])]
    receipt: Option<String>,
    /// Take the export back: the app serves here again.
    #[arg(long, conflicts_with = "folder", requires = "nothing_was_imported")]
    abort: bool,
    /// The folder was not imported and never will be: two deployments would act for the app.
    #[arg(long, requires = "abort")]
    nothing_was_imported: bool,
}

/// Import an app that was exported for an import key of this deployment. Needs the owner's connection
/// (`STRONGROOM_MIGRATE_DATABASE_URL`), and prints the receipt that ends the app at the source.
///
/// Example: strongroom apps import /mnt/shop --source-keys source.jwks.json
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The folder.
    folder: PathBuf,
    /// The key set of the source (`/.well-known/jwks.json`), fetched from the source itself and not taken from the folder.
    #[arg(long, value_name = "FILE")]
    source_keys: PathBuf,
    /// The app's name here, if it is to be another.
    #[arg(long)]
    name: Option<String>,
}

impl Receive {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let key = keys::create(&mut session.conn, &session.vault).await.map_err(failure)?;
        output.result(&key, || format!("{}\nFingerprint: {}", json!(key), key.fingerprint()));
        Ok(())
    }
}

impl Export {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let mut session = Session::open(environment).await?;
        let app = session::app(&mut session.conn, &self.app).await?;
        if self.abort {
            fence::abort(&mut session.conn, &acting(), app.id).await.map_err(failure)?;
            output.result(&json!({ "aborted": app.id }), || {
                format!("`{}` serves here again. Destroy the folder.", app.name)
            });
            return Ok(());
        }
        if let Some(receipt) = &self.receipt {
            let ended = fence::end(&mut session.conn, &session.vault, app.id, receipt).await;
            ended.map_err(failure)?;
            output.result(&json!({ "moved": app.id }), || {
                format!(
                    "`{}` has moved: its callers get 410 `app_moved` here. Destroy the folder.",
                    app.name
                )
            });
            return Ok(());
        }
        self.export(environment, &mut session, &app, output).await
    }

    async fn export(
        &self,
        environment: &Environment,
        session: &mut Session,
        app: &App,
        output: &Output,
    ) -> Result<(), Failure> {
        let (folder, key) = self
            .folder
            .as_deref()
            .zip(self.key.as_deref())
            .ok_or_else(|| Failure::Usage("an export needs a folder and --for".to_owned()))?;
        let folder = existing(folder)?;
        let key = usable(&mut session.conn, key).await?;
        let question = format!(
            "`{}` serves nowhere from here on, and all of it is sealed for the import key with the fingerprint {}. Is that what \
             the target has printed?",
            app.name,
            key.fingerprint(),
        );
        output.ask(&question, self.yes)?;
        let signer = signer(environment, session).await?;
        let own = statements::key_set(&mut session.conn, &session.vault).await?;
        let own = with_kept_keys(own, &self.jwks)?;
        let from = handovers(&mut session.conn, app.id, &own).await?;
        if from.unproved > 0 {
            let message = "no key verifies where the app came from: give the key set that was kept at its import by --jwks";
            return Err(Failure::Usage(message.to_owned()));
        }
        let keys = from.keys;
        let (actor, patience) = (acting(), Duration::from_secs(self.patience.into()));
        let job = export::Job {
            folder: &folder,
            key: &key,
            signer: &signer,
            keys,
            actor: &actor,
            patience,
        };
        let exported = export::run(&mut session.conn, &session.vault, app, &job).await;
        let exported = exported.map_err(failure)?;
        output.result(&exported, || {
            format!(
                "{}: {} in {}.\nThe app serves nowhere now. Import the folder, then end the app here with the receipt.",
                exported.app,
                count(i64::try_from(exported.rows).unwrap_or(i64::MAX), "row"),
                folder.display(),
            )
        });
        Ok(())
    }
}

impl Import {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        if let Some(name) = self.name.as_deref().filter(|name| !apps::is_name(name)) {
            let message =
                format!("`{name}` is no name for an app: lower-case letters, digits and hyphens");
            return Err(Failure::Usage(message));
        }
        let folder = existing(&self.folder)?;
        let manifest = self.manifest(&folder)?;
        let mut session = Session::open_as_owner(environment).await?;
        let signer = signer(environment, &mut session).await?;
        let (actor, name) = (acting(), self.name.as_deref());
        let job = import::Job {
            folder: &folder,
            name,
            signer: &signer,
            actor: &actor,
            settle: import::SETTLE,
        };
        let imported = import::run(&mut session.conn, &session.vault, &manifest, &job).await;
        let imported = imported.map_err(failure)?;
        output.result(&imported, || {
            format!(
                "{}: {}, and the trail goes on after link {}. The app serves here \
                 from the moment in which every replica has read it, within a second.\nKeep this deployment's key \
                 set (/.well-known/jwks.json) for `audit verify --jwks`.\nEnd the app at the source: strongroom apps export {} \
                 --receipt {}",
                imported.app,
                count(i64::try_from(imported.rows).unwrap_or(i64::MAX), "row"),
                imported.head.seq,
                manifest.app_name,
                imported.receipt,
            )
        });
        Ok(())
    }

    /// Reads the manifest, whose signature the keys of the source have to verify.
    fn manifest(&self, folder: &Path) -> Result<Manifest, Failure> {
        let set: Value = serde_json::from_str(&read(&self.source_keys)?).unwrap_or_default();
        let keys = set.get("keys").and_then(Value::as_array).cloned();
        let path = self.source_keys.display();
        let keys = keys.ok_or_else(|| Failure::Usage(format!("{path} is no JWK set")))?;
        let jws = import::read_manifest(folder).map_err(failure)?;
        let refused = |what: String| Failure::Usage(format!("the manifest is refused: {what}"));
        let claims =
            statements::open(&jws, TYP, &keys).map_err(|error| refused(error.to_string()))?;
        serde_json::from_value(claims).map_err(|error| refused(error.to_string()))
    }
}

/// Reads an import key, which has to last until the import.
async fn usable(conn: &mut Conn, path: &Path) -> Result<ImportKey, Failure> {
    let key: ImportKey = serde_json::from_str(&read(path)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    if key.expires_at <= database::now(conn).await? + time::Duration::hours(1) {
        let message =
            "the import key ends within an hour; make another by `strongroom apps receive`";
        return Err(Failure::Usage(message.to_owned()));
    }
    Ok(key)
}

async fn signer(environment: &Environment, session: &mut Session) -> Result<Signer, Failure> {
    let mut reader = Reader::new(environment);
    let http = HttpConfig::read(&mut reader);
    let http = reader.finish(Some(http))?;
    let url = http.public_url.as_str();
    Ok(statements::signer_of_now(&mut session.conn, &session.vault, url).await?)
}

fn existing(folder: &Path) -> Result<PathBuf, Failure> {
    let found = folder.canonicalize().ok().filter(|folder| folder.is_dir());
    found.ok_or_else(|| Failure::Usage(format!("{} is no folder that there is", folder.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn failure(error: MoveError) -> Failure {
    Failure::other(error)
}
