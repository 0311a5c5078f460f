//! The import: everything of a folder is checked, and inserted in one transaction.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use super::fence;
pub use super::folder::read_manifest;
use super::folder::{self, Reader};
use super::manifest::{Manifest, VERSION};
use super::model::State;
use super::tables::{BEFORE_DATA_KEYS, DATA_KEYS, MOVING, Moving};
use super::{MoveError, before, data_keys, keys, schema};
use crate::apps;
use crate::audit::Head;
use crate::audit::archive::ArchiveStatement;
use crate::audit::handover::{self, Handover};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ExportId};
use crate::common::signer::Signer;
use crate::database::{self, Conn, LongWork};
use crate::vault::{Vault, VaultError, WrappedKey};

/// How long a replica may go on without knowing the app's hash keys: the time after which it refuses every caller if it could not
/// read the directory (`oauth::STALE_AFTER`), and a second more.
pub const SETTLE: Duration = Duration::from_secs(6);
/// How many rows one statement inserts.
const BATCH: usize = 1000;
/// The most that one statement carries, in bytes of JSON.
const BATCH_BYTES: usize = 8 << 20;

/// What an import needs besides the folder and its manifest.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where from.
    pub folder: &'a Path,
    /// The app's name here, if it is to be another.
    pub name: Option<&'a str>,
    /// Signs the hand-over of the trail.
    pub signer: &'a Signer,
    /// For the trail.
    pub actor: &'a Actor,
    /// How long it is waited until every replica knows the app: [`SETTLE`].
    pub settle: Duration,
}

/// What was imported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The export.
    pub export: ExportId,
    /// The app's name here.
    pub app: String,
    /// How many rows were inserted.
    pub rows: u64,
    /// The link that the trail goes on after.
    pub head: Head,
    /// What ends the app at the source.
    pub receipt: String,
}

/// Imports an app, whose manifest the caller has verified with the keys of the source, and lets it serve. May be killed and run
/// again at any time: before its commit nothing has happened, and after it the next run lets the app serve.
///
/// # Errors
/// See [`MoveError`]; whatever it is, nothing is inserted.
pub async fn run(
    conn: &mut Conn,
    vault: &Vault,
    manifest: &Manifest,
    job: &Job<'_>,
) -> Result<Imported, MoveError> {
    let before = imported_before(conn, manifest).await?;
    let imported = match before {
        Some((receipt, State::Settling)) => imported(conn, manifest, receipt).await?,
        Some((receipt, _)) => return Err(MoveError::Imported { export: manifest.export, receipt }),
        None => insert(conn, vault, manifest, job).await?,
    };
    fail::fail_point!("import::committed");
    tokio::time::sleep(job.settle).await;
    fence::lift(conn, manifest.sub, manifest.export, fence::ARRIVED).await?;
    Ok(imported)
}

