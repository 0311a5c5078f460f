//! Opens connections at whichever host accepts them, and sets up their sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tokio_util::sync::CancellationToken;

use super::Health;
use super::refusal::more_hopeful;
use crate::config::{DatabaseUrl, SessionAttrs};

/// How long a statement waits for a lock: longer than a migration that got its tables needs for its work.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one of a batch does: short, because a query whose row is locked is retried outside of its batch.
const LOCK_TIMEOUT_OF_BATCHES: Duration = Duration::from_millis(200);
/// A connection that was idle for longer is tested before its next use; under load none is.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
/// The time limit of that test.
const TEST_LIMIT: Duration = Duration::from_secs(1);

/// Opens connections.
#[derive(Clone, Debug)]
pub struct Connector {
    hosts: Arc<[PgConnectOptions]>,
    attrs: SessionAttrs,
    /// The host that accepted the last connection; the next attempt starts there.
    last_good: Arc<AtomicUsize>,
    health: Health,
    timeout: Duration,
    lock_timeout: Duration,
}

/// A connection with its state. Public only because the pool's trait requires it; the module is private.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one connection")]
pub struct Opened {
    pub(super) pg: PgConnection,
    pub(super) generation: CancellationToken,
    pub(super) health: Health,
    /// Must not be used again.
    pub(super) broken: bool,
    /// A statement was sent and its end was not seen.
    pub(super) in_flight: bool,
    /// A transaction was begun and neither committed nor rolled back.
    pub(super) in_transaction: bool,
    /// The [`Transaction`](super::Transaction) was dropped before its end.
    pub(super) abandoned: bool,
    /// The statement timeout: the pool's, or that of some long work.
    pub(super) timeout: Duration,
    pub(super) ordinary_timeout: Duration,
    idle_since: Instant,
}

impl Opened {
    /// Records what an error implies about the connection.
    pub(super) fn note(&mut self, error: &sqlx::Error) {
        self.broken |= self.health.observe(error, &self.generation);
    }

    /// Resets the connection for its next use, within a second.
    ///
    /// # Errors
    /// Fails if the reset does; the connection is then broken.
    pub(super) async fn clean(&mut self) -> sqlx::Result<()> {
        let cleaned = async {
            // Waits for the end of the statement in flight first.
            if self.in_transaction {
                self.pg.execute("ROLLBACK").await?;
            } else if self.in_flight {
                self.pg.ping().await?;
            }
            Ok(())
        };
        let Ok(result) = tokio::time::timeout(TEST_LIMIT, cleaned).await else {
            self.broken = true;
            // A statement whose caller left may be waiting for a lock, or be a long search: that it outlasts
            // the test does not make the other connections suspect.
            if !self.in_flight {
                self.health.distrust(&self.generation);
            }
            return Err(silent());
        };
        match &result {
            Ok(()) => (self.in_transaction, self.abandoned, self.in_flight) = (false, false, false),
            Err(error) => self.note(error),
        }
        result
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.in_flight && !self.in_transaction && !self.broken
    }

    /// Returns whether nothing remains of the last use. Long work may have left its limits behind.
    pub(super) fn is_as_new(&self) -> bool {
        self.is_clean() && self.timeout == self.ordinary_timeout
    }

    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
    }
}

