//! The gate before Dapi: limits the calls in flight, shares them among apps and kinds of call, and holds one
//! app's calls of one kind while Dapi's `Retry-After` lasts.
//!
//! A slot is taken only when there is work for it. An exchange or a delinking that finds none stays in the
//! database, and the gate wakes the background work when it could use a slot. A data call waits for a few
//! seconds. [`rules`] decides who goes first.

mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use self::rules::{Dispatch, Rules};
use crate::common::ids::AppId;

/// The longest hold of one `Retry-After`: a mistake of Dapi's must not stop an app for long.
const LONGEST_HOLD: Duration = Duration::from_mins(1);
/// How often a waiting caller checks that no slot is reserved for a demand that has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The kinds of calls, in the order of their priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Exchanging a code: first, because its window closes.
    Exchange,
    /// Delinking a token after a revocation.
    Delink,
    /// A call on a connection's behalf.
    Call,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Exchange, Self::Delink, Self::Call];

    const fn index(self) -> usize {
        match self {
            Self::Exchange => 0,
            Self::Delink => 1,
            Self::Call => 2,
        }
    }
}

/// Limits the calls in flight. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the background work when it could use a slot.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    waiting: HashMap<u64, oneshot::Sender<Permit>>,
    next_waiter: u64,
    closed: bool,
}

/// Permission to make one call; dropping it frees the slot.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Shared>,
    app: AppId,
    lane: Lane,
}

/// The error of a caller that got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// When to try again, as far as that is known.
    pub retry_after: Duration,
    /// Whether Dapi asked for the pause; otherwise there was no free slot.
    pub held: bool,
}

impl Busy {
    const FULL: Self = Self { retry_after: Duration::from_secs(1), held: false };
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        self.gate.lock().rules.leave(self.app, self.lane, now);
        self.gate.dispatch();
    }
}

impl Permit {
    /// Holds this app's lane for as long as Dapi's `Retry-After` asks.
    pub(super) fn hold(&self, retry_after: Duration) {
        let mut state = self.gate.lock();
        let until = Instant::now() + retry_after.min(LONGEST_HOLD);
        let turned_away = state.rules.hold(self.app, self.lane, until);
        // Dropping the sender ends the callers' wait.
        for id in turned_away {
            drop(state.waiting.remove(&id));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free slots to the callers that the rules put first.
    fn dispatch(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let Dispatch { granted, background } = state.rules.dispatch(Instant::now());
        let granted = granted.into_iter().map(|(id, app, lane)| {
            let permit = Permit { gate: Arc::clone(self), app, lane };
            (state.waiting.remove(&id), permit)
        });
        let granted: Vec<_> = granted.collect();
        // Dropping the permit of a caller that has gone takes the lock again.
        drop(state);
        for (caller, permit) in granted {
            if let Some(caller) = caller {
                let _ = caller.send(permit);
            }
        }
        if background {
            self.freed.notify_one();
        }
    }
}

/// A waiting caller; dropping it ends the wait.
struct Waiter<'a> {
    gate: &'a Arc<Shared>,
    app: AppId,
    lane: Lane,
    id: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.rules.give_up(self.app, self.lane, self.id);
        let sender = state.waiting.remove(&self.id);
        drop(state);
        drop(sender);
    }
}

