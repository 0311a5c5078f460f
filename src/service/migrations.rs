//! Migrations: which are pending, what they lock, and how they are applied beside traffic.
//!
//! A statement that changes a table waits for every transaction that uses it, and whatever comes after it waits behind it.
//! So each migration waits briefly, gives way, and tries again ([ADR 28](../../docs/adr/0028-upgrades.md)).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, Executor, PgConnection, Postgres};
use tokio::time::Instant;

use super::database::{Database, StartError, connect_as_owner};
use crate::config::DatabaseConfig;
use crate::database::Fault;
use crate::vault::VaultError;

/// How long a migration waits for a lock, during which others wait behind it: less than the shortest that they wait for one
/// (`database/connector.rs`), in earlier releases as well.
const GIVE_WAY: &str = "SET lock_timeout = '100ms'";
/// What is built beside traffic (`CREATE INDEX CONCURRENTLY`) makes nobody wait, and must not be broken off.
const BE_PATIENT: &str = "SET lock_timeout = 0";
/// How long traffic has the tables to itself between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the attempts go on.
const PATIENCE: Duration = Duration::from_mins(10);

/// The key of the advisory lock under which migrations are applied.
const MIGRATIONS: i64 = 0x7374_726f_6e67_726d;
/// How often a start asks for that lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// What each migration locks, as `tests/api/migrations.rs` saw it when it was added.
const LOCKS: &str = include_str!("../../migrations/locks.json");

/// The migrations of this release. Ones that a newer release has applied are ignored: it may have
/// run before a replica of this one restarts.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.set_ignore_missing(true);
    // `lock` instead.
    migrator.set_locking(false);
    migrator
}

/// Reaches the database, waiting briefly for one that is starting, and applies migrations if the configuration says so.
pub(super) async fn open_database(config: &DatabaseConfig) -> Result<Database, StartError> {
    let database = Database::reach(config).await?;
    if config.migrate {
        migrate(config).await?;
    } else {
        let pending = count_pending(&mut database.connect().await?).await?;
        if pending > 0 {
            return Err(StartError::NotMigrated(pending));
        }
    }
    Ok(database)
}

/// The outcome of [`migrate`].
#[derive(Debug, Serialize)]
pub struct Migrated {
    /// How many migrations were applied.
    pub applied: usize,
    /// The service's role, if it is not the owner and was granted its privileges.
    pub granted: Option<String>,
}

