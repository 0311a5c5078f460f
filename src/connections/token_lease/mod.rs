//! Token leases: what a call with a connection's token holds, across replicas, so that a revocation waits for it. Dapi
//! fails all calls that use one token at the same time, so there a token has one lease at most.
//!
//! This module has the lease and the positions in its queue. Waiting, and for how long, is up to the caller.

pub mod store;

use std::time::Duration;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::common::secret::Sealable as _;
use crate::connections::model::{Attention, Status};
use crate::connections::query::store::ViewQuery;
use crate::connections::token_lease::store::{AcquireLease, AcquiredLease, ReleaseLease};
use crate::connections::{ConnectionAad, ConnectionError, Context, attention, superseded};
use crate::database::{Waits, retry_until};
use crate::providers::{AccessToken, AppCredentials, Provider, UserSecret};
use crate::vault::{Binding, Sealed, Vault, VaultError};

/// Between two tries to release a lease.
const RELEASE_WAITS: Waits = Waits::doubling(Duration::from_millis(50), Duration::from_secs(2));

/// A request to call Dapi with a connection's token.
#[derive(Clone, Debug)]
pub struct CallRequest {
    pub actor: Actor,
    pub app: AppId,
    pub id: ConnectionId,
    /// The bank link that the call is made at.
    pub provider: Provider,
    /// The provider's path, for the audit trail.
    pub path: &'static str,
    /// Whether the call is made although the connection needs attention.
    pub despite_attention: bool,
    /// Time limit of the call. The lease ends by itself after it, so that a crash blocks no token for longer.
    pub limit: Duration,
}

/// An acquired lease: the call has begun and is on record, and no other call uses the token.
#[must_use = "no other call uses the token until the lease is ended or its time is over"]
#[derive(Debug)]
pub struct TokenLease {
    request: CallRequest,
    id: TokenLeaseId,
    acquired: AcquiredLease,
}

/// The secrets that a call needs, unsealed.
#[derive(Debug)]
pub struct Opened {
    pub access_token: AccessToken,
    /// `None` if the provider has none, or if the connection came through Dapi's own wire and no call has brought it yet.
    pub user_secret: Option<UserSecret>,
    pub credentials: AppCredentials,
}

/// Acquires the token's lease. Returns `None` if it is not free, or if a caller with an earlier position waits.
/// `position` is the caller's own position in the queue, if it has waited.
///
/// Write ahead of the call: when this returns a lease, the audit row `begun` has committed.
pub async fn acquire(
    context: &Context,
    request: &CallRequest,
    position: Option<i64>,
) -> Result<Option<TokenLease>, ConnectionError> {
    let lease_id = TokenLeaseId::new();
    let CallRequest { app, id, provider, path, despite_attention, limit, .. } = *request;
    let actor = AuditActor::from(&request.actor);
    let query = AcquireLease {
        actor,
        app,
        id,
        lease_id,
        position,
        despite_attention,
        limit,
        provider,
        path,
    };
    match context.batch(query).await {
        Ok(acquired) => Ok(acquired.map(|acquired| TokenLease {
            request: request.clone(),
            id: lease_id,
            acquired,
        })),
        Err(error) => {
            // The commit may have been applied although its answer was lost: release the lease in any case.
            let end = release_of(request, lease_id, None, "not_sent", path.to_owned());
            let end = ReleaseLease { used: false, ..end };
            // In a task, so that the caller does not wait for a database that has just failed.
            let context = context.clone();
            let tasks = context.tasks.clone();
            tasks.spawn(async move { release_later(&context, end, limit).await });
            Err(error.into())
        }
    }
}

fn release_of(
    request: &CallRequest,
    lease_id: TokenLeaseId,
    user: Option<UserId>,
    outcome: &'static str,
    reason: String,
) -> ReleaseLease {
    let CallRequest { app, id, provider, .. } = *request;
    let actor = AuditActor::from(&request.actor);
    ReleaseLease {
        actor,
        app,
        id,
        user,
        lease_id,
        outcome,
        provider,
        reason,
        used: true,
        attention: None,
        begun_at: None,
    }
}

