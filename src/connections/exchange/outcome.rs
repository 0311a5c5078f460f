//! Records the outcome of an exchange: committed in one transaction, retried until the database takes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::named::named;
use crate::connections::bank_login::LockedConnection;
use crate::connections::effects::Effects;
use crate::connections::model::{Answer, Attempt, Connection, Status, Transition};
use crate::connections::transitions::Fetched;
use crate::connections::transitions::store::{Activation, SealedToken};
use crate::connections::{ConnectionAad, Context, backoff, bank_login, model, sql, transitions};
use crate::database::{Conn, Fault, Waits, retry_until};
use crate::providers::Provider;
use crate::users;
use crate::vault::{Binding, DataKey, Sealed, VaultError, is_key_destroyed};

/// The first wait before an exchange is retried, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// Between two tries to commit an outcome.
pub const COMMIT_WAITS: Waits = Waits::doubling(Duration::from_millis(50), Duration::from_secs(2));
/// How long an answer is kept in memory for a database that does not take it.
pub const HOLD_ANSWER: Duration = Duration::from_mins(15);

/// An exchange's outcome, sealed and ready to be committed, as often as it takes.
pub struct Outcome {
    pub aad: ConnectionAad,
    pub provider: Provider,
    /// `None` if it was to come with the token and none came.
    pub login_id: Option<String>,
    /// The epoch of the lease that the call was made under.
    pub epoch: i32,
    pub answer: Answer,
    pub token: Option<SealedToken>,
    /// What the token was sealed with.
    pub sealing: Sealing,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
}

/// What a token was sealed with, so that it can be sealed anew if the data key is destroyed before it is stored.
#[derive(Clone)]
pub struct Sealing {
    pub key: Arc<DataKey>,
    /// None if an earlier release received the code.
    pub binding: Option<Binding>,
}

impl Outcome {
    /// The same outcome, sealed under the user's present data key. `None` if the user is erased.
    async fn sealed_anew(&self, context: &Context) -> sqlx::Result<Option<Self>> {
        let present = users::key(&mut context.pool.acquire().await?, self.aad.user).await?;
        let Some(present) = present else { return Ok(None) };
        // Like a database that is away: the answer is kept, and tried again.
        let failed = |error: VaultError| sqlx::Error::Protocol(error.to_string());
        let key = context.vault.unwrap(&present).await.map_err(failed)?;
        let Sealing { key: former, binding } = &self.sealing;
        let token = self.token.as_ref().map(|token| {
            let (aad, binding) = (self.aad.access_token(), binding.as_ref());
            let access_token = token.access_token.sealed_anew(former, &key, &aad, binding)?;
            let aad = self.aad.user_secret();
            let anew = |secret: &Sealed<_>| secret.sealed_anew(former, &key, &aad, None);
            let user_secret = token.user_secret.as_ref().map(anew).transpose()?;
            Ok(SealedToken { access_token, user_secret, ..token.clone() })
        });
        let token = token.transpose().map_err(failed)?;
        let sealing = Sealing { key, binding: *binding };
        let (answer, login_id) = (self.answer.clone(), self.login_id.clone());
        Ok(Some(Self { login_id, answer, token, sealing, ..*self }))
    }
}

/// How an attempt to exchange a code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeEnd {
    /// The connection is active.
    Active,
    /// The token is sealed and waits for the delinking of an older link.
    Held,
    /// Another connection of the login superseded it.
    Superseded,
    /// The provider refused the code.
    Rejected,
    /// The provider consumed the code and its answer was lost.
    Orphaned,
    /// The window closed.
    Expired,
    /// Another attempt follows.
    Unsettled,
    /// The connection was revoked meanwhile; its token is delinked, or the revocation has ended.
    Revoked,
    /// No connection could take the token: it lives on at the provider.
    Dropped,
    /// Another attempt has a later lease; this one changes nothing.
    Stale,
    /// The user was erased meanwhile.
    Erased,
    /// The database did not take the outcome in time.
    Lost,
}

named!(ExchangeEnd {
    Active => "active",
    Held => "held",
    Superseded => "superseded",
    Rejected => "rejected",
    Orphaned => "orphaned",
    Expired => "expired",
    Unsettled => "unsettled",
    Revoked => "revoked",
    Dropped => "dropped",
    Stale => "stale",
    Erased => "erased",
    Lost => "lost",
});

impl ExchangeEnd {
    /// Whether it leaves something for the background work, which is then woken.
    pub const fn needs_follow_up(self) -> bool {
        matches!(self, Self::Unsettled | Self::Held | Self::Revoked | Self::Lost)
    }

    const fn of(transition: &Transition) -> Self {
        match transition {
            Transition::Activate { .. } => Self::Active,
            Transition::Hold => Self::Held,
            Transition::GiveWay { .. } => Self::Superseded,
            Transition::Fail(Status::Orphaned, _) => Self::Orphaned,
            Transition::Fail(Status::Expired, _) => Self::Expired,
            Transition::Fail(..) => Self::Rejected,
            Transition::TryAgain { .. } => Self::Unsettled,
            Transition::Delink | Transition::EndRevocation { .. } => Self::Revoked,
            Transition::DropToken => Self::Dropped,
            Transition::Nothing => Self::Stale,
        }
    }
}

/// A recorded outcome.
pub struct Recorded {
    pub end: ExchangeEnd,
    /// The connection as it was committed; `None` unless it became active by the short way.
    pub active: Option<Connection>,
    /// To be applied by the caller.
    pub effects: Effects,
}

impl Recorded {
    fn new(end: ExchangeEnd) -> Self {
        Self { end, active: None, effects: Effects::default() }
    }
}

