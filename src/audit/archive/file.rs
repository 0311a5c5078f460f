//! The file of an archive: lines of JSON, compressed with zstd (RFC 8878), so that `zstdcat` shows them.
//!
//! The first line is the header. `after` has the link that the next ones follow, each `link` has its row, and the last line is
//! the statement, signed over all lines before it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::audit::archived::{ArchiveStatement, Run};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::links::ExportedLink;
use crate::audit::model::{Head, LINK_VERSION};
use crate::common::ids::AppId;

/// What the header says that the file is.
const FORMAT: &str = "strongroom audit archive";
/// The version of the file's lines.
const VERSION: u32 = 1;
/// Rows are text that compresses tenfold at any level.
const LEVEL: i32 = 3;

/// What a file is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Header {
    format: String,
    version: u32,
    app: AppId,
    app_name: String,
    month: String,
}

impl Header {
    pub(super) fn new(app: AppId, app_name: &str, month: &str) -> Self {
        let (app_name, month) = (app_name.to_owned(), month.to_owned());
        Self { format: FORMAT.to_owned(), version: VERSION, app, app_name, month }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Header(Header),
    After(Head),
    Link(Box<ExportedLink>),
    Statement(String),
}

/// Why a file is not an archive of this service.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is not one of an archive.
    #[error("line {0} is not one of an archive")]
    Malformed(usize),
    /// The link at this position does not follow from its row and the link before.
    #[error("the link {0} or its row was edited, or stands in another's place")]
    Changed(i64),
    /// It ends before its statement.
    #[error("it ends before its statement: its end was cut off")]
    CutOff,
    /// It holds together and does not match a checkpoint.
    #[error("the link {0} is not the one of a checkpoint: the file was written anew")]
    NotOfCheckpoint(i64),
    /// Its lines are not those that were signed.
    #[error("it holds together and is not what was signed: it was rewritten")]
    Rewritten,
}

/// What a file holds, by its lines. Only [`Contents::check`] with a verified statement makes it a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    header: Header,
    runs: Vec<Run>,
    links: i64,
    sha256: String,
    /// The statement, a JWS in the compact form.
    pub jws: String,
}

impl Contents {
    /// Compares the file with the verified claims of its statement.
    ///
    /// # Errors
    /// [`ArchiveFault::Rewritten`] if they differ.
    pub fn check(&self, statement: &ArchiveStatement) -> Result<(), ArchiveFault> {
        let same = statement.sub == self.header.app
            && statement.month == self.header.month
            && statement.links == self.links
            && statement.runs == self.runs
            && statement.sha256 == self.sha256;
        if same { Ok(()) } else { Err(ArchiveFault::Rewritten) }
    }
}

/// Writes a file.
pub(super) struct Writer {
    out: zstd::Encoder<'static, BufWriter<File>>,
    digest: digest::Context,
    /// The links so far.
    pub(super) runs: Vec<Run>,
    /// How many they are.
    pub(super) links: i64,
}

impl Writer {
    /// Creates the file anew, with its header.
    pub(super) fn create(path: &Path, header: Header) -> io::Result<Self> {
        let mut out = zstd::Encoder::new(BufWriter::new(File::create(path)?), LEVEL)?;
        out.include_checksum(true)?;
        let digest = digest::Context::new(&digest::SHA256);
        let mut writer = Self { out, digest, runs: Vec::new(), links: 0 };
        writer.put(&Line::Header(header))?;
        Ok(writer)
    }

    fn put(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.digest.update(&text);
        self.out.write_all(&text)
    }

    /// Begins a run after a link.
    pub(super) fn after(&mut self, head: Head) -> io::Result<()> {
        self.runs.push(Run { after: head, end: head });
        self.put(&Line::After(head))
    }

    /// Adds the next link of the run, after which the chain stands at `head`.
    pub(super) fn link(&mut self, link: ExportedLink, head: Head) -> io::Result<()> {
        self.links += 1;
        if let Some(run) = self.runs.last_mut() {
            run.end = head;
        }
        self.put(&Line::Link(Box::new(link)))
    }

    /// Returns the digest of the lines so far.
    pub(super) fn sha256(&self) -> String {
        hex::encode(self.digest.clone().finish())
    }

    /// Ends the file with its statement; returns when it is on the disk.
    pub(super) fn finish(mut self, jws: String) -> io::Result<()> {
        self.put(&Line::Statement(jws))?;
        let file = self.out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()
    }
}

/// Reads a file and follows its links, which must be those that the checkpoints of its app state.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(path: &Path, checkpoints: &[Checkpoint]) -> Result<Contents, ArchiveFault> {
    let mut lines = BufReader::new(zstd::Decoder::new(File::open(path)?)?);
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut reading: Option<Reading> = None;
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        if lines.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let malformed = || ArchiveFault::Malformed(number);
        let line: Line = serde_json::from_slice(&text).map_err(|_| malformed())?;
        match (line, &mut reading) {
            (Line::Header(header), None)
                if header.format == FORMAT && header.version == VERSION =>
            {
                reading = Some(Reading { header, runs: Vec::new(), links: 0 });
            }
            (Line::After(head), Some(reading)) => reading.runs.push(Run { after: head, end: head }),
            (Line::Link(next), Some(reading)) => reading.follow(&next, number, checkpoints)?,
            (Line::Statement(jws), Some(_)) => {
                // Nothing follows it: what is not signed is not read as if it were.
                text.clear();
                if lines.read_until(b'\n', &mut text)? > 0 {
                    return Err(ArchiveFault::Malformed(number + 1));
                }
                let Some(Reading { header, runs, links }) = reading else {
                    return Err(malformed());
                };
                return Ok(Contents {
                    header,
                    runs,
                    links,
                    sha256: hex::encode(digest.finish()),
                    jws,
                });
            }
            _ => return Err(malformed()),
        }
        digest.update(&text);
    }
    Err(ArchiveFault::CutOff)
}

struct Reading {
    header: Header,
    runs: Vec<Run>,
    links: i64,
}

impl Reading {
    fn follow(
        &mut self,
        link: &ExportedLink,
        number: usize,
        checkpoints: &[Checkpoint],
    ) -> Result<(), ArchiveFault> {
        let run = self.runs.last_mut().ok_or(ArchiveFault::Malformed(number))?;
        let event = link.event.as_ref().ok_or(ArchiveFault::Changed(link.seq))?;
        let next = run.end.followed_by(self.header.app, event);
        let same = link.version == LINK_VERSION
            && link.seq == next.seq
            && link.hash.as_ref().is_some_and(|hash| *hash == next.hash.to_string());
        if !same {
            return Err(ArchiveFault::Changed(link.seq));
        }
        let app = self.header.app;
        if checkpoints.iter().any(|point| point.sub == app && point.contradicts(next)) {
            return Err(ArchiveFault::NotOfCheckpoint(link.seq));
        }
        run.end = next;
        self.links += 1;
        Ok(())
    }
}
