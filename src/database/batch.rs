//! Batched queries: concurrent calls of one query become one statement and one commit.
//!
//! There is no timer. A lone query runs at once. Queries that arrive while a statement is in flight wait for it
//! and then run as one statement; but they do not wait for a statement that hangs, and a locked row delays only
//! its own caller. Each caller gets its own answer, after its own commit.
//!
//! A batch is of all threads of a replica, and its statement runs in the thread of its first caller, on a connection
//! of that thread: a lone caller's statement wakes no other thread, and nothing that outlives a thread depends on it.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
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
pub struct Batch<Q: BatchQuery> {
    queue: Arc<Queue<Q>>,
    pool: Pool,
    /// Where statements run; each caller's own runtime if there is none.
    runtime: Option<Handle>,
}

/// A runtime, and a pool whose connections belong to it.
#[derive(Clone, Debug)]
struct Place {
    pool: Pool,
    runtime: Handle,
}

struct Call<Q: BatchQuery> {
    query: Q,
    answer: oneshot::Sender<sqlx::Result<Q::Output>>,
    /// Where the statement runs if this is the first of its calls.
    place: Place,
    /// The caller's, which the batch follows.
    span: Span,
}

impl<Q: BatchQuery> Batch<Q> {
    /// Creates a batch over a pool. Its statements run in the current runtime.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self { queue: Arc::default(), pool: pool.clone(), runtime: Some(Handle::current()) }
    }

    /// Returns the same batch for the callers of one thread: a statement whose first caller is one of them runs in
    /// that thread, on a connection of `pool`, which only that thread uses.
    #[must_use]
    pub fn of_thread(&self, pool: &Pool) -> Self {
        Self { queue: Arc::clone(&self.queue), pool: pool.clone(), runtime: None }
    }

    /// Runs one query, in one statement with all that are waiting.
    ///
    /// # Errors
    /// Returns the database's error, or [`sqlx::Error::PoolTimedOut`] if no answer came in time. After an outage
    /// the query may have been committed.
    pub async fn run(&self, query: Q) -> sqlx::Result<Q::Output> {
        let (answer, answered) = oneshot::channel();
        let span = span::of_batched_query(Q::NAME);
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let place = Place { pool: self.pool.clone(), runtime };
        let patience = self.pool.timeout().mul_f32(PATIENCE_FACTOR);
        self.queue.push(Call { query, answer, place, span: span.clone() });
        match tokio::time::timeout(patience, answered).instrument(span).await {
            Ok(answered) => answered.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }
}

impl<Q: BatchQuery> Clone for Batch<Q> {
    fn clone(&self) -> Self {
        let Self { queue, pool, runtime } = self;
        Self { queue: Arc::clone(queue), pool: pool.clone(), runtime: runtime.clone() }
    }
}

impl<Q: BatchQuery> std::fmt::Debug for Batch<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

/// The calls that wait, and what decides when the next statement begins.
struct Queue<Q: BatchQuery> {
    state: Mutex<State<Q>>,
    contended: Semaphore,
}

struct State<Q: BatchQuery> {
    waiting: VecDeque<Call<Q>>,
    /// A statement is being planned: nothing else is, in any thread.
    planning: bool,
    /// How many statements are in flight.
    in_flight: usize,
    /// The latest statement, while the next one waits for it.
    awaited: Option<Awaited>,
    started: u64,
}

#[derive(Clone, Copy)]
struct Awaited {
    number: u64,
    since: Instant,
    /// A task will let the next statement begin if this one stalls.
    is_watched: bool,
}

impl<Q: BatchQuery> Default for Queue<Q> {
    fn default() -> Self {
        let waiting = VecDeque::new();
        let state = State { waiting, planning: false, in_flight: 0, awaited: None, started: 0 };
        Self { state: Mutex::new(state), contended: Semaphore::new(MAX_CONTENDED) }
    }
}

impl<Q: BatchQuery> State<Q> {
    /// Takes the first call of the next statement, if one may begin.
    fn next(&mut self) -> Option<(u64, Call<Q>)> {
        if self.planning || self.awaited.is_some() || self.in_flight == MAX_IN_FLIGHT {
            return None;
        }
        let first = self.waiting.pop_front()?;
        self.planning = true;
        self.started += 1;
        self.in_flight += 1;
        let since = Instant::now();
        self.awaited = Some(Awaited { number: self.started, since, is_watched: false });
        Some((self.started, first))
    }

    /// Takes the other calls of a statement whose first one this is.
    fn with_others(&mut self, first: Call<Q>) -> Vec<Call<Q>> {
        let count = self.waiting.len().min(MAX_BATCH - 1);
        std::iter::once(first).chain(self.waiting.drain(..count)).collect()
    }

