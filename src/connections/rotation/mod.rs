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

pub mod routes;
pub mod store;

use std::time::{Duration, Instant};

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId};
use crate::common::named::named;
use crate::common::trace::TraceContext;
use crate::connections::deferred::Reconciler;
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::exchange::outcome::{COMMIT_WAITS, HOLD_ANSWER, Waiting};
use crate::connections::isolation::{found, isolated};
use crate::connections::model::{PredecessorEvent, RevocationKind, Status};
use crate::connections::revocation::end_dead_token;
use crate::connections::revocation::store::holds_token;
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{
    ConnectionAad, ConnectionError, Context, LEASE_MARGIN, backoff, bank_login, superseded,
    token_lease, transitions,
};
use crate::database::{retry, retry_until};
use crate::providers::plaid::{INVALID_ACCESS_TOKEN, ITEM_MISMATCH};
use crate::providers::{
    AccessToken, AppCredentials, ExchangeAnswer, Lane, Permit, Provider, Refusal, Verify,
    VerifyAnswer,
};
use crate::vault::DataKey;
use store::{ClaimedRotation, DueRotation, Released, Stored};

/// The call that replaces a token, as the audit trail names it.
const PATH: &str = "item/access_token/invalidate";
/// How many due rotations one pass takes up, and how many it makes at once.
const PORTION: (i64, usize) = (100, 8);
/// How long a rotation waits for a permit of the gate.
const GATE_PATIENCE: Duration = Duration::from_secs(1);
/// The first wait before a rotation is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_hours(1));
/// The reason and the last error of a connection whose token is lost.
const LOST: &str = "the answer to the token's rotation was lost; the item lives on at Plaid";

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

/// Makes the rotations that are due. Returns how many were begun, when all of them have ended.
pub async fn reconcile(context: &Context) -> usize {
    use futures_util::StreamExt as _;
    const ROTATIONS: Reconciler = Reconciler::Rotations;
    let except = context.deferred.rows(ROTATIONS, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        store::due(&mut conn, PORTION.0, &except).await
    };
    let due = found(context, ROTATIONS, due.await);
    let rotating = futures_util::stream::iter(due).map(|due: DueRotation| async move {
        let begun = Box::pin(rotate(context, due));
        isolated(context, ROTATIONS, due.id.uuid(), begun).await == Some(true)
    });
    let begun = rotating.buffer_unordered(PORTION.1).collect::<Vec<_>>().await;
    begun.into_iter().filter(|begun| *begun).count()
}

/// Claims a rotation and makes its call. Returns whether there was one to make.
async fn rotate(context: &Context, due: DueRotation) -> Result<bool, ConnectionError> {
    // Before the claim, so that no lease runs while its call waits for the gate.
    let gate = context.providers.gate();
    let Ok(permit) = gate.enter(due.app, Lane::Call, GATE_PATIENCE).await else { return Ok(false) };
    let Some((claimed, in_doubt)) = claim(context, due).await? else { return Ok(false) };
    fail::fail_point!("rotation::leased");
    let rotation = Rotation::open(context, claimed, permit)?;
    let span = tracing::info_span!("rotation", connection = %due.id);
    let running = {
        let context = context.clone();
        async move {
            let outcome = if in_doubt {
                rotation.probe(&context).await
            } else {
                rotation.run(&context).await
            };
            context.metrics.rotation(outcome);
            Effects::default().changed(due.id).wake().apply(&context);
        }
    };
    // In a task that a shutdown waits for.
    let task = context.tasks.spawn(tracing::Instrument::instrument(running, span));
    // A task that panicked has said so in the log, and its lease brings the next attempt.
    let _ = task.await;
    Ok(true)
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
        store::await_marking(&mut tx, due).await?;
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
    key: DataKey,
    credentials: AppCredentials,
    permit: Permit,
}

impl Rotation {
    fn open(
        context: &Context,
        claimed: ClaimedRotation,
        permit: Permit,
    ) -> Result<Self, ConnectionError> {
        let vault = &context.vault;
        let key = vault.unwrap(&claimed.user_key)?;
        let aad = aad(&claimed).access_token();
        let token = claimed.token.open_bound(&key, &aad, claimed.binding.as_ref())?;
        let credentials = claimed.credentials.clone().open(vault)?;
        Ok(Self { claimed, token, key, credentials, permit })
    }

