//! Revocation: acknowledged here at once, told to Dapi until it confirms.
//!
//! The acknowledgement is one commit; after it no token is read and no call starts. Telling Dapi is
//! the background work's, through the same table, with growing waits and without giving up in
//! silence: attempts and the last error stand on the connection, and what is outstanding is counted.

mod dead_token;
pub mod routes;

pub use dead_token::dapi_reports_dead_token;

use std::time::{Duration, Instant};

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, TokenLeaseId};
use crate::base::trace::TraceContext;
use crate::connections::model::{
    PredecessorEvent, RevocationKind, RevocationTransition, Status, Transition,
};
use crate::connections::reconcile::Reconciler;
use crate::connections::reconcile::store::ClaimedDelink;
use crate::connections::transitions::apply;
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{
    ConnectionAad, ConnectionError, Context, backoff, bank_login, model, superseded, token_lease,
    transitions,
};
use crate::dapi::{AccessToken, AppCredentials, DelinkAnswer, Permit, UserSecret};
use crate::database::retry;
use crate::vault::{Vault, VaultError};

/// The first wait before Dapi is told again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_hours(1));

/// A revocation that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// How.
    pub kind: RevocationKind,
    /// Why.
    pub reason: Option<&'a str>,
    /// Whether Dapi is to be told.
    pub tell_dapi: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// It is acknowledged, or was before.
    Acknowledged,
    /// There is nothing to revoke.
    NotActive,
    /// There is no such connection.
    Unknown,
}

/// Acknowledges a revocation: when this returns, nothing reads or uses the token any more. Tried again if
/// somebody else has the connection locked.
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
    let Some((dapi_connection_id, user)) = bank_login::login_of(&mut tx, app, id).await? else {
        return Ok(RevokeOutcome::Unknown);
    };
    let locked =
        bank_login::lock_bank_login(&mut tx, app, &dapi_connection_id, Some(id), user).await?;
    let Some(me) = locked.me else { return Ok(RevokeOutcome::Unknown) };
    let actor = AuditActor::from(actor);
    let new = NewRevocation { kind: request.kind, reason: request.reason };
    match model::on_revocation(me.state, me.lease_epoch > 0, request.tell_dapi) {
        RevocationTransition::Begin => {
            transitions::store::begin_revocation(&mut tx, &actor, app, id, &new).await?;
        }
        RevocationTransition::End { confirmed } => {
            transitions::store::record_revocation(&mut tx, app, id, &new).await?;
            let end =
                End { confirmed, reason: request.reason, ..End::new(request.kind.ends(confirmed)) };
            transitions::store::end(&mut tx, &actor, app, id, &end).await?;
            context.metrics.revocation(if confirmed { "confirmed" } else { "unconfirmed" });
        }
        // What is kept of it for the case that a newer token is dead is destroyed all the same.
        RevocationTransition::Already => {}
        RevocationTransition::NotActive => return Ok(RevokeOutcome::NotActive),
    }
    superseded::after(&mut tx, app, id, PredecessorEvent::Revoked).await?;
    fail::fail_point!("revocation::before_commit");
    tx.commit().await?;
    fail::fail_point!("revocation::committed");
    context.changes.notify(id);
    context.wake.notify_one();
    Ok(RevokeOutcome::Acknowledged)
}

/// A token under a lease that Dapi is about to be told of.
#[must_use = "the lease is held and nobody else tells Dapi until it ends"]
pub struct PendingDelink {
    aad: ConnectionAad,
    dapi_connection_id: String,
    epoch: i32,
    token_lease: TokenLeaseId,
    attempts: i32,
    token: AccessToken,
    user_secret: UserSecret,
    user_secret_proven: bool,
    credentials: AppCredentials,
    permit: Permit,
}

impl PendingDelink {
    /// Takes up a delinking that the background work claimed.
    pub fn from_claimed(
        vault: &Vault,
        delink: ClaimedDelink,
        permit: Permit,
    ) -> Result<Self, VaultError> {
        let ClaimedDelink { claimed, attempts, token_lease, user_secret_proven, .. } = delink;
        let aad = ConnectionAad { app: claimed.app, user: claimed.user, id: claimed.id };
        let key = vault.unwrap(&claimed.user_key)?;
        Ok(Self {
            aad,
            dapi_connection_id: claimed.dapi_connection_id,
            epoch: claimed.epoch,
            token_lease,
            attempts,
            user_secret_proven,
            token: claimed.secret.open_bound(
                &key,
                &aad.access_token(),
                claimed.binding.as_ref(),
            )?,
            // Without it nothing but an end without Dapi is claimed.
            user_secret: claimed
                .user_secret
                .ok_or(VaultError::DoesNotOpen)?
                .open(&key, &aad.user_secret())?,
            credentials: claimed.credentials.open(vault)?,
            permit,
        })
    }

