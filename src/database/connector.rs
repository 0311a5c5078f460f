//! Opening connections, at whichever host takes them, and setting up their sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Fault, Health};
use crate::config::{DatabaseUrl, SessionAttrs};

/// How long an ordinary statement waits for a lock: what is locked goes alone, and delays nobody else.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that was idle for longer is tried before it is used again; under load none is.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);
/// How long that trial may take.
const TRIAL: Duration = Duration::from_secs(1);

/// Opens connections.
#[derive(Clone, Debug)]
pub struct Connector {
    hosts: Arc<[PgConnectOptions]>,
    attrs: SessionAttrs,
    /// The host that took the last connection; the next attempt begins there.
    last_good: Arc<AtomicUsize>,
    health: Health,
    timeout: Duration,
}

/// A connection with what is known about it. Public for the pool's sake alone; the module is private.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one connection")]
pub struct Opened {
    pub(super) pg: PgConnection,
    pub(super) generation: CancellationToken,
    pub(super) health: Health,
    /// Not to be used any more.
    pub(super) broken: bool,
    /// A statement was begun and its end was not seen.
    pub(super) in_flight: bool,
    /// A transaction was begun and neither committed nor rolled back.
    pub(super) in_transaction: bool,
    /// Its [`Transaction`](super::Transaction) was dropped before its end.
    pub(super) abandoned: bool,
    /// How long a statement may take: the pool's, or as long as some long work takes.
    pub(super) timeout: Duration,
    pub(super) ordinary_timeout: Duration,
    idle_since: Instant,
}

impl Opened {
    /// Notes what an error says about the connection.
    pub(super) fn note(&mut self, error: &sqlx::Error) {
        self.broken |= super::is_outage(error);
        if Fault::is_contagious(error) {
            self.health.distrust(&self.generation);
        }
    }

    /// Brings the connection to a state in which anybody can use it, within a second.
    ///
    /// # Errors
    /// If that cannot be done; the connection is then broken.
    pub(super) async fn clean(&mut self) -> sqlx::Result<()> {
        let cleaned = async {
            // Waits for the end of what was under way first.
            if self.in_transaction {
                self.pg.execute("ROLLBACK").await?;
            } else if self.in_flight {
                self.pg.ping().await?;
            }
            Ok(())
        };
        let Ok(result) = tokio::time::timeout(TRIAL, cleaned).await else {
            self.broken = true;
            // A statement whose caller left may have been waiting for a lock, or be a long search: that it
            // goes on for longer than the trial says nothing about the other connections.
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

    /// Whether nothing of its last use is left. Long work may have left its limits behind.
    pub(super) fn is_as_new(&self) -> bool {
        self.is_clean() && self.timeout == self.ordinary_timeout
    }

    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
    }
}

/// What a deadline of ours that passed looks like to callers.
pub(super) fn silent() -> sqlx::Error {
    let what = "PostgreSQL did not answer within STRONGROOM_DATABASE_TIMEOUT";
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

impl Connector {
    /// Opens connections to the hosts of `url`, for statements that take up to `timeout`.
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
        }
    }

    /// How long an ordinary statement may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same for statements that take up to `timeout`, or less if that is how long they take already.
    pub(super) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }

    /// Tries the hosts one after the other, beginning with the one that took the last connection.
    ///
    /// # Errors
    /// Why the last host did not take it.
    pub(super) async fn open(&self) -> sqlx::Result<Opened> {
        let (count, first) = (self.hosts.len(), self.last_good.load(Ordering::Relaxed));
        let mut last_error = sqlx::Error::PoolTimedOut;
        for (at, host) in self.hosts.iter().enumerate().cycle().skip(first).take(count) {
            // Before connecting: a connection that is opened during a silence is not trusted after it.
            let generation = self.health.generation();
            match self.open_at(host, count).await {
                Ok(pg) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(self.opened(pg, generation));
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
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

    /// One host of several gets a part of the time, so that the next one is still tried.
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

    /// What the code relies on, whatever the database's or the role's defaults are.
    fn session(&self) -> String {
        // A little before the client's own deadline: a slow server cancels, and the connection survives.
        let statement = self.timeout.saturating_sub(Duration::from_millis(500));
        let statement = statement.max(self.timeout / 2).as_millis();
        let lock = LOCK_TIMEOUT.as_millis();
        format!(
            // A client that went silent in the middle of a transaction must not keep its locks for longer.
            // Every statement has its index. A plan that reads a whole table is right while the table is
            // small, and then kept while it grows. Compiling a plan pays for statements that run for
            // seconds, and planning anew if the values matter: here it would take as long as the
            // statement, for every batch of another length.
            "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {statement}; \
             SET default_transaction_isolation = 'read committed'; \
             SET default_transaction_deferrable = off; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET jit = off; SET plan_cache_mode = force_generic_plan; \
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
             SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'"
        )
    }
}

/// Refuses a session that is not what the URL asks for (libpq's `target_session_attrs`).
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
        self.open().await
    }

    /// Refuses a connection that is broken or suspect, and tries one that was idle for a while.
    async fn recycle(&self, opened: &mut Opened, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if !opened.is_clean() || opened.generation.is_cancelled() {
            return Err(RecycleError::message("suspect"));
        }
        if opened.idle_since.elapsed() < TRY_AFTER_IDLE {
            return Ok(());
        }
        // Over before the caller has waited for long enough: a trial that the caller leaves finds out nothing,
        // and the next caller meets the next silent connection.
        let trial = TRIAL.min(self.timeout.mul_f32(0.3));
        let ping = tokio::time::timeout(trial, opened.pg.ping()).await;
        let answered = ping.unwrap_or_else(|_| Err(silent()));
        answered.map_err(|error| {
            opened.note(&error);
            RecycleError::Backend(error)
        })
    }
}
