//! The background work on connections: what did not conclude, what ran out, what has to be delinked.
//!
//! Each reconciler is idempotent: it looks at what is due, takes leases, and hands calls to tasks. Several
//! replicas may run them at once; a row that one has locked the others skip. A row that fails is counted and
//! left alone for a while, and a reconciler that fails stops no other. [`round`] runs them all, and
//! [`part`] those that belong together.

mod calls;
pub(crate) mod store;

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::approvals;
use crate::common::ids::ConnectionId;
use crate::connections::claim::{Claimed, ClaimedDelink};
use crate::connections::deferred::Reconciler;
use crate::connections::effects::Effects;
use crate::connections::isolation::{failed, found, isolated, row_failed};
use crate::connections::model::{Answer, Attempt, State, Transition};
use crate::connections::reconcile::calls::{claim_and_run, leave_locked};
use crate::connections::reconcile::store::Due;
use crate::connections::{
    ConnectionError, Context, bank_login, bulk_revocation, details, erasure, link_tokens, model,
    query, retention, reveal, rotation, sql, superseded, token_lease, transitions, webhooks,
};
use crate::database::{Conn, is_outage};
use crate::providers::Provider;

/// How many rows one statement takes at most.
const BATCH: i64 = 500;
/// How many rows of one app come before the next app's.
const PORTION: i64 = 100;
/// How many rows of one app are decided one by one before the next round.
const DECIDED_AT_ONCE: i64 = 20;
/// How long something may be due and unclaimed before it is logged.
const OVERDUE: Duration = Duration::from_secs(30);

/// What a round did.
#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Codes that ended because their window closed.
    pub expired: usize,
    /// Exchanges that were taken up again.
    pub exchanges: usize,
    /// Delinkings that were begun.
    pub delinks: usize,
    /// Connections that bulk revocations in force match, marked as revoked.
    #[serde(skip)]
    pub marked: usize,
    /// Connections that bulk revocations released to be delinked.
    pub released: usize,
    /// Users whose erasure was concluded.
    pub erased: usize,
    /// Institutions and accounts that were asked for.
    #[serde(skip)]
    pub details: usize,
    /// Tokens that were replaced, or should have been.
    #[serde(skip)]
    pub rotations: usize,
    /// Connections that were looked at one by one: held tokens, revocations that end.
    #[serde(rename = "settled")]
    pub decided: usize,
    /// More is due than calls may be made at once.
    #[serde(skip)]
    pub gate_full: bool,
    /// Calls under way.
    #[serde(skip)]
    pub calls: Vec<JoinHandle<()>>,
}

impl Round {
    /// Waits for the calls that the round began.
    pub async fn finish(self) -> Self {
        for call in self.calls {
            // A task that panicked has said so in the log, and its lease brings the next attempt.
            let _ = call.await;
        }
        Self { calls: Vec::new(), ..self }
    }

    /// Whether it found anything to do.
    #[must_use]
    pub fn found_work(&self) -> bool {
        let in_bulk = self.marked + self.released;
        let called = self.exchanges + self.delinks + self.details + self.rotations;
        self.expired + called + self.decided + in_bulk + self.erased > 0
    }

    fn add(&mut self, other: Self) {
        self.expired += other.expired;
        self.exchanges += other.exchanges;
        self.delinks += other.delinks;
        self.details += other.details;
        self.rotations += other.rotations;
        self.decided += other.decided;
        self.marked += other.marked;
        self.released += other.released;
        self.erased += other.erased;
        self.gate_full |= other.gate_full;
        self.calls.extend(other.calls);
    }
}

/// The reconcilers that are run in turn; each part goes at its own pace, so that none waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Exchanges that are due.
    Exchanges,
    /// Delinkings that are due.
    Delinks,
    /// Institutions and accounts to be confirmed.
    Details,
    /// Revealed tokens to be replaced.
    Rotations,
    /// What is done in the database alone.
    Rows,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] =
        [Self::Exchanges, Self::Delinks, Self::Details, Self::Rotations, Self::Rows];
}

