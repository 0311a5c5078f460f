//! The folder in which `strongroom dev` keeps its state, so that a second start opens the same data.
//!
//! `secrets` holds what the first start generated: a master key and a client. It is written once and never
//! changed, because the database is unreadable without it. `plaid-client` holds a second client, created in the
//! database and created again if the database does not know it. `env` holds the variables of the last start and is
//! rewritten by each start, as `requests.http` and `postman.json` are, which have requests to try. `log` is the log of the last
//! start. `postgres` is the database. The running `dev` holds `lock`.
//!
//! Imports no other module of this package. The caller generates the service's master key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use strongroom_common::secret::SecretText;

/// The variable in `env` that holds the demo's URL.
pub const DEMO_URL: &str = "DEMO_URL";
/// The variable in `env` with the id of the demo's client of the app at Plaid.
pub const PLAID_CLIENT_ID: &str = "DEMO_PLAID_CLIENT_ID";
/// The variable in `env` with that client's secret.
pub const PLAID_CLIENT_SECRET: &str = "DEMO_PLAID_CLIENT_SECRET";
const MASTER_KEYS: &str = "STRONGROOM_MASTER_KEYS";
const CLIENT_ID: &str = "STRONGROOM_BOOTSTRAP_CLIENT_ID";
const CLIENT_SECRET: &str = "STRONGROOM_BOOTSTRAP_CLIENT_SECRET";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another `strongroom dev` is using it.
    #[error(
        "another `strongroom dev` runs on {}{}. End it first, or give this one a folder of its own \
         with --folder and ports of its own with --demo-listen, --sandbox-listen, STRONGROOM_LISTEN, \
         STRONGROOM_CONSOLE_LISTEN and STRONGROOM_METRICS_LISTEN",
        .folder.display(),
        .demo.as_ref().map(|url| format!(", its demo is at {url}")).unwrap_or_default()
    )]
    InUse {
        /// The path of the folder.
        folder: PathBuf,
        /// The URL of the other process's demo, if it has started.
        demo: Option<String>,
    },
    /// `secrets` lacks a variable.
    #[error("{} lacks {name}; restore it, or begin anew by moving the folder away", .file.display())]
    Incomplete {
        /// The path of `secrets`.
        file: PathBuf,
        /// The name of the missing variable.
        name: &'static str,
    },
    /// A file operation failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The path that it failed on.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The caller's generator of master keys failed.
    #[error(transparent)]
    MasterKey(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system's random number generator failed.
    #[error("the operating system gave no random numbers")]
    NoRandomness,
}

/// The secrets of a folder, generated at its first start.
#[derive(Debug)]
pub struct Made {
    /// The value of `STRONGROOM_MASTER_KEYS`.
    pub master_keys: SecretText,
    /// The bootstrap client's `client_id`.
    pub client_id: String,
    /// The bootstrap client's secret.
    pub client_secret: SecretText,
}

/// A client of Strongroom's.
#[derive(Debug)]
pub struct Client {
    /// The `client_id`.
    pub id: String,
    /// The client secret.
    pub secret: SecretText,
}

/// Variables by name.
pub type Lines = BTreeMap<String, SecretText>;

