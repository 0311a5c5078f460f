//! Reaching PostgreSQL: pools, migrations, and what to say when it is not there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, Executor, PgConnection, Postgres};

use crate::apps::AppError;
use crate::config::{Config, DatabaseConfig, DatabaseUrl};
use crate::database::{Conn, Pools, is_outage};
use crate::oauth::clients::ClientError;
use crate::vault::VaultError;

/// The migrations of this release. One that a newer release left behind is no trouble: it may have
/// been here before a replica of this one restarts.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    migrator
}

/// How long a start waits for a database that is not there yet.
const PATIENCE: Duration = Duration::from_secs(15);

/// What keeps the service from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached.
    #[error(
        "PostgreSQL cannot be reached at {at}: {cause}\n\
         DATABASE_URL names it. To try Strongroom without a database of your own: strongroom dev"
    )]
    Unreachable {
        /// Where it was looked for.
        at: String,
        /// What came instead.
        cause: sqlx::Error,
    },
    /// The tables are not what this release needs, and it may not change them.
    #[error(
        "the database lacks {0} migrations; run `strongroom migrate`, or set STRONGROOM_MIGRATE=true"
    )]
    NotMigrated(usize),
    /// A migration failed.
    #[error("the migrations could not be applied: {0}")]
    Migration(#[from] MigrateError),
    /// The vault stays closed.
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
        /// The variable.
        name: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// The operating system refused something else.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<sqlx::Error> for StartError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// The database, reached and migrated.
#[derive(Debug)]
pub struct Database {
    pools: Arc<Pools>,
    place: String,
}

impl Database {
    /// Reaches the database, waiting a little for one that is just starting, and applies migrations if that
    /// is this process's business.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let database = Self::reach(&config.database).await?;
        if config.database.migrate {
            migrate(&config.database).await?;
        } else {
            let missing = missing(&mut database.connect().await?).await?;
            if missing > 0 {
                return Err(StartError::NotMigrated(missing));
            }
        }
        Ok(database)
    }

    /// Reaches the database without looking at its tables.
    pub async fn reach(config: &DatabaseConfig) -> Result<Self, StartError> {
        let (pools, place) = (Pools::new(config), config.service.place());
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Err(cause) = pools.connect().await else { return Ok(Self { pools, place }) };
            if !is_outage(&cause) || tokio::time::Instant::now() > until {
                return Err(StartError::Unreachable { at: place, cause });
            }
            tracing::warn!(%cause, "waiting for PostgreSQL");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One connection, outside of the pools.
    pub async fn connect(&self) -> Result<Conn, StartError> {
        let unreachable = |cause| StartError::Unreachable { at: self.place.clone(), cause };
        self.pools.connect().await.map_err(unreachable)
    }

    /// The pools of this process.
    #[must_use]
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }
}

/// What a migration did.
#[derive(Debug, serde::Serialize)]
pub struct Migrated {
    /// How many migrations were applied.
    pub applied: usize,
    /// The service's role, where it is not the owner's and so was given what it needs.
    pub granted: Option<String>,
}

/// Applies pending migrations, as the owner if there is one, and gives the service's role what it needs and
/// nothing that alters the audit trail. Replicas that start together take turns. A migration takes as long as
/// it takes: this is the one connection without a deadline of ours.
pub async fn migrate(config: &DatabaseConfig) -> Result<Migrated, StartError> {
    let url = config.owner.as_ref().unwrap_or(&config.service);
    let mut conn = connect_as_owner(url).await?;
    let applied = missing(&mut conn).await?;
    migrator().run(&mut conn).await?;
    let granted = grant(&mut conn, config).await?;
    conn.close().await?;
    Ok(Migrated { applied, granted })
}

/// The first host that takes writes: only there can migrations be applied.
async fn connect_as_owner(url: &DatabaseUrl) -> Result<PgConnection, StartError> {
    let mut cause = sqlx::Error::PoolTimedOut;
    for host in url.hosts() {
        let connect = async {
            let mut conn = PgConnection::connect_with(host).await?;
            let standby = sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()");
            let standby = standby.fetch_one(&mut conn).await?;
            Ok((conn, standby))
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(Ok((conn, standby))) if !standby || url.hosts().len() == 1 => return Ok(conn),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => cause = error,
        }
    }
    Err(StartError::Unreachable { at: url.place(), cause })
}

/// Grants the service's role what it needs, if the owner is another one.
async fn grant(
    conn: &mut PgConnection,
    config: &DatabaseConfig,
) -> Result<Option<String>, StartError> {
    let role = config.service.role().to_owned();
    if config.owner.as_ref().is_none_or(|owner| owner.role() == role) {
        return Ok(None);
    }
    sqlx::query!("SELECT strongroom_grant_to_service($1)", role).execute(conn).await?;
    Ok(Some(role))
}

/// How many migrations of this release the database lacks.
async fn missing<'c>(conn: impl Executor<'c, Database = Postgres>) -> Result<usize, StartError> {
    let applied = sqlx::query_scalar::<_, i64>(
        "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(conn)
    .await;
    let applied = match applied {
        Ok(applied) => applied,
        // 42P01: there is no such table, so nothing was ever applied.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(migrator().iter().filter(|migration| !applied.contains(&migration.version)).count())
}
