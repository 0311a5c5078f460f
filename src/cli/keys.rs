//! `strongroom keys`.

mod rotate_data;
mod signing;
mod status;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Failure;
use super::identity::acting;
use super::output::{Output, count, table};
use super::session::Session;
use crate::audit;
use crate::config::Environment;
use crate::database::Conn;
use crate::vault::{self, MasterKeyId, MasterKeys};

/// Master keys: they wrap the data keys that seal everything.
///
/// An entry of `STRONGROOM_MASTER_KEYS` is `id:base64`, or `id:transit:MOUNT/KEY` for a key at Vault's or OpenBao's
/// Transit engine, or `id:awskms:ARN` for one at AWS KMS, which it never leaves. A rotation moves from one kind to another.
///
/// To rotate: add a new key last to `STRONGROOM_MASTER_KEYS` on all replicas and restart them, then
/// make it the first and restart them again, run `strongroom keys rewrap`, then
/// `strongroom keys retire OLD`, and drop the old key from the variable. Nothing stops meanwhile.
/// The data keys themselves stay then; `strongroom keys rotate-data` replaces them.
///
/// The keys that sign access tokens are others: `strongroom keys signing`.
#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(Generate),
    List(List),
    Status(status::Status),
    Verify(status::Verify),
    Rewrap(Rewrap),
    Retire(Retire),
    RotateData(rotate_data::RotateData),
    Signing(signing::Signing),
}

/// Make a master key: prints an entry for `STRONGROOM_MASTER_KEYS`.
///
/// Example: `export STRONGROOM_MASTER_KEYS=$(strongroom keys generate)`
///
/// Keep a copy where the database's backups are not. Without the key, what is sealed stays sealed for
/// ever.
#[derive(Debug, Args)]
struct Generate {
    /// What to call it: letters, digits, - and _. Today's date and four random letters if it is left out.
    #[arg(long)]
    id: Option<String>,
}

/// List the master keys that the database knows, with what hangs on each.
#[derive(Debug, Args)]
struct List {}

/// Wrap every data key with the first master key. May be stopped and started again at any time.
#[derive(Debug, Args)]
struct Rewrap {}

/// Forget a master key that wraps nothing any more.
#[derive(Debug, Args)]
struct Retire {
    /// The key's id.
    id: String,
}

/// How many data keys one transaction re-wraps.
const BATCH: i64 = 500;
/// Between two passes over rows that others have locked.
const PAUSE: Duration = Duration::from_millis(100);
/// For how long such rows are tried.
const STALLED: Duration = Duration::from_secs(5);

impl Keys {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        match self.command {
            Command::Generate(generate) => generate.run(output),
            Command::List(_) => list(environment, output).await,
            Command::Status(status) => status.run(environment, output).await,
            Command::Verify(verify) => verify.run(environment, output).await,
            Command::Rewrap(_) => rewrap(environment, output).await,
            Command::Retire(retire) => retire.run(environment, output).await,
            Command::RotateData(rotate) => rotate.run(environment, output).await,
            Command::Signing(signing) => signing.run(environment, output).await,
        }
    }
}

fn parse_id(text: &str) -> Result<MasterKeyId, Failure> {
    let message = || "a key's id is 1 to 32 letters, digits, - and _".to_owned();
    MasterKeyId::parse(text).ok_or_else(|| Failure::Usage(message()))
}

impl Generate {
    fn run(self, output: &Output) -> Result<(), Failure> {
        let id = match self.id {
            Some(id) => parse_id(&id)?,
            None => MasterKeyId::generate(crate::common::clock::Clock::system().now().date())?,
        };
        let key = MasterKeys::generate()?;
        let entry = zeroize::Zeroizing::new(format!("{id}:{}", *key));
        output.result(&json!({ "id": id, "masterKey": *entry }), || entry.to_string());
        Ok(())
    }
}

