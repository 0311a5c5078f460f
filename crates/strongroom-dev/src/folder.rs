//! The folder that `strongroom dev` keeps things in, so that a second start opens the same data.
//!
//! `secrets` holds what was made for the occasion: a master key and a client. It is written once and
//! never again, because what the database holds is worthless without it. `env` tells the last start's
//! variables and is written anew by every start. `postgres` is the database. `lock` is held by the
//! `dev` that runs.
//!
//! Knows nothing else of this package. The service's master key is handed in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use strongroom_common::secret::SecretText;

/// The demo's address in `env`.
pub const DEMO_URL: &str = "DEMO_URL";
const MASTER_KEYS: &str = "STRONGROOM_MASTER_KEYS";
const CLIENT_ID: &str = "STRONGROOM_BOOTSTRAP_CLIENT_ID";
const CLIENT_SECRET: &str = "STRONGROOM_BOOTSTRAP_CLIENT_SECRET";

/// What keeps the folder from being used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another `strongroom dev` runs on it.
    #[error(
        "another `strongroom dev` runs on {}{}. End it first, or give this one a folder of its own \
         with --folder and ports of its own with --demo-listen, --sandbox-listen, STRONGROOM_LISTEN \
         and STRONGROOM_METRICS_LISTEN",
        .folder.display(),
        .demo.as_ref().map(|url| format!(", its demo is at {url}")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other's demo, if it got that far.
        demo: Option<String>,
    },
    /// `secrets` lacks something.
    #[error("{} lacks {name}; restore it, or begin anew by moving the folder away", .file.display())]
    Incomplete {
        /// The file.
        file: PathBuf,
        /// The variable that is missing.
        name: &'static str,
    },
    /// The operating system refused something.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What it refused to give or take.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// No master key could be made.
    #[error(transparent)]
    MasterKey(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
}

/// What was made for the occasion.
#[derive(Debug)]
pub struct Made {
    /// For `STRONGROOM_MASTER_KEYS`.
    pub master_keys: SecretText,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretText,
}

/// Variables by name.
pub type Lines = BTreeMap<String, SecretText>;

/// The folder, held by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, made first where there is none, and holds it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        make(path).map_err(at(path))?;
        let lock_path = path.join("lock");
        let lock = private().open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(at(&lock_path)(error)),
            Err(TryLockError::WouldBlock) => {
                let last = read(&path.join("env")).unwrap_or_default();
                let demo = last.get(DEMO_URL).map(|url| url.expose().to_owned());
                Err(FolderError::InUse { folder: path.to_owned(), demo })
            }
        }
    }

    /// The folder itself, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database belongs.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// The file with the variables, for a shell.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.path.join("env")
    }

    /// The variables of the last start.
    #[must_use]
    pub fn last_variables(&self) -> Lines {
        read(&self.env_file()).unwrap_or_default()
    }

    /// Tells a shell the variables of this start.
    pub fn tell_variables(&self, variables: &Lines) -> Result<(), FolderError> {
        let about = "What the last start of `strongroom dev` made or chose, for a shell to read. \
                     What you set yourself is not repeated here.";
        write(&self.env_file(), about, variables)
    }

    /// What was made for the occasion, made now where nothing was. `master_key` makes a key in the
    /// form in which the service reads it, base64.
    pub fn made<E>(
        &self,
        master_key: impl FnOnce() -> Result<SecretText, E>,
    ) -> Result<Made, FolderError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let file = self.path.join("secrets");
        let lines = match read(&file) {
            Ok(lines) => lines,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let master_key = master_key().map_err(|e| FolderError::MasterKey(e.into()))?;
                let lines = make_secrets(&master_key)?;
                let about = "Made for this folder's database, which cannot be read without it.";
                write(&file, about, &lines)?;
                lines
            }
            Err(error) => return Err(at(&file)(error)),
        };
        let get = |name| {
            let value = lines.get(name).cloned();
            value.ok_or_else(|| FolderError::Incomplete { file: file.clone(), name })
        };
        Ok(Made {
            master_keys: get(MASTER_KEYS)?,
            client_id: get(CLIENT_ID)?.expose().to_owned(),
            client_secret: get(CLIENT_SECRET)?,
        })
    }
}

/// For `map_err`: the path that the operating system refused.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// Nobody else may look into it. Where root makes it others may pass through, because PostgreSQL,
/// which lives inside, never runs as root.
fn make(path: &Path) -> io::Result<()> {
    let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// A file that nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn make_secrets(master_key: &SecretText) -> Result<Lines, FolderError> {
    // The id is new each time, so that keys of two folders cannot be taken for each other.
    let id = format!("dev-{}", random_hex::<4>()?);
    let secret = |text: String| SecretText::new(text);
    Ok(Lines::from([
        (MASTER_KEYS.to_owned(), secret(format!("{id}:{}", master_key.expose()))),
        (CLIENT_ID.to_owned(), secret(format!("dev{}", random_hex::<8>()?))),
        (CLIENT_SECRET.to_owned(), secret(random_hex::<32>()?)),
    ]))
}

fn random_hex<const N: usize>() -> Result<String, FolderError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| FolderError::NoRandomness)?;
    Ok(hex(&bytes))
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes `export` lines, whole or not at all, and waits until they are on the disk.
fn write(file: &Path, about: &str, variables: &Lines) -> Result<(), FolderError> {
    let mut text = zeroize::Zeroizing::new(format!("# {about}\n"));
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}='{}'", value.expose().replace('\'', r"'\''"));
    }
    let unfinished = file.with_extension("new");
    let written = (|| {
        let mut handle = private().truncate(true).open(&unfinished)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()?;
        std::fs::rename(&unfinished, file)
    })();
    written.map_err(at(file))
}

/// Reads what `write` wrote.
fn read(file: &Path) -> io::Result<Lines> {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(file)?);
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once("='")?;
        let value = value.strip_suffix('\'')?.replace(r"'\''", "'");
        Some((name.to_owned(), SecretText::new(value)))
    };
    Ok(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_made_is_the_same_at_the_second_start_and_for_the_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("room");
        let start = |key: &'static str| {
            let key = || Ok::<_, std::io::Error>(SecretText::new(key.to_owned()));
            Folder::open(&path).unwrap().made(key).unwrap()
        };
        let (first, second) = (start("one"), start("another"));
        assert!(first.master_keys.same_as(&second.master_keys));
        assert!(first.client_secret.same_as(&second.client_secret));
        assert_eq!(first.client_id, second.client_id);
        let mode = path.join("secrets").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn two_at_once_are_told_of_each_other() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("room");
        let first = Folder::open(&path).unwrap();
        let demo = SecretText::new("http://127.0.0.1:8000".to_owned());
        first.tell_variables(&Lines::from([(DEMO_URL.to_owned(), demo)])).unwrap();
        let told = Folder::open(&path).unwrap_err().to_string();
        assert!(told.contains("its demo is at http://127.0.0.1:8000"), "{told}");
    }

    #[test]
    fn a_value_comes_back_however_it_is_quoted() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("env");
        let value = "it's $HOME `x` \"y\"";
        let lines = Lines::from([("A".to_owned(), SecretText::new(value.to_owned()))]);
        write(&file, "about", &lines).unwrap();
        assert_eq!(read(&file).unwrap().get("A").unwrap().expose(), value);
        let shell = std::process::Command::new("sh")
            .args(["-c", ". \"$0\" && printf %s \"$A\""])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), value);
    }
}