/// Records an outcome, retrying for as long as the answer is kept. It is safe to retry a COMMIT that went
/// unanswered: the row's epoch says whether it was applied.
pub async fn record(context: &Context, outcome: &Outcome) -> Recorded {
    // From the moment the answer exists: a crash loses one that waits.
    let _waiting = Waiting::new(context);
    let retryable = |error: &sqlx::Error| {
        tracing::warn!(cause = %error, "an outcome could not be committed, trying again");
        true
    };
    let deadline = Instant::now() + HOLD_ANSWER;
    let recorded =
        retry_until(deadline, COMMIT_WAITS, retryable, || try_record(context, outcome)).await;
    recorded.unwrap_or_else(|_| {
        tracing::error!("an outcome was given up; the lease's end brings the next attempt");
        context.metrics.answers_lost.inc();
        Recorded::new(ExchangeEnd::Lost)
    })
}

/// Counts an answer that waits in memory for the database.
pub struct Waiting<'a>(&'a Context);

impl<'a> Waiting<'a> {
    pub fn new(context: &'a Context) -> Self {
        context.metrics.answers_waiting.inc();
        Self(context)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.answers_waiting.dec();
    }
}

/// Records an outcome; seals it anew if a rotation has destroyed the data key that its token is sealed under.
async fn try_record(context: &Context, outcome: &Outcome) -> sqlx::Result<Recorded> {
    match record_as_sealed(context, outcome).await {
        Err(error) if is_key_destroyed(&error) => match outcome.sealed_anew(context).await? {
            Some(anew) => record_as_sealed(context, &anew).await,
            None => Ok(Recorded::new(ExchangeEnd::Erased)),
        },
        recorded => recorded,
    }
}

async fn record_as_sealed(context: &Context, outcome: &Outcome) -> sqlx::Result<Recorded> {
    if let Some(active) = activate(context, outcome).await? {
        return Ok(Recorded { active: Some(active), ..Recorded::new(ExchangeEnd::Active) });
    }
    let mut tx = context.pool.begin().await?;
    // A row that stays locked is retried, so that it does not hold up a connection of the pool.
    bank_login::wait_briefly(&mut tx).await?;
    let recorded = record_under_lock(context, &mut tx, outcome).await?;
    tx.commit().await?;
    Ok(recorded)
}

/// The short way, in a batch: a token for a pending connection whose login has no other. `None` if the login has
/// to be looked at under its lock.
async fn activate(context: &Context, outcome: &Outcome) -> sqlx::Result<Option<Connection>> {
    let Some(token) = outcome.token.clone() else { return Ok(None) };
    let ConnectionAad { app, id, .. } = outcome.aad;
    match context.batch(Activation { app, id, epoch: outcome.epoch, token }).await {
        Err(error) if !Fault::of(&error).is_passing() => {
            tracing::debug!(cause = %error, "not activated by itself, the login is looked at");
            Ok(None)
        }
        activated => activated,
    }
}

async fn record_under_lock(
    context: &Context,
    tx: &mut Conn,
    outcome: &Outcome,
) -> sqlx::Result<Recorded> {
    let ConnectionAad { app, user, id } = outcome.aad;
    let locked =
        bank_login::lock_bank_login(tx, app, outcome.login_id.as_deref(), Some(id), user).await?;
    // The user was erased meanwhile, and with them the key that would open the token.
    let Some(me) = locked.me else { return Ok(Recorded::new(ExchangeEnd::Erased)) };
    if me.settled_epoch == Some(outcome.epoch) {
        return Ok(Recorded::new(ExchangeEnd::Active));
    }
    let attempt = Attempt {
        current: me.lease_epoch == outcome.epoch,
        unanswered_before: me.unanswered,
        window_open: me.window_open,
        probe: context.providers.settings(outcome.provider).exchange_probe,
    };
    let transition = model::after_exchange(me.state, attempt, locked.login, outcome.answer.clone());
    if let (Transition::Activate { .. }, Some(in_force), Some(token)) =
        (&transition, &me.revoked_by, &outcome.token)
    {
        transitions::store::store_revoked_token(tx, &me, outcome.epoch, token, in_force).await?;
        return Ok(Recorded::new(ExchangeEnd::Revoked));
    }
    let effects = apply(tx, &me, &transition, outcome).await?;
    if outcome.token.is_some() {
        transitions::store::forget_awaited_token(tx, app, id).await?;
    }
    Ok(Recorded { effects, ..Recorded::new(ExchangeEnd::of(&transition)) })
}

async fn apply(
    tx: &mut Conn,
    me: &LockedConnection,
    transition: &Transition,
    outcome: &Outcome,
) -> sqlx::Result<Effects> {
    let epoch = outcome.epoch;
    match (transition, &outcome.token) {
        (Transition::Hold, Some(token)) => {
            transitions::store::store_token(tx, me, epoch, token, sql::WAIT_FOR_DELINKING).await?;
        }
        (Transition::Delink, Some(token)) => {
            transitions::store::store_token(tx, me, epoch, token, Duration::ZERO).await?;
        }
        (Transition::TryAgain { unanswered, what }, _) => {
            tracing::warn!(what, "an exchange got no conclusive answer and will be retried");
            let wait = backoff(RETRY.0, RETRY.1, me.attempts, outcome.retry_after);
            transitions::store::schedule_retry(tx, me, *unanswered, what, wait).await?;
        }
        (Transition::DropToken, _) => {
            tracing::error!("a token came that no connection could take; it stays live at Dapi");
            return Ok(Effects::token_dropped());
        }
        (_, token) => {
            let fetched = Fetched { epoch, token: token.as_ref() };
            return transitions::apply(tx, me, transition, Some(fetched)).await;
        }
    }
    Ok(Effects::default())
}
