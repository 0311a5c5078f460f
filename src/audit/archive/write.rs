//! Fills a file with a month of an app's chain.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Contents, Header, Writer};
use super::store;
use super::{ArchiveError, ArchiveFault, Job};
use crate::audit::archived::{ArchiveStatement, TYP, hash_of};
use crate::audit::links::ExportedLink;
use crate::audit::model::{Head, LINK_VERSION};
use crate::audit::months::Month;
use crate::audit::store as trail;
use crate::audit::verify::{Break, Fault, follow};
use crate::common::ids::AppId;
use crate::database::{self, Conn};

/// How many links one statement reads.
const PIECE: i64 = 2000;

/// A complete file.
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) statement: ArchiveStatement,
    pub(super) jws: String,
}

/// Writes a month of an app, or finds it written; returns `None` if the app has no row in it.
pub(super) async fn month(
    conn: &mut Conn,
    (app, name): (AppId, &str),
    month: &Month,
    job: &Job<'_>,
) -> Result<Option<Written>, ArchiveError> {
    let rows = store::count_rows(conn, app, month).await?;
    if rows == 0 {
        return Ok(None);
    }
    let path = job.folder.join(format!("{name}-{}.jsonl.zst", month.name));
    if let Some(written) = found(conn, app, month, &path).await? {
        return Ok(Some(written));
    }
    let at = |error| ArchiveError::File(path.clone(), error);
    let part = path.with_extension("part");
    let writer = Writer::create(&part, Header::new(app, name, &month.name));
    let mut writer = writer.map_err(|error| at(error.into()))?;
    copy(conn, app, month, &mut writer).await?.map_err(|error| at(error.into()))?;
    if writer.links != rows {
        return Err(ArchiveError::Broken(app, broken(Fault::NeverLinked, None)));
    }
    let statement = ArchiveStatement {
        iss: job.signer.issuer().to_owned(),
        sub: app,
        iat: database::now(conn).await?.unix_timestamp(),
        month: month.name.clone(),
        links: writer.links,
        runs: writer.runs.clone(),
        sha256: writer.sha256(),
        version: LINK_VERSION,
    };
    let claims = serde_json::to_value(&statement).ok();
    let jws = claims.and_then(|claims| job.signer.sign(TYP, &claims)).ok_or(ArchiveError::NoKey)?;
    writer.finish(jws.clone()).map_err(|error| at(error.into()))?;
    let read_back = file::read(&part, &[]).and_then(|contents| signed(&contents, &statement, &jws));
    read_back.map_err(at)?;
    put(&part, &path).map_err(|error| at(error.into()))?;
    Ok(Some(Written { path, statement, jws }))
}

/// Returns the file that an earlier attempt wrote and recorded, if it is what was recorded.
async fn found(
    conn: &mut Conn,
    app: AppId,
    month: &Month,
    path: &Path,
) -> Result<Option<Written>, ArchiveError> {
    let Some(jws) = store::statement(conn, app, month).await? else { return Ok(None) };
    let Some(statement) = ArchiveStatement::peek(&jws) else { return Ok(None) };
    let same = file::read(path, &[]).and_then(|contents| signed(&contents, &statement, &jws));
    Ok(same.is_ok().then(|| Written { path: path.to_owned(), statement, jws }))
}

fn signed(
    contents: &Contents,
    statement: &ArchiveStatement,
    jws: &str,
) -> Result<(), ArchiveFault> {
    if contents.jws != jws {
        return Err(ArchiveFault::Rewritten);
    }
    contents.check(statement)
}

/// Gives a complete file its name. Both are on the disk when it returns.
fn put(part: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(part, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Copies the month's links, each of which must follow the one before.
async fn copy(
    conn: &mut Conn,
    app: AppId,
    month: &Month,
    writer: &mut Writer,
) -> Result<io::Result<()>, ArchiveError> {
    let mut head = Head { seq: 0, ..Head::EMPTY };
    let mut last = 0;
    loop {
        let links = trail::links(conn, app, last, PIECE, month.ids()).await?;
        if links.is_empty() {
            return Ok(Ok(()));
        }
        for link in links {
            last = link.seq;
            if writer.links == 0 || link.seq != head.seq + 1 {
                head = before(conn, app, link.seq).await?;
                if let Err(error) = writer.after(head) {
                    return Ok(Err(error));
                }
            }
            head =
                follow(head, app, &link, &[]).map_err(|found| ArchiveError::Broken(app, found))?;
            if let Err(error) = writer.link(ExportedLink::from(link), head) {
                return Ok(Err(error));
            }
        }
    }
}

/// Returns the link before a position.
async fn before(conn: &mut Conn, app: AppId, seq: i64) -> Result<Head, ArchiveError> {
    let seq = seq - 1;
    if seq == 0 {
        return Ok(Head::EMPTY);
    }
    let hash = hash_of(conn, app, seq).await?;
    let missing = || ArchiveError::Broken(app, broken(Fault::LinkRemoved, Some(seq)));
    Ok(Head { seq, hash: hash.ok_or_else(missing)? })
}

fn broken(fault: Fault, seq: Option<i64>) -> Break {
    Break { fault, seq, event: None }
}
