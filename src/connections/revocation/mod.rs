//! Revocation: acknowledged at once, then delinked at Dapi until it confirms.
//!
//! The acknowledgement is one commit; after it no token is read and no call starts. The background work claims the
//! delinking from the same table and retries it with growing waits. Attempts and the last error are on the connection
//! and outstanding revocations are a metric, so giving up is never silent.

mod dead_token;
pub mod routes;
pub mod store;
mod unconfirmed;

pub use dead_token::{end_dead_token, end_dead_token_under, restore_predecessor};

pub use unconfirmed::{InvalidateError, RequestedInvalidation, invalidate_unconfirmed};

use std::time::{Duration, Instant};

use crate::approvals::Permitted;
use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId};
use crate::common::trace::TraceContext;
use crate::connections::claim::ClaimedDelink;
use crate::connections::deferred::Reconciler;
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::model::{
    PredecessorEvent, RevocationKind, RevocationTransition, Status, Transition,
};
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{
    ConnectionAad, ConnectionError, Context, backoff, bank_login, model, superseded, token_lease,
    transitions,
};
use crate::database::{Conn, Waits, retry, retry_until};
use crate::providers::{AccessToken, AppCredentials, Permit, Revoke, RevokeAnswer, UserSecret};
use crate::vault::{OpenedKeys, Vault, VaultError};

/// The first wait before a delinking is retried, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_hours(1));

/// A request to revoke a connection.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub kind: RevocationKind,
    /// The caller's own reason, for the audit trail.
    pub reason: Option<&'a str>,
    /// `None` has the token delinked at Dapi. With a permission the revocation ends at once, without confirmation.
    pub unconfirmed: Option<&'a Permitted>,
}

impl<'a> Request<'a> {
    /// A request whose token is delinked at the provider.
    #[must_use]
    pub const fn told(kind: RevocationKind, reason: Option<&'a str>) -> Self {
        Self { kind, reason, unconfirmed: None }
    }
}

/// What became of a request to revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// The revocation is committed, now or before.
    Acknowledged,
    /// The exchange never gave a token: there is nothing to revoke.
    NotActive,
    /// There is no such connection.
    Unknown,
}

/// Acknowledges a revocation: once this returns, nothing reads or uses the token any more. Retries if the connection
/// is locked elsewhere.
pub async fn revoke(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    request: Request<'_>,
) -> Result<RevokeOutcome, ConnectionError> {
    retry(|| revoke_once(context, actor, app, id, request)).await
}

async fn revoke_once(
    context: &Context,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    request: Request<'_>,
) -> Result<RevokeOutcome, ConnectionError> {
    let mut tx = context.pool.begin().await?;
    let (outcome, effects) = revoke_in(&mut tx, actor, app, id, request).await?;
    if outcome != RevokeOutcome::Acknowledged {
        return Ok(outcome);
    }
    fail::fail_point!("revocation::before_commit");
    tx.commit().await?;
    fail::fail_point!("revocation::committed");
    effects.apply(context);
    Ok(RevokeOutcome::Acknowledged)
}

