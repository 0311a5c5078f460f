//! A database's folder: its path, its owner, its lock.
//!
//! May import: account, error.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::account::{Account, command};
use super::error::StartError;

/// Where a database goes if root requests a folder that the server's user cannot reach. Everybody may enter it,
/// and unlike `/tmp` it survives a reboot.
const FALLBACK_PARENT: &str = "/var/tmp";
/// The prefix of databases that are being created.
pub(super) const UNFINISHED: &str = "data.new-";
/// How many lines of the log an error shows.
const LOG_TAIL_LINES: usize = 20;

/// The folder of one database, opened so that it can be locked.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    handle: File,
    account: Option<Account>,
}

impl Home {
    /// Creates the folder if it does not exist, and determines the user that the programs run as.
    pub(super) async fn prepare(wanted: &Path) -> Result<Self, StartError> {
        let wanted = absolute(wanted)?;
        if !geteuid().is_root() {
            return Self::open(wanted, &[]);
        }
        let accounts = Account::all();
        let account = accounts.first().ok_or(StartError::NoAccount)?;
        if account.can_enter(wanted.parent().unwrap_or(&wanted)).await {
            Self::open(wanted, &accounts)
        } else {
            Self::open(fallback(&wanted), &accounts)
        }
    }

    /// Opens the folder, which must belong to the caller or, if the caller is root, to one of the `accounts`.
    fn open(folder: PathBuf, accounts: &[Account]) -> Result<Self, StartError> {
        let doing = || StartError::io(format!("making or opening {}", folder.display()));
        let handle = open_or_make(&folder).map_err(doing())?;
        let owner = handle.metadata().map_err(doing())?.uid();
        let entries = entries(&folder).map_err(doing())?;
        if !entries.iter().all(|name| is_ours(name)) {
            return Err(StartError::NotADatabase(folder));
        }
        let mine = owner == geteuid().as_raw();
        let theirs = accounts.iter().find(|account| account.uid == owner);
        let account = match (theirs, accounts.first()) {
            (Some(account), _) => Some(*account),
            (None, None) if mine => None,
            (None, Some(account)) if mine && entries.is_empty() => {
                account.take(&handle).map_err(doing())?;
                Some(*account)
            }
            _ => return Err(StartError::OfAnotherUser { folder, owner }),
        };
        Ok(Self { folder, handle, account })
    }

    /// Tries to take the folder's lock, which its owner holds until it exits. Returns `false` if it is held.
    pub(super) fn try_lock(&self) -> Result<bool, StartError> {
        match self.handle.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => {
                Err(StartError::io(format!("locking {}", self.folder.display()))(error))
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns PostgreSQL's data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Returns the major version of PostgreSQL that created the data; `None` if there are none yet.
    pub(super) fn made_by(&self) -> Result<Option<u32>, StartError> {
        let data = self.data();
        if !data.exists() {
            return Ok(None);
        }
        let file = data.join("PG_VERSION");
        match std::fs::read_to_string(&file) {
            Ok(text) => major(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let doing = format!("reading {}", file.display());
                return Err(StartError::io(doing)(error));
            }
        }
        .ok_or_else(|| StartError::NotADatabase(self.folder.clone()))
    }

    /// Returns the last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..);
        tail.filter(|lines| !lines.is_empty())
            .map_or_else(|| "(empty)".to_owned(), |lines| lines.join("\n"))
    }

    /// Removes the folder if it is empty.
    pub(super) fn remove_if_empty(&self) {
        let _ = std::fs::remove_dir(&self.folder);
    }

    /// Returns whether a start on this home may have created files of this user. Root's own files are those that an
    /// interrupted start had not yet handed over.
    pub(super) fn may_belong_to(&self, uid: u32) -> bool {
        uid == geteuid().as_raw() || self.account.is_some_and(|account| account.uid == uid)
    }

    /// Gives a new folder to the user that PostgreSQL runs as.
    pub(super) fn hand_over(&self, handle: &File) -> io::Result<()> {
        self.account.map_or(Ok(()), |account| account.take(handle))
    }

    /// Creates a command that runs as the user who may run PostgreSQL.
    pub(super) fn command(&self, program: &Path) -> Command {
        command(program, self.account)
    }
}

/// Opens a folder that is not a link, and creates it for its owner alone if it does not exist.
///
/// Later steps work on the handle, so that a folder swapped in while root works is never given away.
fn open_or_make(folder: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(folder)
}

/// Returns the absolute path; creates its parents and resolves links.
fn absolute(wanted: &Path) -> Result<PathBuf, StartError> {
    let doing = || StartError::io(format!("making or opening {}", wanted.display()));
    let absolute = std::path::absolute(wanted).map_err(doing())?;
    if let Ok(existing) = absolute.canonicalize() {
        return Ok(existing);
    }
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(StartError::NotADatabase(absolute));
    };
    std::fs::create_dir_all(parent).map_err(doing())?;
    Ok(parent.canonicalize().map_err(doing())?.join(name))
}

/// Returns the same path for the same request, below a folder that everybody may enter.
fn fallback(wanted: &Path) -> PathBuf {
    let hash = digest(&SHA256, wanted.as_os_str().as_encoded_bytes());
    let name = hash
        .as_ref()
        .iter()
        .take(8)
        .fold(String::from("strongroom-"), |name, byte| format!("{name}{byte:02x}"));
    Path::new(FALLBACK_PARENT).join(name)
}

fn entries(folder: &Path) -> io::Result<Vec<String>> {
    std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Returns whether this module created the entry.
fn is_ours(name: &str) -> bool {
    name == "log" || name == "data" || name.starts_with(UNFINISHED)
}

/// Parses the major version at the beginning of `15`, `15.13 (Debian …)` or `19beta1`.
pub(super) fn major(version: &str) -> Option<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit());
    version.get(..end.unwrap_or(version.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_way_of_writing_it() {
        assert_eq!(major("15\n"), Some(15));
        assert_eq!(major("15.13 (Debian 15.13-0+deb12u1)"), Some(15));
        assert_eq!(major("19beta1"), Some(19));
        assert_eq!(major("devel"), None);
    }

    #[test]
    fn the_same_wish_leads_to_the_same_fallback_and_another_wish_to_another() {
        let one = fallback(Path::new("/root/one"));
        assert_eq!(one, fallback(Path::new("/root/one")));
        assert_ne!(one, fallback(Path::new("/root/two")));
        assert!(one.starts_with("/var/tmp"), "{}", one.display());
    }
}
