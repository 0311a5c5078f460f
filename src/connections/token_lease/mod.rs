//! Turns with a connection's token: Dapi fails all calls that use one token at once, so they are made
//! one at a time, across replicas. Who waits, and for how long, is for the caller to decide; here are
//! the turn itself and the places in the queue.

pub mod store;

use std::time::Duration;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, TokenLeaseId, UserId};
use crate::connections::model::{Attention, Status};
use crate::connections::query::store::ViewQuery;
use crate::connections::token_lease::store::{AcquireLease, AcquiredLease, ReleaseLease};
use crate::connections::{ConnectionAad, ConnectionError, Context, superseded};
use crate::dapi::{AccessToken, AppCredentials, UserSecret};
use crate::vault::{Sealed, Vault, VaultError};

/// A call that somebody wants to make.
#[derive(Clone, Debug)]
pub struct CallRequest {
    /// Who.
    pub actor: Actor,
    /// The app.
    pub app: AppId,
    /// The connection.
    pub id: ConnectionId,
    /// What is called, for the audit trail.
    pub path: &'static str,
    /// How long the call may take; the turn is free after that, whatever became of the call.
    pub limit: Duration,
}

/// A turn that is taken: the call has begun, is on record, and nobody else makes one with this token.
#[must_use = "nobody else calls with this token until the turn is ended or its time is over"]
#[derive(Debug)]
pub struct TokenLease {
    request: CallRequest,
    id: TokenLeaseId,
    taken: AcquiredLease,
}

/// What the call needs, in the clear.
#[derive(Debug)]
pub struct Opened {
    /// The token.
    pub access_token: AccessToken,
    /// The user secret; missing where none has come yet.
    pub user_secret: Option<UserSecret>,
    /// The app's.
    pub credentials: AppCredentials,
}

/// Takes a turn; `None` where it is not (yet) this caller's. `place` is where they have waited.
pub async fn take(
    context: &Context,
    request: &CallRequest,
    position: Option<i64>,
) -> Result<Option<TokenLease>, ConnectionError> {
    let lease_id = TokenLeaseId::new();
    let CallRequest { app, id, path, limit, .. } = *request;
    let actor = AuditActor::from(&request.actor);
    let taken = context.batch(AcquireLease { actor, app, id, lease_id, position, limit, path });
    match taken.await {
        Ok(taken) => {
            Ok(taken.map(|taken| TokenLease { request: request.clone(), id: lease_id, taken }))
        }
        Err(error) => {
            // The commit may have been applied though its answer was lost.
            let end = release_of(request, lease_id, None, "not_sent", path.to_owned());
            let end = ReleaseLease { used: false, ..end };
            // The caller does not wait for it: the database has just shown that it does not answer.
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
    let CallRequest { app, id, .. } = *request;
    let actor = AuditActor::from(&request.actor);
    ReleaseLease { actor, app, id, user, lease_id, outcome, reason, used: true, attention: None }
}

impl TokenLease {
    /// What the call needs.
    pub fn open(&self, vault: &Vault) -> Result<Opened, VaultError> {
        let AcquiredLease {
            user, user_key, access_token, binding, user_secret, credentials, ..
        } = &self.taken;
        let aad = ConnectionAad { app: self.request.app, user: *user, id: self.request.id };
        let key = vault.unwrap(user_key)?;
        let open = |sealed: &Sealed<UserSecret>| sealed.open(&key, &aad.user_secret());
        Ok(Opened {
            access_token: access_token.open_bound(&key, &aad.access_token(), binding.as_ref())?,
            user_secret: user_secret.as_ref().map(open).transpose()?,
            credentials: credentials.clone().open(vault)?,
        })
    }

    /// Ends the turn and records what came of the call, trying again for as long as the turn lasts. With
    /// `attention`, Dapi's `type`, nobody takes the next one. Tells who waits for it in this process, and the
    /// background work, which may have a delinking to tell.
    pub async fn end(
        &self,
        context: &Context,
        outcome: &'static str,
        status: Option<u16>,
        attention: Option<String>,
    ) -> Result<(), ConnectionError> {
        let reason = status.map_or_else(
            || self.request.path.to_owned(),
            |code| format!("{}: {code}", self.request.path),
        );
        let end = release_of(&self.request, self.id, Some(self.taken.user), outcome, reason);
        let end = ReleaseLease { used: outcome != "failed", attention, ..end };
        let ended = context.batch(end.clone()).await;
        if ended.is_err() {
            let (context, limit) = (context.clone(), self.request.limit);
            context.tasks.clone().spawn(async move { release_later(&context, end, limit).await });
        }
        context.changes.notify(self.request.id);
        Ok(ended?)
    }

    /// Whether Dapi has taken the user secret that this call is made with, or Connect handed it over.
    pub fn has_proven_user_secret(&self) -> bool {
        self.taken.user_secret_proven
    }

    /// Dapi has taken the user secret that this call was made with: from now on it stays.
    pub async fn prove_user_secret(&self, context: &Context) -> Result<(), ConnectionError> {
        let Some(sealed) =
            self.taken.user_secret.as_ref().filter(|_| !self.taken.user_secret_proven)
        else {
            return Ok(());
        };
        let mut conn = context.pool.acquire().await?;
        let CallRequest { app, id, .. } = self.request;
        Ok(store::prove_user_secret(&mut conn, app, id, sealed).await?)
    }

    /// A call with the token succeeded: what it took the place of is not kept any longer.
    pub async fn prove_token(&self, context: &Context) -> Result<(), ConnectionError> {
        if !self.taken.unproven {
            return Ok(());
        }
        superseded::proven(context, self.request.app, self.request.id).await
    }
}

/// Ends a turn once the database is back, at the latest when the turn has ended by itself.
async fn release_later(context: &Context, end: ReleaseLease, limit: Duration) {
    let given_up = std::time::Instant::now() + limit;
    let mut wait = Duration::from_millis(50);
    while std::time::Instant::now() + wait < given_up {
        tokio::time::sleep(wait).await;
        if context.batch(end.clone()).await.is_ok() {
            context.changes.notify(end.id);
            return;
        }
        wait = (wait * 2).min(Duration::from_secs(2));
    }
    tracing::error!(connection = %end.id, "the end of a call could not be recorded");
}

/// Where a connection stands, and whether it needs attention; `None` where there is none.
pub async fn standing(
    context: &Context,
    app: AppId,
    id: ConnectionId,
) -> Result<Option<(Status, Option<Attention>)>, ConnectionError> {
    let found = context.batch(ViewQuery { app, id }).await?;
    Ok(found.map(|connection| (connection.status, connection.attention)))
}

/// Takes a place at the end of a connection's queue; `None` where `most` wait already.
pub async fn join_queue(
    context: &Context,
    id: ConnectionId,
    most: i64,
) -> Result<Option<i64>, ConnectionError> {
    Ok(store::join_queue(&mut context.pool.acquire().await?, id, most).await?)
}

/// Says that somebody still waits at these places; returns those that are still there.
pub async fn stay_in_queue(
    context: &Context,
    id: ConnectionId,
    positions: &[i64],
) -> Result<Vec<i64>, ConnectionError> {
    Ok(store::stay_in_queue(&mut context.pool.acquire().await?, id, positions).await?)
}

/// Gives a place up.
pub async fn leave_queue(
    context: &Context,
    id: ConnectionId,
    position: i64,
) -> Result<(), ConnectionError> {
    Ok(store::leave_queue(&mut context.pool.acquire().await?, id, position).await?)
}