/// Creates the error that callers see when a deadline of ours passes.
pub(super) fn silent() -> sqlx::Error {
    let what = "PostgreSQL did not answer within STRONGROOM_DATABASE_TIMEOUT";
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

impl Connector {
    /// Creates a connector for the hosts of `url` with a statement timeout.
    #[must_use]
    pub fn new(url: &DatabaseUrl, timeout: Duration, health: Health) -> Self {
        let quiet =
            |options: &PgConnectOptions| options.clone().log_statements(log::LevelFilter::Debug);
        Self {
            hosts: url.hosts().iter().map(quiet).collect(),
            attrs: url.session_attrs(),
            last_good: Arc::default(),
            health,
            timeout,
            lock_timeout: LOCK_TIMEOUT,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Lowers the statement timeout to `timeout`; never raises it.
    pub(super) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }

    /// Lowers the lock timeout to what suits batches.
    pub(super) fn for_batches(mut self) -> Self {
        self.lock_timeout = LOCK_TIMEOUT_OF_BATCHES;
        self
    }

    /// Tries the hosts one by one, starting with the one that accepted the last connection.
    ///
    /// # Errors
    /// Returns why a host did not accept it: one that may yet do so, if there is one, or else the last.
    pub(super) async fn open(&self) -> sqlx::Result<Opened> {
        let (count, first) = (self.hosts.len(), self.last_good.load(Ordering::Relaxed));
        let mut failed = None;
        for (at, host) in self.hosts.iter().enumerate().cycle().skip(first).take(count) {
            // Before connecting: a connection that was opened during a silence is suspect afterwards.
            let generation = self.health.generation();
            match self.open_at(host, count).await {
                Ok(pg) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(self.opened(pg, generation));
                }
                Err(error) => failed = Some(more_hopeful(failed, error)),
            }
        }
        Err(failed.unwrap_or(sqlx::Error::PoolTimedOut))
    }

    fn opened(&self, pg: PgConnection, generation: CancellationToken) -> Opened {
        Opened {
            pg,
            generation,
            health: self.health.clone(),
            broken: false,
            in_flight: false,
            in_transaction: false,
            abandoned: false,
            timeout: self.timeout,
            ordinary_timeout: self.timeout,
            idle_since: Instant::now(),
        }
    }

    /// Connects to one host. With several hosts each gets a part of the time, so that the next is still tried.
    async fn open_at(&self, host: &PgConnectOptions, hosts: usize) -> sqlx::Result<PgConnection> {
        let limit = if hosts == 1 { self.timeout } else { self.timeout.mul_f32(0.3) };
        let open = async {
            let mut pg = PgConnection::connect_with(host).await?;
            pg.execute(sqlx::AssertSqlSafe(self.session())).await?;
            check(self.attrs, &mut pg).await?;
            Ok(pg)
        };
        tokio::time::timeout(limit, open).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Returns the session settings that the code relies on, whatever the defaults of database and role are.
    fn session(&self) -> String {
        // Shorter than the client's deadline: a slow server cancels the statement and the connection survives.
        let statement = self.timeout.saturating_sub(Duration::from_millis(500));
        let statement = statement.max(self.timeout / 2).as_millis();
        let lock = self.lock_timeout.as_millis();
        format!(
            // `idle_in_transaction_session_timeout` frees the locks of a client that went silent in a transaction.
            // Sequential scans are off because every statement has its index: a plan that reads a whole table is
            // right while the table is small, and stays cached while it grows. JIT and custom plans pay off for
            // statements that take seconds; here they would cost as much as the statement, for each batch size anew.
            // Parallel workers take milliseconds to start, and a generic plan that has them starts them for every page.
            "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {statement}; \
             SET default_transaction_isolation = 'read committed'; \
             SET default_transaction_deferrable = off; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET jit = off; SET plan_cache_mode = force_generic_plan; \
             SET max_parallel_workers_per_gather = 0; \
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
             SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'"
        )
    }
}

/// Refuses a session that does not satisfy the URL's `target_session_attrs`.
async fn check(attrs: SessionAttrs, pg: &mut PgConnection) -> sqlx::Result<()> {
    let sql = match attrs {
        SessionAttrs::Any => return Ok(()),
        SessionAttrs::Primary => "SELECT NOT pg_is_in_recovery()",
        SessionAttrs::ReadWrite => {
            "SELECT NOT pg_is_in_recovery()
                    AND NOT current_setting('default_transaction_read_only')::boolean"
        }
    };
    if sqlx::query_scalar::<_, bool>(sql).fetch_one(pg).await? {
        return Ok(());
    }
    let what = "the server does not take writes, which target_session_attrs asks for";
    Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, what)))
}

impl Manager for Connector {
    type Type = Opened;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Opened> {
        // Boxed, as the test below: connecting is rare, and its future would be a part of all that acquire a connection.
        Box::pin(self.open()).await
    }

    /// Refuses a broken or suspect connection, and tests one that was idle for a while.
    async fn recycle(&self, opened: &mut Opened, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if !opened.is_clean() || opened.generation.is_cancelled() {
            return Err(RecycleError::message("suspect"));
        }
        if opened.idle_since.elapsed() < TEST_AFTER_IDLE {
            return Ok(());
        }
        // Ends before the caller's patience does: a test that the caller abandons learns nothing, and the next
        // caller would meet the next silent connection.
        let limit = TEST_LIMIT.min(self.timeout.mul_f32(0.3));
        let ping = Box::pin(tokio::time::timeout(limit, opened.pg.ping())).await;
        let answered = ping.unwrap_or_else(|_| Err(silent()));
        answered.map_err(|error| {
            opened.note(&error);
            RecycleError::Backend(error)
        })
    }
}
