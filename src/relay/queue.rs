//! Waiting for a token's lease, in the order of arrival across replicas.
//!
//! The queue is in PostgreSQL. In each process, only the first waiting caller of a token tries to acquire the lease:
//! when a call on the connection ends in this process, and every [`POLL_INTERVAL`] for calls that end in another replica.
//! The others sleep. A waiting caller holds no database connection, and one that disconnects leaves nothing but its
//! position.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::common::ids::ConnectionId;
use crate::connections;
use crate::connections::model::{Attention, Status};
use crate::connections::token_lease::CallRequest;
use crate::connections::{ConnectionError, token_lease};
use crate::providers::{Busy, Lane};
use crate::relay::Context;
use crate::relay::call::{Outcome, Request, Running};

/// Callers that may wait for one token, across replicas.
const MAX_WAITING: i64 = 32;
/// Interval at which the first waiting caller tries again, for calls that end in another replica.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Time that a call waits for a permit of the gate.
pub(super) const GATE_PATIENCE: Duration = Duration::from_secs(5);
/// Interval at which the first waiting caller renews the positions of all callers in this process. Well below the time
/// after which a position counts as abandoned.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);

/// Receives the outcome of a call that has begun.
pub(super) type Begun = oneshot::Receiver<Outcome>;

/// Why no lease was acquired.
#[derive(Debug)]
pub(super) enum LeaseError {
    /// The app has no such connection, or it is another provider's.
    Unknown,
    NotActive(Status),
    /// The user has to link the bank login again.
    NeedsAttention(Attention),
    /// [`MAX_WAITING`] callers wait already.
    Full,
    /// The deadline passed before the lease was free.
    TooLong,
    /// The gate allows no call to the provider now.
    Gate(Busy),
    /// This replica is shutting down.
    Draining,
    /// The database or the vault.
    Failed(ConnectionError),
}

impl<E: Into<ConnectionError>> From<E> for LeaseError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl LeaseError {
    /// Returns the label of the metric `relay_turned_away`; `None` for what is not the queue's doing.
    const fn why(&self) -> Option<&'static str> {
        match self {
            Self::NotActive(_) => Some("not_active"),
            Self::NeedsAttention(_) => Some("needs_attention"),
            Self::Full => Some("queue_full"),
            Self::TooLong => Some("waited_too_long"),
            Self::Gate(_) => Some("gate"),
            Self::Unknown | Self::Draining | Self::Failed(_) => None,
        }
    }
}

/// Waits for the token's lease and begins the call. Counts the wait.
pub(super) async fn begin(context: &Context, request: &Arc<Request>) -> Result<Begun, LeaseError> {
    let arrived = Instant::now();
    let begun = begin_in_order(context, request, arrived).await;
    match &begun {
        Ok(_) => context.metrics.waited(arrived.elapsed()),
        Err(error) => error.why().into_iter().for_each(|why| context.metrics.turned_away(why)),
    }
    begun
}

/// Tries without a position first: as a rule the token is free and the queue empty.
async fn begin_in_order(
    context: &Context,
    request: &Arc<Request>,
    arrived: Instant,
) -> Result<Begun, LeaseError> {
    let deadline =
        arrived + context.connections.providers.settings(request.call.provider).call_timeout;
    match attempt(&context.connections, request, None, deadline).await? {
        Attempt::Begun(begun) => return Ok(begun),
        Attempt::Busy(_) if context.connections.providers.gate().is_closed() => {
            return Err(LeaseError::Draining);
        }
        Attempt::Busy(busy) => return Err(LeaseError::Gate(busy)),
        Attempt::NotYet => check_active(context, request).await?,
    }
    loop {
        let id = request.call.id;
        let number = token_lease::join_queue(&context.connections, id, MAX_WAITING).await?;
        let position = Position::enter(context, id, number.ok_or(LeaseError::Full)?);
        // The position is lost if this process was suspended for so long that it counted as abandoned.
        if let Some(begun) = wait(context, request, position, deadline).await? {
            return Ok(begun);
        }
    }
}

async fn check_active(context: &Context, request: &Request) -> Result<(), LeaseError> {
    let request = &request.call;
    let CallRequest { app, id, provider, .. } = *request;
    match token_lease::status_of(&context.connections, app, id, provider).await? {
        None => Err(LeaseError::Unknown),
        Some((Status::Active, _)) if request.despite_attention => Ok(()),
        Some((Status::Active, None)) => Ok(()),
        Some((Status::Active, Some(attention))) => Err(LeaseError::NeedsAttention(attention)),
        Some((status, _)) => Err(LeaseError::NotActive(status)),
    }
}

