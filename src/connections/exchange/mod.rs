//! The exchange: a code for a token, by a call that cannot be repeated safely.
//!
//! 1. [`receive`] commits the intent: the sealed code under a lease with a fencing epoch.
//! 2. [`PendingExchange`] calls the provider with no transaction open, in a task that no disconnect
//!    ends, and
//! 3. commits the outcome under that epoch: sealed token, wiped code, audit row, all or nothing.
//!
//! The background work enters at the same [`PendingExchange`], so there is one way, not two. Which
//! outcome follows from which answer is decided in [`model`](crate::connections::model).

mod accept;
pub mod outcome;
pub mod routes;
pub mod store;

pub use accept::{Exchanging, Received, Refusal, Submission, is_user_gone, receive, user_of_code};
pub use store::ClaimedAccounts;

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use crate::common::trace::TraceContext;
use crate::connections::claim::Claimed;
use crate::connections::exchange::outcome::{ExchangeEnd, Outcome, Recorded, Sealing};
use crate::connections::model::{Answer, Connection, Failure, unknown_login};
use crate::connections::transitions::store::SealedToken;
use crate::connections::{ConnectionAad, Context, details};
use crate::providers::{
    AccessCode, AppCredentials, Exchange, ExchangeAnswer, ExchangedToken, Permit, UserSecret,
};
use crate::vault::{Binding, DataKey, OpenedKeys, Sealed, Vault, VaultError};

/// An exchange whose intent is committed and whose lease is held. It has to be run: no other task
/// will until the lease ends.
#[must_use = "the lease is held and no other task exchanges this code until it ends"]
pub struct PendingExchange {
    aad: ConnectionAad,
    /// `None` if the exchange is to bring it.
    login_id: Option<String>,
    epoch: i32,
    code: AccessCode,
    /// Sealed as it was received: a late token finds it wiped in the row.
    user_secret: Option<Sealed<UserSecret>>,
    /// What the token is bound to; none if an earlier release received the code.
    binding: Option<Binding>,
    key: Arc<DataKey>,
    credentials: AppCredentials,
    trace: TraceContext,
    permit: Permit,
}

impl PendingExchange {
    /// Takes up an exchange that the background work claimed.
    pub async fn from_claimed(
        vault: &Vault,
        keys: &OpenedKeys,
        claimed: Claimed<AccessCode>,
        permit: Permit,
    ) -> Result<Self, VaultError> {
        let aad = ConnectionAad { app: claimed.app, user: claimed.user, id: claimed.id };
        let key = keys.of(vault, &claimed.user_key).await?;
        let app_key = keys.of(vault, &claimed.credentials.key).await?;
        Ok(Self {
            aad,
            login_id: claimed.login_id,
            epoch: claimed.epoch,
            code: claimed.secret.open(&key, &aad.code())?,
            user_secret: claimed.user_secret,
            binding: claimed.binding,
            key,
            credentials: claimed.credentials.open_with(&app_key)?,
            trace: TraceContext::fresh(),
            permit,
        })
    }

    /// Runs it in a task of its own, for which a shutdown waits.
    pub fn spawn(self, context: &Context) -> Exchanging {
        context.tasks.spawn(self.traced(context.clone()))
    }

    /// The same for the background work, which looks at the row when it has to.
    pub fn spawn_unwatched(self, context: &Context) -> JoinHandle<()> {
        context.tasks.spawn(self.traced(context.clone()).map(drop))
    }

    fn traced(self, context: Context) -> impl Future<Output = Option<Connection>> + Send {
        let span = tracing::info_span!("exchange", connection = %self.aad.id, epoch = self.epoch);
        tracing::Instrument::instrument(async move { self.run(&context).await }, span)
    }

    /// Calls the provider and commits its answer.
    async fn run(self, context: &Context) -> Option<Connection> {
        let started = Instant::now();
        let (ConnectionAad { app, id, .. }, provider) = (self.aad, self.credentials.provider);
        fail::fail_point!("exchange::before_call");
        let Self { permit, code, credentials, login_id, trace, .. } = &self;
        let exchange = Exchange { app: credentials, code, login_id: login_id.as_deref(), trace };
        let answer = context.providers.exchange(permit, &exchange).await;
        fail::fail_point!("exchange::answered");
        let outcome = match self.outcome(answer) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(cause = %error, "an answer could not be sealed");
                context.metrics.answers_lost.inc();
                return None;
            }
        };
        let Recorded { end, active, effects } = outcome::record(context, &outcome).await;
        fail::fail_point!("exchange::concluded");
        context.metrics.exchange(end, started.elapsed());
        let effects = effects.changed(id);
        let effects = if end.needs_follow_up() { effects.wake() } else { effects };
        effects.apply(context);
        if end == ExchangeEnd::Active && provider.has_details() {
            return details::confirm_new(context, app, id, active).await;
        }
        active
    }

    /// Seals what came. The permit ends here: what follows is the database's business.
    fn outcome(self, answer: ExchangeAnswer) -> Result<Outcome, VaultError> {
        let (answer, token, retry_after) = match answer {
            ExchangeAnswer::Token(token) => (Answer::Token, Some(self.seal(token)?), None),
            ExchangeAnswer::Refused(refusal) => {
                let failure = Failure { kind: refusal.kind, detail: refusal.message };
                (Answer::Refused(failure), None, None)
            }
            ExchangeAnswer::Unsettled(unsettled) if unsettled.may_have_consumed => {
                (Answer::Unanswered(unsettled.what), None, unsettled.retry_after)
            }
            ExchangeAnswer::Unsettled(unsettled) => {
                (Answer::NotProcessed(unsettled.what), None, unsettled.retry_after)
            }
            ExchangeAnswer::NotSent(what) => (Answer::NotProcessed(what), None, None),
        };
        let Self { aad, epoch, key, binding, .. } = self;
        let provider = self.credentials.provider;
        let brought = token.as_ref().and_then(|token| token.login_id.clone());
        let login_id = self.login_id.or(brought);
        let sealing = Sealing { key, binding };
        Ok(Outcome { aad, provider, login_id, epoch, answer, token, sealing, retry_after })
    }

    fn seal(&self, mut token: ExchangedToken) -> Result<SealedToken, VaultError> {
        let knows_login = self.credentials.provider.knows_login_at_intake();
        if !knows_login && token.login_id.is_none() {
            // A token without its login's id must not be lost for it: it gets a login of its own.
            token.login_id = Some(unknown_login(self.aad.id));
        }
        let binding = self.binding.as_ref();
        let access_token = self.aad.seal_token(&token.access_token, &self.key, binding)?;
        Ok(SealedToken {
            access_token,
            user_secret: self.user_secret.clone(),
            login_id: token.login_id,
            dapi_token_id: token.token_id,
            dapi_user_id: token.user_id,
        })
    }
}