/// Runs the reconcilers of one part until nothing is due that this process can take up.
pub async fn part(context: &Context, part: Part) -> Round {
    let mut round = Round::default();
    match part {
        Part::Exchanges => claim_and_run::<Claimed<_>>(context, &mut round).boxed().await,
        Part::Delinks => claim_and_run::<ClaimedDelink>(context, &mut round).boxed().await,
        Part::Details => round.details += details::reconcile(context).boxed().await,
        Part::Rotations => {
            round.calls = rotation::reconcile(context).boxed().await;
            round.rotations = round.calls.len();
        }
        Part::Rows => loop {
            let once = rows(context).boxed().await;
            let more = once.found_work();
            round.add(once);
            if !more {
                break;
            }
        },
    }
    if part == Part::Rows {
        context.metrics.rounds.inc();
    }
    round
}

/// Runs every reconciler, one part after the other, until nothing is due that this process can take up.
///
/// # Errors
/// If the database cannot be reached. Whatever else fails is counted and left for later.
pub async fn round(context: &Context) -> Result<Round, ConnectionError> {
    drop(context.pool.acquire().await?);
    let mut total = Round::default();
    loop {
        let mut once = part(context, Part::Rows).await;
        once.add(part(context, Part::Exchanges).await);
        once.add(part(context, Part::Delinks).await);
        once.add(part(context, Part::Details).await);
        // One that finds the old token alive is followed by another.
        once.add(part(context, Part::Rotations).await.finish().await);
        let more = once.found_work() && !once.gate_full;
        total.gate_full = false;
        total.add(once);
        if !more {
            break;
        }
    }
    Ok(total)
}

async fn rows(context: &Context) -> Round {
    let (expired, in_bulk, erased, ended, activated, told) = tokio::join!(
        // Each apart from the others, which together would be too large for a stack.
        expire(context).boxed(),
        bulk_revocation::reconcile(context, BATCH).boxed(),
        erasure::reconcile(context, BATCH).boxed(),
        end_without_attempt(context).boxed(),
        activate_held(context).boxed(),
        webhooks::reconcile(context).boxed()
    );
    let bulk_revocation::Reconciled { marked, released } = in_bulk;
    Round {
        expired,
        marked,
        released,
        erased,
        decided: ended + activated + told,
        ..Round::default()
    }
}

/// Ends codes whose window closed and whose lease is not alive.
async fn expire(context: &Context) -> usize {
    const EXPIRIES: Reconciler = Reconciler::Expiries;
    let except = context.deferred.rows(EXPIRIES, Instant::now());
    let due =
        async { store::due_expiries(&mut context.pool.acquire().await?, BATCH, &except).await };
    let due = found(context, EXPIRIES, due.await);
    let due: Vec<_> = due.into_iter().map(ConnectionId::uuid).collect();
    if due.is_empty() {
        return 0;
    }
    let mut ended = Vec::new();
    match expire_rows(context, &due).await {
        Ok(ids) => ended = ids,
        Err(error) if is_outage(&error) => failed(context, EXPIRIES, &error),
        Err(_) => {
            for row in &due {
                match expire_rows(context, std::slice::from_ref(row)).await {
                    Ok(ids) => ended.extend(ids),
                    Err(error) if is_outage(&error) => {
                        failed(context, EXPIRIES, &error);
                        break;
                    }
                    Err(error) => drop(row_failed(context, EXPIRIES, *row, &error)),
                }
            }
        }
    }
    context.metrics.codes_expired.inc_by(ended.len() as u64);
    let locked: Vec<_> = due.into_iter().filter(|row| !ended.contains(row)).collect();
    let _ = leave_locked(context, EXPIRIES, &locked).await;
    ended.len()
}

