//! Operators' queries over many rows: on a pool of their own, one at a time per app and with a
//! short time limit, so that they delay no other caller.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Problem, ProblemCode};
use crate::common::ids::AppId;
use crate::database::{Conn, Pool};

/// How long a query waits for the app's previous one before it is refused.
const MAX_WAIT: Duration = Duration::from_millis(250);
/// How long the next page of a response that has started waits.
const MAX_WAIT_OF_NEXT_PAGE: Duration = Duration::from_secs(30);

/// The pool of operators' queries. Clones share it.
#[derive(Clone, Debug)]
pub struct Operators {
    pool: Pool,
    semaphores: Arc<Mutex<HashMap<AppId, Arc<Semaphore>>>>,
}

/// A connection for one query; the app's next query waits until it is dropped.
#[derive(Debug)]
pub struct OperatorQuery {
    conn: Conn,
    _permit: OwnedSemaphorePermit,
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
    /// Returns the gate to this pool, whose statements have a short time limit.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, semaphores: Arc::default() }
    }

    /// Acquires a connection for a query of this app.
    ///
    /// # Errors
    /// `too_many_requests` if another query of the app runs in this replica; the database's errors.
    pub async fn begin(&self, app: AppId) -> Result<OperatorQuery, Problem> {
        self.acquire_within(app, MAX_WAIT).await
    }

    /// Acquires a connection for the next page of a response that has started and cannot be refused
    /// any more.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin), after half a minute.
    pub async fn go_on(&self, app: AppId) -> Result<OperatorQuery, Problem> {
        self.acquire_within(app, MAX_WAIT_OF_NEXT_PAGE).await
    }

    async fn acquire_within(&self, app: AppId, wait: Duration) -> Result<OperatorQuery, Problem> {
        let semaphores = {
            let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(semaphores.entry(app).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let permit = tokio::time::timeout(wait, semaphores.acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let detail =
                "Another query of this app over many rows is under way; one runs at a time.";
            return Err(Problem::new(ProblemCode::TooManyRequests, detail).retry_after(2));
        };
        Ok(OperatorQuery { conn: self.pool.acquire().await?, _permit: permit })
    }
}

/// Converts a query's error to a problem; if it took too long (SQLSTATE 57014), the problem says
/// how to shorten it.
#[must_use]
pub fn query_problem(error: sqlx::Error) -> Problem {
    // query_canceled
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let cancelled = code.is_some_and(|code| code == "57014");
    if !cancelled {
        return error.into();
    }
    let detail = "The query looks at more rows than can be read in time; narrow it down.";
    Problem::new(ProblemCode::Unavailable, detail).retry_after(5)
}