impl Gate {
    /// Creates a gate for `at_once` calls in flight.
    #[must_use]
    pub fn new(at_once: u32) -> Self {
        let slots = usize::try_from(at_once).unwrap_or(usize::MAX);
        let state = State {
            rules: Rules::new(slots),
            waiting: HashMap::new(),
            next_waiter: 0,
            closed: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), freed: Notify::new() }))
    }

    fn busy(state: &State, app: AppId, lane: Lane) -> Busy {
        let held = state.rules.held_for(app, lane, Instant::now());
        held.map_or(Busy::FULL, |retry_after| Busy { retry_after, held: true })
    }

    fn permit(&self, app: AppId, lane: Lane) -> Permit {
        Permit { gate: Arc::clone(&self.0), app, lane }
    }

    /// Takes a slot without waiting.
    ///
    /// # Errors
    /// Returns when to try again. The gate records that one more row in the database waits for the background
    /// work, so the caller need not come back.
    pub fn try_enter(&self, app: AppId, lane: Lane) -> Result<Permit, Busy> {
        let (mut state, now) = (self.0.lock(), Instant::now());
        if !state.closed && state.rules.try_enter(app, lane, now) {
            return Ok(self.permit(app, lane));
        }
        state.rules.one_more(app, lane, now);
        Err(Self::busy(&state, app, lane))
    }

    /// Takes a slot, after waiting for up to `patience`.
    ///
    /// # Errors
    /// Returns when to try again; returns at once if this app's lane is held.
    pub async fn enter(&self, app: AppId, lane: Lane, patience: Duration) -> Result<Permit, Busy> {
        let (waiter, mut granted) = {
            let (mut state, now) = (self.0.lock(), Instant::now());
            let busy = Self::busy(&state, app, lane);
            if state.closed || busy.held {
                return Err(busy);
            }
            if state.rules.try_enter(app, lane, now) {
                return Ok(self.permit(app, lane));
            }
            state.next_waiter += 1;
            let (id, (sender, granted)) = (state.next_waiter, oneshot::channel());
            state.waiting.insert(id, sender);
            state.rules.wait(app, lane, id, now);
            (Waiter { gate: &self.0, app, lane, id }, granted)
        };
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left.min(CHECK_INTERVAL), &mut granted).await {
                Ok(Ok(permit)) => return Ok(permit),
                Err(_) if !left.is_zero() => self.0.dispatch(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        drop(waiter);
        // A permit granted in this last moment is returned when the channel is dropped.
        Err(Self::busy(&self.0.lock(), app, lane))
    }

    /// Takes up to `most` slots for rows of one app that the background work is about to claim. Dropping a permit
    /// returns its slot.
    #[must_use]
    pub fn take(&self, app: AppId, lane: Lane, most: usize) -> Vec<Permit> {
        let mut state = self.0.lock();
        let count =
            if state.closed { 0 } else { state.rules.take(app, lane, most, Instant::now()) };
        (0..count).map(|_| self.permit(app, lane)).collect()
    }

    /// Declares how many rows of each app wait in this lane; [`freed`](Self::freed) resolves when one of them could
    /// get a slot. A declaration lasts for a few seconds and has to be repeated.
    pub fn declare(&self, lane: Lane, rows: &HashMap<AppId, usize>) {
        self.0.lock().rules.declare(lane, rows, Instant::now());
    }

    /// Resolves when there is a slot that the background work could use.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// Returns when the first held lane opens again.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.0.lock().rules.first_hold_ends_in(Instant::now())
    }

    /// Closes the gate: the process is shutting down.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    /// Returns whether the gate is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_waits_gets_the_slot_that_becomes_free() {
        let (gate, app) = (Gate::new(1), AppId::new());
        let held = gate.try_enter(app, Lane::Call).unwrap();
        let other = gate.clone();
        let waiting = tokio::spawn(async move {
            other.enter(app, Lane::Call, Duration::from_mins(5)).await.map(drop)
        });
        while gate.0.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(held);
        waiting.await.unwrap().unwrap();
        assert!(gate.try_enter(app, Lane::Call).is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_nothing_behind() {
        let (gate, app) = (Gate::new(1), AppId::new());
        let held = gate.try_enter(app, Lane::Call).unwrap();
        let busy = gate.enter(app, Lane::Call, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(busy, Busy::FULL);
        drop(held);
        assert!(gate.0.lock().waiting.is_empty());
        assert!(gate.try_enter(app, Lane::Call).is_ok());
    }

    #[tokio::test]
    async fn a_hold_is_of_one_app_and_one_kind_of_call_and_never_long() {
        let (gate, app, other) = (Gate::new(8), AppId::new(), AppId::new());
        let permit = gate.try_enter(app, Lane::Call).unwrap();
        permit.hold(Duration::from_hours(2));
        permit.hold(Duration::ZERO);
        let busy = gate.enter(app, Lane::Call, Duration::from_mins(5)).await.unwrap_err();
        assert!(busy.held && busy.retry_after <= LONGEST_HOLD);
        assert!(busy.retry_after > Duration::from_secs(50));
        assert!(gate.opens_in().is_some_and(|wait| wait <= LONGEST_HOLD));
        assert!(gate.take(app, Lane::Call, 1).is_empty());
        assert!(gate.try_enter(app, Lane::Exchange).is_ok());
        assert!(gate.try_enter(app, Lane::Delink).is_ok());
        assert!(gate.try_enter(other, Lane::Call).is_ok());
    }

    #[tokio::test]
    async fn the_background_work_is_woken_for_a_slot_that_it_could_use() {
        let (gate, app) = (Gate::new(1), AppId::new());
        let held = gate.try_enter(app, Lane::Call).unwrap();
        assert!(gate.try_enter(app, Lane::Exchange).is_err());
        drop(held);
        gate.freed().await;
        assert_eq!(gate.take(app, Lane::Exchange, 5).len(), 1);
    }

    #[tokio::test]
    async fn a_gate_that_is_closed_lets_nobody_through() {
        let (gate, app) = (Gate::new(2), AppId::new());
        gate.close();
        assert!(gate.is_closed() && gate.try_enter(app, Lane::Exchange).is_err());
        assert!(gate.enter(app, Lane::Call, Duration::from_mins(5)).await.is_err());
        assert!(gate.take(app, Lane::Delink, 1).is_empty());
    }
}