/// Returns the receipt of an export that is here, and whether it serves: `Moved` stands for that it does.
async fn imported_before(
    conn: &mut Conn,
    manifest: &Manifest,
) -> Result<Option<(String, State)>, MoveError> {
    let receipt = sqlx::query_scalar!(
        "SELECT receipt FROM app_imports WHERE export_id = $1",
        manifest.export.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(receipt) = receipt else { return Ok(None) };
    let fence = fence::find(conn, manifest.sub).await?;
    let settling = fence
        .is_some_and(|fence| fence.state == State::Settling && fence.export == manifest.export);
    Ok(Some((receipt, if settling { State::Settling } else { State::Moved })))
}

async fn imported(
    conn: &mut Conn,
    manifest: &Manifest,
    receipt: String,
) -> Result<Imported, MoveError> {
    let name = apps::name(conn, manifest.sub).await?.unwrap_or_default();
    let rows = manifest.files.iter().map(|file| file.rows).sum();
    Ok(Imported { export: manifest.export, app: name, rows, head: manifest.head, receipt })
}

async fn insert(
    conn: &mut Conn,
    vault: &Vault,
    manifest: &Manifest,
    job: &Job<'_>,
) -> Result<Imported, MoveError> {
    check(conn, manifest, job).await?;
    let private = keys::open(conn, vault, manifest.import_key).await?;
    let transfer = manifest.transfer();
    let sealed = STANDARD.decode(&manifest.receipt).map_err(|_| VaultError::DoesNotOpen)?;
    let receipt = transfer.open_receipt(manifest.sub, &sealed, &private)?;
    let expected = manifest.file(DATA_KEYS).ok_or_else(|| missing(job, DATA_KEYS))?;
    let keys = (&transfer, &private);
    let keys = data_keys::receive(vault, manifest.sub, keys, job.folder, expected).await?;
    let statement = signed_handover(conn, manifest, job).await?;

    let mut tx = conn.begin().await?;
    tx.allow(LongWork::AppMove).await?;
    // Files are read in between, and a large one takes a moment.
    tx.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
    keys::spend(&mut tx, manifest.import_key, manifest.export).await?;
    sqlx::query!(
        "INSERT INTO app_fences (app_id, state, export_id, parked) VALUES ($1, 'arriving', $2, true)",
        manifest.sub.uuid(),
        manifest.export.uuid(),
    )
    .execute(&mut *tx)
    .await?;
    insert_rows(&mut tx, manifest, &keys, job).await?;
    fail::fail_point!("import::inserted");
    sqlx::query!(
        "INSERT INTO app_imports (export_id, app_id, statement, receipt) VALUES ($1, $2, $3, $4)",
        manifest.export.uuid(),
        manifest.sub.uuid(),
        statement,
        receipt,
    )
    .execute(&mut *tx)
    .await?;
    let Head { seq, hash } = manifest.head;
    let reason = format!("{} from {}, after link {seq} {hash}", manifest.export, manifest.iss);
    fence::record(&mut tx, job.actor, manifest.sub, "app.imported", &reason).await?;
    sqlx::query!("UPDATE app_fences SET state = 'settling' WHERE app_id = $1", manifest.sub.uuid())
        .execute(&mut *tx)
        .await?;
    let imported = imported(&mut tx, manifest, receipt).await?;
    tx.commit().await?;
    Ok(imported)
}

fn missing(job: &Job<'_>, table: &str) -> MoveError {
    MoveError::Tampered(folder::path_of(job.folder, table))
}

/// Checks all that can be checked without a key and without writing.
async fn check(conn: &mut Conn, manifest: &Manifest, job: &Job<'_>) -> Result<(), MoveError> {
    before::refuse_other_releases(conn).await?;
    if manifest.version != VERSION || manifest.schema != schema::digest(conn).await? {
        return Err(MoveError::OtherSchema);
    }
    if apps::name(conn, manifest.sub).await?.is_some() {
        return Err(MoveError::AppIsHere(manifest.sub));
    }
    let name = job.name.unwrap_or(&manifest.app_name);
    if apps::find(conn, name).await?.is_some() {
        return Err(MoveError::NameTaken(name.to_owned()));
    }
    for table in MOVING.iter().map(|table| table.name).chain([DATA_KEYS]) {
        let file = manifest.file(table).ok_or_else(|| missing(job, table))?;
        folder::check(job.folder, file)?;
    }
    if folder::is_linked(&manifest.files) {
        Ok(())
    } else {
        Err(MoveError::OtherRows("audit_links"))
    }
}

/// Signs what is known of the source: with it `audit verify` follows the chain across the move.
async fn signed_handover(
    conn: &mut Conn,
    manifest: &Manifest,
    job: &Job<'_>,
) -> Result<String, MoveError> {
    let handover = Handover {
        iss: job.signer.issuer().to_owned(),
        sub: manifest.sub,
        iat: database::now(conn).await?.unix_timestamp(),
        export: manifest.export,
        source: manifest.iss.clone(),
        head: manifest.head,
        keys: manifest.keys.clone(),
        archives: manifest.archives.clone(),
    };
    let claims = json!(handover);
    job.signer.sign(handover::TYP, &claims).ok_or(MoveError::NoKey)
}

async fn insert_rows(
    tx: &mut Conn,
    manifest: &Manifest,
    keys: &[WrappedKey],
    job: &Job<'_>,
) -> Result<(), MoveError> {
    raise_ordinals(tx, job).await?;
    for table in MOVING {
        let expected = manifest.file(table.name).ok_or_else(|| missing(job, table.name))?;
        let mut reader = Reader::open(job.folder, table.name)?;
        let mut inserter = Inserter::new(tx, table, manifest).await?;
        while let Some(row) = reader.next_row()? {
            let row = if table.name == "apps" { renamed(row, job.name) } else { row };
            inserter.add(tx, row).await?;
        }
        inserter.flush(tx).await?;
        reader.check(expected)?;
        if table.name == BEFORE_DATA_KEYS {
            data_keys::insert(tx, manifest.sub, keys).await?;
        }
        if table.name == "connections" {
            // Their deferred triggers, which find the fence and return. At the commit they would hold up whoever changes clients.
            tx.execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        }
        if table.name == "audit_events" {
            refuse_rows_without_a_month(tx, manifest.sub).await?;
            handover::forget_waiting(tx, manifest.sub).await?;
        }
    }
    refuse_values_without_a_key(tx, manifest.sub).await?;
    let head = handover::complete_head(tx, manifest.sub).await?;
    if head == Some(manifest.head) { Ok(()) } else { Err(MoveError::OtherHead) }
}

/// Rows of months that this deployment has archived and dropped would never leave the rest, which is read in every round.
async fn refuse_rows_without_a_month(tx: &mut Conn, app: AppId) -> Result<(), MoveError> {
    let rest = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM audit_events_rest WHERE app_id = $1) AS "it!""#,
        app.uuid(),
    )
    .fetch_one(tx)
    .await?;
    if rest { Err(MoveError::NoMonth) } else { Ok(()) }
}

