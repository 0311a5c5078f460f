//! Turns with a connection's token: Dapi fails all calls that use one token at once, so they are made
//! one at a time, across replicas. Who waits, and for how long, is for the caller to decide; here are
//! the turn itself and the places in the queue.

pub mod store;

use std::time::Duration;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, TurnId, UserId};
use crate::connections::model::{Attention, Status};
use crate::connections::query::store::Shown;
use crate::connections::token_lease::store::{EndTurn, TakeTurn, Taken};
use crate::connections::{Context, Failed, Places, superseded};
use crate::dapi::{AccessToken, AppCredentials, UserSecret};
use crate::vault::{Sealed, Vault, VaultError};

/// A call that somebody wants to make.
#[derive(Clone, Debug)]
pub struct Wish {
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
pub struct Turn {
    wish: Wish,
    number: TurnId,
    taken: Taken,
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
    wish: &Wish,
    place: Option<i64>,
) -> Result<Option<Turn>, Failed> {
    let turn = TurnId::new();
    let Wish { app, id, path, limit, .. } = *wish;
    let actor = AuditActor::from(&wish.actor);
    let taken = context.batches.take_turn(TakeTurn { actor, app, id, turn, place, limit, path });
    match taken.await {
        Ok(taken) => Ok(taken.map(|taken| Turn { wish: wish.clone(), number: turn, taken })),
        Err(error) => {
            // The commit may have been applied though its answer was lost.
            let end = end_of(wish, turn, None, "not_sent", path.to_owned());
            let end = EndTurn { used: false, ..end };
            // The caller does not wait for it: the database has just shown that it does not answer.
            let context = context.clone();
            let tasks = context.tasks.clone();
            tasks.spawn(async move { end_later(&context, end, limit).await });
            Err(error.into())
        }
    }
}

fn end_of(
    wish: &Wish,
    turn: TurnId,
    user: Option<UserId>,
    outcome: &'static str,
    reason: String,
) -> EndTurn {
    let Wish { app, id, .. } = *wish;
    let actor = AuditActor::from(&wish.actor);
    EndTurn { actor, app, id, user, turn, outcome, reason, used: true, attention: None }
}

impl Turn {
    /// What the call needs.
    pub fn open(&self, vault: &Vault) -> Result<Opened, VaultError> {
        let Taken { user, user_key, access_token, binding, user_secret, credentials, .. } =
            &self.taken;
        let places = Places { app: self.wish.app, user: *user, id: self.wish.id };
        let key = vault.unwrap(user_key)?;
        let open = |sealed: &Sealed<UserSecret>| sealed.open(&key, &places.user_secret());
        Ok(Opened {
            access_token: access_token.open_bound(
                &key,
                &places.access_token(),
                binding.as_ref(),
            )?,
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
    ) -> Result<(), Failed> {
        let reason = status.map_or_else(
            || self.wish.path.to_owned(),
            |code| format!("{}: {code}", self.wish.path),
        );
        let end = end_of(&self.wish, self.number, Some(self.taken.user), outcome, reason);
        let end = EndTurn { used: outcome != "failed", attention, ..end };
        let ended = context.batches.end_turn(end.clone()).await;
        if ended.is_err() {
            let (context, limit) = (context.clone(), self.wish.limit);
            context.tasks.clone().spawn(async move { end_later(&context, end, limit).await });
        }
        context.settled.tell(self.wish.id);
        Ok(ended?)
    }

    /// Whether Dapi has taken the user secret that this call is made with, or Connect handed it over.
    pub fn has_proven_user_secret(&self) -> bool {
        self.taken.user_secret_proven
    }

    /// Dapi has taken the user secret that this call was made with: from now on it stays.
    pub async fn prove_user_secret(&self, context: &Context) -> Result<(), Failed> {
        let Some(sealed) =
            self.taken.user_secret.as_ref().filter(|_| !self.taken.user_secret_proven)
        else {
            return Ok(());
        };
        let mut conn = context.pool.acquire().await?;
        let Wish { app, id, .. } = self.wish;
        Ok(store::prove_user_secret(&mut conn, app, id, sealed).await?)
    }

    /// A call with the token succeeded: what it took the place of is not kept any longer.
    pub async fn prove_token(&self, context: &Context) -> Result<(), Failed> {
        if !self.taken.unproven {
            return Ok(());
        }
        superseded::proven(context, self.wish.app, self.wish.id).await
    }
}

/// Ends a turn once the database is back, at the latest when the turn has ended by itself.
async fn end_later(context: &Context, end: EndTurn, limit: Duration) {
    let given_up = std::time::Instant::now() + limit;
    let mut wait = Duration::from_millis(50);
    while std::time::Instant::now() + wait < given_up {
        tokio::time::sleep(wait).await;
        if context.batches.end_turn(end.clone()).await.is_ok() {
            context.settled.tell(end.id);
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
) -> Result<Option<(Status, Option<Attention>)>, Failed> {
    let found = context.batches.find(Shown { app, id }).await?;
    Ok(found.map(|connection| (connection.status, connection.attention)))
}

/// Takes a place at the end of a connection's queue; `None` where `most` wait already.
pub async fn join_queue(
    context: &Context,
    id: ConnectionId,
    most: i64,
) -> Result<Option<i64>, Failed> {
    Ok(store::join_queue(&mut context.pool.acquire().await?, id, most).await?)
}

/// Says that somebody still waits at these places; returns those that are still there.
pub async fn stay_in_queue(
    context: &Context,
    id: ConnectionId,
    places: &[i64],
) -> Result<Vec<i64>, Failed> {
    Ok(store::stay_in_queue(&mut context.pool.acquire().await?, id, places).await?)
}

/// Gives a place up.
pub async fn leave_queue(context: &Context, id: ConnectionId, place: i64) -> Result<(), Failed> {
    Ok(store::leave_queue(&mut context.pool.acquire().await?, id, place).await?)
}
