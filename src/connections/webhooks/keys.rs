//! The keys that sign webhooks, by app and id: looked up at Plaid, one look-up at a time for each, and cached.
//!
//! A forged webhook may name any key. So an id that is not known to be Plaid's takes from the app's budget of look-ups;
//! without budget the answer is "not now", and Plaid sends a genuine webhook again. Keys that Plaid has confirmed need no
//! budget, at any replica and after a restart: their ids are in the database. So a flood of forged webhooks can only delay
//! those of a key that is new.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use crate::apps;
use crate::common::clock::Clock;
use crate::common::ids::AppId;
use crate::common::trace::TraceContext;
use crate::connections::webhooks::store;
use crate::connections::{ConnectionError, Context};
use crate::providers::Lane;
use crate::providers::plaid::{KeyAnswer, WebhookKey};

/// How long a key counts before Plaid is asked whether it has expired.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// How long an id counts as unknown.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);
/// The pause after a look-up that was not answered.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How long an expired entry is remembered, so that its next look-up needs no budget.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);
/// Look-ups of ids that are not known to be Plaid's, for one app within a minute.
const BUDGET: u32 = 20;
/// How often the ids of an app's confirmed keys are read at most.
const CONFIRMED_FOR: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(1);
/// How long a look-up waits for a permit of the gate.
const GATE_PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a key.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Plaid's key, which may have expired.
    Key(Arc<WebhookKey>),
    /// Plaid has no such key.
    Unknown,
    /// It cannot be told at the moment.
    Unavailable,
}

impl Found {
    const fn lasts(&self) -> Duration {
        match self {
            Self::Key(_) => KNOWN_FOR,
            Self::Unknown => UNKNOWN_FOR,
            Self::Unavailable => FAILED_FOR,
        }
    }
}

type Id = (AppId, String);
type LookUp = Shared<oneshot::Receiver<Found>>;

#[derive(Debug)]
struct Entry {
    found: Found,
    since: Instant,
    /// Plaid has called it a key of its own before.
    genuine: bool,
    /// A look-up in flight.
    look_up: Option<LookUp>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Id, Entry>,
    /// When an app's window began, and the look-ups since.
    budgets: HashMap<AppId, (Instant, u32)>,
    /// Keys that Plaid has confirmed, as the database has them.
    confirmed: HashSet<Id>,
}

/// The cache. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    state: Arc<Mutex<State>>,
    /// When the confirmed keys of each app were read.
    read_at: Arc<tokio::sync::Mutex<HashMap<AppId, Instant>>>,
    clock: Clock,
}

/// What a caller does about a key.
enum Step {
    Done(Found),
    Wait(LookUp),
    LookUp(oneshot::Sender<Found>, LookUp),
}