/// Every value that arrived is sealed under a key that arrived: whatever else happened, no token is left behind.
async fn refuse_values_without_a_key(tx: &mut Conn, app: AppId) -> Result<(), MoveError> {
    let lost = sqlx::query_scalar!(
        r#"-- name: find_value_without_its_key
         SELECT EXISTS (
            SELECT FROM sealed_values v
            WHERE v.app_id = $1 AND v.value IS NOT NULL AND NOT EXISTS (
                SELECT FROM data_keys k
                WHERE k.id = sealing_key(v.value) AND k.app_id = v.app_id AND k.user_id IS NOT DISTINCT FROM v.user_id)
            ) AS "it!""#,
        app.uuid(),
    )
    .fetch_one(tx)
    .await?;
    if lost { Err(MoveError::NoKeyOfValue) } else { Ok(()) }
}

fn renamed(row: String, name: Option<&str>) -> String {
    match (serde_json::from_str::<Value>(&row), name) {
        (Ok(Value::Object(mut app)), Some(name)) => {
            app.insert("name".to_owned(), name.into());
            Value::Object(app).to_string()
        }
        _ => row,
    }
}

/// Lets the ordinals that connections get here follow those that arrive: bulk revocations compare them, within an app. A million
/// more, so that nobody who takes one at this moment is overtaken.
async fn raise_ordinals(tx: &mut Conn, job: &Job<'_>) -> Result<(), MoveError> {
    #[derive(Deserialize)]
    struct Ordinals {
        #[serde(default)]
        ordinal: Option<i64>,
        #[serde(default)]
        before_ordinal: Option<i64>,
    }
    let mut last = 0;
    for table in ["connections", "bulk_revocations"] {
        let mut reader = Reader::open(job.folder, table)?;
        while let Some(row) = reader.next_row()? {
            let row: Ordinals = serde_json::from_str(&row).map_err(|_| reader.tampered())?;
            last = last.max(row.ordinal.or(row.before_ordinal).unwrap_or(0));
        }
    }
    sqlx::query(
        "SELECT setval('connection_ordinals', $1 + 1000000) FROM connection_ordinals WHERE last_value <= $1",
    )
    .bind(last)
    .execute(tx)
    .await?;
    Ok(())
}

/// Inserts the rows of a table in batches.
struct Inserter {
    app: AppId,
    table: &'static str,
    sql: String,
    batch: String,
    rows: usize,
    /// The next position in the chain, and what the source had archived of it.
    links: Option<(i64, Vec<ArchiveStatement>)>,
}

impl Inserter {
    async fn new(tx: &mut Conn, table: &Moving, manifest: &Manifest) -> Result<Self, MoveError> {
        let Moving { name, omitted, rows, .. } = *table;
        let columns = schema::columns(tx, name, omitted).await?;
        // The condition of the export once more: a folder brings rows of its own app alone.
        let sql = format!(
            "INSERT INTO {name} ({columns}) SELECT {columns}
             FROM jsonb_populate_recordset(NULL::{name}, $2::text::jsonb) t WHERE {rows}"
        );
        let archives = || manifest.archives.iter().filter_map(|jws| ArchiveStatement::peek(jws));
        let links = (name == "audit_links").then(|| (1, archives().collect()));
        let (app, batch) = (manifest.sub, String::new());
        Ok(Self { app, table: name, sql, batch, rows: 0, links })
    }

    async fn add(&mut self, tx: &mut Conn, row: String) -> Result<(), MoveError> {
        self.follow(tx, &row).await?;
        self.batch.push(if self.rows == 0 { '[' } else { ',' });
        self.batch.push_str(&row);
        self.rows += 1;
        if self.rows >= BATCH || self.batch.len() >= BATCH_BYTES {
            self.flush(tx).await?;
        }
        Ok(())
    }

    /// Links after a gap, which is archived, follow the last archived one.
    async fn follow(&mut self, tx: &mut Conn, row: &str) -> Result<(), MoveError> {
        #[derive(Deserialize)]
        struct Link {
            seq: i64,
        }
        let Some((next, archives)) = &self.links else { return Ok(()) };
        let link: Link = serde_json::from_str(row).map_err(|_| MoveError::OtherHead)?;
        let (is_next, before) = (link.seq == *next, link.seq - 1);
        let ends = archives.iter().flat_map(|archive| &archive.runs).map(|run| run.end);
        let head = ends.into_iter().find(|end| end.seq == before);
        if let Some((next, _)) = &mut self.links {
            *next = link.seq + 1;
        }
        if !is_next {
            let head = head.ok_or(MoveError::OtherHead)?;
            self.flush(tx).await?;
            handover::go_on_after(tx, self.app, head).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, tx: &mut Conn) -> Result<(), MoveError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.batch.push(']');
        let query = sqlx::query(AssertSqlSafe(self.sql.as_str()));
        let query = query.bind(self.app.uuid()).bind(&self.batch);
        let done = query.execute(tx).await.map_err(|error| MoveError::taken(self.table, error))?;
        if done.rows_affected() != self.rows as u64 {
            return Err(MoveError::OtherRows(self.table));
        }
        self.batch.clear();
        self.rows = 0;
        Ok(())
    }
}
