//! Pools of connections, and how the connections of one replica are shared out among them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, PoolError};

use super::connector::{Connector, silent};
use super::{Conn, Health, Transaction};
use crate::config::DatabaseConfig;

/// How many connections go to what the whole process depends on.
const CONTROL_SHARE: u32 = 2;

/// How long an operator's statement may take.
const OPERATORS_LIMIT: Duration = Duration::from_secs(3);

/// A pool of connections. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    connections: managed::Pool<Connector>,
    /// How long a caller waits for a connection: in the queue, and for one to be opened.
    wait: Duration,
}

impl Pool {
    /// A pool of up to `size` connections. None is opened before it is needed.
    fn new(connector: Connector, size: u32, wait: Duration) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        // Neither a runtime nor time limits of its own, for want of which alone building can fail.
        let connections = managed::Pool::builder(connector).max_size(size);
        #[expect(clippy::expect_used, reason = "fails only for time limits without a runtime")]
        let connections = connections.build().expect("a pool without time limits");
        Self { connections, wait }
    }

    /// A connection, as soon as there is one.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] if none is free in time; why none could be opened.
    pub async fn acquire(&self) -> sqlx::Result<Conn> {
        match tokio::time::timeout(self.wait, self.connections.get()).await {
            Ok(Ok(object)) => Ok(Conn::pooled(object)),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// A transaction on a connection of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and the database's.
    pub async fn begin(&self) -> sqlx::Result<Transaction<'static>> {
        let conn = self.acquire().await?;
        Transaction::begin(super::transaction::Handle::Owned(Box::new(conn))).await
    }

    /// How long an ordinary statement may take.
    pub(super) fn timeout(&self) -> Duration {
        self.connections.manager().timeout()
    }

    /// Lets nobody have a connection any more.
    pub fn close(&self) {
        self.connections.close();
    }

    /// How many connections are open, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size, status.available)
    }
}

/// The pools of one replica. What one of them is busy with keeps nothing from the others.
#[derive(Debug)]
pub struct Pools {
    connector: Connector,
    wait: Duration,
    connections: u32,
    made: Mutex<Vec<Pool>>,
}

impl Pools {
    /// Shares out the connections that `config` allows.
    #[must_use]
    pub fn new(config: &DatabaseConfig) -> Arc<Self> {
        let connector = Connector::new(&config.service, config.timeout, Health::default());
        Arc::new(Self {
            connector,
            // With the statement's own deadline, the answer comes within ten seconds at the default.
            wait: config.timeout.mul_f32(0.7),
            connections: config.connections,
            made: Mutex::default(),
        })
    }

    /// One connection, outside of the pools.
    ///
    /// # Errors
    /// Why none could be opened.
    pub async fn connect(&self) -> sqlx::Result<Conn> {
        let opened = tokio::time::timeout(self.wait, self.connector.open()).await;
        Ok(Conn::single(opened.unwrap_or_else(|_| Err(silent()))?))
    }

    /// For queries that callers' requests share in batches.
    #[must_use]
    pub fn batches(&self) -> Pool {
        self.pool((self.shared() * 3 / 8).clamp(1, 16))
    }

    /// For the background work.
    #[must_use]
    pub fn background(&self) -> Pool {
        self.pool(self.background_share())
    }

    /// For one of `workers` threads that answer requests.
    #[must_use]
    pub fn worker(&self, workers: usize) -> Pool {
        let workers = u32::try_from(workers).unwrap_or(1).max(1);
        let batches = (self.shared() * 3 / 8).clamp(1, 16);
        let rest = self.shared().saturating_sub(batches + self.background_share());
        self.pool((rest / workers).max(1))
    }

    /// For what operators ask over many rows. A statement gets three seconds at most: a longer one would take
    /// the machine's time from everybody else.
    #[must_use]
    pub fn operators(&self) -> Pool {
        let connector = self.connector.clone().with_timeout(OPERATORS_LIMIT);
        self.keep(Pool::new(connector, self.operators_share(), self.wait))
    }

    /// For what the whole process depends on, the question whether the database takes writes and the refresh of
    /// clients and keys. Its statements are small and get two seconds at most.
    #[must_use]
    pub fn control(&self) -> Pool {
        let connector = self.connector.clone().with_timeout(Duration::from_secs(2));
        self.keep(Pool::new(connector, CONTROL_SHARE, Duration::from_secs(2).min(self.wait)))
    }

    fn background_share(&self) -> u32 {
        (self.shared() / 4).clamp(2, 8)
    }

    fn operators_share(&self) -> u32 {
        if self.connections < 16 { 1 } else { 2 }
    }

    /// What is left of all connections for the ordinary work.
    fn shared(&self) -> u32 {
        self.connections.saturating_sub(self.operators_share() + CONTROL_SHARE).max(1)
    }

    fn pool(&self, size: u32) -> Pool {
        self.keep(Pool::new(self.connector.clone(), size, self.wait))
    }

    fn keep(&self, pool: Pool) -> Pool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        pool
    }

    /// How many connections are open in all pools, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().map(Pool::size).fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    /// Lets nobody have a connection of any pool any more.
    pub fn close(&self) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().for_each(Pool::close);
    }
}
