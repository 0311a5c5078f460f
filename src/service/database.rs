//! PostgreSQL at the start: reaching it, migrating it, and the errors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, PgConnection};

use crate::apps::AppError;
use crate::config::DatabaseConfig;
use crate::database::{Conn, Pools, Refusal, is_outage, more_hopeful};
use crate::oauth::clients::ClientError;
use crate::vault::VaultError;

/// The variable with the service's own URL.
const SERVICE: &str = "DATABASE_URL";
/// The variable with the schema owner's.
const OWNER: &str = "STRONGROOM_MIGRATE_DATABASE_URL";

/// How long a start waits for a database that is not reachable yet.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached.
    #[error(
        "PostgreSQL cannot be reached at {at}: {cause}\n\
         DATABASE_URL names it. To try Strongroom without a database of your own: strongroom dev"
    )]
    Unreachable {
        /// The hosts, ports and database name that were tried.
        at: String,
        /// The error of the last attempt.
        cause: sqlx::Error,
    },
    /// PostgreSQL will not accept a connection until somebody changes something.
    #[error(
        "PostgreSQL at {at} accepts no connection by {name}: {cause}\n{advice}",
        advice = refusal.advice()
    )]
    Refused {
        /// The variable that holds the URL.
        name: &'static str,
        /// The hosts and ports that were tried.
        at: String,
        /// What has to be changed.
        refusal: Refusal,
        /// The error of the attempt.
        cause: sqlx::Error,
    },
    /// Migrations are pending and this process may not apply them.
    #[error(
        "the database lacks {0} migrations; run `strongroom migrate`, or set STRONGROOM_MIGRATE=true"
    )]
    NotMigrated(usize),
    /// A migration failed.
    #[error("the migrations could not be applied: {0}")]
    Migration(#[from] MigrateError),
    /// The vault cannot be opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The app `default` could not be set up.
    #[error(transparent)]
    App(#[from] AppError),
    /// The bootstrap client could not be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up, perhaps for want of root certificates: {0}")]
    Tls(reqwest::Error),
    /// A listener could not be opened.
    #[error("{name}={address} cannot be listened on: {cause}")]
    Listen {
        /// The variable's name.
        name: &'static str,
        /// The address that it holds.
        address: SocketAddr,
        /// The operating system's error.
        cause: std::io::Error,
    },
    /// The operating system refused something else.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StartError {
    /// Classifies why no connection could be opened by the URL in the variable `name`.
    fn unconnected(name: &'static str, at: String, cause: sqlx::Error) -> Self {
        match Refusal::of(&cause) {
            Some(refusal) => Self::Refused { name, at, refusal, cause },
            None => Self::Unreachable { at, cause },
        }
    }
}

impl From<sqlx::Error> for StartError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// The database, which has been reached.
#[derive(Debug)]
pub struct Database {
    pools: Arc<Pools>,
    location: String,
}

impl Database {
    /// Reaches the database, waiting briefly for one that is starting. Does not look at its migrations.
    pub async fn reach(config: &DatabaseConfig) -> Result<Self, StartError> {
        let (pools, location) = (Pools::new(config), config.service.location());
        let until = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            let Err(cause) = pools.connect().await else { return Ok(Self { pools, location }) };
            let passes = is_outage(&cause) && Refusal::of(&cause).is_none();
            if !passes || tokio::time::Instant::now() > until {
                return Err(StartError::unconnected(SERVICE, location, cause));
            }
            tracing::warn!(%cause, "waiting for PostgreSQL");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Opens a connection outside of the pools.
    pub async fn connect(&self) -> Result<Conn, StartError> {
        let connected = self.pools.connect().await;
        connected.map_err(|cause| StartError::unconnected(SERVICE, self.location.clone(), cause))
    }

    /// The pools of this process.
    #[must_use]
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }
}

/// Connects to the first host that accepts writes, as the owner if one is configured: only there can migrations be applied.
pub(super) async fn connect_as_owner(config: &DatabaseConfig) -> Result<PgConnection, StartError> {
    let own = config.owner.as_ref().map(|url| (OWNER, url));
    let (name, url) = own.unwrap_or((SERVICE, &config.service));
    let mut failed = None;
    for host in url.hosts() {
        let connect = async {
            let mut conn = PgConnection::connect_with(host).await?;
            let standby = sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()");
            let standby = standby.fetch_one(&mut conn).await?;
            Ok((conn, standby))
        };
        match tokio::time::timeout(START_TIMEOUT, connect).await {
            Ok(Ok((conn, standby))) if !standby || url.hosts().len() == 1 => return Ok(conn),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => failed = Some(more_hopeful(failed, error)),
        }
    }
    let cause = failed.unwrap_or(sqlx::Error::PoolTimedOut);
    Err(StartError::unconnected(name, url.location(), cause))
}