/// Waits at a position until the lease is acquired. Returns `None` if the position is lost.
async fn wait(
    context: &Context,
    request: &Arc<Request>,
    mut position: Position,
    deadline: Instant,
) -> Result<Option<Begun>, LeaseError> {
    let subscription = context.connections.changes.subscribe(request.call.id);
    let mut renewed_at = Instant::now();
    loop {
        // Before the attempt, so that a change between the two is not missed.
        let change = subscription.changed();
        if position.is_first() {
            if renewed_at.elapsed() >= RENEW_INTERVAL {
                let (id, local) = (request.call.id, position.all_local());
                let alive = token_lease::stay_in_queue(&context.connections, id, &local).await?;
                renewed_at = Instant::now();
                if !alive.contains(&position.number) {
                    return Ok(None);
                }
            }
            match attempt(&context.connections, request, Some(position.number), deadline).await? {
                Attempt::Begun(begun) => {
                    position.used = true;
                    return Ok(Some(begun));
                }
                // The provider's `Retry-After` ends behind the deadline.
                Attempt::Busy(busy)
                    if busy.held && Instant::now() + busy.retry_after > deadline =>
                {
                    return Err(LeaseError::Gate(busy));
                }
                Attempt::Busy(_) | Attempt::NotYet => {}
            }
            check_active(context, request).await?;
        }
        if context.connections.providers.gate().is_closed() {
            return Err(LeaseError::Draining);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LeaseError::TooLong);
        }
        position.sleep(change, left).await;
    }
}

enum Attempt {
    Begun(Begun),
    /// The lease is not free, or another caller comes first.
    NotYet,
    /// No permit of the gate.
    Busy(Busy),
}

/// Acquires the lease if it is free and begins the call, both in one task: a caller that disconnects between the two
/// leaves no unused lease behind. The permit of the gate comes first, so that no lease waits for one.
async fn attempt(
    context: &connections::Context,
    request: &Arc<Request>,
    position: Option<i64>,
    deadline: Instant,
) -> Result<Attempt, ConnectionError> {
    let patience = GATE_PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
    let permit = match context.providers.gate().enter(request.call.app, Lane::Call, patience).await
    {
        Ok(permit) => permit,
        Err(busy) => return Ok(Attempt::Busy(busy)),
    };
    let (sender, receiver) = oneshot::channel();
    let (context, request) = (context.clone(), Arc::clone(request));
    let tasks = context.tasks.clone();
    let attempt = async move {
        let started = Instant::now();
        let lease = match token_lease::acquire(&context, &request.call, position).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return drop(sender.send(Ok(Attempt::NotYet))),
            Err(error) => return drop(sender.send(Err(error))),
        };
        let (caller, begun) = oneshot::channel();
        // The call is on record as begun and is made even if its caller has disconnected.
        let _ = sender.send(Ok(Attempt::Begun(begun)));
        Running { context, request, lease, permit, started, caller }.run().await;
    };
    tasks.spawn(tracing::Instrument::in_current_span(attempt));
    receiver.await.unwrap_or_else(|_| Err(ConnectionError::Database(sqlx::Error::WorkerCrashed)))
}

/// Per connection, the positions of this process and what wakes each.
type Lines = Arc<Mutex<HashMap<ConnectionId, BTreeMap<i64, Arc<Notify>>>>>;

/// The callers that wait in this process, by connection and position. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Line(Lines);

/// A position in a token's queue. Dropping it deletes it from the queue.
struct Position {
    context: Context,
    id: ConnectionId,
    number: i64,
    /// Notified when this becomes the first position of the process.
    first: Arc<Notify>,
    /// The lease was acquired with it, which has deleted its row.
    used: bool,
}

impl Position {
    fn enter(context: &Context, id: ConnectionId, number: i64) -> Self {
        let first = Arc::new(Notify::new());
        let mut lines = context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(id).or_default().insert(number, Arc::clone(&first));
        context.metrics.waiting.inc();
        Self { context: context.clone(), id, number, first, used: false }
    }

    /// Returns the positions of all callers of this token in this process.
    fn all_local(&self) -> Vec<i64> {
        let lines = self.context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(&self.id).map(|line| line.keys().copied().collect()).unwrap_or_default()
    }

    fn is_first(&self) -> bool {
        let lines = self.context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = lines.get(&self.id).and_then(|line| line.keys().next());
        first == Some(&self.number)
    }

    /// Sleeps until the next attempt is worthwhile: the first position until a change of the connection or the poll
    /// interval, any other until it becomes the first. At most for `left`.
    async fn sleep(&self, change: impl Future<Output = ()>, left: Duration) {
        if !self.is_first() {
            let _ = tokio::time::timeout(left.min(RENEW_INTERVAL), self.first.notified()).await;
            return;
        }
        let _ = tokio::time::timeout(left.min(POLL_INTERVAL), change).await;
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.context.metrics.waiting.dec();
        let mut lines = self.context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&self.id) {
            line.remove(&self.number);
            match line.values().next() {
                Some(next) => next.notify_one(),
                None => drop(lines.remove(&self.id)),
            }
        }
        drop(lines);
        // Without a runtime the process is ending, and the position expires by itself.
        if !self.used && tokio::runtime::Handle::try_current().is_ok() {
            let (context, id, number) = (self.context.connections.clone(), self.id, self.number);
            self.context.connections.tasks.spawn(async move {
                if let Err(error) = token_lease::leave_queue(&context, id, number).await {
                    tracing::debug!(cause = %error, "a position in the queue could not be deleted, it expires by itself");
                }
            });
        }
    }
}
