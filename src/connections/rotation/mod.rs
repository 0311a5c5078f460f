//! Rotation: a token that was revealed is replaced by another, so that the copy that left is worth nothing. Plaid only,
//! and by a setting of the app.
//!
//! The call is an exchange in all but name: `/item/access_token/invalidate` ends the old token at once, and its answer is
//! the only copy of the new one. So the order is that of an exchange: the intent under a lease and an epoch, committed;
//! the call in a task that nothing cancels, while no call uses the token; the outcome in one transaction.
//!
//! If the answer is lost, the old token may be dead and the new one nowhere. A call with the old one says which: it works,
//! and the rotation is tried again; or Plaid does not know it, and the token is lost. Then the connection ends, and its user
//! has to link the login again. Until that is known, an answer that calls the old token dead proves nothing, neither to a
//! call nor to a revocation.
//!
//! A new token that comes late is an answer still ([`keep`]): it has a place wherever the old one is, and otherwise its
//! connection gets it back, or its item is removed with it.

mod end;
mod keep;
mod place;
pub mod routes;
pub mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::common::named::named;
use crate::common::trace::TraceContext;
use crate::connections::deferred::Reconciler;
use crate::connections::effects::Effects;
use crate::connections::exchange::outcome::COMMIT_WAITS;
use crate::connections::isolation::{found, isolated};
use crate::connections::model::Status;
use crate::connections::opened_keys::open_before_claim;
use crate::connections::{
    ConnectionAad, ConnectionError, Context, LEASE_MARGIN, backoff, bank_login,
};
use crate::database::{retry, retry_until};
use crate::providers::plaid::ITEM_MISMATCH;
use crate::providers::{
    AccessToken, AppCredentials, ExchangeAnswer, Lane, Permit, Provider, Verify, VerifyAnswer,
};
use crate::vault::{DataKey, OpenedKeys};
use store::{ClaimedRotation, DueRotation, Released};

/// The call that replaces a token, as the audit trail names it.
const PATH: &str = "item/access_token/invalidate";
/// How many due rotations one pass takes up, and how many it claims at once.
const PORTION: (i64, usize) = (100, 8);
/// How long a rotation waits for a permit of the gate.
const GATE_PATIENCE: Duration = Duration::from_secs(1);
/// The first wait before a rotation is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_hours(1));
/// The longest wait before the old token is asked about: until then nothing reads it.
const PROBE_WITHIN: Duration = Duration::from_mins(1);
/// How long the rotation of an unproven token waits for a call that proves it.
const WAIT_FOR_PROOF: Duration = Duration::from_mins(1);
/// How long a rotation waits for a bulk revocation in force to mark its connection.
const WAIT_FOR_MARKING: Duration = Duration::from_secs(5);

/// What became of an attempt, as its metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new token is sealed.
    Rotated,
    /// The answer may have been lost with the new token. A call with the old one is next.
    Unanswered,
    /// The old token works: the call whose answer was lost was not processed.
    Recovered,
    /// Plaid did not process the call, or refused it for another reason than the token. It is tried again.
    Postponed,
    /// Plaid called the old token dead.
    Dead,
    /// The old token is dead and the new one nowhere.
    Lost,
    /// The connection had ended: its item is removed with the new token.
    Removed,
    /// No connection could take the new token: it lives on at Plaid.
    Dropped,
}

named!(Outcome {
    Rotated => "rotated",
    Unanswered => "unanswered",
    Recovered => "recovered",
    Postponed => "postponed",
    Dead => "dead",
    Lost => "lost",
    Removed => "removed",
    Dropped => "dropped",
});