    /// Returns the statement that has to be watched, because somebody waits for it now.
    fn unwatched(&mut self) -> Option<Awaited> {
        let awaited = self.awaited.as_mut().filter(|_| !self.waiting.is_empty())?;
        let is_first = !std::mem::replace(&mut awaited.is_watched, true);
        is_first.then_some(*awaited)
    }

    fn await_no_more(&mut self, number: u64) {
        self.awaited = self.awaited.filter(|awaited| awaited.number != number);
    }
}

impl<Q: BatchQuery> Queue<Q> {
    fn state(&self) -> MutexGuard<'_, State<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call, and starts a statement unless it has to wait for another.
    fn push(self: &Arc<Self>, call: Call<Q>) {
        self.state().waiting.push_back(call);
        self.start_next();
    }

    /// Starts the next statement in the runtime of its first call, unless it has to wait.
    fn start_next(self: &Arc<Self>) {
        loop {
            // The guard ends here: a task that is spawned in a runtime that has ended is dropped at once, and comes
            // back to this lock. It plans nothing then: the stack would hold as many statements as calls wait.
            let next = self.state().next();
            let Some((number, first)) = next else { break };
            let Place { pool, runtime } = first.place.clone();
            let statement = InFlight { queue: Arc::clone(self), number };
            runtime.spawn(run_statement(statement, pool, first));
            self.state().planning = false;
        }
        self.watch();
    }

    /// Has the next statement begin if the one in flight stalls. A lone statement needs no timer: one that is
    /// earlier than all others wakes the thread.
    fn watch(self: &Arc<Self>) {
        // First: what is marked as watched has to be.
        let Ok(runtime) = Handle::try_current() else { return };
        let unwatched = self.state().unwatched();
        let Some(Awaited { number, since, .. }) = unwatched else { return };
        let queue = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep_until(since + STALLED).await;
            queue.state().await_no_more(number);
            queue.start_next();
        });
    }
}

/// A statement in flight. Dropping it lets the next one begin.
struct InFlight<Q: BatchQuery> {
    queue: Arc<Queue<Q>>,
    number: u64,
}

impl<Q: BatchQuery> Drop for InFlight<Q> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.in_flight -= 1;
        state.await_no_more(self.number);
        drop(state);
        self.queue.start_next();
    }
}

async fn run_statement<Q: BatchQuery>(statement: InFlight<Q>, pool: Pool, first: Call<Q>) {
    // Only now, behind what was ready to run when the first call came: callers who are answered together ask the next
    // thing together, and the first of them would have a statement of its own.
    let calls = statement.queue.state().with_others(first);
    let span = span::of_batch(Q::NAME, calls.len());
    spans::link(&span, calls.iter().map(|call| &call.span));
    let shared = Shared { pool, queue: Arc::clone(&statement.queue) };
    // A panic fails only this statement's callers; the panic hook has logged it.
    let answered = AssertUnwindSafe(answer(&shared, calls).instrument(span)).catch_unwind();
    let _ = answered.await;
    drop(statement);
}

/// What a statement and the retries of its queries work with.
struct Shared<Q: BatchQuery> {
    pool: Pool,
    queue: Arc<Queue<Q>>,
}

impl<Q: BatchQuery> Clone for Shared<Q> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), queue: Arc::clone(&self.queue) }
    }
}

async fn answer<Q: BatchQuery>(shared: &Shared<Q>, calls: Vec<Call<Q>>) {
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
            let retries =
                calls.map(|(query, answer)| individually(shared, Retry { query, answer }));
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

/// A query of a failed statement, to be retried individually.
struct Retry<Q: BatchQuery> {
    query: Q,
    answer: oneshot::Sender<sqlx::Result<Q::Output>>,
}

async fn individually<Q: BatchQuery>(shared: &Shared<Q>, call: Retry<Q>) {
    match run_one(&shared.pool, &call.query).await {
        Err(error) if Fault::of(&error) == Fault::Contention => {
            // Leaves the batch, which goes on without it.
            tokio::spawn(retry_contended(shared.clone(), call, error).in_current_span());
        }
        outcome => {
            let _ = call.answer.send(outcome);
        }
    }
}

/// Retries a query whose row is locked until it succeeds, fails otherwise, or its caller's time is over.
async fn retry_contended<Q: BatchQuery>(shared: Shared<Q>, mut call: Retry<Q>, first: sqlx::Error) {
    let until = Instant::now() + shared.pool.timeout().mul_f32(CONTENDED_FACTOR);
    let mut outcome = Err(first);
    while Instant::now() < until {
        tokio::select! {
            () = tokio::time::sleep(CONTENDED_PAUSE) => {}
            // The caller has gone, and nothing was written.
            () = call.answer.closed() => return,
        }
        let Ok(_permit) = shared.queue.contended.acquire().await else { break };
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
