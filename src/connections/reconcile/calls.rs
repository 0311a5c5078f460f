//! Claims the calls that are due, exchanges and delinkings, and begins them: in portions per app, each with as many
//! permits of the gate as it can get.
//!
//! A permit is acquired before the row is claimed, so that no lease runs while its call waits for the gate.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use uuid::Uuid;

use crate::common::ids::{AppId, ConnectionId};
use crate::connections::claim;
use crate::connections::claim::{Claimed, ClaimedDelink};
use crate::connections::deferred::Reconciler;
use crate::connections::exchange::PendingExchange;
use crate::connections::isolation::{failed, row_failed};
use crate::connections::reconcile::store::Candidate;
use crate::connections::reconcile::{PORTION, Round, store};
use crate::connections::revocation::PendingDelink;
use crate::connections::{Context, revocation};
use crate::database::is_outage;
use crate::providers::{AccessCode, Lane, Permit};

/// Rows of one app that may fail one by one before the round goes on with the next app.
const FAILURES: usize = 3;

/// A kind of call that the background work makes.
pub trait Kind: Send + Sync + Sized + 'static {
    const RECONCILER: Reconciler;
    const LANE: Lane;

    /// Returns the first due rows of each app, except the deferred ones. Locks nothing.
    fn due(
        context: &Context,
        except: &[Uuid],
    ) -> impl Future<Output = sqlx::Result<Vec<Candidate>>> + Send;

    /// Claims those of these rows that are still due and not locked. Postpones those that are due but blocked.
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
        let probing = context.probing();
        let mut conn = context.pool.acquire().await?;
        store::due_exchanges(&mut conn, PORTION, except, &probing).await
    }

    async fn claim(context: &Context, app: AppId, rows: &[Uuid]) -> sqlx::Result<Vec<Self>> {
        let probing = context.probing();
        let lease = |provider| context.exchange_lease(provider);
        let mut conn = context.pool.acquire().await?;
        claim::claim_exchanges(&mut conn, app, rows, lease, &probing).await
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
            // The claim's lease postpones the row until it runs out.
            Err(error) => {
                context.metrics.reconciler_failed(Self::RECONCILER);
                tracing::error!(connection = %id, cause = %error, "an access code cannot be unsealed");
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
        let give_up_after = context.pace.give_up_after;
        let lease = |provider| context.delink_lease(provider);
        let mut conn = context.pool.acquire().await?;
        claim::claim_delinks(&mut conn, app, rows, lease, give_up_after).await
    }

    fn id(&self) -> ConnectionId {
        self.claimed.id
    }

    fn begin(self, context: &Context, permit: Permit, round: &mut Round) {
        let id = self.claimed.id;
        if self.given_up || self.login_in_use {
            drop(permit);
            round.decided += 1;
            round.calls.push(revocation::spawn_end_unconfirmed(context, self));
            return;
        }
        match PendingDelink::from_claimed(&context.vault, self, permit) {
            Ok(pending) => {
                round.delinks += 1;
                round.calls.push(pending.spawn(context));
            }
            Err(error) => {
                context.metrics.reconciler_failed(Self::RECONCILER);
                tracing::error!(connection = %id, cause = %error, "an access token cannot be unsealed");
            }
        }
    }
}

/// Claims and begins the due calls of one kind until none is left that this process can claim.
pub async fn claim_and_run<K: Kind>(context: &Context, round: &mut Round) {
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

/// Claims and begins the portion of each app for which the gate has permits. Returns how many rows were processed.
async fn portions<K: Kind>(context: &Context, due: Vec<Candidate>, round: &mut Round) -> usize {
    let mut apps: BTreeMap<Uuid, (AppId, Vec<Uuid>)> = BTreeMap::new();
    for Candidate { app, id } in due {
        apps.entry(app.uuid()).or_insert_with(|| (app, Vec::new())).1.push(id.uuid());
    }
    let gate = context.providers.gate();
    // The demand of all apps is declared before any permit is taken, so that the gate keeps each app's share free.
    let mut demand: HashMap<_, _> = apps.values().map(|(app, rows)| (*app, rows.len())).collect();
    gate.declare(K::LANE, &demand);
    let mut processed = 0;
    for (app, rows) in apps.into_values() {
        let mut portion = Portion { app, rows, failures: 0 };
        let outcome = portion.begin_calls::<K>(context, round).await;
        processed += outcome.unwrap_or(0);
        round.gate_full |= !portion.rows.is_empty() && outcome.is_some();
        demand.insert(app, portion.rows.len());
        if outcome.is_none() {
            break;
        }
    }
    demand.retain(|_, rows| *rows > 0);
    gate.declare(K::LANE, &demand);
    processed
}

/// The due rows of one app.
struct Portion {
    app: AppId,
    /// Those without a permit stay here.
    rows: Vec<Uuid>,
    failures: usize,
}

impl Portion {
    /// Claims and begins as many rows as there are permits. Returns how many were processed, `None` during an outage.
    async fn begin_calls<K: Kind>(
        &mut self,
        context: &Context,
        round: &mut Round,
    ) -> Option<usize> {
        let mut processed = 0;
        while !self.rows.is_empty() {
            let mut permits = context.providers.gate().take(self.app, K::LANE, self.rows.len());
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
            // Returns the permits of rows that were not claimed.
            drop(permits);
            let unclaimed: Vec<_> =
                rows.iter().filter(|row| !claimed_ids.contains(row)).copied().collect();
            processed += rows.len() - leave_locked(context, K::RECONCILER, &unclaimed).await?;
        }
        Some(processed)
    }

    /// Claims these rows in one statement; if that fails, one by one, so that a single bad row does not block the
    /// others. Defers each row that fails. Returns `None` during an outage.
    async fn claim<K: Kind>(&mut self, context: &Context, rows: &[Uuid]) -> Option<Vec<K>> {
        match K::claim(context, self.app, rows).await {
            Ok(claimed) => return Some(claimed),
            Err(error) if is_outage(&error) => {
                failed(context, K::RECONCILER, &error);
                return None;
            }
            Err(error) => {
                tracing::debug!(cause = %error, "a batch could not be claimed, claiming its rows one by one");
            }
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

/// Defers those of these unclaimed rows that are still due, because another transaction has them locked. Returns how
/// many, `None` during an outage.
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
                context.deferred.defer(reconciler, row.uuid(), Instant::now());
            }
            Some(locked.len())
        }
        Err(error) => {
            failed(context, reconciler, &error);
            None
        }
    }
}
