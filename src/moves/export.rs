//! The export: a folder with all that an app is.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::time::{Instant, sleep};

use super::fence::{self, Fence};
use super::folder::{self, Writer, Written};
use super::keys::ImportKey;
use super::manifest::{Manifest, TYP, VERSION};
use super::tables::{BEFORE_DATA_KEYS, MOVING, Moving};
use super::{MoveError, before, data_keys, receipt, schema};
use crate::apps::App;
use crate::audit::{self, Head, handover};
use crate::common::actor::Actor;
use crate::common::ids::ExportId;
use crate::common::signer::Signer;
use crate::database::{self, Conn, LongWork};
use crate::vault::{Transfer, Vault, VaultError};

/// How long it is waited for the links of the trail's last rows.
const LINKING: Duration = Duration::from_mins(1);
/// How often it is looked.
const LINK_POLL: Duration = Duration::from_millis(200);

/// What an export needs besides the app.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where to.
    pub folder: &'a Path,
    /// For whom.
    pub key: &'a ImportKey,
    /// Signs the manifest.
    pub signer: &'a Signer,
    /// The public keys that verify what this deployment has signed about the app.
    pub keys: Vec<Value>,
    /// For the trail.
    pub actor: &'a Actor,
    /// How long it is waited for what is in flight.
    pub patience: Duration,
}

/// What was exported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// The export.
    pub export: ExportId,
    /// The app's name.
    pub app: String,
    /// How many rows the folder holds.
    pub rows: u64,
    /// The last link of the trail here.
    pub head: Head,
}

/// Exports an app. May be killed and run again at any time: it goes on where it stopped, and writes the folder anew.
///
/// # Errors
/// See [`MoveError`]. If the fence could not be closed, the app serves as before. After that it is fenced until the export is
/// taken back or the app is ended.
pub async fn run(
    conn: &mut Conn,
    vault: &Vault,
    app: &App,
    job: &Job<'_>,
) -> Result<Exported, MoveError> {
    let public = job.key.public().ok_or(VaultError::DoesNotOpen)?;
    before::refuse_other_releases(conn).await?;
    let fence = fence::close(conn, vault, job.actor, app.id, job.key.id, job.patience).await?;
    if fence.exported {
        tracing::info!("the folder is written anew");
    }
    let transfer = Transfer { export: fence.export, import_key: job.key.id };
    folder::remove_manifest(job.folder)?;
    let keys = data_keys::write(conn, vault, app.id, (&transfer, &public), job.folder).await?;
    let (tables, head) = write_tables(conn, app, fence.export, job.folder).await?;
    fail::fail_point!("export::written");
    let files = in_order(tables, keys);
    if !folder::is_linked(&files) {
        return Err(MoveError::TrailChanged);
    }
    let receipt = receipt::of(conn, vault, app.id, fence.export).await?;
    let manifest = Manifest {
        iss: job.signer.issuer().to_owned(),
        sub: app.id,
        iat: database::now(conn).await?.unix_timestamp(),
        version: VERSION,
        export: fence.export,
        import_key: job.key.id,
        app_name: app.name.clone(),
        schema: schema::digest(conn).await?,
        head,
        files,
        receipt: STANDARD.encode(transfer.seal_receipt(app.id, &receipt, &public)?),
        archives: audit::archive::statements(conn, app.id).await?,
        keys: job.keys.clone(),
    };
    finish(conn, app, job, &fence, &manifest).await
}

async fn finish(
    conn: &mut Conn,
    app: &App,
    job: &Job<'_>,
    fence: &Fence,
    manifest: &Manifest,
) -> Result<Exported, MoveError> {
    let claims = serde_json::to_value(manifest).ok();
    let jws = claims.and_then(|claims| job.signer.sign(TYP, &claims)).ok_or(MoveError::NoKey)?;
    fence::set_exported(conn, app.id, fence.export).await?;
    folder::put_manifest(job.folder, &jws)?;
    // Taken back meanwhile: the app serves, and its folder must not be imported.
    if !fence::stands(conn, app.id, fence.export).await? {
        folder::remove_manifest(job.folder)?;
        return Err(MoveError::FenceLost);
    }
    fail::fail_point!("export::signed");
    let rows = manifest.files.iter().map(|file| file.rows).sum();
    Ok(Exported { export: fence.export, app: app.name.clone(), rows, head: manifest.head })
}

/// Puts the data keys behind the users, as they are inserted.
fn in_order(tables: Vec<Written>, keys: Written) -> Vec<Written> {
    let mut files = Vec::with_capacity(tables.len() + 1);
    let mut keys = Some(keys);
    for table in tables {
        let is_before = table.name == BEFORE_DATA_KEYS;
        files.push(table);
        files.extend(keys.take_if(|_| is_before));
    }
    files
}

/// Writes the rows of all tables as they are in one snapshot, in which the trail is linked to its end.
async fn write_tables(
    conn: &mut Conn,
    app: &App,
    export: ExportId,
    folder: &Path,
) -> Result<(Vec<Written>, Head), MoveError> {
    let until = Instant::now() + LINKING;
    loop {
        handover::link_waiting(conn).await?;
        let mut snapshot = conn.begin_snapshot(LongWork::AppMove).await?;
        // Files are flushed in between, and a large one takes a moment.
        snapshot.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
        if !fence::stands(&mut snapshot, app.id, export).await? {
            return Err(MoveError::FenceLost);
        }
        if let Some(head) = handover::complete_head(&mut snapshot, app.id).await? {
            let mut written = Vec::with_capacity(MOVING.len());
            for table in MOVING {
                written.push(write_table(&mut snapshot, app, table, folder).await?);
            }
            snapshot.commit().await?;
            return Ok((written, head));
        }
        snapshot.commit().await?;
        if Instant::now() >= until {
            return Err(MoveError::Unlinked);
        }
        sleep(LINK_POLL).await;
    }
}

async fn write_table(
    snapshot: &mut Conn,
    app: &App,
    table: &Moving,
    folder: &Path,
) -> Result<Written, MoveError> {
    let Moving { name, rows, order, .. } = *table;
    let sql = format!("SELECT to_jsonb(t)::text FROM {name} t WHERE {rows} ORDER BY {order}");
    let mut writer = Writer::create(folder, name)?;
    let query = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).bind(app.id.uuid());
    let mut rows = query.fetch(snapshot);
    while let Some(row) = rows.try_next().await? {
        writer.put(&row)?;
    }
    drop(rows);
    writer.finish()
}
