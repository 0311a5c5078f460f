//! Taking up calls that are due: exchanges and delinkings, in portions for each app, with as many places at
//! the gate as there is work for.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use uuid::Uuid;

use crate::base::ids::{AppId, ConnectionId};
use crate::connections::exchange::PendingExchange;
use crate::connections::reconcile::Reconciler;
use crate::connections::reconcile::store::{Candidate, Claimed, ClaimedDelink};
use crate::connections::reconcile::{PORTION, Round, failed, row_failed, store};
use crate::connections::revocation::PendingDelink;
use crate::connections::{Context, revocation};
use crate::dapi::{AccessCode, Lane, Permit};
use crate::database::is_outage;

/// How many rows of one app may fail one by one before the next app's come first.
const FAILURES: usize = 3;

/// A kind of call that the background work takes up.
pub trait Kind: Send + Sync + Sized + 'static {
    const RECONCILER: Reconciler;
    const LANE: Lane;

    /// The first rows of each app that are due, but for those that are left alone.
    fn due(
        context: &Context,
        except: &[Uuid],
    ) -> impl Future<Output = sqlx::Result<Vec<Candidate>>> + Send;

    /// Claims what can be claimed of these rows of the app.
    fn claim(
        context: &Context,
        app: AppId,
        rows: &[Uuid],
    ) -> impl Future<Output = sqlx::Result<Vec<Self>>> + Send;

    fn id(&self) -> ConnectionId;

    /// Begins the call in a task of its own.
    fn begin(self, context: &Context, permit: Permit, round: &mut Round);
}

impl Kind for Claimed<AccessCode> {
    const RECONCILER: Reconciler = Reconciler::Exchanges;
    const LANE: Lane = Lane::Exchange;

    async fn due(context: &Context, except: &[Uuid]) -> sqlx::Result<Vec<Candidate>> {
        let probe = context.dapi.settings().exchange_probe;
        let mut conn = context.pool.acquire().await?;
        store::due_exchanges(&mut conn, PORTION, except, probe).await
    }

    async fn claim(context: &Context, app: AppId, rows: &[Uuid]) -> sqlx::Result<Vec<Self>> {
        let (lease, probe) = (context.exchange_lease(), context.dapi.settings().exchange_probe);
        let mut conn = context.pool.acquire().await?;
        store::claim_exchanges(&mut conn, app, rows, lease, probe).await
    }

    fn id(&self) -> ConnectionId {
        self.id
    }

    fn begin(self, context: &Context, permit: Permit, round: &mut Round) {
        let id = self.id;
        match PendingExchange::from_claimed(&context.vault, self, permit) {
            Ok(pending) => {
                round.exchanges += 1;
                round.calls.push(pending.spawn_unwatched(context));
            }
            // Its lease puts it off.
            Err(error) => {
                context.metrics.reconciler_failed(Self::RECONCILER);
                tracing::error!(connection = %id, cause = %error, "a code does not open");
            }
        }
    }
}

impl Kind for ClaimedDelink {
    const RECONCILER: Reconciler = Reconciler::Delinks;
    const LANE: Lane = Lane::Delink;

    async fn due(context: &Context, except: &[Uuid]) -> sqlx::Result<Vec<Candidate>> {
        store::due_delinks(&mut context.pool.acquire().await?, PORTION, except).await
    }

    async fn claim(context: &Context, app: AppId, rows: &[Uuid]) -> sqlx::Result<Vec<Self>> {
        let (lease, give_up_after) = (context.delink_lease(), context.pace.give_up_after);
        let mut conn = context.pool.acquire().await?;
        store::claim_delinks(&mut conn, app, rows, lease, give_up_after).await
    }

    fn id(&self) -> ConnectionId {
        self.claimed.id
    }

    fn begin(self, context: &Context, permit: Permit, round: &mut Round) {
        let id = self.claimed.id;
        if self.given_up || self.login_in_use {
            drop(permit);
            round.settled += 1;
            round.calls.push(revocation::spawn_end_untold(context, self));
            return;
        }
        match PendingDelink::from_claimed(&context.vault, self, permit) {
            Ok(pending) => {
                round.delinks += 1;
                round.calls.push(pending.spawn(context));
            }
            Err(error) => {
                context.metrics.reconciler_failed(Self::RECONCILER);
                tracing::error!(connection = %id, cause = %error, "a token does not open");
            }
        }
    }
}

