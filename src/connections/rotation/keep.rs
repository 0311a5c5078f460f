//! Keeps the token that a rotation brought. It exists once, so that it is held in memory for as long as an exchange's, and
//! has a place however late it comes.

use std::sync::Arc;
use std::time::Instant;

use crate::common::ids::ConnectionId;
use crate::common::secret::Sealable as _;
use crate::common::trace::TraceContext;
use crate::connections::effects::Effects;
use crate::connections::exchange::outcome::{COMMIT_WAITS, HOLD_ANSWER, Waiting};
use crate::connections::rotation::place::{self, Holder};
use crate::connections::rotation::{GATE_PATIENCE, Outcome, Rotation, aad};
use crate::connections::{
    ConnectionAad, ConnectionError, Context, bank_login, token_lease, transitions,
};
use crate::database::{Conn, MaybeDatabase as _, retry_until};
use crate::providers::{AccessToken, Lane, Revoke, RevokeAnswer};
use crate::users;
use crate::vault::{DataKey, VaultError};

/// The reason in the audit trail of what a late token causes.
const LATE: &str = "the new token came after it had been given up";

/// Where the token that a rotation brought went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// Into the place of the one that it replaces, now or by a commit whose answer was lost.
    Replaced,
    /// Back to its connection, which had ended as its token was thought to be lost.
    GivenBack,
    /// To a connection that has ended, to remove the item with it.
    Removing,
    /// Nowhere: its user was erased.
    Erased,
    /// Nowhere: another connection of the login is in use, with another token.
    Nowhere,
}

