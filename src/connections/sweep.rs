//! The background work on connections: what did not conclude, what ran out, what Dapi has to be told.
//!
//! Each reconciler is an idempotent function without input: it looks at what is due, takes leases,
//! and hands calls to tasks. Several replicas may run them at once; a row that one has locked the
//! others skip. One [`round`] runs them all.

use tokio::task::JoinHandle;

use super::conclude::settle;
use super::exchange::PendingExchange;
use super::model::{self, Answer, Attempt, State, Step};
use super::revocation::{self, PendingDelink};
use super::store::{self, Due};
use super::{Context, Failed, erasure, orders};
use crate::dapi::Permit;

/// How many rows one statement takes at most.
const BATCH: i64 = 500;

/// What a round did.
#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Codes that ended because their window closed.
    pub expired: usize,
    /// Exchanges that were taken up again.
    pub exchanges: usize,
    /// Delinkings that Dapi is being told of.
    pub delinks: usize,
    /// Connections that orders let through to Dapi.
    pub released: usize,
    /// Users whose erasure was concluded.
    pub erased: usize,
    /// Connections that were looked at one by one: held tokens, revocations that end.
    pub settled: usize,
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
        self.expired + self.exchanges + self.delinks + self.settled + self.released + self.erased
            > 0
    }
}

/// Runs every reconciler until nothing is due that this process can take up.
pub async fn round(context: &Context) -> Result<Round, Failed> {
    let mut total = Round::default();
    loop {
        let once = once(context).await?;
        let more = once.found_work() && !once.gate_full;
        total.expired += once.expired;
        total.exchanges += once.exchanges;
        total.delinks += once.delinks;
        total.settled += once.settled;
        total.released += once.released;
        total.erased += once.erased;
        total.gate_full = once.gate_full;
        total.calls.extend(once.calls);
        if !more {
            break;
        }
    }
    context.metrics.sweeps.inc();
    Ok(total)
}

async fn once(context: &Context) -> Result<Round, Failed> {
    let mut round = Round { expired: expire(context).await?, ..Round::default() };
    round.released = orders::reconcile(context, BATCH).await?;
    round.erased = erasure::reconcile(context, BATCH).await?;
    round.settled += end_without_attempt(context).await?;
    round.settled += activate_held(context).await?;
    exchange(context, &mut round).await?;
    delink(context, &mut round).await?;
    Ok(round)
}

/// Ends codes whose window closed and whose lease is not alive.
async fn expire(context: &Context) -> Result<usize, Failed> {
    let mut conn = context.pool.acquire().await?;
    let ended = store::sweep_expired(&mut conn, BATCH).await?;
    context.metrics.swept.inc_by(ended.len() as u64);
    for id in &ended {
        context.settled.tell(*id);
    }
    Ok(ended.len())
}

/// Ends what no attempt will follow: a revoked code whose window closed, or a lease that died where
/// unanswered attempts are not repeated. The dead lease counts as an attempt without an answer.
async fn end_without_attempt(context: &Context) -> Result<usize, Failed> {
    let probe = context.dapi.settings().exchange_probe;
    let mut conn = context.pool.acquire().await?;
    let due = store::due_without_attempt(&mut conn, probe, BATCH).await?;
    drop(conn);
    settle_each(context, due, |locked| {
        let me = locked.me.as_ref()?;
        let in_doubt = me.lease_died || me.unanswered;
        let attempt = Attempt {
            current: true,
            unanswered_before: me.unanswered,
            window_open: me.window_open,
            probe,
        };
        let what = "the process that made the attempt ended before an answer came".to_owned();
        let answer = if in_doubt { Answer::Unanswered(what) } else { Answer::NotProcessed(what) };
        Some(model::after_exchange(me.state, attempt, locked.login, answer))
    })
    .await
}

/// Looks again at connections that hold their token and waited for an older link's delinking.
async fn activate_held(context: &Context) -> Result<usize, Failed> {
    let mut conn = context.pool.acquire().await?;
    let due = store::due_held_tokens(&mut conn, BATCH).await?;
    drop(conn);
    settle_each(context, due, |locked| {
        let held = locked.me.as_ref()?.state == State::Pending(model::Held::Token);
        held.then(|| model::pending_takes_token(locked.login))
    })
    .await
}