/// Takes up what is due of one kind until nothing is left that this process can take up.
pub async fn take_up<K: Kind>(context: &Context, round: &mut Round) {
    loop {
        let except = context.deferred.rows(K::RECONCILER, Instant::now());
        let due = match K::due(context, &except).await {
            Ok(due) => due,
            Err(error) => return failed(context, K::RECONCILER, &error),
        };
        if portions::<K>(context, due, round).await == 0 {
            return;
        }
    }
}

/// Takes up the portion of each app for which there are places. Returns how many rows were dealt with.
async fn portions<K: Kind>(context: &Context, due: Vec<Candidate>, round: &mut Round) -> usize {
    let mut apps: BTreeMap<Uuid, (AppId, Vec<Uuid>)> = BTreeMap::new();
    for Candidate { app, id } in due {
        apps.entry(app.uuid()).or_insert_with(|| (app, Vec::new())).1.push(id.uuid());
    }
    let gate = context.dapi.gate();
    // Everything is declared before anything is taken, so that the first app leaves their share to the others.
    let mut wants: HashMap<_, _> = apps.values().map(|(app, rows)| (*app, rows.len())).collect();
    gate.declare(K::LANE, &wants);
    let mut dealt_with = 0;
    for (app, rows) in apps.into_values() {
        let mut portion = Portion { app, rows, failures: 0 };
        let outcome = portion.take_up::<K>(context, round).await;
        dealt_with += outcome.unwrap_or(0);
        round.gate_full |= !portion.rows.is_empty() && outcome.is_some();
        wants.insert(app, portion.rows.len());
        if outcome.is_none() {
            break;
        }
    }
    wants.retain(|_, rows| *rows > 0);
    gate.declare(K::LANE, &wants);
    dealt_with
}

/// What is due of one app.
struct Portion {
    app: AppId,
    /// Those that found no place are left here.
    rows: Vec<Uuid>,
    failures: usize,
}

impl Portion {
    /// Takes up as many rows as there are places. Returns how many were dealt with; `None` during an outage.
    async fn take_up<K: Kind>(&mut self, context: &Context, round: &mut Round) -> Option<usize> {
        let mut dealt_with = 0;
        while !self.rows.is_empty() {
            let mut permits = context.dapi.gate().take(self.app, K::LANE, self.rows.len());
            if permits.is_empty() {
                break;
            }
            let rows: Vec<_> = self.rows.drain(..permits.len()).collect();
            let claimed = self.claim::<K>(context, &rows).await?;
            let claimed_ids: Vec<_> = claimed.iter().map(|row| row.id().uuid()).collect();
            for row in claimed {
                let Some(permit) = permits.pop() else { break };
                row.begin(context, permit, round);
            }
            // What was not claimed needs no place.
            drop(permits);
            let others: Vec<_> =
                rows.iter().filter(|row| !claimed_ids.contains(row)).copied().collect();
            dealt_with += rows.len() - leave_locked(context, K::RECONCILER, &others).await?;
        }
        Some(dealt_with)
    }

    /// Claims these rows; each by itself if they cannot be claimed together, and one that fails is left alone
    /// for a while.
    async fn claim<K: Kind>(&mut self, context: &Context, rows: &[Uuid]) -> Option<Vec<K>> {
        match K::claim(context, self.app, rows).await {
            Ok(claimed) => return Some(claimed),
            Err(error) if is_outage(&error) => {
                failed(context, K::RECONCILER, &error);
                return None;
            }
            Err(error) => tracing::debug!(cause = %error, "rows are claimed one by one"),
        }
        let mut all = Vec::new();
        for row in rows {
            if self.failures >= FAILURES {
                break;
            }
            match K::claim(context, self.app, std::slice::from_ref(row)).await {
                Ok(claimed) => all.extend(claimed),
                Err(error) if is_outage(&error) => {
                    failed(context, K::RECONCILER, &error);
                    break;
                }
                Err(error) => {
                    self.failures += 1;
                    row_failed(context, K::RECONCILER, *row, &error);
                }
            }
        }
        Some(all)
    }
}

/// Leaves those of these rows alone for a while that are due and that somebody else has locked. Returns how
/// many they are; `None` during an outage.
pub async fn leave_locked(
    context: &Context,
    reconciler: Reconciler,
    rows: &[Uuid],
) -> Option<usize> {
    if rows.is_empty() {
        return Some(0);
    }
    let still_due = async { store::still_due(&mut context.pool.acquire().await?, rows).await };
    match still_due.await {
        Ok(locked) => {
            for row in &locked {
                context.deferred.leave(reconciler, row.uuid(), Instant::now());
            }
            Some(locked.len())
        }
        Err(error) => {
            failed(context, reconciler, &error);
            None
        }
    }
}