/// Acknowledges a revocation in the caller's transaction, under the bank login's lock. The effects are applied by the
/// caller, after its commit.
pub async fn revoke_in(
    tx: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: ConnectionId,
    request: Request<'_>,
) -> Result<(RevokeOutcome, Effects), ConnectionError> {
    let Some((login_id, user)) = bank_login::login_of(tx, app, id).await? else {
        return Ok((RevokeOutcome::Unknown, Effects::default()));
    };
    let locked = bank_login::lock_bank_login(tx, app, login_id.as_deref(), Some(id), user).await?;
    let Some(me) = locked.me else { return Ok((RevokeOutcome::Unknown, Effects::default())) };
    let actor = AuditActor::from(actor);
    let new = NewRevocation { kind: request.kind, reason: request.reason };
    let mut effects = Effects::default().changed(id).wake();
    match model::on_revocation(me.state, me.lease_epoch > 0, request.unconfirmed.is_none()) {
        RevocationTransition::Begin => {
            transitions::store::begin_revocation(tx, &actor, app, id, &new).await?;
        }
        RevocationTransition::End { confirmed } => {
            let end =
                End { confirmed, reason: request.reason, ..End::new(request.kind.ends(confirmed)) };
            transitions::store::revoke(tx, &actor, app, id, &new, &end).await?;
            effects = effects.and(Effects::revocation(RevocationEnd::of(confirmed)));
        }
        // No return: its kept token, which a dead successor would restore, is destroyed below all the same.
        RevocationTransition::Already => {}
        RevocationTransition::NotActive => {
            return Ok((RevokeOutcome::NotActive, Effects::default()));
        }
    }
    superseded::after(tx, app, id, PredecessorEvent::Revoked).await?;
    Ok((RevokeOutcome::Acknowledged, effects))
}

/// Attempts that wait for an answer about whose login an unproven token is of.
const CHECKED_ATTEMPTS: i32 = 3;

/// Which login a token is of that is to be revoked.
enum Checked {
    /// The one that its connection says, as far as can be known.
    Right,
    /// Another. Its connection has moved there and is due again.
    Moved,
    /// No conclusive answer came.
    Unknown(String),
}

/// A claimed delinking: a token under a lease, ready to be delinked at Dapi.
#[must_use = "the lease is held and no other task delinks until it ends"]
pub struct PendingDelink {
    aad: ConnectionAad,
    login_id: Option<String>,
    epoch: i32,
    token_lease: TokenLeaseId,
    attempts: i32,
    token: AccessToken,
    user_secret: Option<UserSecret>,
    proven: bool,
    credentials: AppCredentials,
    permit: Permit,
}

impl PendingDelink {
    /// Opens the secrets of a delinking that the background work claimed.
    pub async fn from_claimed(
        vault: &Vault,
        keys: &OpenedKeys,
        delink: ClaimedDelink,
        permit: Permit,
    ) -> Result<Self, VaultError> {
        let ClaimedDelink { claimed, attempts, token_lease, proven, .. } = delink;
        let aad = ConnectionAad { app: claimed.app, user: claimed.user, id: claimed.id };
        let key = keys.of(vault, &claimed.user_key).await?;
        let app_key = keys.of(vault, &claimed.credentials.key).await?;
        Ok(Self {
            aad,
            login_id: claimed.login_id,
            epoch: claimed.epoch,
            token_lease,
            attempts,
            proven,
            token: claimed.secret.open_bound(
                &key,
                &aad.access_token(),
                claimed.binding.as_ref(),
            )?,
            user_secret: claimed
                .user_secret
                .map(|sealed| sealed.open(&key, &aad.user_secret()))
                .transpose()?,
            credentials: claimed.credentials.open_with(&app_key)?,
            permit,
        })
    }

    /// Runs in a task of its own, which a shutdown waits for.
    pub fn spawn(self, context: &Context) -> tokio::task::JoinHandle<()> {
        let context = context.clone();
        let span = tracing::info_span!("delink", connection = %self.aad.id, epoch = self.epoch);
        let tasks = context.tasks.clone();
        tasks.spawn(tracing::Instrument::instrument(async move { self.run(&context).await }, span))
    }

