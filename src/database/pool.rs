//! Connection pools, and how they share the connections of one replica.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, PoolError};

use super::connector::{Connector, silent};
use super::{Conn, Health, Transaction};
use crate::config::DatabaseConfig;

/// How many connections are reserved for what the whole process depends on.
const CONTROL_SHARE: u32 = 2;

/// The statement timeout of operators' queries.
const OPERATORS_LIMIT: Duration = Duration::from_secs(3);

/// A pool of connections. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    connections: managed::Pool<Connector>,
    /// How long a caller waits for a connection: in the queue, and while one is opened.
    wait: Duration,
}

impl Pool {
    /// Creates a pool of up to `size` connections, none of them opened yet.
    fn new(connector: Connector, size: u32, wait: Duration) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        // `build` fails only for a pool with timeouts and no runtime; this one has neither.
        let connections = managed::Pool::builder(connector).max_size(size);
        #[expect(clippy::expect_used, reason = "fails only for time limits without a runtime")]
        let connections = connections.build().expect("a pool without time limits");
        Self { connections, wait }
    }

    /// Acquires a connection.
    ///
    /// # Errors
    /// Returns [`sqlx::Error::PoolTimedOut`] if none is free in time, or why none could be opened.
    pub async fn acquire(&self) -> sqlx::Result<Conn> {
        match tokio::time::timeout(self.wait, self.connections.get()).await {
            Ok(Ok(object)) => Ok(Conn::pooled(object)),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Acquires a connection and begins a transaction on it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and the database's.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static>> {
        let conn = self.acquire().await?;
        Transaction::begin(super::transaction::Handle::Owned(Box::new(conn))).await
    }

    /// Returns the ordinary statement timeout.
    pub(super) fn timeout(&self) -> Duration {
        self.connections.manager().timeout()
    }

    /// Closes the pool: no connection can be acquired any more.
    pub fn close(&self) {
        self.connections.close();
    }

    /// Returns how many connections are open, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size, status.available)
    }
}

/// The pools of one replica. Separate pools, so that load on one does not starve the others.
#[derive(Debug)]
pub struct Pools {
    connector: Connector,
    wait: Duration,
    connections: u32,
    console: u32,
    handed_out: Mutex<Vec<Pool>>,
}

impl Pools {
    /// Divides the connections that `config` allows among the pools.
    #[must_use]
    pub fn new(config: &DatabaseConfig) -> Arc<Self> {
        let connector = Connector::new(&config.service, config.timeout, Health::default());
        Arc::new(Self {
            connector,
            // Together with the statement's own deadline, callers get an answer within ten seconds by default.
            wait: config.timeout.mul_f32(0.7),
            connections: config.connections,
            console: config.console,
            handed_out: Mutex::default(),
        })
    }

    /// Opens one connection outside of the pools.
    ///
    /// # Errors
    /// Returns why none could be opened.
    pub async fn connect(&self) -> sqlx::Result<Conn> {
        let opened = tokio::time::timeout(self.wait, self.connector.open()).await;
        Ok(Conn::single(opened.unwrap_or_else(|_| Err(silent()))?))
    }

    /// Creates the pool for the batched queries of whatever runs in no thread that serves requests.
    #[must_use]
    pub fn batches(&self) -> Pool {
        self.batch_pool(self.own_batches_share())
    }

    /// Creates the pool for the batched queries of one of `workers` threads that serve requests; none if there are
    /// not enough connections for each to have one, and [`batches`](Self::batches) serves them all.
    #[must_use]
    pub fn worker_batches(&self, workers: usize) -> Option<Pool> {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let share = self.batches_share().saturating_sub(self.own_batches_share()) / workers;
        (share > 0).then(|| self.batch_pool(share))
    }

    /// Creates the pool for the background work.
    #[must_use]
    pub fn background(&self) -> Pool {
        self.pool(self.connector.clone(), self.background_share())
    }

    /// Creates the pool for one of `workers` threads that serve requests.
    #[must_use]
    pub fn worker(&self, workers: usize) -> Pool {
        let workers = u32::try_from(workers).unwrap_or(1).max(1);
        let rest = self.shared().saturating_sub(self.batches_share() + self.background_share());
        self.pool(self.connector.clone(), (rest / workers).max(1))
    }

    /// Creates the pool for operators' queries over many rows. The statement timeout is three seconds: a longer
    /// query would slow down everybody else.
    #[must_use]
    pub fn operators(&self) -> Pool {
        let connector = self.connector.clone().with_timeout(OPERATORS_LIMIT);
        self.pool(connector, self.operators_share())
    }

    /// Creates the pool of the console's pages, with the time limit of operators' queries.
    #[must_use]
    pub fn console(&self) -> Pool {
        let connector = self.connector.clone().with_timeout(OPERATORS_LIMIT);
        self.pool(connector, self.console)
    }

    /// Creates the pool for what the whole process depends on: the readiness check's write, and the refresh of
    /// clients and keys. Statements are small and get two seconds at most.
    #[must_use]
    pub fn control(&self) -> Pool {
        let connector = self.connector.clone().with_timeout(Duration::from_secs(2));
        self.register(Pool::new(connector, CONTROL_SHARE, Duration::from_secs(2).min(self.wait)))
    }

    fn batches_share(&self) -> u32 {
        (self.shared() * 3 / 8).clamp(1, 16)
    }

    /// The part of [`batches_share`](Self::batches_share) that is for no thread that serves requests.
    fn own_batches_share(&self) -> u32 {
        (self.batches_share() / 4).max(1)
    }

    fn background_share(&self) -> u32 {
        (self.shared() / 4).clamp(2, 8)
    }

    fn operators_share(&self) -> u32 {
        if self.connections < 16 { 1 } else { 2 }
    }

    /// Returns how many connections are left for the ordinary work.
    fn shared(&self) -> u32 {
        let others = self.operators_share() + CONTROL_SHARE + self.console;
        self.connections.saturating_sub(others).max(1)
    }

    fn pool(&self, connector: Connector, size: u32) -> Pool {
        self.register(Pool::new(connector, size, self.wait))
    }

    fn batch_pool(&self, size: u32) -> Pool {
        self.pool(self.connector.clone().for_batches(), size)
    }

    fn register(&self, pool: Pool) -> Pool {
        self.handed_out.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        pool
    }

    /// Returns how many connections are open in all pools, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let pools = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().map(Pool::size).fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    /// Closes all pools.
    pub fn close(&self) {
        let pools = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().for_each(Pool::close);
    }
}
