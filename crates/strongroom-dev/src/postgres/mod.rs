//! Runs the PostgreSQL programs found on the machine, for `strongroom dev` and for the tests.
//!
//! One folder holds a database: `data` is PostgreSQL's own, `log` the server's last output. The server listens
//! on a Unix socket only, in a short folder under `/tmp` that no other user may enter.
//!
//! The process that holds the folder's lock owns the server. The kernel releases the lock however the owner
//! ends, and a small shell beside the server then stops it: not even SIGKILL leaves an orphan. Later starts on
//! the same folder share the owner's server and cannot stop it.
//!
//! PostgreSQL refuses to run as root. Started by root it runs as `postgres`, or else as `nobody`, and only its
//! folders are given to that user.
//!
//! Imports no other module of this package.

mod account;
mod error;
mod home;
mod pid_file;
mod programs;
mod server;
mod sockets;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::{Instant, sleep};

pub use error::{StartError, StopError};
use home::Home;
use pid_file::PidFile;
use programs::Programs;
use server::{Ending, Server};

/// The time limit of a start. Recovery after a crash replays the log first.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long a start waits for another process on the same folder: for its server to be ready, or for an earlier
/// one to be gone.
const OTHERS_LIMIT: Duration = Duration::from_secs(30);
/// A server without an owner is usually about to stop; after this time it counts as permanent.
const UNOWNED_SERVER_GRACE: Duration = Duration::from_secs(2);
/// How long [`LocalPostgres::stop`] waits.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The interval at which a starting or stopping server is polled.
const STEP: Duration = Duration::from_millis(5);
/// The pause between two attempts while an earlier server is in the way.
const RETRY_STEP: Duration = Duration::from_millis(50);

/// What a crash of the machine may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed: for `strongroom dev`.
    Durable,
    /// Everything: for tests. Faster, and the folder is removed when the server ends, however its owner ended; so
    /// use a folder whose name is never used again. A folder that already holds a database is refused.
    Throwaway,
}

/// Which database to run, and with which programs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the data. Created if it does not exist; one that holds anything else is refused.
    pub folder: PathBuf,
    /// What a crash of the machine may lose.
    pub durability: Durability,
    /// The folder of PostgreSQL's programs (`PG_BIN`); if given, no other is searched.
    pub programs: Option<PathBuf>,
    /// The value of `PATH`, searched for the programs.
    pub path: Option<OsString>,
}

/// A running PostgreSQL that accepts connections.
///
/// If the server's owner drops it without [`stop`](Self::stop), the server stops a moment later. It does not
/// depend on the runtime that started it, so that tests can keep it in a `static`.
#[derive(Debug)]
pub struct LocalPostgres {
    folder: PathBuf,
    socket: PathBuf,
    version: u32,
    /// `None` if another process owns the server.
    owned: Option<Owned>,
}

/// The resources of a server's owner, in the order in which they are released.
#[derive(Debug)]
struct Owned {
    server: Server,
    _litter: Litter,
    /// Holds the folder's lock.
    _home: Home,
}

