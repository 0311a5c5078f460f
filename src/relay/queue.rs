//! Waiting for a token's turn, in the order of arrival, whichever replica the callers are at.
//!
//! The queue itself is in PostgreSQL. In each process only the first in line asks whether its turn has
//! come: when it hears of a call that ended here, and a few times a second for those that end elsewhere.
//! The others sleep. No connection is held while anybody waits, and who goes away leaves only a place.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::base::ids::ConnectionId;
use crate::connections;
use crate::connections::model::{Attention, Status};
use crate::connections::{ConnectionError, token_lease};
use crate::dapi::{Busy, Lane};
use crate::relay::Context;
use crate::relay::call::{Outcome, Request, Running};

/// How many callers wait for one token at most.
pub(super) const MOST: i64 = 32;
/// How often the first in line asks, for calls that end in another replica.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long a call waits for a place at the gate before Dapi.
pub(super) const GATE_PATIENCE: Duration = Duration::from_secs(5);
/// How often the first in line says that all in line are still there.
const STILL_HERE: Duration = Duration::from_secs(3);

/// What comes of a call that has begun.
pub(super) type Begun = oneshot::Receiver<Outcome>;

/// Why there was no turn.
#[derive(Debug)]
pub(super) enum LeaseError {
    /// There is no such connection.
    Unknown,
    /// It is not active.
    NotActive(Status),
    /// Its user has to link the login again.
    NeedsAttention(Attention),
    /// As many wait already as may.
    Full,
    /// The time that a caller waits was over before its turn came.
    TooLong,
    /// No call may be made to Dapi now.
    Gate(Busy),
    /// This replica is about to end.
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

/// Begins a call as soon as it is its turn.
pub(super) async fn begin(context: &Context, request: &Arc<Request>) -> Result<Begun, LeaseError> {
    let arrived = Instant::now();
    let begun = begin_in_turn(context, request, arrived).await;
    match &begun {
        Ok(_) => context.metrics.waited(arrived.elapsed()),
        Err(none) => none.why().into_iter().for_each(|why| context.metrics.turned_away(why)),
    }
    begun
}

async fn begin_in_turn(
    context: &Context,
    request: &Arc<Request>,
    arrived: Instant,
) -> Result<Begun, LeaseError> {
    let deadline = arrived + context.connections.dapi.settings().call_timeout;
    match attempt(&context.connections, request, None, deadline).await? {
        Attempt::Begun(begun) => return Ok(begun),
        Attempt::Busy(_) if context.connections.dapi.gate().is_closed() => {
            return Err(LeaseError::Draining);
        }
        Attempt::Busy(busy) => return Err(LeaseError::Gate(busy)),
        Attempt::NotYet => check_active(context, request).await?,
    }
    loop {
        let id = request.request.id;
        let number = token_lease::join_queue(&context.connections, id, MOST).await?;
        let place = Place::enter(context, id, number.ok_or(LeaseError::Full)?);
        // A place is lost where this process slept for so long that it was given up for dead.
        if let Some(begun) = wait(context, request, place, deadline).await? {
            return Ok(begun);
        }
    }
}

async fn check_active(context: &Context, request: &Request) -> Result<(), LeaseError> {
    let request = &request.request;
    match token_lease::standing(&context.connections, request.app, request.id).await? {
        None => Err(LeaseError::Unknown),
        Some((Status::Active, None)) => Ok(()),
        Some((Status::Active, Some(attention))) => Err(LeaseError::NeedsAttention(attention)),
        Some((status, _)) => Err(LeaseError::NotActive(status)),
    }
}

/// Waits at a place until its turn comes; `None` where the place is lost.
async fn wait(
    context: &Context,
    request: &Arc<Request>,
    mut place: Place,
    deadline: Instant,
) -> Result<Option<Begun>, LeaseError> {
    let subscription = context.connections.changes.subscribe(request.request.id);
    let mut heard_of = Instant::now();
    loop {
        // Before looking, so that what happens between the two is not missed.
        let news = subscription.changed();
        if place.is_first() {
            if heard_of.elapsed() >= STILL_HERE {
                let id = request.request.id;
                let there =
                    token_lease::stay_in_queue(&context.connections, id, &place.in_line()).await?;
                heard_of = Instant::now();
                if !there.contains(&place.number) {
                    return Ok(None);
                }
            }
            match attempt(&context.connections, request, Some(place.number), deadline).await? {
                Attempt::Begun(begun) => {
                    place.taken = true;
                    return Ok(Some(begun));
                }
                // Dapi asks for a longer pause than is left.
                Attempt::Busy(busy)
                    if busy.held && Instant::now() + busy.retry_after > deadline =>
                {
                    return Err(LeaseError::Gate(busy));
                }
                Attempt::Busy(_) | Attempt::NotYet => {}
            }
            check_active(context, request).await?;
        }
        if context.connections.dapi.gate().is_closed() {
            return Err(LeaseError::Draining);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LeaseError::TooLong);
        }
        place.pause(news, left).await;
    }
}

