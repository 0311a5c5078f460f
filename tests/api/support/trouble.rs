//! What befalls the database for a moment, to be thrown into a random load.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Cut, Proxy, TestDatabase};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every connection is reset, and new ones are.
    Reset,
    /// The connections that are open go silent, with whatever locks they hold. New ones work.
    Silence,
    /// The same, and new ones are taken and never answered.
    HalfOpen,
    /// Answers come late.
    Late,
    /// Sessions end, and new ones take no writes, as after a failover to a server that follows another one.
    ReadOnly,
    /// Somebody else holds a lock on one connection's row.
    LockedConnection,
    /// On one user's.
    LockedUser,
    /// On one app's.
    LockedApp,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Reset,
        Self::Silence,
        Self::HalfOpen,
        Self::Late,
        Self::ReadOnly,
        Self::LockedConnection,
        Self::LockedUser,
        Self::LockedApp,
    ];

    /// Befalls the database, or the ways to it through `proxies`, for `moment`. Locks meet the `nth` row.
    pub async fn strike(
        self,
        database: &TestDatabase,
        proxies: &[Arc<Proxy>],
        nth: usize,
        moment: Duration,
    ) {
        let cut = |cut| proxies.iter().for_each(|proxy| proxy.cut(cut));
        match self {
            Self::Reset => cut(Cut::Now),
            Self::Silence => cut(Cut::Silence),
            Self::HalfOpen => cut(Cut::HalfOpen),
            Self::Late => cut(Cut::Delay(Duration::from_millis(40))),
            Self::ReadOnly => read_only(database, true).await,
            Self::LockedConnection => return lock(database, "connections", nth, moment).await,
            Self::LockedUser => return lock(database, "users", nth, moment).await,
            Self::LockedApp => return lock(database, "apps", nth, moment).await,
        }
        tokio::time::sleep(moment).await;
        cut(Cut::Never);
        if self == Self::ReadOnly {
            read_only(database, false).await;
        }
    }
}

/// Sessions that are opened meanwhile stay read-only; the test's own never are.
async fn read_only(database: &TestDatabase, on: bool) {
    let name = database.value("SELECT current_database()").await;
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&database.pool).await.unwrap();
    if on {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'strongroom'";
        database.execute(end).await;
    }
}

async fn lock(database: &TestDatabase, table: &str, nth: usize, moment: Duration) {
    let mut locked = database.pool.begin().await.unwrap();
    let sql = format!(
        "SET LOCAL lock_timeout = '2s';
         SELECT FROM {table} WHERE id = (
             SELECT id FROM {table} ORDER BY id
             OFFSET {nth} % (SELECT greatest(count(*), 1) FROM {table}) LIMIT 1)
         FOR UPDATE"
    );
    // Whoever is silent may hold it for longer than that.
    if sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *locked).await.is_ok() {
        tokio::time::sleep(moment).await;
    }
    let _ = locked.rollback().await;
}