async fn expire_rows(context: &Context, rows: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    let ended = store::expire_codes(&mut context.pool.acquire().await?, rows).await?;
    for id in &ended {
        context.changes.notify(*id);
    }
    Ok(ended.into_iter().map(ConnectionId::uuid).collect())
}

/// Ends what no attempt will follow: a revoked code whose window closed, or a lease that died where
/// unanswered attempts are not repeated. The dead lease counts as an attempt without an answer.
async fn end_without_attempt(context: &Context) -> usize {
    let probing = context.probing();
    let except = context.deferred.rows(Reconciler::Ends, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        let mut due = store::due_revoked_codes(&mut conn, BATCH, &except).await?;
        if probing.len() < Provider::ALL.len() {
            due.extend(store::due_in_doubt(&mut conn, DECIDED_AT_ONCE, &except, &probing).await?);
        }
        Ok(due)
    };
    apply_each(context, Reconciler::Ends, due.await, |locked| {
        let me = locked.me.as_ref()?;
        let in_doubt = me.lease_died || me.unanswered;
        let attempt = Attempt {
            current: true,
            unanswered_before: me.unanswered,
            window_open: me.window_open,
            probe: context.providers.settings(me.provider).exchange_probe,
        };
        let what = "the process that made the attempt ended before an answer came".to_owned();
        let answer = if in_doubt { Answer::Unanswered(what) } else { Answer::NotProcessed(what) };
        Some(model::after_exchange(me.state, attempt, locked.login, answer))
    })
    .await
}

/// Looks again at connections that hold their token and waited for an older link's delinking.
async fn activate_held(context: &Context) -> usize {
    let except = context.deferred.rows(Reconciler::HeldTokens, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        store::due_held_tokens(&mut conn, DECIDED_AT_ONCE, &except).await
    };
    apply_each(context, Reconciler::HeldTokens, due.await, |locked| {
        let held = locked.me.as_ref()?.state == State::Pending(model::Held::Token);
        held.then(|| model::on_token_for_pending(locked.login))
    })
    .await
}

/// Locks each login and applies the transition that `decide` returns, in a transaction of its own: one row in
/// trouble does not hold up the others.
async fn apply_each(
    context: &Context,
    reconciler: Reconciler,
    due: sqlx::Result<Vec<Due>>,
    decide: impl Fn(&bank_login::LockedBankLogin) -> Option<Transition> + Send + Sync,
) -> usize {
    let due = found(context, reconciler, due);
    let mut decided = 0;
    for due in due {
        match apply_one(context, &due, &decide).boxed().await {
            Ok(done) => decided += usize::from(done),
            Err(error) if is_outage(&error) => {
                failed(context, reconciler, &error);
                break;
            }
            Err(error) => {
                let wait = row_failed(context, reconciler, due.id.uuid(), &error);
                postpone_row(context, &due, wait).await;
            }
        }
        context.changes.notify(due.id);
    }
    decided
}

/// In the database as well, if that is possible: other replicas leave the row alone too.
async fn postpone_row(context: &Context, due: &Due, wait: Duration) {
    let postpone_row = async {
        let mut conn = context.pool.acquire().await?;
        store::postpone_row(&mut conn, due.app, due.id, wait).await
    };
    if let Err(error) = postpone_row.await {
        tracing::debug!(connection = %due.id, cause = %error, "a row is put off in memory alone");
    }
}

async fn apply_one(
    context: &Context,
    due: &Due,
    decide: impl Fn(&bank_login::LockedBankLogin) -> Option<Transition> + Send + Sync,
) -> sqlx::Result<bool> {
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    let login = due.login_id.as_deref();
    let locked =
        bank_login::lock_bank_login(&mut tx, due.app, login, Some(due.id), due.user).await?;
    // Another replica may have been here since the row was found.
    let still_due = locked.me.as_ref().is_some_and(|me| me.due);
    let transition = if still_due { decide(&locked) } else { None };
    let (decided, effects) = match (transition, &locked.me) {
        (Some(Transition::Hold | Transition::TryAgain { .. }), Some(me)) => {
            transitions::store::postpone(&mut tx, me, sql::WAIT_FOR_DELINKING).await?;
            (false, Effects::default())
        }
        (Some(transition), Some(me)) => {
            (true, transitions::apply(&mut tx, me, &transition, None).await?)
        }
        _ => (false, Effects::default()),
    };
    tx.commit().await?;
    effects.apply(context);
    Ok(decided)
}