impl TokenLease {
    /// Returns whose token it is.
    pub const fn connection(&self) -> ConnectionId {
        self.request.id
    }

    /// Returns the token of the call, sealed.
    pub fn token(&self) -> &Sealed<AccessToken> {
        &self.acquired.access_token
    }

    /// Unseals what the call needs.
    pub async fn open(&self, vault: &Vault) -> Result<Opened, VaultError> {
        let AcquiredLease {
            user, user_key, access_token, binding, user_secret, credentials, ..
        } = &self.acquired;
        let aad = ConnectionAad { app: self.request.app, user: *user, id: self.request.id };
        // At once, so that they are one trip.
        let (key, credentials) =
            futures_util::try_join!(vault.unwrap(user_key), credentials.clone().open(vault))?;
        let open = |sealed: &Sealed<UserSecret>| sealed.open(&key, &aad.user_secret());
        Ok(Opened {
            access_token: access_token.open_bound(&key, &aad.access_token(), binding.as_ref())?,
            user_secret: user_secret.as_ref().map(open).transpose()?,
            credentials,
        })
    }

    /// Releases the lease and records the outcome of the call. Retries in the background for as long as the lease
    /// lasts. With `attention`, a kind of refusal, no further lease is given until the user links the login again.
    /// Notifies the subscribers of the connection in this process.
    pub async fn end(
        &self,
        context: &Context,
        outcome: &'static str,
        status: Option<u16>,
        attention: Option<String>,
    ) -> Result<(), ConnectionError> {
        self.release(context, outcome, status, attention, outcome != "failed").await
    }

    /// The same after a call of Strongroom's own, which is no use of the connection.
    pub async fn end_unused(
        &self,
        context: &Context,
        outcome: &'static str,
        status: Option<u16>,
        attention: Option<String>,
    ) -> Result<(), ConnectionError> {
        self.release(context, outcome, status, attention, false).await
    }

    async fn release(
        &self,
        context: &Context,
        outcome: &'static str,
        status: Option<u16>,
        attention: Option<String>,
        used: bool,
    ) -> Result<(), ConnectionError> {
        let reason = status.map_or_else(
            || self.request.path.to_owned(),
            |code| format!("{}: {code}", self.request.path),
        );
        let end = release_of(&self.request, self.id, Some(self.acquired.user), outcome, reason);
        let end = ReleaseLease { used, attention, begun_at: Some(self.acquired.begun_at), ..end };
        let ended = context.batch(end.clone()).await;
        if ended.is_err() {
            let (context, limit) = (context.clone(), self.request.limit);
            context.tasks.clone().spawn(async move { release_later(&context, end, limit).await });
        }
        context.changes.notify(self.request.id);
        Ok(ended?)
    }

    /// Returns whether what this call sends is known to be right, so that a refusal is about the token: at Dapi, whether
    /// the user secret is (Dapi has accepted it in a call, or it came from Connect); elsewhere, whether a call with the
    /// token has succeeded or an exchange brought it.
    pub fn is_proven(&self) -> bool {
        if self.request.provider.has_user_secret() {
            self.acquired.user_secret_proven
        } else {
            !self.acquired.unproven
        }
    }

    /// Records that Dapi accepted the user secret of this call. No later call replaces a proven one.
    pub async fn prove_user_secret(&self, context: &Context) -> Result<(), ConnectionError> {
        let Some(sealed) =
            self.acquired.user_secret.as_ref().filter(|_| !self.acquired.user_secret_proven)
        else {
            return Ok(());
        };
        let mut conn = context.pool.acquire().await?;
        let CallRequest { app, id, .. } = self.request;
        Ok(store::prove_user_secret(&mut conn, app, id, sealed).await?)
    }

