//! The gate before Dapi: so many calls at once, shared out among apps and kinds of call, and none of a kind
//! of an app's while Dapi asked to be left alone with it.
//!
//! Nobody takes a place before there is work for it. An exchange or a delinking that finds none is safe in
//! the database, and the background work hears of every place that it could use. A caller with a data call
//! waits for a few seconds. Who goes first is decided in [`rules`].

mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use self::rules::{Dispatch, Rules};
use crate::base::ids::AppId;

/// The longest that one `Retry-After` closes a lane of an app: a mistake of Dapi's must not stop it for long.
const LONGEST_HOLD: Duration = Duration::from_mins(1);
/// How often a caller that waits makes sure that no place is kept for a want that has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The kinds of calls, in the order in which they go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A code for a token: its window closes.
    Exchange,
    /// Telling Dapi of a revocation.
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

/// Lets calls through. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the background work of a place that it could use.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    waiting: HashMap<u64, oneshot::Sender<Permit>>,
    next_waiter: u64,
    closed: bool,
}

/// Leave to make one call; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Shared>,
    app: AppId,
    lane: Lane,
}

/// No call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// When to ask again, as far as that is known.
    pub retry_after: Duration,
    /// Dapi asked to be left alone; otherwise it is for want of a place.
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
    /// Lets no call of this app and kind through for as long as Dapi asked.
    pub(super) fn hold(&self, wish: Duration) {
        let mut state = self.gate.lock();
        let until = Instant::now() + wish.min(LONGEST_HOLD);
        let turned_away = state.rules.hold(self.app, self.lane, until);
        // Their callers hear that the channel is closed.
        for id in turned_away {
            drop(state.waiting.remove(&id));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to who is next.
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
        // A permit whose caller has gone is given back, which takes the lock.
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

/// A caller that waits; when dropped it waits no longer.
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
    /// A gate for `at_once` calls at a time.
    #[must_use]
    pub fn new(at_once: u32) -> Self {
        let places = usize::try_from(at_once).unwrap_or(usize::MAX);
        let state = State {
            rules: Rules::new(places),
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

    /// Leave for one call, without waiting.
    ///
    /// # Errors
    /// When to ask again. What cannot be called now is safe in the database: the gate keeps in mind that the
    /// background work has one row more to take up.
    pub fn try_enter(&self, app: AppId, lane: Lane) -> Result<Permit, Busy> {
        let (mut state, now) = (self.0.lock(), Instant::now());
        if !state.closed && state.rules.try_enter(app, lane, now) {
            return Ok(self.permit(app, lane));
        }
        state.rules.one_more(app, lane, now);
        Err(Self::busy(&state, app, lane))
    }

    /// Leave for one call, as soon as it is its turn, for which it waits up to `patience`.
    ///
    /// # Errors
    /// When to ask again: at once if Dapi asked to be left alone with calls of this kind.
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
            match tokio::time::timeout(left.min(LOOK_AGAIN), &mut granted).await {
                Ok(Ok(permit)) => return Ok(permit),
                Err(_) if !left.is_zero() => self.0.dispatch(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        drop(waiter);
        // What was granted in this last moment is given back when the channel is dropped.
        Err(Self::busy(&self.0.lock(), app, lane))
    }

    /// Up to `most` places for rows of one app's that the background work is about to claim. What is not
    /// needed is given back by dropping it.
    #[must_use]
    pub fn take(&self, app: AppId, lane: Lane, most: usize) -> Vec<Permit> {
        let mut state = self.0.lock();
        let count =
            if state.closed { 0 } else { state.rules.take(app, lane, most, Instant::now()) };
        (0..count).map(|_| self.permit(app, lane)).collect()
    }

    /// How many rows of each app wait for the background work in this lane: whenever a place for one of them
    /// is free, [`freed`](Self::freed) resolves. It has to be declared again within seconds.
    pub fn declare(&self, lane: Lane, wants: &HashMap<AppId, usize>) {
        self.0.lock().rules.declare(lane, wants, Instant::now());
    }

    /// Resolves when there is a place that the background work could use.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// When the first of the lanes opens again that Dapi asked to leave alone.
    #[must_use]
    pub fn opens_in(&self) -> Option<Duration> {
        self.0.lock().rules.first_hold_ends_in(Instant::now())
    }

    /// Lets nobody through any more: the process is about to end.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    /// Whether nobody is let through any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_waits_gets_the_place_that_becomes_free() {
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
    async fn the_background_work_hears_of_a_place_that_it_could_use() {
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