impl LocalPostgres {
    /// Starts the database in `settings.folder` and creates it if it does not exist; or shares the server that
    /// already runs there.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let home = Home::prepare(&settings.folder).await?;
        let patience = Instant::now() + OTHERS_LIMIT;
        while !home.try_lock()? {
            if let Some(socket) = sockets::answering(&home.data()).await {
                return Self::shared(&home, socket);
            }
            if Instant::now() > patience {
                return Err(StartError::Held(home.folder().to_owned()));
            }
            sleep(STEP).await;
        }
        Self::own(home, &settings).await
    }

    /// Returns how to connect, as the superuser, to the database `postgres`.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(sockets::PORT)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
    }

    /// Returns a URL that `psql` and sqlx understand.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres:///postgres?host={}&port={}&user=postgres&sslmode=disable",
            self.socket.display(),
            sockets::PORT
        )
    }

    /// Returns PostgreSQL's major version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the folder of the data: the requested one, or its replacement if root requested one that the
    /// server's user cannot reach.
    #[must_use]
    pub fn data_folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether another process owns the server and decides when it stops.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.owned.is_none()
    }

    /// Stops the server, closes its connections, and waits until it is down. Leaves another process's server
    /// alone.
    pub async fn stop(self) -> Result<(), StopError> {
        let Some(mut owned) = self.owned else {
            return Ok(());
        };
        owned.server.let_go();
        match owned.server.ended(Instant::now() + STOP_LIMIT).await {
            Some(_) => Ok(()),
            None => Err(StopError::StillStopping(self.folder)),
        }
    }

    /// Shares the server that another process runs on this folder.
    fn shared(home: &Home, socket: PathBuf) -> Result<Self, StartError> {
        Ok(Self {
            folder: home.folder().to_owned(),
            socket,
            version: home.made_by()?.unwrap_or_default(),
            owned: None,
        })
    }

    /// Starts a server as the holder of the folder's lock.
    async fn own(home: Home, settings: &Settings) -> Result<Self, StartError> {
        let deadline = Instant::now() + START_LIMIT;
        let programs =
            Programs::find(settings, &home).await.inspect_err(|_| home.remove_if_empty())?;
        if let Some(socket) = unowned_server(&home).await {
            return Self::shared(&home, socket);
        }
        let mut litter = Litter::default();
        let exists = home.made_by()?.is_some();
        if settings.durability == Durability::Throwaway {
            if exists {
                return Err(StartError::NotThrowaway(home.folder().to_owned()));
            }
            litter.0.push(home.folder().to_owned());
        }
        if !exists {
            server::make_data(&home, &programs, settings.durability, deadline).await?;
        }
        sockets::remove_abandoned(&home).await;
        let socket = sockets::make(&home)?;
        litter.0.push(socket.clone());
        let server = launch(&home, &programs, &socket, settings.durability, deadline).await?;
        Ok(Self {
            folder: home.folder().to_owned(),
            socket,
            version: programs.major(),
            owned: Some(Owned { server, _litter: litter, _home: home }),
        })
    }
}

/// Returns the socket of a server that has no owner and does not stop: it was started by hand.
async fn unowned_server(home: &Home) -> Option<PathBuf> {
    let patience = Instant::now() + UNOWNED_SERVER_GRACE;
    loop {
        let socket = sockets::answering(&home.data()).await?;
        if Instant::now() > patience {
            return Some(socket);
        }
        sleep(STEP).await;
    }
}

/// Runs the server until it is ready; retries while an earlier one is still stopping.
async fn launch(
    home: &Home,
    programs: &Programs,
    socket: &Path,
    durability: Durability,
    deadline: Instant,
) -> Result<Server, StartError> {
    let data = home.data();
    let patience = Instant::now() + OTHERS_LIMIT;
    // An earlier server may come and go between two polls, so one failure proves nothing.
    let mut disturbed = true;
    loop {
        disturbed |= PidFile::exists(&data);
        let mut server = Server::spawn(home, programs, socket, durability)?;
        match server.ready(&data, socket, deadline).await {
            Ending::Ready => return Ok(server),
            Ending::TooSlow => return Err(StartError::too_slow(home)),
            // The file outlives the attempt if it belongs to another server, or if processes of a killed one
            // still hold its memory.
            Ending::Exited
                if (disturbed || PidFile::exists(&data)) && Instant::now() < patience =>
            {
                disturbed = false;
                sleep(RETRY_STEP).await;
            }
            Ending::Exited => return Err(StartError::exited(home)),
        }
    }
}

/// Folders that are removed with their owner.
///
/// The shell beside the server removes them too. This is for the cases that it cannot handle: a failed start,
/// and a folder whose parent belongs to root.
#[derive(Debug, Default)]
struct Litter(Vec<PathBuf>);

impl Drop for Litter {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Usually it is gone already, and a failure has no recipient.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
