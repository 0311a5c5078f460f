//! Batched queries: what arrives together is asked, and committed, together.
//!
//! There is no timer. A lone query runs at once. What arrives while it is under way waits for it and then
//! goes as one statement; but it does not wait for a statement that hangs, and one locked row delays nobody
//! but its own caller. Every caller gets an answer of their own, after their own commit.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::{Conn, Fault, Pool};

/// How many callers one statement serves at most: more would not save much, and wait longer.
const MOST: usize = 64;
/// How long the next statement waits for the one under way: longer than a healthy one takes.
const STALLED: Duration = Duration::from_millis(100);
/// How many statements of one kind are under way at most.
const AT_ONCE: usize = 4;
/// How many queries of a statement that failed run by themselves at once.
const ALONE_AT_ONCE: usize = 4;
/// How long a query pauses whose row is locked, before it is tried again.
const CONTENDED_PAUSE: Duration = Duration::from_millis(50);
/// How many such queries run at once: each of them can hold a connection for a lock's whole wait.
const CONTENDED_AT_ONCE: usize = 2;
/// How long a caller waits in all, in parts of a statement's time limit: 8 s at the default of 5 s.
const PATIENCE: f32 = 1.6;
/// How long a query is tried again whose row is locked: 4 s.
const CONTENDED: f32 = 0.8;

/// A query that many callers can share.
pub trait BatchQuery: Send + Sync + Sized + 'static {
    /// What each caller gets.
    type Output: Send + 'static;

    /// Runs all of `queries` in one statement; returns an output for each, in their order.
    ///
    /// # Errors
    /// The database's. The queries then run again, each by itself, so that one bad row fails no stranger.
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
}

impl<Q: BatchQuery> Batch<Q> {
    /// Over this pool. The task that serves it runs in the current runtime; the first query starts it.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self(Arc::new(Inner {
            pool: pool.clone(),
            runtime: tokio::runtime::Handle::current(),
            queue: OnceLock::new(),
        }))
    }

    /// Runs one query, with whatever else waits.
    ///
    /// # Errors
    /// The database's; [`sqlx::Error::PoolTimedOut`] if there was no answer in time. A query
    /// that fails by an outage may have been carried out.
    pub async fn run(&self, query: Q) -> sqlx::Result<Q::Output> {
        let (answer, answered) = oneshot::channel();
        let queue = self.0.queue.get_or_init(|| self.start());
        queue.send(Call { query, answer }).map_err(|_| sqlx::Error::WorkerCrashed)?;
        let patience = self.0.pool.timeout().mul_f32(PATIENCE);
        match tokio::time::timeout(patience, answered).await {
            Ok(answered) => answered.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    fn start(&self) -> mpsc::UnboundedSender<Call<Q>> {
        let (queue, waiting) = mpsc::unbounded_channel();
        // The pool, not the batch: the task ends when the last clone of the batch is dropped.
        let shared =
            Shared { pool: self.0.pool.clone(), contended: Semaphore::new(CONTENDED_AT_ONCE) };
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
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = Vec::new();
    while waiting.recv_many(&mut calls, MOST).await > 0 {
        let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
        let (calls, shared) = (std::mem::take(&mut calls), Arc::clone(&shared));
        let (done, finished) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // A panic is its own callers' trouble; the panic hook has logged it.
            let _ = AssertUnwindSafe(answer(&shared, calls)).catch_unwind().await;
            drop((permit, done));
        });
        let _ = tokio::time::timeout(STALLED, finished).await;
    }
}

async fn answer<Q: BatchQuery>(shared: &Arc<Shared>, calls: Vec<Call<Q>>) {
    // A caller that has gone meanwhile is not served.
    let calls = calls.into_iter().filter(|call| !call.answer.is_closed());
    let (queries, answers): (Vec<_>, Vec<_>) =
        calls.map(|Call { query, answer }| (query, answer)).unzip();
    if queries.is_empty() {
        return;
    }
    match at_once(&shared.pool, &queries).await {
        Ok(outputs) => {
            for (answer, output) in answers.into_iter().zip(outputs) {
                let _ = answer.send(Ok(output));
            }
        }
        // Asking once for each would only take longer.
        Err(error) if Fault::of(&error) == Fault::Outage => {
            for answer in answers {
                let _ = answer.send(Err(same(&error)));
            }
        }
        Err(_) => {
            let calls = queries.into_iter().zip(answers);
            let alone = calls.map(|(query, answer)| alone(shared, Call { query, answer }));
            stream::iter(alone).for_each_concurrent(ALONE_AT_ONCE, |alone| alone).await;
        }
    }
}

async fn at_once<Q: BatchQuery>(pool: &Pool, queries: &[Q]) -> sqlx::Result<Vec<Q::Output>> {
    Q::run(&mut pool.acquire().await?, queries).await
}

async fn once<Q: BatchQuery>(pool: &Pool, query: &Q) -> sqlx::Result<Q::Output> {
    let outputs = at_once(pool, std::slice::from_ref(query)).await?;
    outputs.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

async fn alone<Q: BatchQuery>(shared: &Arc<Shared>, call: Call<Q>) {
    match once(&shared.pool, &call.query).await {
        Err(error) if Fault::of(&error) == Fault::Contention => {
            // Not part of the batch any more, which goes on.
            tokio::spawn(contended(Arc::clone(shared), call, error));
        }
        outcome => {
            let _ = call.answer.send(outcome);
        }
    }
}

/// Tries a query again whose row is locked, until it is done or its caller's time is over.
async fn contended<Q: BatchQuery>(shared: Arc<Shared>, mut call: Call<Q>, first: sqlx::Error) {
    let until = Instant::now() + shared.pool.timeout().mul_f32(CONTENDED);
    let mut outcome = Err(first);
    while Instant::now() < until {
        tokio::select! {
            () = tokio::time::sleep(CONTENDED_PAUSE) => {}
            // The caller has gone, and the query has not been carried out.
            () = call.answer.closed() => return,
        }
        let Ok(_permit) = shared.contended.acquire().await else { break };
        outcome = once(&shared.pool, &call.query).await;
        let again = matches!(&outcome, Err(error) if Fault::of(error) == Fault::Contention);
        if !again {
            break;
        }
    }
    let _ = call.answer.send(outcome);
}

/// An outage for one more caller: sqlx's errors cannot be cloned.
fn same(error: &sqlx::Error) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(error.to_string()))
}