/// Locks each login and takes the step that `decide` finds, in a transaction of its own: one row in
/// trouble must not hold up the others.
async fn settle_each(
    context: &Context,
    due: Vec<Due>,
    decide: impl Fn(&store::LockedLogin) -> Option<Step>,
) -> Result<usize, Failed> {
    let mut settled = 0;
    for due in due {
        let mut tx = context.pool.begin().await?;
        let login = &due.connection_id;
        let locked = store::lock_login(&mut tx, due.app, login, Some(due.id), due.user).await?;
        // Another replica may have been here since the row was found.
        let still_due = locked.me.as_ref().is_some_and(|me| me.due);
        let step = if still_due { decide(&locked) } else { None };
        match (step, &locked.me) {
            (Some(Step::Hold | Step::TryAgain { .. }), Some(me)) => {
                store::postpone(&mut tx, me, store::WAIT_FOR_DELINKING).await?;
            }
            (Some(step), Some(me)) => {
                settle(context, &mut tx, me, &step, None).await?;
                settled += 1;
            }
            _ => {}
        }
        tx.commit().await?;
        context.settled.tell(due.id);
    }
    Ok(settled)
}

/// As many permits as the gate gives, up to a batch.
fn permits(context: &Context) -> Vec<Permit> {
    let batch = usize::try_from(BATCH).unwrap_or(usize::MAX);
    std::iter::from_fn(|| context.dapi.gate().try_enter().ok()).take(batch).collect()
}

/// Takes up exchanges that are due: whose lease died, or whose wait is over.
async fn exchange(context: &Context, round: &mut Round) -> Result<(), Failed> {
    let mut conn = context.pool.acquire().await?;
    store::postpone_blocked(&mut conn).await?;
    let permits = permits(context);
    round.gate_full |= permits.is_empty();
    if permits.is_empty() {
        return Ok(());
    }
    let limit = i64::try_from(permits.len()).unwrap_or(BATCH);
    let (lease, probe) = (context.exchange_lease(), context.dapi.settings().exchange_probe);
    let claimed = store::claim_exchanges(&mut conn, limit, lease, probe).await?;
    for (claimed, permit) in claimed.into_iter().zip(permits) {
        let id = claimed.id;
        match PendingExchange::from_claimed(&context.vault, claimed, permit) {
            Ok(pending) => {
                round.exchanges += 1;
                round.calls.push(pending.spawn_unwatched(context));
            }
            Err(error) => tracing::error!(connection = %id, cause = %error, "a code does not open"),
        }
    }
    Ok(())
}

/// Tells Dapi of revocations that are due, and ends those that it will not be told of.
async fn delink(context: &Context, round: &mut Round) -> Result<(), Failed> {
    let permits = permits(context);
    round.gate_full |= permits.is_empty();
    if permits.is_empty() {
        return Ok(());
    }
    let limit = i64::try_from(permits.len()).unwrap_or(BATCH);
    let mut conn = context.pool.acquire().await?;
    let (lease, give_up_after) = (context.delink_lease(), context.pace.give_up_after);
    store::postpone_secretless(&mut conn, give_up_after).await?;
    store::postpone_busy_tokens(&mut conn).await?;
    let claimed = store::claim_delinks(&mut conn, limit, lease, give_up_after).await?;
    drop(conn);
    for (delink, permit) in claimed.into_iter().zip(permits) {
        let id = delink.claimed.id;
        if delink.given_up || delink.login_in_use {
            revocation::end_untold(context, &delink).await?;
            round.settled += 1;
            continue;
        }
        match PendingDelink::from_claimed(&context.vault, delink, permit) {
            Ok(pending) => {
                round.delinks += 1;
                round.calls.push(pending.spawn(context));
            }
            Err(error) => {
                tracing::error!(connection = %id, cause = %error, "a token does not open");
            }
        }
    }
    Ok(())
}

/// In how long something is due again; `None` where nothing waits.
pub async fn next_due(context: &Context) -> Result<Option<std::time::Duration>, Failed> {
    Ok(store::next_due(&mut context.pool.acquire().await?).await?)
}

/// Forgets sessions and budgets that ended, and brings the gauges up to date.
pub async fn housekeeping(context: &Context) -> Result<(), Failed> {
    let mut conn = context.pool.acquire().await?;
    store::forget_ended_sessions(&mut conn).await?;
    store::forget_spent_budgets(&mut conn).await?;
    store::forget_erased_names(&mut conn).await?;
    store::forget_dead_turns(&mut conn).await?;
    store::destroy_superseded_due(&mut conn).await?;
    context.metrics.backlog(&store::backlog(&mut conn).await?);
    Ok(())
}

/// Counts a round that failed.
pub fn failed(context: &Context) {
    context.metrics.sweeps_failed.inc();
}