/// Applies pending migrations, as the owner if one is configured, and grants the service's role
/// what it needs and nothing that alters the audit trail. An advisory lock serializes replicas that
/// start together. A statement of a migration has no deadline: this is the only connection without one. Its
/// waits for locks have.
///
/// # Errors
/// The database's errors; contention only after ten minutes of attempts.
pub async fn migrate(config: &DatabaseConfig) -> Result<Migrated, StartError> {
    let until = Instant::now() + PATIENCE;
    let mut applied = 0;
    loop {
        let mut conn = connect_as_owner(config).await?;
        let attempt = attempt(&mut conn, config, until, &mut applied).await;
        match attempt {
            Ok(granted) => {
                conn.close().await?;
                return Ok(Migrated { applied, granted });
            }
            Err(error) if is_contention(&error) && Instant::now() < until => {
                warn_of_contention(&mut conn, &error).await;
                // Closed before the pause: an advisory lock must not outlast the attempt.
                let _ = conn.close().await;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Applies what is pending, one migration at a time, and grants.
async fn attempt(
    conn: &mut PgConnection,
    config: &DatabaseConfig,
    until: Instant,
    applied: &mut usize,
) -> Result<Option<String>, StartError> {
    conn.execute(GIVE_WAY).await?;
    lock(conn, until).await?;
    let migrator = migrator();
    for migration in pending(&mut *conn, &migrator).await? {
        drop_unfinished_indexes(conn).await?;
        conn.execute(if migration.no_tx { BE_PATIENT } else { GIVE_WAY }).await?;
        migrator.run_to(migration.version, &mut *conn).await?;
        *applied += 1;
        tracing::info!(version = migration.version, name = %migration.description, "migration applied");
    }
    conn.execute(GIVE_WAY).await?;
    // Compares what was applied before with the files of this release.
    migrator.run(&mut *conn).await?;
    let granted = grant(conn, config).await?;
    // For a pooler, which keeps the session.
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(MIGRATIONS).execute(conn).await?;
    Ok(granted)
}

/// Waits until no other process applies migrations, for as long as the session lives. Asks again and again: a session that
/// waits for a lock has a snapshot, for whose end `CREATE INDEX CONCURRENTLY` in the session that holds it would wait.
async fn lock(conn: &mut PgConnection, until: Instant) -> Result<(), StartError> {
    while Instant::now() < until {
        let locked = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)");
        if locked.bind(MIGRATIONS).fetch_one(&mut *conn).await? {
            return Ok(());
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    // The last attempt, which ends with PostgreSQL's error.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATIONS).execute(conn).await?;
    Ok(())
}

/// Drops the indexes that a process left when it died while it built them beside traffic: PostgreSQL keeps them, invalid,
/// under the name that the next attempt needs. None is under construction while the migrations' lock is held here.
async fn drop_unfinished_indexes(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let unfinished = sqlx::query_scalar!(
        r#"SELECT format('%I.%I', n.nspname, c.relname) AS "name!"
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE NOT i.indisvalid AND n.nspname = current_schema
             AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"#
    )
    .fetch_all(&mut *conn)
    .await?;
    for name in unfinished {
        tracing::warn!(index = name, "dropping an index whose construction was broken off");
        conn.execute(AssertSqlSafe(format!("DROP INDEX IF EXISTS {name}"))).await?;
    }
    Ok(())
}

fn is_contention(error: &StartError) -> bool {
    match error {
        StartError::Migration(
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _),
        )
        | StartError::Vault(VaultError::Database(cause)) => Fault::of(cause) == Fault::Contention,
        _ => false,
    }
}

/// Logs that a migration gave way, and to what: usually a transaction that somebody forgot.
async fn warn_of_contention(conn: &mut PgConnection, error: &StartError) {
    let oldest = sqlx::query!(
        r#"SELECT pid AS "pid!", application_name AS "application!",
                  extract(epoch FROM now() - xact_start)::float8 AS "seconds!"
           FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
           ORDER BY xact_start LIMIT 1"#
    )
    .fetch_optional(conn)
    .await;
    let oldest = oldest.ok().flatten();
    tracing::warn!(
        cause = %error,
        oldest_transaction_pid = oldest.as_ref().map(|it| it.pid),
        oldest_transaction_of = oldest.as_ref().map(|it| it.application.as_str()),
        oldest_transaction_seconds = oldest.as_ref().map(|it| it.seconds),
        "a migration gave way to others and is tried again"
    );
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

/// Returns the migrations of this release that the database lacks, in order.
async fn pending<'c>(
    conn: impl Executor<'c, Database = Postgres>,
    migrator: &Migrator,
) -> Result<Vec<Migration>, sqlx::Error> {
    let applied = sqlx::query_scalar::<_, i64>(
        "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(conn)
    .await;
    let applied = match applied {
        Ok(applied) => applied,
        // 42P01, undefined_table: no migration was ever applied.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(migrator.iter().filter(|it| !applied.contains(&it.version)).cloned().collect())
}

/// Returns how many migrations of this release the database lacks.
async fn count_pending<'c>(
    conn: impl Executor<'c, Database = Postgres>,
) -> Result<usize, StartError> {
    Ok(pending(conn, &migrator()).await?.len())
}

/// What a migration does with a lock on a table that was there before.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The catalogue alone: a moment, however large the table is.
    Catalogue,
    /// Rows are read, or changed.
    Scan,
    /// An index is built.
    Index,
    /// The table is written anew, with its indexes.
    Rewrite,
}

impl Work {
    /// Bytes of the table a second, on a small machine whose disk is slow: rather too few than too many.
    const fn bytes_a_second(self) -> Option<i64> {
        const MIB: i64 = 1024 * 1024;
        match self {
            Self::Catalogue => None,
            Self::Scan => Some(100 * MIB),
            Self::Index => Some(30 * MIB),
            Self::Rewrite => Some(15 * MIB),
        }
    }
}

/// A lock that a migration takes.
#[derive(Debug, Deserialize, Serialize)]
pub struct Lock {
    /// The table, by the name that it has before the migration.
    pub table: String,
    /// PostgreSQL's name of the strongest lock on it, `ACCESS EXCLUSIVE` for instance.
    pub lock: String,
    /// What is done while it is held.
    pub work: Work,
}

/// A pending migration.
#[derive(Debug, Serialize)]
pub struct Pending {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// The locks that it takes on tables that there are.
    pub locks: Vec<Expected>,
}

/// A lock and what it costs on this database.
#[derive(Debug, Serialize)]
pub struct Expected {
    /// The lock.
    #[serde(flatten)]
    pub lock: Lock,
    /// What waits meanwhile: `everything`, `writes`, or `nothing`.
    pub blocks: &'static str,
    /// The size of the table, in bytes, without its indexes.
    pub bytes: i64,
    /// How long it may take, in seconds: an estimate from the size.
    pub seconds: i64,
}

/// Returns the pending migrations and what they lock, without applying or locking anything.
///
/// # Errors
/// The database's errors.
pub async fn check(config: &DatabaseConfig) -> Result<Vec<Pending>, StartError> {
    let mut conn = connect_as_owner(config).await?;
    let mut locks: BTreeMap<i64, Vec<Lock>> =
        serde_json::from_str(LOCKS).map_err(std::io::Error::other)?;
    let mut found = Vec::new();
    for migration in pending(&mut conn, &migrator()).await? {
        let mut expected = Vec::new();
        for lock in locks.remove(&migration.version).unwrap_or_default() {
            expected.push(expect(&mut conn, lock).await?);
        }
        found.push(Pending {
            version: migration.version,
            name: migration.description.into_owned(),
            locks: expected,
        });
    }
    conn.close().await?;
    Ok(found)
}

/// Estimates what a lock costs here. A table that an earlier pending migration adds is empty.
async fn expect(conn: &mut PgConnection, lock: Lock) -> Result<Expected, sqlx::Error> {
    let bytes = sqlx::query_scalar!(
        r#"-- As of the last analysis; the size itself could only be asked for behind a lock.
           SELECT coalesce(max(relpages::int8 * current_setting('block_size')::int8), 0) AS "bytes!"
           FROM pg_class WHERE oid = to_regclass(quote_ident($1))"#,
        lock.table
    )
    .fetch_one(conn)
    .await?;
    let seconds = lock.work.bytes_a_second().map_or(0, |rate| bytes / rate);
    let blocks = match lock.lock.as_str() {
        "ACCESS EXCLUSIVE" => "everything",
        "EXCLUSIVE" | "SHARE ROW EXCLUSIVE" | "SHARE" => "writes",
        _ => "nothing",
    };
    Ok(Expected { lock, blocks, bytes, seconds })
}
