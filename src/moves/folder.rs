//! The folder of an export: a file for each table, lines of JSON, compressed with zstd (RFC 8878), and the signed manifest.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::MoveError;

/// Rows are text that compresses tenfold at any level.
const LEVEL: i32 = 3;
/// No row is longer, in bytes: whatever a changed file unpacks to, no more of it is held.
const LONGEST_ROW: u64 = 64 << 20;
/// The file that holds the manifest, written last: without it the folder is no export.
pub(super) const MANIFEST: &str = "app-export.jws";

/// A complete file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    /// The table.
    pub name: String,
    /// How many rows it holds.
    pub rows: u64,
    /// SHA-256 over its lines, uncompressed, in hexadecimal.
    pub sha256: String,
}

/// Returns whether each row of the trail has a link. A month that goes between the two tables leaves its rows in one file alone.
pub(super) fn is_linked(files: &[Written]) -> bool {
    let rows = |table| files.iter().find(|file| file.name == table).map(|file| file.rows);
    rows("audit_events").is_some() && rows("audit_events") == rows("audit_links")
}

/// Returns where a table's rows are.
pub(super) fn path_of(folder: &Path, table: &str) -> PathBuf {
    folder.join(format!("{table}.jsonl.zst"))
}

/// Creates a file that only its owner reads.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a table's file.
pub(super) struct Writer {
    name: &'static str,
    path: PathBuf,
    out: zstd::Encoder<'static, BufWriter<File>>,
    digest: digest::Context,
    rows: u64,
}

impl Writer {
    pub(super) fn create(folder: &Path, name: &'static str) -> Result<Self, MoveError> {
        let path = path_of(folder, name);
        let out = create(&path).and_then(|file| {
            let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
            out.include_checksum(true)?;
            Ok(out)
        });
        let out = out.map_err(|error| MoveError::File(path.clone(), error))?;
        Ok(Self { name, path, out, digest: digest::Context::new(&digest::SHA256), rows: 0 })
    }

    /// Adds a row, a JSON object on one line.
    pub(super) fn put(&mut self, row: &str) -> Result<(), MoveError> {
        if row.len() as u64 >= LONGEST_ROW {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "a row is larger than 64 MiB");
            return Err(MoveError::File(self.path.clone(), error));
        }
        self.rows += 1;
        self.digest.update(row.as_bytes());
        self.digest.update(b"\n");
        let written = self.out.write_all(row.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| MoveError::File(self.path.clone(), error))
    }

    /// Ends the file; returns when it is on the disk.
    pub(super) fn finish(self) -> Result<Written, MoveError> {
        let Self { name, path, out, digest, rows } = self;
        let ended = || {
            let file = out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()
        };
        ended().map_err(|error| MoveError::File(path, error))?;
        Ok(Written { name: name.to_owned(), rows, sha256: hex::encode(digest.finish()) })
    }
}

/// Returns the SHA-256 of a text in hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// Writes the manifest, under another name first, so that the folder has it complete or not at all.
pub(super) fn put_manifest(folder: &Path, jws: &str) -> Result<(), MoveError> {
    let (part, path) = (folder.join("app-export.part"), folder.join(MANIFEST));
    let put = || {
        let mut file = create(&part)?;
        writeln!(file, "{jws}")?;
        file.sync_all()?;
        std::fs::rename(&part, &path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(|error| MoveError::File(path.clone(), error))
}

/// Removes the manifest of an earlier run, before its files are written anew.
pub(super) fn remove_manifest(folder: &Path) -> Result<(), MoveError> {
    let path = folder.join(MANIFEST);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MoveError::File(path, error)),
        _ => Ok(()),
    }
}

/// Reads the manifest, a JWS in the compact form.
///
/// # Errors
/// If there is none.
pub fn read_manifest(folder: &Path) -> Result<String, MoveError> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|error| MoveError::File(path, error))?;
    Ok(text.trim().to_owned())
}

/// Reads a table's file line by line.
pub(super) struct Reader {
    path: PathBuf,
    lines: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    digest: digest::Context,
    rows: u64,
}

impl Reader {
    pub(super) fn open(folder: &Path, table: &str) -> Result<Self, MoveError> {
        let path = path_of(folder, table);
        let decoder = File::open(&path).and_then(zstd::Decoder::new);
        let lines = decoder.map(BufReader::new);
        let lines = lines.map_err(|error| MoveError::File(path.clone(), error))?;
        Ok(Self { path, lines, digest: digest::Context::new(&digest::SHA256), rows: 0 })
    }

    /// Returns the next row, without the end of its line.
    pub(super) fn next_row(&mut self) -> Result<Option<String>, MoveError> {
        let mut line = String::new();
        // What zstd or UTF-8 cannot read was not written by an export. A longer line is cut, and ends without a line break.
        let read = self.lines.by_ref().take(LONGEST_ROW).read_line(&mut line);
        let read = read.map_err(|_| self.tampered())?;
        if read == 0 {
            return Ok(None);
        }
        self.digest.update(line.as_bytes());
        self.rows += 1;
        if line.pop() == Some('\n') { Ok(Some(line)) } else { Err(self.tampered()) }
    }

    /// Says that the file is not what the manifest says.
    pub(super) fn tampered(&self) -> MoveError {
        MoveError::Tampered(self.path.clone())
    }

    /// Compares what was read to its end with the manifest.
    ///
    /// # Errors
    /// [`MoveError::Tampered`] if the file holds anything else.
    pub(super) fn check(self, expected: &Written) -> Result<(), MoveError> {
        let same = self.rows == expected.rows
            && hex::encode(self.digest.clone().finish()) == expected.sha256;
        if same { Ok(()) } else { Err(self.tampered()) }
    }
}

/// Reads a file to its end and compares it with the manifest.
///
/// # Errors
/// [`MoveError::Tampered`] if it holds anything else.
pub(super) fn check(folder: &Path, expected: &Written) -> Result<(), MoveError> {
    let mut reader = Reader::open(folder, &expected.name)?;
    while reader.next_row()?.is_some() {}
    reader.check(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(events: u64, links: u64) -> Vec<Written> {
        let file =
            |name: &str, rows| Written { name: name.to_owned(), rows, sha256: String::new() };
        vec![file("users", 1), file("audit_events", events), file("audit_links", links)]
    }

    #[test]
    fn a_trail_of_which_one_table_lost_a_month_is_not_linked() {
        assert!(is_linked(&trail(7, 7)));
        assert!(!is_linked(&trail(7, 5)));
        assert!(!is_linked(&trail(5, 7)));
        assert!(!is_linked(&trail(7, 7)[..2]), "a folder without links");
    }
}