    async fn run(self, context: &Context) {
        match retry(|| self.may_be_sent(context)).await {
            Ok(true) => {}
            Ok(false) => return,
            // The next attempt follows when the lease ends.
            Err(error) => {
                context.metrics.reconciler_failed(Reconciler::Delinks);
                return tracing::warn!(cause = %error, "a delinking could not be begun");
            }
        }
        let trace = TraceContext::fresh();
        let checked = self.check_login(context, &trace).await;
        let Self { permit, credentials, token, user_secret, proven, .. } = &self;
        let user_secret = user_secret.as_ref();
        let revoke =
            Revoke { app: credentials, token, user_secret, proven: *proven, trace: &trace };
        fail::fail_point!("delink::before_call");
        let answer = match checked {
            Checked::Right => context.providers.revoke(permit, &revoke).await,
            Checked::Unknown(what) => RevokeAnswer::Failed { what, retry_after: None },
            Checked::Moved => return,
        };
        fail::fail_point!("delink::answered");
        // Retrying only until the lease ends is enough: delinking is idempotent and another attempt follows.
        let lease_end = Instant::now() + context.delink_lease(credentials.provider);
        let retryable = |error: &sqlx::Error| {
            tracing::warn!(cause = %error, "a delinking's outcome could not be committed");
            true
        };
        let waits = Waits::doubling(Duration::from_millis(50), Duration::from_secs(2));
        let record = || self.record_outcome(context, &answer);
        if retry_until(lease_end, waits, retryable, record).await.is_ok() {
            Effects::default().changed(self.aad.id).wake().apply(context);
        }
    }

    /// Checks once more, under the login's lock, that no other connection of the login has become active since this
    /// one was claimed: delinking could cut it. Ends the revocation without Dapi if one has.
    ///
    /// A running activation holds its row, so that this waits for it; a later one sees that this connection is
    /// revoking and does not activate.
    async fn may_be_sent(&self, context: &Context) -> Result<bool, sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        let locked =
            bank_login::lock_bank_login(&mut tx, app, self.login_id.as_deref(), Some(id), user)
                .await?;
        let Some(me) = locked.me.filter(|me| me.lease_epoch == self.epoch) else {
            return Ok(false);
        };
        if !locked.login.is_in_use() {
            return Ok(true);
        }
        let transition = model::on_unconfirmed_end(locked.login, false);
        let effects = transitions::apply(&mut tx, &me, &transition, None).await?;
        token_lease::store::release_by_id(&mut tx, id, self.token_lease).await?;
        tx.commit().await?;
        effects.changed(id).apply(context);
        Ok(false)
    }

    /// Asks which login a token is of that has not proven itself: it may be another's, by which another connection lives,
    /// and whose removal is not what was asked for. Moves this connection to the true one and makes it due again.
    async fn check_login(&self, context: &Context, trace: &TraceContext) -> Checked {
        let (Some(login_id), false) = (self.login_id.as_deref(), self.proven) else {
            return Checked::Right;
        };
        if !self.credentials.provider.has_details() {
            return Checked::Right;
        }
        let Self { permit, credentials, token, .. } = self;
        let details = context.providers.item_details(permit, credentials, token, false, trace);
        let item_id = match details.await {
            Ok(details) => details.item_id,
            Err(error) if error.is_silent() && self.attempts <= CHECKED_ATTEMPTS => {
                return Checked::Unknown(error.what);
            }
            // What refuses this call says about the token what the revocation will say, and one that stays silent must not
            // keep a token alive.
            Err(_) => None,
        };
        let Some(item_id) = item_id.filter(|item_id| item_id != login_id) else {
            return Checked::Right;
        };
        match retry(|| self.move_to(context, login_id, &item_id)).await {
            Ok(effects) => effects.apply(context),
            Err(error) => {
                context.metrics.reconciler_failed(Reconciler::Delinks);
                tracing::warn!(cause = %error, "the login of a token could not be recorded");
            }
        }
        Checked::Moved
    }

    async fn move_to(
        &self,
        context: &Context,
        said: &str,
        item_id: &str,
    ) -> Result<Effects, sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        bank_login::lock_two_logins(&mut tx, app, [said, item_id]).await?;
        let locked =
            bank_login::lock_bank_login(&mut tx, app, Some(item_id), Some(id), user).await?;
        let me = locked.me.filter(|me| me.lease_epoch == self.epoch);
        if let Some(me) = me.filter(|me| me.status == Status::Revoking) {
            bank_login::set_login(&mut tx, app, id, item_id).await?;
            bank_login::record_correction(&mut tx, app, id, said).await?;
            transitions::store::postpone(&mut tx, &me, Duration::ZERO).await?;
        }
        token_lease::store::release_by_id(&mut tx, id, self.token_lease).await?;
        tx.commit().await?;
        Ok(Effects::default().changed(id).wake())
    }

    async fn record_outcome(
        &self,
        context: &Context,
        answer: &RevokeAnswer,
    ) -> Result<(), sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let (what, retry_after) = match answer {
            RevokeAnswer::Revoked => return self.confirm(context, None).await,
            RevokeAnswer::AlreadyGone(refusal) => {
                let gone = format!("{}: {}", refusal.kind, refusal.message);
                return self.confirm(context, Some(gone)).await;
            }
            RevokeAnswer::Failed { what, retry_after } => (what.clone(), *retry_after),
        };
        tracing::warn!(what, attempts = self.attempts, %user, "the provider did not confirm a revocation");
        let wait = backoff(RETRY.0, RETRY.1, self.attempts, retry_after);
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        transitions::store::delink_failed(&mut tx, app, id, self.epoch, &what, wait).await?;
        token_lease::store::release_by_id(&mut tx, id, self.token_lease).await?;
        tx.commit().await
    }

    /// Ends the revocation as confirmed, under any lease: the token is gone at Dapi.
    async fn confirm(&self, context: &Context, what: Option<String>) -> Result<(), sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let mut tx = context.pool.begin().await?;
        // A long lock is retried instead of waited for, so that it does not occupy a connection of the pool.
        bank_login::wait_briefly(&mut tx).await?;
        let locked =
            bank_login::lock_bank_login(&mut tx, app, self.login_id.as_deref(), Some(id), user)
                .await?;
        let mut effects = Effects::default();
        if let Some(me) = locked.me.filter(|me| me.status == Status::Revoking) {
            let transition = Transition::EndRevocation { confirmed: true, what };
            effects = transitions::apply(&mut tx, &me, &transition, None).await?;
        }
        token_lease::store::release_by_id(&mut tx, id, self.token_lease).await?;
        tx.commit().await?;
        effects.apply(context);
        Ok(())
    }
}

