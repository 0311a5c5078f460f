//! Archives: a finished month of an app's trail in a file that proves itself, before the month is dropped.
//!
//! `file` has the format, `write` fills a file from the database, `store` has the SQL, and this module the order of the steps;
//! `archived` beside it has what is signed about a file. A kill between any two of them loses nothing: the file is complete and was read back before
//! it is recorded, it is recorded before the month is dropped, and what is done already is found done.

mod file;
mod store;
mod write;

pub use super::archived::{ArchiveStatement, Run, TYP, statements};
pub use file::{ArchiveFault, Contents, read};

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::months::Month;
use super::verify::Break;
use super::{Event, chain, record};
use crate::common::actor::Actor;
use crate::common::ids::AppId;
use crate::common::signer::Signer;
use crate::database::{Conn, Fault, LongWork};

/// How long a step is tried that waits for others: for links, and for a lock.
const PATIENCE: Duration = Duration::from_mins(10);
/// The pause between two attempts, in which traffic has the tables to itself.
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether a row is linked.
const LINK_POLL: Duration = Duration::from_millis(200);

/// Why a month was not archived. It is all there still.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The chain does not hold.
    #[error("the trail of the app {0} is not what was written, at link {seq}: {what}", seq = .1.seq.unwrap_or_default(), what = .1.fault.describe())]
    Broken(AppId, Break),
    /// Rows of the month wait for their links.
    #[error("rows of the month {0} wait for their links; is the background work running?")]
    Unlinked(String),
    /// The part holds other rows than its archives.
    #[error(
        "the month {month} has {rows} rows and {links} links, and its archives have {archived}"
    )]
    Differs {
        /// The month.
        month: String,
        /// Its rows in the database.
        rows: i64,
        /// Its links in the database.
        links: i64,
        /// The links in its archives.
        archived: i64,
    },
    /// The file is not what was written to it.
    #[error("{0}: {1}")]
    File(PathBuf, ArchiveFault),
    /// No key signs.
    #[error("no key signs yet; `strongroom serve` makes one")]
    NoKey,
    /// The database's error.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Where archives go, and by whom.
#[derive(Debug)]
pub struct Job<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// Signs what each file says.
    pub signer: &'a Signer,
    /// For the trail.
    pub actor: &'a Actor,
}

/// A file that is written and recorded.
#[derive(Debug, serde::Serialize)]
pub struct Archived {
    /// The app's name.
    pub app: String,
    /// The month: `2026_12`, or `before`.
    pub month: String,
    /// Where the file is.
    pub file: PathBuf,
    /// How many links it holds.
    pub links: i64,
}

/// Archives a month of these apps and drops it; returns the files.
///
/// # Errors
/// See [`ArchiveError`].
pub async fn archive_month(
    conn: &mut Conn,
    month: &Month,
    apps: &[(AppId, String)],
    job: &Job<'_>,
) -> Result<Vec<Archived>, ArchiveError> {
    conn.allow(LongWork::AuditVerification).await?;
    await_links_of(conn, month).await?;
    let mut archived = Vec::new();
    for (app, name) in apps {
        let Some(written) = write::month(conn, (*app, name), month, job).await? else { continue };
        fail::fail_point!("archive::written");
        keep_record(conn, *app, &written, job).await?;
        archived.push(Archived {
            app: name.clone(),
            month: month.name.clone(),
            file: written.path,
            links: written.statement.links,
        });
    }
    fail::fail_point!("archive::recorded");
    await_heads_beyond(conn, month).await?;
    drop_patiently(conn, month).await?;
    Ok(archived)
}

/// Records a file, unless it is on record, and that it was written, in the app's trail: the row's link is in a later month, so
/// that the chain has one whose position and hash continue the archived ones.
async fn keep_record(
    conn: &mut Conn,
    app: AppId,
    written: &write::Written,
    job: &Job<'_>,
) -> Result<(), ArchiveError> {
    let statement = &written.statement;
    let mut tx = conn.begin().await?;
    let location = written.path.display().to_string();
    if store::insert(&mut tx, app, &statement.month, &written.jws, &location).await? {
        let reason =
            format!("{}: {} links, sha256 {}", statement.month, statement.links, statement.sha256);
        let event = Event {
            app,
            action: "audit.archived",
            outcome: "ok",
            user: None,
            connection: None,
            reason: Some(&reason),
        };
        record(&mut tx, job.actor, &event).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Waits until no row of the month waits for its link.
async fn await_links_of(conn: &mut Conn, month: &Month) -> Result<(), ArchiveError> {
    let until = Instant::now() + PATIENCE / 10;
    loop {
        chain::round_on(conn).await?;
        if !store::anything_waits_in(conn, month).await? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(ArchiveError::Unlinked(month.name.clone()));
        }
        sleep(LINK_POLL).await;
    }
}

/// Waits until no chain ends within the month: until the rows of [`keep_record`] are linked.
async fn await_heads_beyond(conn: &mut Conn, month: &Month) -> Result<(), ArchiveError> {
    let until = Instant::now() + PATIENCE / 10;
    loop {
        chain::round_on(conn).await?;
        if !store::any_chain_ends_in(conn, month).await? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(ArchiveError::Unlinked(month.name.clone()));
        }
        sleep(LINK_POLL).await;
    }
}

/// Drops an archived month. Whoever uses the trail keeps its lock: an attempt waits a second for it and gives way.
async fn drop_patiently(conn: &mut Conn, month: &Month) -> Result<(), ArchiveError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match store::drop_month(conn, month).await {
            Err(ArchiveError::Database(error))
                if Fault::of(&error) == Fault::Contention && Instant::now() < until =>
            {
                tracing::warn!(cause = %error, "the month gave way to others and is dropped later");
                sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}
