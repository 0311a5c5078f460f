//! PostgreSQL at the start: reaching it, migrating it, and the errors.

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

/// The migrations of this release. Ones that a newer release has applied are ignored: it may have
/// run before a replica of this one restarts.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    // `lock_migrations` instead.
    migrator.set_locking(false);
    migrator
}

/// The key of the advisory lock under which migrations are applied.
const MIGRATIONS: i64 = 0x7374_726f_6e67_726d;
/// How often a start asks for that lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

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

impl From<sqlx::Error> for StartError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// The database, reachable and migrated.
#[derive(Debug)]
pub struct Database {
    pools: Arc<Pools>,
    location: String,
}

impl Database {
    /// Reaches the database, waiting briefly for one that is starting, and applies migrations if
    /// the configuration says so.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let database = Self::reach(&config.database).await?;
        if config.database.migrate {
            migrate(&config.database).await?;
        } else {
            let pending = count_pending(&mut database.connect().await?).await?;
            if pending > 0 {
                return Err(StartError::NotMigrated(pending));
            }
        }
        Ok(database)
    }

    /// Reaches the database without checking its migrations.
    pub async fn reach(config: &DatabaseConfig) -> Result<Self, StartError> {
        let (pools, location) = (Pools::new(config), config.service.location());
        let until = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            let Err(cause) = pools.connect().await else { return Ok(Self { pools, location }) };
            if !is_outage(&cause) || tokio::time::Instant::now() > until {
                return Err(StartError::Unreachable { at: location, cause });
            }
            tracing::warn!(%cause, "waiting for PostgreSQL");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Opens a connection outside of the pools.
    pub async fn connect(&self) -> Result<Conn, StartError> {
        let unreachable = |cause| StartError::Unreachable { at: self.location.clone(), cause };
        self.pools.connect().await.map_err(unreachable)
    }

    /// The pools of this process.
    #[must_use]
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }
}

/// The outcome of [`migrate`].
#[derive(Debug, serde::Serialize)]
pub struct Migrated {
    /// How many migrations were applied.
    pub applied: usize,
    /// The service's role, if it is not the owner and was granted its privileges.
    pub granted: Option<String>,
}

/// Applies pending migrations, as the owner if one is configured, and grants the service's role
/// what it needs and nothing that alters the audit trail. An advisory lock serializes replicas that
/// start together. A migration has no time limit: this is the only connection without a deadline.
pub async fn migrate(config: &DatabaseConfig) -> Result<Migrated, StartError> {
    let url = config.owner.as_ref().unwrap_or(&config.service);
    let mut conn = connect_as_owner(url).await?;
    if count_pending(&mut conn).await? > 0 {
        lock_migrations(&mut conn).await?;
    }
    let applied = count_pending(&mut conn).await?;
    migrator().run(&mut conn).await?;
    // At once, for those who wait, and for a pooler that keeps the session. A failure closes it.
    sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut conn).await?;
    let granted = grant(&mut conn, config).await?;
    conn.close().await?;
    Ok(Migrated { applied, granted })
}

/// Waits until no other process applies migrations, for as long as the session lives. Asks again and again: a session that
/// waits for a lock has a snapshot, for whose end `CREATE INDEX CONCURRENTLY` in the session that holds it would wait.
async fn lock_migrations(conn: &mut PgConnection) -> Result<(), StartError> {
    while !sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)")
        .bind(MIGRATIONS)
        .fetch_one(&mut *conn)
        .await?
    {
        tokio::time::sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// Connects to the first host that accepts writes: only there can migrations be applied.
async fn connect_as_owner(url: &DatabaseUrl) -> Result<PgConnection, StartError> {
    let mut cause = sqlx::Error::PoolTimedOut;
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
            Ok(Err(error)) => cause = error,
        }
    }
    Err(StartError::Unreachable { at: url.location(), cause })
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

/// Returns how many migrations of this release the database lacks.
async fn count_pending<'c>(
    conn: impl Executor<'c, Database = Postgres>,
) -> Result<usize, StartError> {
    let applied = sqlx::query_scalar::<_, i64>(
        "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(conn)
    .await;
    let applied = match applied {
        Ok(applied) => applied,
        // 42P01, undefined_table: no migration was ever applied.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(migrator().iter().filter(|migration| !applied.contains(&migration.version)).count())
}