enum Attempt {
    Begun(Begun),
    NotYet,
    Busy(Busy),
}

/// Takes the turn if it is free and begins the call, both in one task: whoever goes away in between
/// leaves no turn behind that nobody uses.
async fn attempt(
    context: &connections::Context,
    request: &Arc<Request>,
    place: Option<i64>,
    deadline: Instant,
) -> Result<Attempt, ConnectionError> {
    let patience = GATE_PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
    let permit = match context.dapi.gate().enter(request.request.app, Lane::Call, patience).await {
        Ok(permit) => permit,
        Err(busy) => return Ok(Attempt::Busy(busy)),
    };
    let (tell, told) = oneshot::channel();
    let (context, request) = (context.clone(), Arc::clone(request));
    let tasks = context.tasks.clone();
    let attempt = async move {
        let started = Instant::now();
        let turn = match token_lease::take(&context, &request.request, place).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return drop(tell.send(Ok(Attempt::NotYet))),
            Err(error) => return drop(tell.send(Err(error))),
        };
        let (caller, begun) = oneshot::channel();
        // Whoever has gone by now is too late: the call has begun.
        let _ = tell.send(Ok(Attempt::Begun(begun)));
        Running { context, request, turn, permit, started, caller }.run().await;
    };
    tasks.spawn(tracing::Instrument::in_current_span(attempt));
    told.await.unwrap_or_else(|_| Err(ConnectionError::Database(sqlx::Error::WorkerCrashed)))
}

type Lines = Arc<Mutex<HashMap<ConnectionId, BTreeMap<i64, Arc<Notify>>>>>;

/// Who waits in this process, by connection and place. Clones are the same line.
#[derive(Clone, Debug, Default)]
pub struct Line(Lines);

/// A place in the line; given up when dropped.
struct Place {
    context: Context,
    id: ConnectionId,
    number: i64,
    /// Told when it becomes the first.
    first: Arc<Notify>,
    /// Its turn has come, and the place went with that.
    taken: bool,
}

impl Place {
    fn enter(context: &Context, id: ConnectionId, number: i64) -> Self {
        let first = Arc::new(Notify::new());
        let mut lines = context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(id).or_default().insert(number, Arc::clone(&first));
        context.metrics.waiting.inc();
        Self { context: context.clone(), id, number, first, taken: false }
    }

    fn in_line(&self) -> Vec<i64> {
        let lines = self.context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(&self.id).map(|line| line.keys().copied().collect()).unwrap_or_default()
    }

    fn is_first(&self) -> bool {
        let lines = self.context.line.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = lines.get(&self.id).and_then(|line| line.keys().next());
        first == Some(&self.number)
    }

    /// Until it is worth looking again: at once when something happened to the connection or this place
    /// became the first, and after a while in any case. Those behind look rarely.
    async fn pause(&self, news: impl Future<Output = ()>, left: Duration) {
        if !self.is_first() {
            // Whether it was the line or the time makes no difference.
            let _ = tokio::time::timeout(left.min(STILL_HERE), self.first.notified()).await;
            return;
        }
        let _ = tokio::time::timeout(left.min(ASK_AGAIN), news).await;
    }
}

impl Drop for Place {
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
        // Without a runtime the process is ending, and the place ends by itself.
        if !self.taken && tokio::runtime::Handle::try_current().is_ok() {
            let (context, id, number) = (self.context.connections.clone(), self.id, self.number);
            self.context.connections.tasks.spawn(async move {
                if let Err(error) = token_lease::leave_queue(&context, id, number).await {
                    tracing::debug!(cause = %error, "a place in the queue ends by itself");
                }
            });
        }
    }
}
