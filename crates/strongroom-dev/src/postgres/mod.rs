//! The newcomer's database: runs the PostgreSQL programs found on the machine, for `strongroom dev`
//! and for the tests.
//!
//! One folder holds a database: `data` is PostgreSQL's own, `log` what the server last said. The
//! server listens on a Unix socket only, in a short folder of its own under `/tmp` that nobody else
//! may enter.
//!
//! Whoever holds the lock of the folder owns the server. The kernel releases that lock however the
//! owner ends, and a small shell beside the server stops it then: not even SIGKILL leaves an orphan.
//! Later starts on the same folder use the owner's server and cannot stop it.
//!
//! PostgreSQL refuses to run as root. Started by root it runs as `postgres`, or else as `nobody`,
//! and only its folders are given to that user.
//!
//! Knows nothing else of this package.

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

/// How long a start may take in all. Recovery after a crash replays the log first.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long a start waits for somebody else's on the same folder to come to something: theirs to be
/// ready, or an earlier server to be gone.
const OTHERS_LIMIT: Duration = Duration::from_secs(30);
/// A server without an owner is as a rule about to stop; after this long it is there to stay.
const UNOWNED_SERVER_GRACE: Duration = Duration::from_secs(2);
/// How long [`LocalPostgres::stop`] waits.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often the state of a starting or stopping server is looked at.
const STEP: Duration = Duration::from_millis(5);
/// How long to wait between two attempts that an earlier server stands in the way of.
const RETRY_STEP: Duration = Duration::from_millis(50);

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed: for `strongroom dev`.
    Durable,
    /// Everything: for tests. Quicker, and the folder is removed when the server ends, however its
    /// owner ended; so give it a folder whose name is never used again. One that holds a database
    /// already is refused.
    Throwaway,
}

/// Which database to run, and with what.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the data live. It is made if need be; one that holds something else is refused.
    pub folder: PathBuf,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// The folder of PostgreSQL's programs (`PG_BIN`); the only one looked into if given.
    pub programs: Option<PathBuf>,
    /// The value of `PATH`, to look for the programs in.
    pub path: Option<OsString>,
}

/// A running PostgreSQL that accepts connections.
///
/// When the owner of the server drops it without [`stop`](Self::stop), the server stops by itself a
/// moment later. It does not depend on the runtime that it was started on, so that tests can keep
/// it in a `static`.
#[derive(Debug)]
pub struct LocalPostgres {
    folder: PathBuf,
    socket: PathBuf,
    version: u32,
    /// `None` where the server belongs to somebody else.
    owned: Option<Owned>,
}

/// What the owner of a server holds, in the order in which it is to be let go.
#[derive(Debug)]
struct Owned {
    server: Server,
    _litter: Litter,
    /// Holds the lock of the folder.
    _home: Home,
}

impl LocalPostgres {
    /// Starts the database in `settings.folder`, made first where there is none, or uses the server
    /// that runs there already.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let home = Home::settle(&settings.folder).await?;
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

    /// How to connect, as the superuser, to the database `postgres`.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(sockets::PORT)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
    }

    /// The same as a URL that `psql` and sqlx understand.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres:///postgres?host={}&port={}&user=postgres&sslmode=disable",
            self.socket.display(),
            sockets::PORT
        )
    }

    /// PostgreSQL's major version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The folder that the data are in: the one asked for, or the one that took its place because
    /// root asked for one that the server's user cannot reach.
    #[must_use]
    pub fn data_folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the server is somebody else's, who started it first and decides when it stops.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.owned.is_none()
    }

    /// Stops the server, cutting off whoever is connected, and waits until it is down. A server
    /// that is somebody else's is left alone.
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

    /// The server that somebody else runs on this folder.
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
        sockets::sweep(&home).await;
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

/// The server that runs although nobody owns it, if it does not go away: somebody started it by hand.
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

/// Runs the server until it is ready; tries again while an earlier one is still stopping.
async fn launch(
    home: &Home,
    programs: &Programs,
    socket: &Path,
    durability: Durability,
    deadline: Instant,
) -> Result<Server, StartError> {
    let data = home.data();
    let patience = Instant::now() + OTHERS_LIMIT;
    // An earlier server may come and go unseen between two looks, so one failure proves nothing.
    let mut disturbed = true;
    loop {
        disturbed |= PidFile::exists(&data);
        let mut server = Server::spawn(home, programs, socket, durability)?;
        match server.ready(&data, socket, deadline).await {
            Ending::Ready => return Ok(server),
            Ending::TooSlow => return Err(StartError::too_slow(home)),
            // The file outlives the attempt where it belongs to another server, or where processes
            // of a killed one still hold its memory.
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
/// The shell beside the server removes them too. This one is for what that shell cannot do: where a
/// start failed, and where the folder's parent is root's.
#[derive(Debug, Default)]
struct Litter(Vec<PathBuf>);

impl Drop for Litter {
    fn drop(&mut self) {
        for folder in &self.0 {
            // As a rule it is gone already, and there is nobody to tell.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
