//! Reaching PostgreSQL: pools, migrations, and what to say when it is not there.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};

use crate::apps::AppError;
use crate::config::{Config, DatabaseConfig, DatabaseUrl};
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
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that nobody used for this long is tried before it is used again; under load none is.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

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
    options: PgConnectOptions,
    connections: u32,
}

impl Database {
    /// Reaches the database, waiting a little for one that is just starting, and applies migrations
    /// where that is this process's business.
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
        let options = config.service.options().log_statements(log::LevelFilter::Debug);
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let cause = match PgConnection::connect_with(&options).await {
                Ok(conn) => {
                    let _ = conn.close().await;
                    return Ok(Self { options, connections: config.connections });
                }
                Err(cause) => cause,
            };
            let worth_waiting = crate::http::problem::is_outage(&cause);
            if !worth_waiting || tokio::time::Instant::now() > until {
                return Err(StartError::Unreachable { at: place(&options), cause });
            }
            tracing::warn!(%cause, "waiting for PostgreSQL");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One connection, outside of the pools.
    pub async fn connect(&self) -> Result<PgConnection, StartError> {
        let conn = PgConnection::connect_with(&self.options).await;
        conn.map_err(|cause| StartError::Unreachable { at: place(&self.options), cause })
    }

    fn background_share(&self) -> u32 {
        (self.connections / 4).clamp(2, 8)
    }

    /// The pool of the background work.
    #[must_use]
    pub fn background_pool(&self) -> PgPool {
        self.pool(self.background_share())
    }

    /// The pool of one of `workers` threads.
    #[must_use]
    pub fn worker_pool(&self, workers: usize) -> PgPool {
        let workers = u32::try_from(workers).unwrap_or(1).max(1);
        let share = self.connections.saturating_sub(self.background_share()) / workers;
        self.pool(share.max(1))
    }

    fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRY_AFTER_IDLE {
                        return Ok(conn.ping().await.is_ok());
                    }
                    Ok(true)
                })
            })
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // Nothing here takes long; what does has gone wrong and must not hold locks.
                    // Every statement has its index. A plan that reads a whole table is right while
                    // the table is small, and then kept while it grows. Compiling a plan pays where
                    // statements run for seconds, and planning anew where the values matter: here
                    // it would take as long as the statement, for every batch of another length.
                    conn.execute(
                        "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                         SET idle_in_transaction_session_timeout = '30s'; \
                         SET enable_seqscan = off; SET enable_hashjoin = off; \
                         SET enable_mergejoin = off; SET jit = off; \
                         SET plan_cache_mode = force_generic_plan",
                    )
                    .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }
}

fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
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

/// Applies pending migrations, as the owner where there is one, and gives the service's role what it
/// needs and nothing that alters the audit trail. Replicas that start together take turns.
pub async fn migrate(config: &DatabaseConfig) -> Result<Migrated, StartError> {
    let options = config.owner.as_ref().unwrap_or(&config.service).options();
    let conn = PgConnection::connect_with(&options).await;
    let mut conn = conn.map_err(|cause| StartError::Unreachable { at: place(&options), cause })?;
    let applied = missing(&mut conn).await?;
    migrator().run(&mut conn).await?;
    let granted = grant(&mut conn, config).await?;
    conn.close().await?;
    Ok(Migrated { applied, granted })
}

/// Grants the service's role what it needs, where the owner has another one.
async fn grant(
    conn: &mut PgConnection,
    config: &DatabaseConfig,
) -> Result<Option<String>, StartError> {
    let service = config.service.options();
    let Some(owner) = config.owner.as_ref().map(DatabaseUrl::options) else { return Ok(None) };
    if owner.get_username() == service.get_username() {
        return Ok(None);
    }
    let role = service.get_username().to_owned();
    sqlx::query!("SELECT strongroom_grant_to_service($1)", role).execute(conn).await?;
    Ok(Some(role))
}

/// How many migrations of this release the database lacks.
async fn missing(conn: &mut PgConnection) -> Result<usize, StartError> {
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