    /// Records that a call with the token succeeded, and destroys the token that it superseded, which was kept in
    /// case this one is dead. At a provider that names a token's login, success is not enough: the token may be of
    /// another login, and `details` decides.
    pub async fn prove_token(&self, context: &Context) -> Result<(), ConnectionError> {
        if !self.acquired.unproven || self.request.provider.has_details() {
            return Ok(());
        }
        superseded::on_token_proven(context, self.request.app, self.request.id).await
    }

    /// Records what a call that succeeded says about the user's login: with `begins_repair`, that they were sent to repair
    /// it, otherwise that it works. Only of a connection that needs attention. A failure is only logged: the next call
    /// says it again.
    pub async fn record_success(&self, context: &Context, begins_repair: bool) {
        if !self.acquired.needs_attention {
            return;
        }
        let CallRequest { app, id, .. } = self.request;
        let record = async {
            let mut conn = context.pool.acquire().await?;
            if begins_repair {
                return attention::store::begin_repair(&mut conn, app, id).await;
            }
            let actor = AuditActor::from(&Actor::service());
            attention::store::clear_attention(&mut conn, &actor, app, id, None).await
        };
        if let Err(error) = record.await {
            tracing::warn!(connection = %id, cause = %error, "the repair of a login could not be recorded");
        }
    }

    /// Returns whether another connection of the same user, whose sealed token this is, holds the token of this call.
    pub async fn holds_same_token(
        &self,
        vault: &Vault,
        other: ConnectionId,
        (sealed, binding): &(Sealed<AccessToken>, Option<Binding>),
    ) -> Result<bool, VaultError> {
        let AcquiredLease { user, user_key, .. } = &self.acquired;
        let aad = ConnectionAad { app: self.request.app, user: *user, id: other };
        let key = vault.unwrap(user_key).await?;
        let theirs = sealed.open_bound(&key, &aad.access_token(), binding.as_ref())?;
        Ok(theirs.same_as(&self.open(vault).await?.access_token))
    }
}

/// Retries the release of a lease until the lease has ended by itself.
async fn release_later(context: &Context, end: ReleaseLease, limit: Duration) {
    tokio::time::sleep(RELEASE_WAITS.first()).await;
    let deadline = std::time::Instant::now() + limit;
    let release = || context.batch(end.clone());
    match retry_until(deadline, RELEASE_WAITS, |_: &sqlx::Error| true, release).await {
        Ok(()) => context.changes.notify(end.id),
        Err(error) => {
            tracing::error!(connection = %end.id, cause = %error, "the end of a call could not be recorded");
        }
    }
}

/// Returns a connection's status and the attention that keeps calls from it, or `None` if the app has no such connection at this
/// provider.
pub async fn status_of(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    provider: Provider,
) -> Result<Option<(Status, Option<Attention>)>, ConnectionError> {
    let found = context.batch(ViewQuery { app, id }).await?;
    let Some(connection) = found.filter(|connection| connection.provider == provider) else {
        return Ok(None);
    };
    let mut attention = connection.attention;
    if attention.is_some() {
        let mut conn = context.pool.acquire().await?;
        if attention::store::is_repair_tried(&mut conn, app, id).await? {
            attention = None;
        }
    }
    Ok(Some((connection.status, attention)))
}

/// Appends a position to the token's queue. Returns `None` if `most` callers wait already.
pub async fn join_queue(
    context: &Context,
    id: ConnectionId,
    most: i64,
) -> Result<Option<i64>, ConnectionError> {
    Ok(store::join_queue(&mut context.pool.acquire().await?, id, most).await?)
}

/// Renews these positions, whose callers still wait. Returns those that still exist.
pub async fn stay_in_queue(
    context: &Context,
    id: ConnectionId,
    positions: &[i64],
) -> Result<Vec<i64>, ConnectionError> {
    Ok(store::stay_in_queue(&mut context.pool.acquire().await?, id, positions).await?)
}

/// Deletes a position from the queue.
pub async fn leave_queue(
    context: &Context,
    id: ConnectionId,
    position: i64,
) -> Result<(), ConnectionError> {
    Ok(store::leave_queue(&mut context.pool.acquire().await?, id, position).await?)
}