/// Makes the rotation of a token due: its reader is done. Returns `None` if there is no such connection.
pub async fn release(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<Released>, ConnectionError> {
    let actor = AuditActor::from(actor);
    let released = retry(|| async {
        let mut conn = context.pool.acquire().await?;
        store::release(&mut conn, &actor, app, id).await
    })
    .await?;
    context.wake.notify_one();
    Ok(released)
}

/// Begins the rotations that are due, each in a task of its own, so that one whose call or commit hangs delays no other.
pub async fn reconcile(context: &Context) -> Vec<JoinHandle<()>> {
    use futures_util::StreamExt as _;
    const ROTATIONS: Reconciler = Reconciler::Rotations;
    let except = context.deferred.rows(ROTATIONS, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        store::due(&mut conn, PORTION.0, &except).await
    };
    let due = found(context, ROTATIONS, due.await);
    let rotating = futures_util::stream::iter(due).map(|due: DueRotation| async move {
        let begun = Box::pin(begin(context, due));
        isolated(context, ROTATIONS, due.id.uuid(), begun).await.flatten()
    });
    let begun = rotating.buffer_unordered(PORTION.1).collect::<Vec<_>>().await;
    begun.into_iter().flatten().collect()
}

/// Claims a rotation and begins its call in a task that a shutdown waits for, if there is one to make.
async fn begin(
    context: &Context,
    due: DueRotation,
) -> Result<Option<JoinHandle<()>>, ConnectionError> {
    // Before the claim, so that no lease runs while its call waits for the gate.
    let gate = context.providers.gate();
    let Ok(permit) = gate.enter(due.app, Lane::Call, GATE_PATIENCE).await else { return Ok(None) };
    let mut row = vec![due.id.uuid()];
    let keys = open_before_claim(context, Reconciler::Rotations, due.app, &mut row).await?;
    if row.is_empty() {
        return Ok(None);
    }
    let Some((claimed, in_doubt)) = claim(context, due).await? else { return Ok(None) };
    fail::fail_point!("rotation::leased");
    let rotation = Rotation::open(context, &keys, claimed).await?;
    let span = tracing::info_span!("rotation", connection = %due.id);
    let running = {
        let context = context.clone();
        async move {
            let outcome = if in_doubt {
                rotation.probe(&context, permit).await
            } else {
                rotation.run(&context, permit).await
            };
            context.metrics.rotation(outcome);
            Effects::default().changed(due.id).wake().apply(&context);
        }
    };
    Ok(Some(context.tasks.spawn(tracing::Instrument::instrument(running, span))))
}

/// Takes the lease of a due rotation, unless calls use the token, which go first. Returns whether an earlier call went
/// unanswered, too.
async fn claim(
    context: &Context,
    due: DueRotation,
) -> Result<Option<(ClaimedRotation, bool)>, ConnectionError> {
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    let Some(locked) = store::lock(&mut tx, due).await? else { return Ok(None) };
    let mut claimed = None;
    if locked.status != Status::Active {
        store::forget_inactive(&mut tx, due).await?;
    } else if locked.bulk_revoked {
        store::put_off(&mut tx, due, WAIT_FOR_MARKING).await?;
    } else if locked.unproven && !locked.in_doubt {
        // It may be mistyped, and its refusal would say nothing.
        store::put_off(&mut tx, due, WAIT_FOR_PROOF).await?;
    } else if !store::wait_for_calls(&mut tx, due).await? {
        let settings = context.providers.settings(Provider::Plaid);
        let (limit, path) = if locked.in_doubt {
            (settings.call_timeout, context.providers.verification_path(Provider::Plaid))
        } else {
            (settings.exchange_timeout, PATH)
        };
        let lease = limit + LEASE_MARGIN;
        claimed = store::claim(&mut tx, due, lease, locked.in_doubt, path).await?;
    }
    tx.commit().await?;
    Ok(claimed.map(|claimed| (claimed, locked.in_doubt)))
}

/// A rotation under its lease.
struct Rotation {
    claimed: ClaimedRotation,
    token: AccessToken,
    key: Arc<DataKey>,
    credentials: AppCredentials,
}

impl Rotation {
    async fn open(
        context: &Context,
        keys: &OpenedKeys,
        claimed: ClaimedRotation,
    ) -> Result<Self, ConnectionError> {
        let vault = &context.vault;
        let key = keys.of(vault, &claimed.user_key).await?;
        let app_key = keys.of(vault, &claimed.credentials.key).await?;
        let aad = aad(&claimed).access_token();
        let token = claimed.token.open_bound(&key, &aad, claimed.binding.as_ref())?;
        let credentials = claimed.credentials.clone().open_with(&app_key)?;
        Ok(Self { claimed, token, key, credentials })
    }

    /// Replaces the token. The permit ends with the call: what follows is the database's business.
    async fn run(self, context: &Context, permit: Permit) -> Outcome {
        let trace = TraceContext::fresh();
        let Self { credentials, token, .. } = &self;
        let answer = context.providers.replace_token(&permit, credentials, token, &trace).await;
        drop(permit);
        fail::fail_point!("rotation::answered");
        match answer {
            ExchangeAnswer::Token(new) => self.keep(context, &new.access_token).await,
            ExchangeAnswer::Refused(refusal) => self.refused(context, &refusal, false).await,
            ExchangeAnswer::Unsettled(unsettled) if unsettled.may_have_consumed => {
                self.postpone(
                    context,
                    Some(Outcome::Unanswered),
                    &unsettled.what,
                    unsettled.retry_after,
                )
                .await
            }
            ExchangeAnswer::Unsettled(unsettled) => {
                self.postpone(context, None, &unsettled.what, unsettled.retry_after).await
            }
            ExchangeAnswer::NotSent(what) => self.postpone(context, None, &what, None).await,
        }
    }

    /// Asks with the old token whether the call whose answer was lost has replaced it.
    async fn probe(self, context: &Context, permit: Permit) -> Outcome {
        let trace = TraceContext::fresh();
        let verify = Verify {
            app: &self.credentials,
            login_id: &self.claimed.login_id,
            token: &self.token,
            user_secret: None,
            trace: &trace,
        };
        let verified = context.providers.verify(&permit, &verify).await;
        drop(permit);
        fail::fail_point!("rotation::probed");
        match verified {
            Ok((VerifyAnswer::Works(_), _)) => self.recovered(context).await,
            // The token works, and names its item.
            Ok((VerifyAnswer::Refused(refusal), _)) if refusal.kind == ITEM_MISMATCH => {
                self.recovered(context).await
            }
            Ok((VerifyAnswer::Refused(refusal), _)) => self.refused(context, &refusal, true).await,
            Ok((VerifyAnswer::Inconclusive, status)) => {
                let what = format!("no conclusive answer to a probe (HTTP {status})");
                self.postpone(context, Some(Outcome::Postponed), &what, None).await
            }
            Err(lost) => self.postpone(context, Some(Outcome::Postponed), &lost.what, None).await,
        }
    }

    /// Records that the old token works, so that the rotation is made anew, at once.
    async fn recovered(&self, context: &Context) -> Outcome {
        let what = "an earlier call was not processed";
        self.record_postponed(context, false, what, Duration::ZERO).await;
        Outcome::Recovered
    }

    /// Makes the next attempt due. With `doubt`, the outcome to count, the answer to a call stays, or is, unknown.
    async fn postpone(
        &self,
        context: &Context,
        doubt: Option<Outcome>,
        what: &str,
        asked: Option<Duration>,
    ) -> Outcome {
        tracing::warn!(what, "a token was not replaced");
        let longest = if doubt.is_some() { PROBE_WITHIN } else { RETRY.1 };
        let wait = backoff(RETRY.0, longest, self.claimed.attempts, asked);
        self.record_postponed(context, doubt.is_some(), what, wait).await;
        doubt.unwrap_or(Outcome::Postponed)
    }

    /// Only until the lease ends: then the next attempt asks with the old token.
    async fn record_postponed(
        &self,
        context: &Context,
        unanswered: bool,
        what: &str,
        wait: Duration,
    ) {
        let lease_end = Instant::now() + LEASE_MARGIN;
        let record = || async {
            let mut conn = context.pool.acquire().await?;
            store::postpone(&mut conn, &self.claimed, unanswered, what, wait).await
        };
        let retryable = |_: &sqlx::Error| true;
        if let Err(error) = retry_until(lease_end, COMMIT_WAITS, retryable, record).await {
            tracing::warn!(cause = %error, "the end of a rotation could not be recorded");
        }
    }
}

fn aad(claimed: &ClaimedRotation) -> ConnectionAad {
    ConnectionAad { app: claimed.app, user: claimed.user, id: claimed.id }
}