impl Rotation {
    /// Keeps the new token, retrying for as long as the database does not take it.
    pub(super) async fn keep(&self, context: &Context, new: &AccessToken) -> Outcome {
        let waiting = Waiting::new(context);
        let retryable = |error: &ConnectionError| {
            tracing::warn!(cause = %error, "a new token could not be committed, trying again");
            // Nor is it lost to a master key that cannot be used for a while.
            error.database().is_some()
                || matches!(error, ConnectionError::Vault(VaultError::Unavailable(_)))
        };
        let deadline = Instant::now() + HOLD_ANSWER;
        let store = || self.store(context, new);
        let stored = retry_until(deadline, COMMIT_WAITS, retryable, store).await;
        drop(waiting);
        fail::fail_point!("rotation::concluded");
        match stored {
            Ok(Stored::Replaced) => Outcome::Rotated,
            Ok(Stored::GivenBack) => {
                tracing::warn!(
                    "a new token came after it was given up; its connection is active again"
                );
                Outcome::Rotated
            }
            Ok(Stored::Removing) => {
                tracing::warn!(
                    "a token was replaced whose connection has ended; its item is removed"
                );
                Outcome::Removed
            }
            Ok(Stored::Erased) if self.remove_item(context, new).await => Outcome::Removed,
            Ok(Stored::Erased | Stored::Nowhere) => {
                tracing::error!(
                    "a token was replaced that no connection holds; the new one stays live at Plaid"
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

    /// Stores the new token, under the lock of the login and under any epoch: no place of the old one is added or moves
    /// meanwhile.
    async fn store(&self, context: &Context, new: &AccessToken) -> Result<Stored, ConnectionError> {
        let claimed = &self.claimed;
        let (app, id) = (claimed.app, claimed.id);
        let key = self.present_key(context).await?;
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        let known = bank_login::login_of(&mut tx, app, id).await?;
        let login = known.map_or_else(|| Some(claimed.login_id.clone()), |(login_id, _)| login_id);
        let login = login.as_deref();
        let locked =
            bank_login::lock_bank_login(&mut tx, app, login, Some(id), claimed.user).await?;
        let holders = place::holders(&mut tx, app, id, login).await?;
        let placed = self.place(&mut tx, &key, &holders, new).await?;
        let others = locked.login;
        let in_use = others.is_in_use() || others.of_another_user || others.revoking;
        let stored = if !placed.is_empty() {
            Stored::Replaced
        } else if in_use || holders.iter().any(|holder| holder.id != id) {
            Stored::Nowhere
        } else if locked.me.is_none() {
            Stored::Erased
        } else {
            self.store_late(&mut tx, &key, new).await?
        };
        transitions::store::forget_awaited_token(&mut tx, app, id).await?;
        token_lease::store::release_by_id(&mut tx, id, claimed.token_lease).await?;
        fail::fail_point!("rotation::before_commit");
        tx.commit().await?;
        for id in placed {
            Effects::default().changed(id).apply(context);
        }
        Ok(stored)
    }

    /// Returns the user's data key as it is now: it may have rotated during the call, and what the call is about may be
    /// sealed under the next one. That of the claim if the user is erased.
    async fn present_key(&self, context: &Context) -> Result<Arc<DataKey>, ConnectionError> {
        let claimed = &self.claimed;
        let present = users::key(&mut context.pool.acquire().await?, claimed.user).await?;
        match present.filter(|present| *present != claimed.user_key) {
            Some(present) => Ok(context.vault.unwrap(&present).await?),
            None => Ok(Arc::clone(&self.key)),
        }
    }

    /// Puts the new token wherever the old one is: on its connection, active or being revoked; among the superseded
    /// tokens; and on a newer link of the item, whose exchange returned the old one. Returns those connections.
    async fn place(
        &self,
        tx: &mut Conn,
        key: &DataKey,
        holders: &[Holder],
        new: &AccessToken,
    ) -> Result<Vec<ConnectionId>, ConnectionError> {
        let mut placed = Vec::new();
        // Another user's token is sealed under another key.
        for holder in holders.iter().filter(|holder| holder.user == self.claimed.user) {
            let aad = ConnectionAad { id: holder.id, ..aad(&self.claimed) };
            let binding = holder.binding.as_ref();
            let held = match holder.token.open_bound(key, &aad.access_token(), binding) {
                Ok(held) => held,
                Err(error) => {
                    tracing::error!(connection = %holder.id, cause = %error, "an access token cannot be unsealed");
                    continue;
                }
            };
            if held.same_as(&self.token) {
                let sealed = aad.seal_token(new, key, binding)?;
                place::place(tx, aad.app, holder, &sealed).await?;
            } else if !held.same_as(new) {
                continue;
            }
            // By an earlier commit, if it holds the new one: its answer was lost.
            placed.push(holder.id);
        }
        Ok(placed)
    }

    /// Stores a token that comes after its connection has ended.
    async fn store_late(
        &self,
        tx: &mut Conn,
        key: &DataKey,
        new: &AccessToken,
    ) -> Result<Stored, ConnectionError> {
        let claimed = &self.claimed;
        let sealed = aad(claimed).seal_token(new, key, claimed.binding.as_ref())?;
        if place::give_back(tx, claimed, &sealed, LATE).await? {
            return Ok(Stored::GivenBack);
        }
        let removes = place::remove(tx, claimed, &sealed, LATE).await?;
        Ok(if removes { Stored::Removing } else { Stored::Nowhere })
    }

    /// Removes the item with the token in hand: its user was erased, so that nothing here can hold it. Returns whether
    /// Plaid confirmed.
    async fn remove_item(&self, context: &Context, new: &AccessToken) -> bool {
        let gate = context.providers.gate();
        let Ok(permit) = gate.enter(self.claimed.app, Lane::Delink, GATE_PATIENCE).await else {
            return false;
        };
        let trace = TraceContext::fresh();
        let app = &self.credentials;
        let revoke = Revoke { app, token: new, user_secret: None, proven: true, trace: &trace };
        match context.providers.revoke(&permit, &revoke).await {
            RevokeAnswer::Revoked | RevokeAnswer::AlreadyGone(_) => true,
            RevokeAnswer::Failed { what, .. } => {
                tracing::error!(what, "an erased user's item was not removed");
                false
            }
        }
    }
}