    /// Tells Dapi in a task of its own, for which a shutdown waits.
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
            // The lease's end brings the next attempt.
            Err(error) => {
                context.metrics.reconciler_failed(Reconciler::Delinks);
                return tracing::warn!(cause = %error, "a delinking could not be begun");
            }
        }
        let trace = TraceContext::fresh();
        let Self { permit, credentials, token, user_secret, .. } = &self;
        fail::fail_point!("delink::before_call");
        let answer = context.dapi.delink(permit, credentials, token, user_secret, &trace).await;
        fail::fail_point!("delink::answered");
        let given_up = Instant::now() + context.delink_lease();
        let mut wait = Duration::from_millis(50);
        // Repeating the call is safe, so the answer is not worth more than its lease.
        while let Err(error) = self.conclude(context, &answer).await {
            tracing::warn!(cause = %error, "a delinking's outcome could not be committed");
            if Instant::now() + wait > given_up {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
        context.changes.notify(self.aad.id);
        context.wake.notify_one();
    }

    /// Looks once more, under the login's lock, whether another connection of the login became active since
    /// this one was claimed: the delinking could cut that one. An activation under way holds its row, so
    /// that this waits for it; one that begins later sees this revocation. Ends the revocation if so.
    async fn may_be_sent(&self, context: &Context) -> Result<bool, sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        let locked =
            bank_login::lock_bank_login(&mut tx, app, &self.dapi_connection_id, Some(id), user)
                .await?;
        let Some(me) = locked.me.filter(|me| me.lease_epoch == self.epoch) else {
            return Ok(false);
        };
        if !locked.login.is_in_use() {
            return Ok(true);
        }
        let transition = model::on_unconfirmed_end(locked.login, false);
        apply(context, &mut tx, &me, &transition, None).await?;
        token_lease::store::release_delink_lease(&mut tx, id, self.token_lease).await?;
        tx.commit().await?;
        context.changes.notify(id);
        Ok(false)
    }

    async fn conclude(&self, context: &Context, answer: &DelinkAnswer) -> Result<(), sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let (what, retry_after) = match answer {
            DelinkAnswer::Delinked => return self.confirm(context, None).await,
            DelinkAnswer::AlreadyGone(refusal) => {
                let gone = format!("{}: {}", refusal.kind, refusal.message);
                if self.user_secret_proven {
                    return self.confirm(context, Some(gone)).await;
                }
                // Whoever sends a wrong user secret is not told about the token, whatever the words: a
                // token that lives would be given up for a secret that somebody mistyped.
                (format!("{gone} (the user secret is not proven)"), None)
            }
            DelinkAnswer::Failed { what, retry_after } => (what.clone(), *retry_after),
        };
        tracing::warn!(what, attempts = self.attempts, %user, "Dapi did not confirm a delinking");
        let wait = backoff(RETRY.0, RETRY.1, self.attempts, retry_after);
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        transitions::store::delink_failed(&mut tx, app, id, self.epoch, &what, wait).await?;
        token_lease::store::release_delink_lease(&mut tx, id, self.token_lease).await?;
        tx.commit().await
    }

    /// Whatever lease it was told under, a confirmation is one.
    async fn confirm(&self, context: &Context, what: Option<String>) -> Result<(), sqlx::Error> {
        let ConnectionAad { app, user, id } = self.aad;
        let mut tx = context.pool.begin().await?;
        // A row that is locked for long is tried again, and holds up no connection of the pool meanwhile.
        bank_login::wait_briefly(&mut tx).await?;
        let locked =
            bank_login::lock_bank_login(&mut tx, app, &self.dapi_connection_id, Some(id), user)
                .await?;
        if let Some(me) = locked.me.filter(|me| me.status == Status::Revoking) {
            let transition = Transition::EndRevocation { confirmed: true, what };
            apply(context, &mut tx, &me, &transition, None).await?;
        }
        token_lease::store::release_delink_lease(&mut tx, id, self.token_lease).await?;
        tx.commit().await
    }
}

/// Ends a revocation that Dapi will not be told of: it was tried for as long as it is going to be, or
/// the login is in use by another connection. In a task of its own; if it fails, the lease's end brings the
/// next attempt.
pub fn spawn_end_untold(context: &Context, delink: ClaimedDelink) -> tokio::task::JoinHandle<()> {
    let context = context.clone();
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = end_untold(&context, &delink).await {
            context.metrics.reconciler_failed(Reconciler::Delinks);
            let id = delink.claimed.id;
            tracing::warn!(connection = %id, cause = %error, "a revocation could not be ended");
        }
    })
}

async fn end_untold(context: &Context, delink: &ClaimedDelink) -> Result<(), sqlx::Error> {
    let claimed = &delink.claimed;
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    let locked = bank_login::lock_bank_login(
        &mut tx,
        claimed.app,
        &claimed.dapi_connection_id,
        Some(claimed.id),
        claimed.user,
    )
    .await?;
    if let Some(me) = locked.me.filter(|me| me.status == Status::Revoking) {
        if delink.given_up || locked.login.is_in_use() {
            let transition = model::on_unconfirmed_end(locked.login, delink.given_up);
            tracing::error!(connection = %me.id, ?transition, "a revocation ends without Dapi's confirmation");
            apply(context, &mut tx, &me, &transition, None).await?;
        } else {
            // The other one was revoked since this was claimed: now Dapi can be told of both.
            transitions::store::postpone(&mut tx, &me, Duration::ZERO).await?;
        }
    }
    token_lease::store::release_delink_lease(&mut tx, claimed.id, delink.token_lease).await?;
    tx.commit().await?;
    context.changes.notify(claimed.id);
    context.wake.notify_one();
    Ok(())
}