impl Keys {
    pub(super) fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), read_at: Arc::default(), clock }
    }

    /// Returns an app's key with this id.
    pub(super) async fn find(&self, context: &Context, app: AppId, key_id: &str) -> Found {
        let id = (app, key_id.to_owned());
        self.read_confirmed(context, app).await;
        let look_up = match self.step(&id) {
            Step::Done(found) => return found,
            Step::Wait(look_up) => look_up,
            Step::LookUp(done, look_up) => {
                // In a task of its own: it ends, and frees the entry, whether or not its caller waits.
                let (keys, context) = (self.clone(), context.clone());
                context.tasks.clone().spawn(async move {
                    let found = ask(&context, &id).await.unwrap_or_else(|error| {
                        tracing::warn!(cause = %error, "a webhook key could not be looked up");
                        Found::Unavailable
                    });
                    keys.end(&id, &found);
                    // Fails if every caller has gone.
                    let _ = done.send(found);
                });
                look_up
            }
        };
        look_up.await.unwrap_or(Found::Unavailable)
    }

    /// Reads which keys Plaid has confirmed, one reader at a time. A failure counts as a reading: those who waited for it
    /// go on without.
    async fn read_confirmed(&self, context: &Context, app: AppId) {
        let now = self.clock.instant();
        let mut read_at = self.read_at.lock().await;
        if read_at.get(&app).is_some_and(|at| now < *at + CONFIRMED_FOR) {
            return;
        }
        read_at.insert(app, now);
        let confirmed =
            async { store::confirmed_keys(&mut context.pool.acquire().await?, app).await };
        match confirmed.await {
            Ok(ids) => self.state().confirmed.extend(ids.into_iter().map(|id| (app, id))),
            Err(error) => {
                tracing::warn!(cause = %error, "the confirmed webhook keys could not be read");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a look-up and notes it, under one lock.
    fn step(&self, id: &Id) -> Step {
        let now = self.clock.instant();
        let mut state = self.state();
        state.entries.retain(|_, entry| {
            let lasts = if entry.genuine { REMEMBERED_FOR } else { entry.found.lasts() };
            entry.look_up.is_some() || now < entry.since + lasts
        });
        let entry = state.entries.get(id);
        let genuine = match entry {
            Some(Entry { look_up: Some(look_up), .. }) => return Step::Wait(look_up.clone()),
            Some(entry) if now < entry.since + entry.found.lasts() => {
                return Step::Done(entry.found.clone());
            }
            Some(entry) => entry.genuine || state.confirmed.contains(id),
            None => state.confirmed.contains(id),
        };
        if !genuine && !state.take_budget(id.0, now) {
            return Step::Done(Found::Unavailable);
        }
        let (done, look_up) = oneshot::channel();
        let look_up = look_up.shared();
        let in_flight = Some(look_up.clone());
        let entry = Entry { found: Found::Unavailable, since: now, genuine, look_up: in_flight };
        state.entries.insert(id.clone(), entry);
        Step::LookUp(done, look_up)
    }

    fn end(&self, id: &Id, found: &Found) {
        let since = self.clock.instant();
        if let Some(entry) = self.state().entries.get_mut(id) {
            let genuine = match found {
                Found::Key(_) => true,
                Found::Unknown => false,
                Found::Unavailable => entry.genuine,
            };
            *entry = Entry { found: found.clone(), since, genuine, look_up: None };
        }
    }
}

impl State {
    fn take_budget(&mut self, app: AppId, now: Instant) -> bool {
        let (since, used) = self.budgets.entry(app).or_insert((now, 0));
        if now >= *since + WINDOW {
            (*since, *used) = (now, 0);
        }
        *used += 1;
        *used <= BUDGET
    }
}

/// Asks Plaid, with the app's credentials.
async fn ask(context: &Context, (app, key_id): &Id) -> Result<Found, ConnectionError> {
    let gate = context.providers.gate();
    let Ok(permit) = gate.enter(*app, Lane::Call, GATE_PATIENCE).await else {
        return Ok(Found::Unavailable);
    };
    let mut conn = context.pool.acquire().await?;
    let credentials = apps::credentials(&mut conn, *app).await?;
    drop(conn);
    let Some(credentials) = credentials else { return Ok(Found::Unknown) };
    let credentials = credentials.open(&context.vault)?;
    let trace = TraceContext::fresh();
    Ok(match context.providers.webhook_key(&permit, &credentials, key_id, &trace).await {
        KeyAnswer::Key(key) => {
            let mut conn = context.pool.acquire().await?;
            if let Err(error) = store::confirm_key(&mut conn, *app, key_id).await {
                tracing::warn!(cause = %error, "a confirmed webhook key could not be recorded");
            }
            Found::Key(Arc::new(key))
        }
        KeyAnswer::Unknown => Found::Unknown,
        KeyAnswer::Unanswered(what) => {
            tracing::warn!(what, "Plaid did not answer the look-up of a webhook key");
            Found::Unavailable
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(app: AppId, key: &str) -> Id {
        (app, key.to_owned())
    }

    /// Begins a look-up and ends it as unknown; returns whether there was one.
    fn look_up(keys: &Keys, id: &Id) -> bool {
        let begun = matches!(keys.step(id), Step::LookUp(..));
        if begun {
            keys.end(id, &Found::Unknown);
        }
        begun
    }

    #[test]
    fn ids_that_are_not_plaids_take_from_the_apps_budget_alone() {
        let (clock, app, other) = (Clock::system(), AppId::new(), AppId::new());
        let keys = Keys::new(clock.clone());
        let begun = (0..30).filter(|n| look_up(&keys, &id(app, &n.to_string()))).count();
        assert_eq!(begun, 20);
        assert!(matches!(keys.step(&id(app, "new")), Step::Done(Found::Unavailable)));
        assert!(look_up(&keys, &id(other, "new")));
        clock.advance(WINDOW);
        assert!(look_up(&keys, &id(app, "new")));
    }

    #[test]
    fn an_unknown_id_is_not_looked_up_again_for_a_while() {
        let clock = Clock::system();
        let (keys, id) = (Keys::new(clock.clone()), id(AppId::new(), "k"));
        assert!(look_up(&keys, &id));
        assert!(matches!(keys.step(&id), Step::Done(Found::Unknown)));
        clock.advance(UNKNOWN_FOR);
        assert!(look_up(&keys, &id));
    }

    #[test]
    fn one_look_up_serves_all_callers() {
        let (keys, id) = (Keys::new(Clock::system()), id(AppId::new(), "k"));
        let first = keys.step(&id);
        assert!(matches!(first, Step::LookUp(..)));
        for _ in 0..100 {
            assert!(matches!(keys.step(&id), Step::Wait(_)));
        }
    }

    #[test]
    fn a_genuine_key_is_asked_for_again_without_budget() {
        let (clock, app) = (Clock::system(), AppId::new());
        let keys = Keys::new(clock.clone());
        let known = id(app, "known");
        assert!(matches!(keys.step(&known), Step::LookUp(..)));
        keys.end(&known, &Found::Unavailable);
        keys.state().entries.get_mut(&known).unwrap().genuine = true;
        clock.advance(FAILED_FOR);
        for n in 0..30 {
            look_up(&keys, &id(app, &n.to_string()));
        }
        assert!(matches!(keys.step(&known), Step::LookUp(..)));
    }

    #[test]
    fn a_key_that_plaid_confirmed_at_another_replica_needs_no_budget() {
        let (clock, app) = (Clock::system(), AppId::new());
        let keys = Keys::new(clock);
        for n in 0..30 {
            look_up(&keys, &id(app, &n.to_string()));
        }
        keys.state().confirmed.insert(id(app, "known"));
        assert!(matches!(keys.step(&id(app, "known")), Step::LookUp(..)));
    }

    #[test]
    fn what_is_remembered_of_forged_ids_is_bounded() {
        let (clock, app) = (Clock::system(), AppId::new());
        let keys = Keys::new(clock.clone());
        for n in 0..100 {
            look_up(&keys, &id(app, &n.to_string()));
            clock.advance(Duration::from_secs(20));
        }
        assert!(keys.state().entries.len() <= 10);
    }
}