/// Ends a revocation without Dapi's confirmation, in a task of its own: it was given up, or the login is in use by
/// another connection. If that fails, the next attempt follows when the lease ends.
pub fn spawn_end_unconfirmed(
    context: &Context,
    delink: ClaimedDelink,
) -> tokio::task::JoinHandle<()> {
    let context = context.clone();
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = end_unconfirmed(&context, &delink).await {
            context.metrics.reconciler_failed(Reconciler::Delinks);
            let id = delink.claimed.id;
            tracing::warn!(connection = %id, cause = %error, "a revocation could not be ended");
        }
    })
}

async fn end_unconfirmed(context: &Context, delink: &ClaimedDelink) -> Result<(), sqlx::Error> {
    let claimed = &delink.claimed;
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    let locked = bank_login::lock_bank_login(
        &mut tx,
        claimed.app,
        claimed.login_id.as_deref(),
        Some(claimed.id),
        claimed.user,
    )
    .await?;
    let mut effects = Effects::default().changed(claimed.id).wake();
    if let Some(me) = locked.me.filter(|me| me.status == Status::Revoking) {
        if delink.given_up || locked.login.is_in_use() {
            let transition = model::on_unconfirmed_end(locked.login, delink.given_up);
            tracing::error!(connection = %me.id, ?transition, "a revocation ends without Dapi's confirmation");
            effects = effects.and(transitions::apply(&mut tx, &me, &transition, None).await?);
        } else {
            // The other connection was revoked since this one was claimed, so both can be delinked.
            transitions::store::postpone(&mut tx, &me, Duration::ZERO).await?;
        }
    }
    token_lease::store::release_by_id(&mut tx, claimed.id, delink.token_lease).await?;
    tx.commit().await?;
    effects.apply(context);
    Ok(())
}
