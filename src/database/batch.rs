//! Batched queries: concurrent calls of one query become one statement and one commit.
//!
//! There is no timer. A lone query runs at once. Queries that arrive while a statement is in flight wait for it
//! and then run as one statement; but they do not wait for a statement that hangs, and a locked row delays only
//! its own caller. Each caller gets its own answer, after its own commit.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::{Conn, Fault, Pool, span};
use crate::common::spans;

/// How many callers one statement serves: a larger one would save little and take longer.
const MAX_BATCH: usize = 64;
/// How long the next statement waits for the one in flight: longer than a healthy one takes.
const STALLED: Duration = Duration::from_millis(100);
/// How many statements of one query are in flight at most.
const MAX_IN_FLIGHT: usize = 4;
/// How many queries of a failed statement are retried individually at once.
const MAX_INDIVIDUAL: usize = 4;
/// The pause before a query whose row is locked is retried.
const CONTENDED_PAUSE: Duration = Duration::from_millis(50);
/// How many such retries run at once: each can hold a connection for the whole `lock_timeout`.
const MAX_CONTENDED: usize = 2;
/// How long a caller waits in all, as a factor of the statement timeout: 8 s at the default of 5 s.
const PATIENCE_FACTOR: f32 = 1.6;
/// How long a query whose row is locked is retried, as such a factor: 4 s.
const CONTENDED_FACTOR: f32 = 0.8;

/// A query that many callers can share.
pub trait BatchQuery: Send + Sync + Sized + 'static {
    /// The name of its statement, as the statement itself begins with it.
    const NAME: &'static str;

    /// The answer to one caller.
    type Output: Send + 'static;

    /// Runs `queries` in one statement; returns one output for each, in their order.
    ///
    /// # Errors
    /// Returns the database's error. Unless it is an outage, the batch then runs each query individually, so that
    /// one bad row fails only its own caller.
    fn run(
        conn: &mut Conn,
        queries: &[Self],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Output>>> + Send;
}

/// The batch of one kind of query. Clones are the same batch.
pub struct Batch<Q: BatchQuery>(Arc<Inner<Q>>);

struct Inner<Q: BatchQuery> {
    pool: Pool,
    runtime: tokio::runtime::Handle,
    queue: OnceLock<mpsc::UnboundedSender<Call<Q>>>,
}

struct Call<Q: BatchQuery> {
    query: Q,
    answer: oneshot::Sender<sqlx::Result<Q::Output>>,
    /// The caller's, which the batch follows; from a retry on, the batch's.
    span: Span,
}

impl<Q: BatchQuery> Batch<Q> {
    /// Creates a batch over a pool. Its task runs in the current runtime and starts with the first query.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self(Arc::new(Inner {
            pool: pool.clone(),
            runtime: tokio::runtime::Handle::current(),
            queue: OnceLock::new(),
        }))
    }

    /// Runs one query, in one statement with all that are waiting.
    ///
    /// # Errors
    /// Returns the database's error, or [`sqlx::Error::PoolTimedOut`] if no answer came in time. After an outage
    /// the query may have been committed.
    pub async fn run(&self, query: Q) -> sqlx::Result<Q::Output> {
        let (answer, answered) = oneshot::channel();
        let span = span::of_batched_query(Q::NAME);
        let queue = self.0.queue.get_or_init(|| self.start());
        let call = Call { query, answer, span: span.clone() };
        queue.send(call).map_err(|_| sqlx::Error::WorkerCrashed)?;
        let patience = self.0.pool.timeout().mul_f32(PATIENCE_FACTOR);
        match tokio::time::timeout(patience, answered).instrument(span).await {
            Ok(answered) => answered.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    fn start(&self) -> mpsc::UnboundedSender<Call<Q>> {
        let (queue, waiting) = mpsc::unbounded_channel();
        // The task holds the pool, not the batch, so it ends when the last clone of the batch is dropped.
        let shared = Shared { pool: self.0.pool.clone(), contended: Semaphore::new(MAX_CONTENDED) };
        self.0.runtime.spawn(serve(Arc::new(shared), waiting));
        queue
    }
}

impl<Q: BatchQuery> Clone for Batch<Q> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q: BatchQuery> std::fmt::Debug for Batch<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

/// What the statements of one batch share.
struct Shared {
    pool: Pool,
    contended: Semaphore,
}

async fn serve<Q: BatchQuery>(shared: Arc<Shared>, mut waiting: mpsc::UnboundedReceiver<Call<Q>>) {
    let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut calls = Vec::new();
    while waiting.recv_many(&mut calls, MAX_BATCH).await > 0 {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let (calls, shared) = (std::mem::take(&mut calls), Arc::clone(&shared));
        let (done, finished) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // A panic fails only this statement's callers; the panic hook has logged it.
            let span = span::of_batch(Q::NAME, calls.len());
            spans::link(&span, calls.iter().map(|call| &call.span));
            let answered = answer(&shared, calls).instrument(span);
            let _ = AssertUnwindSafe(answered).catch_unwind().await;
            drop((permit, done));
        });
        let _ = tokio::time::timeout(STALLED, finished).await;
    }
}