/// In how long something becomes due that is not yet; `None` if nothing waits.
///
/// # Errors
/// The database's.
pub async fn next_due(context: &Context) -> Result<Option<Duration>, ConnectionError> {
    let due_summary = store::due_summary(&mut context.pool.acquire().await?).await?;
    let deferred = context.deferred.next(Instant::now());
    Ok([due_summary.next, deferred].into_iter().flatten().min())
}

/// Forgets what has ended. Returns of how many rows, where that is known.
type Forget = for<'a> fn(&'a mut Conn) -> BoxFuture<'a, sqlx::Result<u64>>;

/// Secrets first.
const FORGET: [Forget; 12] = [
    |conn| superseded::store::destroy_superseded_due(conn).boxed(),
    |conn| store::delete_ended_sessions(conn).boxed(),
    |conn| reveal::store::delete_spent_budgets(conn).boxed(),
    |conn| erasure::store::delete_erased_names(conn).boxed(),
    |conn| token_lease::store::delete_expired_leases(conn).boxed(),
    |conn| link_tokens::store::delete_expired(conn).boxed(),
    |conn| bulk_revocation::store::delete_targets(conn).boxed(),
    |conn| webhooks::store::delete_old(conn).boxed(),
    |conn| approvals::expire(conn).boxed(),
    |conn| approvals::delete_old(conn).boxed(),
    |conn| query::store::delete_old_counts(conn).boxed(),
    |conn| bulk_revocation::store::delete_finished_counts(conn).boxed(),
];

/// Forgets what has ended, and brings the gauges up to date. Where a row is locked, that part is
/// done the next time; the others are done all the same.
///
/// # Errors
/// If the database cannot be reached.
pub async fn housekeeping(context: &Context) -> Result<(), ConnectionError> {
    const ROW: Uuid = Uuid::nil();
    // Before a connection is held here: one that waits for another while it holds one waits for itself.
    let bind = crate::connections::binding::bind_unbound(context).boxed();
    isolated(context, Reconciler::Housekeeping, ROW, bind).await;
    for forget in FORGET {
        let forget = async { Ok(forget(&mut context.pool.acquire().await?).await?) };
        isolated(context, Reconciler::Housekeeping, ROW, forget.boxed()).await;
    }
    let history = async { retention::sweep(context).await.map(drop) };
    isolated(context, Reconciler::Housekeeping, ROW, history.boxed()).await;
    let fold = async { Ok(query::store::fold_changes(&mut context.pool.acquire().await?).await?) };
    isolated(context, Reconciler::Housekeeping, ROW, fold.boxed()).await;
    let waiting = async {
        let waiting = approvals::waiting(&mut context.pool.acquire().await?).await?;
        context.approvals.set(&waiting);
        Ok(())
    };
    isolated(context, Reconciler::Housekeeping, ROW, waiting.boxed()).await;
    let mut conn = context.pool.acquire().await?;
    context.metrics.backlog(&store::backlog(&mut conn).await?);
    let overdue = store::due_summary(&mut conn).await?.overdue.unwrap_or_default();
    if context.metrics.overdue(overdue, OVERDUE) {
        let seconds = overdue.as_secs();
        tracing::warn!(seconds, "the background work does not take up what has been due for long");
    }
    Ok(())
}

/// Counts a round that failed.
pub fn round_failed(context: &Context) {
    context.metrics.rounds_failed.inc();
}
