//! Queries over many rows that operators ask: on connections of their own, one at a time for each app, and
//! none for long, so that whatever is asked keeps nothing from other callers.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Problem, ProblemCode};
use crate::base::ids::AppId;
use crate::database::{Conn, Pool};

/// How long a query waits for the one before it: what takes less is not turned away.
const BRIEFLY: Duration = Duration::from_millis(250);
/// How long the next piece of an answer that has begun waits.
const NEXT_PIECE: Duration = Duration::from_secs(30);

/// Where operators' queries run. Clones are the same.
#[derive(Clone, Debug)]
pub struct Operators {
    pool: Pool,
    places: Arc<Mutex<HashMap<AppId, Arc<Semaphore>>>>,
}

/// A connection for one query; the next one of the app waits until it is dropped.
#[derive(Debug)]
pub struct OperatorQuery {
    conn: Conn,
    _place: OwnedSemaphorePermit,
}

impl Deref for OperatorQuery {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for OperatorQuery {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

impl Operators {
    /// Over this pool, whose statements are short.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, places: Arc::default() }
    }

    /// A connection for a query of this app.
    ///
    /// # Errors
    /// `too_many_requests` if another query of the app is under way in this replica; the database's.
    pub async fn begin(&self, app: AppId) -> Result<OperatorQuery, Problem> {
        self.after(app, BRIEFLY).await
    }

    /// The same for the next piece of an answer that has begun, which cannot be turned away any more.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), after half a minute.
    pub async fn go_on(&self, app: AppId) -> Result<OperatorQuery, Problem> {
        self.after(app, NEXT_PIECE).await
    }

    async fn after(&self, app: AppId, wait: Duration) -> Result<OperatorQuery, Problem> {
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(app).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let place = tokio::time::timeout(wait, places.acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            let detail =
                "Another query of this app over many rows is under way; one runs at a time.";
            return Err(Problem::new(ProblemCode::TooManyRequests, detail).retry_after(2));
        };
        Ok(OperatorQuery { conn: self.pool.acquire().await?, _place: place })
    }
}

/// What a caller hears of a query that failed: if it took too long, how to make it shorter.
#[must_use]
pub fn told(error: sqlx::Error) -> Problem {
    // query_canceled
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let cancelled = code.is_some_and(|code| code == "57014");
    if !cancelled {
        return error.into();
    }
    let detail = "The query looks at more rows than can be read in time; narrow it down.";
    Problem::new(ProblemCode::Unavailable, detail).retry_after(5)
}