    /// Replaces the token.
    async fn run(self, context: &Context) -> Outcome {
        let trace = TraceContext::fresh();
        let Self { permit, credentials, token, claimed, .. } = &self;
        let answer = context.providers.replace_token(permit, credentials, token, &trace).await;
        fail::fail_point!("rotation::answered");
        match answer {
            ExchangeAnswer::Token(new) => self.keep(context, &new.access_token).await,
            ExchangeAnswer::Refused(refusal) => {
                self.refused(context, &refusal, claimed.doubted).await
            }
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
    async fn probe(self, context: &Context) -> Outcome {
        let trace = TraceContext::fresh();
        let verify = Verify {
            app: &self.credentials,
            login_id: &self.claimed.login_id,
            token: &self.token,
            user_secret: None,
            trace: &trace,
        };
        let verified = context.providers.verify(&self.permit, &verify).await;
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

    /// Seals the new token. It exists once, so that it is kept in memory for as long as an exchange's.
    async fn keep(&self, context: &Context, new: &AccessToken) -> Outcome {
        let waiting = Waiting::new(context);
        let kept = self.try_keep(context, new).await;
        drop(waiting);
        fail::fail_point!("rotation::concluded");
        match kept {
            Ok(Stored::Replaced) => {
                let ClaimedRotation { app, id, unproven, .. } = self.claimed;
                // Plaid took the old token for its own, so that the one that it superseded is not needed.
                if unproven && let Err(error) = superseded::on_token_proven(context, app, id).await
                {
                    tracing::warn!(cause = %error, "a token could not be recorded as proven");
                }
                Outcome::Rotated
            }
            Ok(Stored::Nowhere) => {
                tracing::error!(
                    "a token was replaced whose connection has ended; the new one stays live at Plaid"
                );
                context.metrics.tokens_dropped.inc();
                Outcome::Dropped
            }
            Err(error) => {
                tracing::error!(cause = %error, "a new token was given up; the lease's end brings a probe");
                context.metrics.answers_lost.inc();
                Outcome::Unanswered
            }
        }
    }

    async fn try_keep(
        &self,
        context: &Context,
        new: &AccessToken,
    ) -> Result<Stored, ConnectionError> {
        let aad = aad(&self.claimed);
        // The same binding: a revocation that came meanwhile has moved it, and opens the token with it.
        let sealed = aad.seal_token(new, &self.key, self.claimed.binding.as_ref())?;
        let retryable = |error: &sqlx::Error| {
            tracing::warn!(cause = %error, "a new token could not be committed, trying again");
            true
        };
        let store = || async {
            let mut tx = context.pool.begin().await?;
            bank_login::wait_briefly(&mut tx).await?;
            let stored = store::store_token(&mut tx, &self.claimed, &sealed).await?;
            fail::fail_point!("rotation::before_commit");
            tx.commit().await?;
            Ok(stored)
        };
        Ok(retry_until(Instant::now() + HOLD_ANSWER, COMMIT_WAITS, retryable, store).await?)
    }

    /// Decides what a refusal of the old token means. `doubted`: a call with it went unanswered before.
    async fn refused(&self, context: &Context, refusal: &Refusal, doubted: bool) -> Outcome {
        let Refusal { kind, message } = refusal;
        let proven = !self.claimed.unproven;
        let is_dead =
            context.providers.reports_dead_token(Provider::Plaid, kind, &self.token, proven);
        let ended = if is_dead && doubted && kind == INVALID_ACCESS_TOKEN {
            retry(|| self.lose(context)).await.map(|()| Outcome::Lost)
        } else if is_dead {
            self.die(context, kind).await.map(|()| Outcome::Dead)
        } else {
            let what = format!("{kind}: {message}");
            let keeps_doubt = doubted.then_some(Outcome::Postponed);
            return self.postpone(context, keeps_doubt, &what, None).await;
        };
        ended.unwrap_or_else(|error| {
            tracing::warn!(cause = %error, "the end of a token could not be recorded; the lease's end brings a probe");
            Outcome::Postponed
        })
    }

    async fn die(&self, context: &Context, kind: &str) -> Result<(), ConnectionError> {
        let ClaimedRotation { app, id, .. } = self.claimed;
        let token = Some(&self.claimed.token);
        end_dead_token(context, app, id, Provider::Plaid, kind, token).await?;
        self.release(context).await
    }

    /// Ends the connection whose token is lost, without confirmation: the item lives on at Plaid.
    async fn lose(&self, context: &Context) -> Result<(), ConnectionError> {
        let ClaimedRotation { app, id, user, .. } = self.claimed;
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        let login = Some(self.claimed.login_id.as_str());
        let locked = bank_login::lock_bank_login(&mut tx, app, login, Some(id), user).await?;
        let still_holds = holds_token(&mut tx, app, id, &self.claimed.token).await?;
        // A revoking one is left to its revocation, which stays unconfirmed.
        let Some(_) = locked.me.filter(|me| me.status == Status::Active && still_holds) else {
            tx.commit().await?;
            return self.release(context).await;
        };
        let new = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(LOST) };
        store::record_loss(&mut tx, &self.claimed).await?;
        let end = End { last_error: Some(LOST), ..End::new(new.kind.ends(false)) };
        let actor = AuditActor::from(&Actor::service());
        transitions::store::revoke(&mut tx, &actor, app, id, &new, &end).await?;
        superseded::after(&mut tx, app, id, PredecessorEvent::Revoked).await?;
        token_lease::store::release_by_id(&mut tx, id, self.claimed.token_lease).await?;
        fail::fail_point!("rotation::before_loss");
        tx.commit().await?;
        tracing::error!(connection = %id, "a token is lost: its user has to link the login again");
        Effects::revocation(RevocationEnd::Unconfirmed).apply(context);
        Ok(())
    }

    async fn release(&self, context: &Context) -> Result<(), ConnectionError> {
        let mut conn = context.pool.acquire().await?;
        let ClaimedRotation { id, token_lease, .. } = self.claimed;
        Ok(token_lease::store::release_by_id(&mut conn, id, token_lease).await?)
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
        let wait = backoff(RETRY.0, RETRY.1, self.claimed.attempts, asked);
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