async fn list(environment: &Environment, output: &Output) -> Result<(), Failure> {
    let Session { mut conn, vault, .. } = Session::read(environment).await?;
    let uses = vault::key_uses(&mut conn).await?;
    let held = |id: &MasterKeyId| vault.masters().iter().position(|key| key.id() == id);
    output.result(&uses, || {
        let row = |key: &vault::KeyUse| {
            let state = match held(&key.id) {
                Some(0) => "wraps",
                Some(_) => "opens",
                None => "not given",
            };
            [key.id.to_string(), state.to_owned(), key.wraps.to_string()]
        };
        table(["ID", "STATE", "DATA KEYS"], &uses.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}

async fn rewrap(environment: &Environment, output: &Output) -> Result<(), Failure> {
    let Session { mut conn, vault, .. } = Session::open(environment).await?;
    let first = vault.masters().first().id().clone();
    let uses = vault::key_uses(&mut conn).await?;
    let total: i64 = uses.iter().filter(|key| key.id != first).map(|key| key.wraps).sum();
    let progress = output.progress(Some(0));
    progress.message("data keys");
    let (mut done, mut after) = (0_i64, None);
    let mut advanced_at = Instant::now();
    // Passes, because rows that an erasure or another run had locked are left for the next.
    let left = loop {
        let (mut found, mut pass) = (0, 0);
        loop {
            let batch = vault::rewrap_some(&mut conn, &vault, after, BATCH).await?;
            let rewrapped = write(&mut conn, &batch, &first).await?;
            (found, pass, after) = (found + batch.found(), pass + rewrapped, batch.next);
            progress.steps(done + pass, total);
            if after.is_none() {
                break;
            }
        }
        done += pass;
        if pass > 0 {
            advanced_at = Instant::now();
        } else if found == 0 || advanced_at.elapsed() > STALLED {
            break found;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    };
    drop(progress);
    if left > 0 {
        let message = format!("{left} data keys are in use by others; run it again");
        return Err(Failure::Other(message));
    }
    output.result(&json!({ "rewrapped": done, "masterKey": first }), || {
        format!("Re-wrapped {} with `{first}`.", count(done, "data key"))
    });
    Ok(())
}

/// Writes a batch and its row of the audit trail. Returns how many data keys changed.
async fn write(
    conn: &mut Conn,
    batch: &vault::RewrapBatch,
    first: &MasterKeyId,
) -> Result<i64, Failure> {
    let mut tx = conn.begin().await?;
    let rewrapped = batch.write(&mut tx).await?;
    if rewrapped > 0 {
        let what = format!("{rewrapped} data keys with {first}");
        let operator = acting();
        audit::record_everywhere(&mut tx, &operator, "data_keys.rewrapped", &what).await?;
    }
    tx.commit().await?;
    fail::fail_point!("rewrap::committed");
    Ok(i64::try_from(rewrapped).unwrap_or(i64::MAX))
}

impl Retire {
    async fn run(self, environment: &Environment, output: &Output) -> Result<(), Failure> {
        let id = parse_id(&self.id)?;
        let Session { mut conn, vault, .. } = Session::open(environment).await?;
        if *vault.masters().first().id() == id {
            let message = format!(
                "`{id}` is the first key of STRONGROOM_MASTER_KEYS: it wraps new data keys"
            );
            return Err(Failure::Usage(message));
        }
        let mut tx = conn.begin().await?;
        if !vault::retire(&mut tx, &id).await? {
            let message =
                format!("`{id}` still wraps data keys or is unknown; see `strongroom keys status`");
            return Err(Failure::Other(message));
        }
        let operator = acting();
        audit::record_everywhere(&mut tx, &operator, "master_key.retired", id.as_str()).await?;
        tx.commit().await?;
        output.result(&json!({ "retired": id }), || {
            format!("`{id}` is forgotten; drop it from STRONGROOM_MASTER_KEYS.")
        });
        Ok(())
    }
}