async fn answer<Q: BatchQuery>(shared: &Arc<Shared>, calls: Vec<Call<Q>>) {
    // Skip callers that have gone.
    let calls = calls.into_iter().filter(|call| !call.answer.is_closed());
    let (queries, answers): (Vec<_>, Vec<_>) =
        calls.map(|Call { query, answer, .. }| (query, answer)).unzip();
    if queries.is_empty() {
        return;
    }
    match run_all(&shared.pool, &queries).await {
        Ok(outputs) => {
            for (answer, output) in answers.into_iter().zip(outputs) {
                let _ = answer.send(Ok(output));
            }
        }
        // Retrying individually during an outage would only take longer.
        Err(error) if Fault::of(&error) == Fault::Outage => {
            for answer in answers {
                let _ = answer.send(Err(copy_outage(&error)));
            }
        }
        Err(_) => {
            let calls = queries.into_iter().zip(answers);
            let retries = calls.map(|(query, answer)| {
                individually(shared, Call { query, answer, span: Span::current() })
            });
            stream::iter(retries).for_each_concurrent(MAX_INDIVIDUAL, |retry| retry).await;
        }
    }
}

async fn run_all<Q: BatchQuery>(pool: &Pool, queries: &[Q]) -> sqlx::Result<Vec<Q::Output>> {
    Q::run(&mut pool.acquire().await?, queries).await
}

async fn run_one<Q: BatchQuery>(pool: &Pool, query: &Q) -> sqlx::Result<Q::Output> {
    let outputs = run_all(pool, std::slice::from_ref(query)).await?;
    outputs
        .into_iter()
        .next()
        .ok_or_else(|| sqlx::Error::Protocol("a batched query without an output".into()))
}

async fn individually<Q: BatchQuery>(shared: &Arc<Shared>, call: Call<Q>) {
    match run_one(&shared.pool, &call.query).await {
        Err(error) if Fault::of(&error) == Fault::Contention => {
            // Leaves the batch, which goes on without it.
            let span = call.span.clone();
            tokio::spawn(retry_contended(Arc::clone(shared), call, error).instrument(span));
        }
        outcome => {
            let _ = call.answer.send(outcome);
        }
    }
}

/// Retries a query whose row is locked until it succeeds, fails otherwise, or its caller's time is over.
async fn retry_contended<Q: BatchQuery>(
    shared: Arc<Shared>,
    mut call: Call<Q>,
    first: sqlx::Error,
) {
    let until = Instant::now() + shared.pool.timeout().mul_f32(CONTENDED_FACTOR);
    let mut outcome = Err(first);
    while Instant::now() < until {
        tokio::select! {
            () = tokio::time::sleep(CONTENDED_PAUSE) => {}
            // The caller has gone, and nothing was written.
            () = call.answer.closed() => return,
        }
        let Ok(_permit) = shared.contended.acquire().await else { break };
        outcome = run_one(&shared.pool, &call.query).await;
        let again = matches!(&outcome, Err(error) if Fault::of(error) == Fault::Contention);
        if !again {
            break;
        }
    }
    let _ = call.answer.send(outcome);
}

/// Copies an outage for one more caller: sqlx's errors are not `Clone`.
fn copy_outage(error: &sqlx::Error) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(error.to_string()))
}