/// The folder, locked by this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens and locks the folder, and creates it if it does not exist.
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

    /// Returns the path as the caller gave it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the database belongs.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// Returns the path of `env`.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.path.join("env")
    }

    /// Reads the variables of the last start.
    #[must_use]
    pub fn last_variables(&self) -> Lines {
        read(&self.env_file()).unwrap_or_default()
    }

    /// Writes this start's variables to `env`, and puts the folder of the program on the shell's `PATH`.
    pub fn write_variables(
        &self,
        variables: &Lines,
        program: Option<&Path>,
    ) -> Result<(), FolderError> {
        let about = "# What the last start of `strongroom dev` made or chose, for a shell to read. \
                     What you set yourself is not repeated here.\n";
        let path = program
            .map(|program| format!("PATH={}:\"$PATH\"\n", quoted(&program.display().to_string())));
        let path = path.unwrap_or_default();
        let text = format!("{about}{path}{}", exports(variables).as_str());
        write(&self.env_file(), &zeroize::Zeroizing::new(text))
    }

    /// Returns the path of the log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Begins the log anew.
    pub fn new_log(&self) -> Result<File, FolderError> {
        let path = self.log_file();
        private().truncate(true).open(&path).map_err(at(&path))
    }

    /// Writes the requests to try: a file for editors, and a collection for Postman.
    pub fn write_requests(&self, http: &str, postman: &str) -> Result<(), FolderError> {
        write(&self.path.join("requests.http"), http)?;
        write(&self.path.join("postman.json"), postman)
    }

    /// Returns the client of the app at Plaid that an earlier start created, if any.
    #[must_use]
    pub fn plaid_client(&self) -> Option<Client> {
        let mut lines = read(&self.plaid_client_file()).ok()?;
        let id = lines.remove(PLAID_CLIENT_ID)?.expose().to_owned();
        Some(Client { id, secret: lines.remove(PLAID_CLIENT_SECRET)? })
    }

    /// Keeps the client of the app at Plaid for the next start.
    pub fn keep_plaid_client(&self, client: &Client) -> Result<(), FolderError> {
        let about = "The demo's client of the app at Plaid; if it is missing, the next start creates another.";
        let lines = Lines::from([
            (PLAID_CLIENT_ID.to_owned(), SecretText::new(client.id.clone())),
            (PLAID_CLIENT_SECRET.to_owned(), client.secret.clone()),
        ]);
        write_lines(&self.plaid_client_file(), about, &lines)
    }

    fn plaid_client_file(&self) -> PathBuf {
        self.path.join("plaid-client")
    }

    /// Returns the folder's secrets, and generates them at the first start. `master_key` returns a key in the form
    /// in which the service reads it, base64.
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
                write_lines(&file, about, &lines)?;
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

/// Returns a function for `map_err` that adds the path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// Creates a folder for its owner alone. Under root others may pass through, because PostgreSQL, which is
/// inside, never runs as root.
fn make(path: &Path) -> io::Result<()> {
    let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Returns options that create a file readable by its owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn make_secrets(master_key: &SecretText) -> Result<Lines, FolderError> {
    // A new id each time, so that the keys of two folders cannot be confused.
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
    Ok(hex::encode(bytes))
}

/// Writes `export` lines under a comment.
fn write_lines(file: &Path, about: &str, variables: &Lines) -> Result<(), FolderError> {
    write(file, &zeroize::Zeroizing::new(format!("# {about}\n{}", exports(variables).as_str())))
}

/// Returns a line of shell for each variable.
fn exports(variables: &Lines) -> zeroize::Zeroizing<String> {
    let mut text = zeroize::Zeroizing::new(String::new());
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}={}", quoted(value.expose()));
    }
    text
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Writes a file for its owner alone, atomically, and syncs it to disk.
fn write(file: &Path, text: &str) -> Result<(), FolderError> {
    let unfinished = file.with_added_extension("new");
    let written = (|| {
        let mut handle = private().truncate(true).open(&unfinished)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()?;
        std::fs::rename(&unfinished, file)
    })();
    written.map_err(at(file))
}

/// Reads what [`write_lines`] wrote.
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
        let path = parent.path().join("folder");
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
    fn the_client_of_the_app_at_plaid_is_kept_for_the_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("folder")).unwrap();
        assert!(folder.plaid_client().is_none());
        let client = Client { id: "id".to_owned(), secret: SecretText::new("secret".to_owned()) };
        folder.keep_plaid_client(&client).unwrap();
        let kept = folder.plaid_client().unwrap();
        assert!(kept.id == client.id && kept.secret.same_as(&client.secret));
    }

    #[test]
    fn two_at_once_are_told_of_each_other() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("folder");
        let first = Folder::open(&path).unwrap();
        let demo = SecretText::new("http://127.0.0.1:8000".to_owned());
        first.write_variables(&Lines::from([(DEMO_URL.to_owned(), demo)]), None).unwrap();
        let error = Folder::open(&path).unwrap_err().to_string();
        assert!(error.contains("its demo is at http://127.0.0.1:8000"), "{error}");
    }

    #[test]
    fn a_value_comes_back_however_it_is_quoted() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("env");
        let value = "it's $HOME `x` \"y\"";
        let lines = Lines::from([("A".to_owned(), SecretText::new(value.to_owned()))]);
        write_lines(&file, "about", &lines).unwrap();
        assert_eq!(read(&file).unwrap().get("A").unwrap().expose(), value);
        let shell = std::process::Command::new("sh")
            .args(["-c", ". \"$0\" && printf %s \"$A\""])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), value);
    }
}
