//! Ends connections whose token a rotation found dead or lost.

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::connections::effects::{Effects, RevocationEnd};
use crate::connections::exchange::outcome::HOLD_ANSWER;
use crate::connections::model::{PredecessorEvent, RevocationKind, Status};
use crate::connections::revocation::end_dead_token_under;
use crate::connections::revocation::store::refusal_counts;
use crate::connections::rotation::{Outcome, Rotation, store};
use crate::connections::transitions::store::{End, NewRevocation};
use crate::connections::{
    ConnectionError, Context, bank_login, superseded, token_lease, transitions,
};
use crate::database::retry;
use crate::providers::plaid::INVALID_ACCESS_TOKEN;
use crate::providers::{Provider, Refusal};

/// The reason and the last error of a connection whose token is lost.
const LOST: &str = "the answer to the token's rotation was lost; the item lives on at Plaid";

impl Rotation {
    /// Decides what a refusal of the old token means. `probed`: it answers the question whether the token was replaced.
    ///
    /// The token is known to be right: it was revealed, and an unproven one is probed but not replaced.
    pub(super) async fn refused(
        &self,
        context: &Context,
        refusal: &Refusal,
        probed: bool,
    ) -> Outcome {
        let Refusal { kind, message } = refusal;
        let is_dead =
            context.providers.reports_dead_token(Provider::Plaid, kind, &self.token, true);
        // A call whose answer was lost may be processed late, even after a probe that found the old token alive.
        let doubted = probed || self.claimed.doubted;
        let ended = if is_dead && doubted && kind == INVALID_ACCESS_TOKEN {
            retry(|| self.lose(context)).await.map(|()| Outcome::Lost)
        } else if is_dead {
            self.die(context, kind).await.map(|()| Outcome::Dead)
        } else {
            // To the call itself, it is conclusive: the token was not replaced.
            let doubt = probed.then_some(Outcome::Postponed);
            return self.postpone(context, doubt, &format!("{kind}: {message}"), None).await;
        };
        ended.unwrap_or_else(|error| {
            tracing::warn!(cause = %error, "the end of a token could not be recorded; the lease's end brings a probe");
            Outcome::Postponed
        })
    }

    /// Ends the connection whose token Plaid calls dead, unless another attempt has begun since.
    async fn die(&self, context: &Context, kind: &str) -> Result<(), ConnectionError> {
        let claimed = &self.claimed;
        let (app, id, token) = (claimed.app, claimed.id, Some(&claimed.token));
        let epoch = Some(claimed.epoch);
        if end_dead_token_under(context, app, id, Provider::Plaid, kind, token, epoch).await? {
            return self.release(context).await;
        }
        // It is being revoked. No call is in doubt any more, so that the revocation is confirmed by the same answer.
        self.record_postponed(context, false, kind, std::time::Duration::ZERO).await;
        Ok(())
    }

    /// Ends the connection whose token is lost, without confirmation: the item lives on at Plaid. If it was linked in the
    /// place of another whose token is kept, that one decides.
    async fn lose(&self, context: &Context) -> Result<(), ConnectionError> {
        let claimed = &self.claimed;
        let (app, id) = (claimed.app, claimed.id);
        let mut tx = context.pool.begin().await?;
        bank_login::wait_briefly(&mut tx).await?;
        let Some((login_id, user)) = bank_login::login_of(&mut tx, app, id).await? else {
            return Ok(());
        };
        let locked =
            bank_login::lock_bank_login(&mut tx, app, login_id.as_deref(), Some(id), user).await?;
        let counts = refusal_counts(&mut tx, app, id, &claimed.token, Some(claimed.epoch)).await?;
        // A revoking one is left to its revocation, which stays unconfirmed.
        let Some(_) = locked.me.filter(|me| me.status == Status::Active && counts) else {
            tx.commit().await?;
            return self.release(context).await;
        };
        let new = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(LOST) };
        let end = End { last_error: Some(LOST), ..End::new(new.kind.ends(false)) };
        let actor = AuditActor::from(&Actor::service());
        transitions::store::revoke(&mut tx, &actor, app, id, &new, &end).await?;
        let restored = superseded::after(&mut tx, app, id, PredecessorEvent::Died).await?;
        store::record_loss(&mut tx, claimed, HOLD_ANSWER).await?;
        token_lease::store::release_by_id(&mut tx, id, claimed.token_lease).await?;
        fail::fail_point!("rotation::before_loss");
        tx.commit().await?;
        tracing::error!(connection = %id, ?restored, "a token is lost: its user has to link the login again");
        Effects::revocation(RevocationEnd::Unconfirmed).changed(id).wake().apply(context);
        Ok(())
    }

    async fn release(&self, context: &Context) -> Result<(), ConnectionError> {
        let mut conn = context.pool.acquire().await?;
        let (id, lease) = (self.claimed.id, self.claimed.token_lease);
        Ok(token_lease::store::release_by_id(&mut conn, id, lease).await?)
    }
}
