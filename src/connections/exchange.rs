//! The exchange: a code for a token, by a call that cannot be repeated safely.
//!
//! 1. [`receive`] commits the intent: the sealed code under a lease with a fencing epoch.
//! 2. [`PendingExchange`] calls Dapi with no transaction open, in a task that no disconnect
//!    ends, and
//! 3. commits the outcome under that epoch: sealed token, wiped code, audit row, all or nothing.
//!
//! The background work enters at the same [`PendingExchange`], so there is one way, not two. Which
//! outcome follows from which answer is decided in [`model`](super::model).

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use super::conclude::{Concluded, Outcome, commit_outcome};
use super::model::{Answer, Connection, Failure};
use super::store::{
    self, Claimed, LookUp, NewCode, NewConnection, NewIntent, SealedToken, SessionResult,
};
use super::{Context, Failed, Places};
use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, SessionId};
use crate::base::trace::TraceContext;
use crate::dapi::{
    AccessCode, AppCredentials, Busy, ExchangeAnswer, ExchangedToken, Lane, Permit, UserSecret,
};
use crate::database::{BatchQuery as _, Fault, is_outage};
use crate::users;
use crate::vault::{Binding, DataKey, KeyedHash, Sealed, Vault, VaultError};

/// How many different results one session may hand in.
const SESSION_RESULTS: i64 = 10;
/// How much later than its `exp` a code still counts: clocks differ, and within this Dapi decides.
const EXP_MARGIN: time::Duration = time::Duration::seconds(60);
/// A result of Connect's as it is handed in, checked.
#[derive(Debug)]
pub struct Submission {
    /// The app.
    pub app: AppId,
    /// The session that hands it in, where it is one.
    pub session: Option<SessionId>,
    /// The app's own name for the user.
    pub client_user_id: String,
    /// The code.
    pub code: AccessCode,
    /// Connect's user secret; Dapi's own wire does not bring it.
    pub user_secret: Option<UserSecret>,
    /// Dapi's name for the bank login.
    pub connection_id: String,
    /// Dapi's name for the user.
    pub dapi_user_id: Option<String>,
    /// Dapi's name for the token.
    pub token_id: Option<String>,
}

/// An exchange that is under way. It ends with the connection where that became active in the ordinary
/// way; otherwise the row tells.
pub type Exchanging = JoinHandle<Option<Connection>>;

/// What became of a submission.
#[derive(Debug)]
pub enum Received {
    /// A new connection; its exchange is under way where it could be begun.
    New(ConnectionId, Option<Exchanging>),
    /// The code made this connection before.
    Repeated(ConnectionId),
    /// Another user handed in the code.
    CodeOfAnotherUser,
    /// Another user has this bank login connected.
    LoginOfAnotherUser,
    /// The window was closed already.
    Expired,
    /// The session has handed in as many results as it may.
    SessionExhausted,
    /// The user is being erased.
    UserBeingErased,
}

/// The keyed hash by which a code is known, unique per app.
fn code_hash(vault: &Vault, app: AppId, code: &AccessCode) -> KeyedHash {
    vault.code_hashes().hash(&[b"access code", app.uuid().as_bytes(), code.expose().as_bytes()])
}

/// Receives a result: commits the intent and begins the exchange, or tells why not.
pub async fn receive(
    context: &Context,
    actor: &Actor,
    trace: &TraceContext,
    submission: Submission,
) -> Result<Received, Failed> {
    let hash = code_hash(&context.vault, submission.app, &submission.code);
    let received_at = Instant::now();
    // A code that is received twice in the same moment is found by its hash the second time round.
    for _ in 0..3 {
        let look_up = LookUp {
            app: submission.app,
            client_user_id: submission.client_user_id.clone(),
            code_hash: hash,
            connection_id: submission.connection_id.clone(),
        };
        let found = context.batches.look_up(look_up).await?;
        let ends = window_cap(context, &submission.code);
        let user = found.user.as_ref().map(|(user, _)| *user);
        match found.existing {
            // A session goes with its user: nobody else hands in for one who is erased.
            _ if found.erasing || (submission.session.is_some() && user.is_none()) => {
                return Ok(Received::UserBeingErased);
            }
            Some((_, owner)) if user != Some(owner) => return Ok(Received::CodeOfAnotherUser),
            Some((id, _)) => return repeated(context, submission.session, id).await,
            None if found.of_another_user => return Ok(Received::LoginOfAnotherUser),
            None if ends.is_some_and(|ends| ends <= found.now) => return Ok(Received::Expired),
            None => {}
        }
        let intent = Intent { actor, trace, hash, ends, received_at };
        let committed = Box::pin(commit_intent(context, &intent, &submission, found)).await?;
        if let Some(received) = committed {
            return Ok(received);
        }
    }
    Err(Failed::Contended)
}

async fn repeated(
    context: &Context,
    session: Option<SessionId>,
    id: ConnectionId,
) -> Result<Received, Failed> {
    let Some(session) = session else { return Ok(Received::Repeated(id)) };
    let mut tx = context.pool.begin().await?;
    let noted = store::note_session_result(&mut tx, session, id, SESSION_RESULTS).await?;
    tx.commit().await?;
    Ok(match noted {
        SessionResult::Noted => Received::Repeated(id),
        SessionResult::Exhausted => Received::SessionExhausted,
        SessionResult::Gone => Received::UserBeingErased,
    })
}

fn window_cap(context: &Context, code: &AccessCode) -> Option<OffsetDateTime> {
    let exp = code.expires_at().filter(|_| context.pace.code_exp_cap)?;
    Some(exp.saturating_add(EXP_MARGIN))
}

struct Intent<'a> {
    actor: &'a Actor,
    trace: &'a TraceContext,
    hash: KeyedHash,
    ends: Option<OffsetDateTime>,
    received_at: Instant,
}

/// Commits the intent. `None` where something came in between, and what is there has to be looked at again.
async fn commit_intent(
    context: &Context,
    intent: &Intent<'_>,
    submission: &Submission,
    found: store::Found,
) -> Result<Option<Received>, Failed> {
    let (user, user_key) = if let Some(user) = found.user {
        user
    } else {
        let name = &submission.client_user_id;
        let mut conn = context.pool.acquire().await?;
        let user = users::ensure(&mut conn, &context.vault, submission.app, name).await?;
        (user.id, user.key)
    };
    let key = context.vault.unwrap(&user_key)?;
    let id = ConnectionId::new();
    let places = Places { app: submission.app, user, id };
    let binding = Binding::new()?;
    let sealed_code = Sealed::seal(&submission.code, &key, &places.code())?;
    let user_secret = submission.user_secret.as_ref();
    let user_secret =
        user_secret.map(|secret| Sealed::seal(secret, &key, &places.user_secret())).transpose()?;

    let (permit, wait) = if found.revoking {
        (None, store::WAIT_FOR_DELINKING)
    } else {
        match context.dapi.gate().try_enter(submission.app, Lane::Exchange) {
            Ok(permit) => (Some(permit), Duration::ZERO),
            Err(Busy { held: true, retry_after }) => (None, retry_after),
            // The background work hears of the first place that is free.
            Err(Busy { held: false, .. }) => (None, Duration::ZERO),
        }
    };
    let exchange = permit.map(|permit| -> Result<_, VaultError> {
        Ok(PendingExchange {
            places,
            connection_id: submission.connection_id.clone(),
            epoch: 1,
            code: submission.code.clone(),
            user_secret: user_secret.clone(),
            binding: Some(binding),
            key,
            credentials: found.credentials.open(&context.vault)?,
            trace: intent.trace.clone(),
            permit,
        })
    });
    let exchange = exchange.transpose()?;
    let new = NewConnection {
        app: submission.app,
        id,
        user,
        connection_id: submission.connection_id.clone(),
        dapi_user_id: submission.dapi_user_id.clone(),
        token_id: submission.token_id.clone(),
        binding,
        user_secret,
    };
    let lease = exchange.as_ref().map(|_| context.exchange_lease());
    let code = NewCode { hash: intent.hash, sealed: sealed_code, ends: intent.ends, lease, wait };
    let new = NewIntent { actor: AuditActor::from(intent.actor), new, code };
    fail::fail_point!("exchange::before_intent");
    let keeping = Keeping { context: context.clone(), session: submission.session, new, exchange };
    keeping.keep(intent.received_at).await
}

/// For how long a caller hears nothing while it is not known whether their intent was committed.
const UNTOLD: Duration = Duration::from_secs(9);
/// For how long it is tried to find out.
const READ_BACK: Duration = Duration::from_mins(1);

/// An intent on its way into the database, with the exchange that follows.
struct Keeping {
    context: Context,
    session: Option<SessionId>,
    new: NewIntent,
    exchange: Option<PendingExchange>,
}

impl Keeping {
    async fn keep(self, received_at: Instant) -> Result<Option<Received>, Failed> {
        match keep(&self.context, self.session, self.new.clone()).await {
            Ok(kept) => Ok(self.kept(&kept)),
            Err(error) if is_outage(&error) => {
                // It may have been committed under our lease, and nobody else exchanges it then.
                let tasks = self.context.tasks.clone();
                let mut found_out =
                    tasks.spawn(tracing::Instrument::in_current_span(self.find_out()));
                let left = UNTOLD.saturating_sub(received_at.elapsed());
                match tokio::time::timeout(left, &mut found_out).await {
                    Ok(Ok(received)) => received,
                    Ok(Err(_)) | Err(_) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on with the exchange if the intent is there.
    fn kept(self, kept: &Kept) -> Option<Received> {
        match kept {
            Kept::Yes => {}
            Kept::LookAgain => return None,
            Kept::SessionExhausted => return Some(Received::SessionExhausted),
            Kept::SessionGone => return Some(Received::UserBeingErased),
        }
        fail::fail_point!("exchange::leased");
        let context = &self.context;
        if self.exchange.is_none() {
            context.wake.notify_one();
        }
        let exchanging = self.exchange.map(|exchange| exchange.spawn(context));
        Some(Received::New(self.new.new.id, exchanging))
    }

    /// Commits the intent once the database answers, or finds that it was committed. It is the same intent by
    /// its id, so that it is there once.
    async fn find_out(self) -> Result<Option<Received>, Failed> {
        let given_up = Instant::now() + READ_BACK;
        let mut wait = Duration::from_millis(50);
        loop {
            tokio::time::sleep(wait).await;
            match self.try_again().await {
                Ok(kept) => return Ok(self.kept(&kept)),
                Err(error) if Fault::of(&error).is_passing() && Instant::now() < given_up => {
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_again(&self) -> Result<Kept, sqlx::Error> {
        let kept = keep(&self.context, self.session, self.new.clone()).await?;
        if !matches!(kept, Kept::LookAgain) {
            return Ok(kept);
        }
        let (NewConnection { app, id, .. }, lease) = (&self.new.new, self.new.code.lease);
        let mut conn = self.context.pool.acquire().await?;
        let mine = store::renew_first_lease(&mut conn, *app, *id, lease).await?;
        Ok(if mine { Kept::Yes } else { Kept::LookAgain })
    }
}

enum Kept {
    Yes,
    /// Something came in between: the same code was committed, or the user was erased.
    LookAgain,
    SessionExhausted,
    /// The session's user was erased, and the session with them.
    SessionGone,
}

async fn keep(
    context: &Context,
    session: Option<SessionId>,
    intent: NewIntent,
) -> Result<Kept, sqlx::Error> {
    let Some(session) = session else {
        return match context.batches.keep_intent(intent).await {
            Ok(true) => Ok(Kept::Yes),
            Ok(false) => Ok(Kept::LookAgain),
            Err(error) if is_user_gone(&error) => Ok(Kept::LookAgain),
            Err(error) => Err(error),
        };
    };
    let mut tx = context.pool.begin().await?;
    let id = intent.new.id;
    match store::note_session_result(&mut tx, session, id, SESSION_RESULTS).await? {
        SessionResult::Noted => {}
        SessionResult::Exhausted => return Ok(Kept::SessionExhausted),
        SessionResult::Gone => return Ok(Kept::SessionGone),
    }
    match NewIntent::run(&mut tx, &[intent]).await {
        Ok(kept) if kept == [true] => {}
        Ok(_) => return Ok(Kept::LookAgain),
        Err(error) if is_user_gone(&error) => return Ok(Kept::SessionGone),
        Err(error) => return Err(error),
    }
    tx.commit().await?;
    Ok(Kept::Yes)
}

/// The row refers to a user who is being erased, or is not there any more.
pub(super) fn is_user_gone(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// An exchange whose intent is committed and whose lease is held. It has to be run: nobody else will
/// until the lease ends.
#[must_use = "the lease is held and nobody else exchanges this code until it ends"]
pub struct PendingExchange {
    places: Places,
    connection_id: String,
    epoch: i32,
    code: AccessCode,
    /// Sealed as it was received: a late token finds it wiped in the row.
    user_secret: Option<Sealed<UserSecret>>,
    /// What the token is bound to; none if an earlier release received the code.
    binding: Option<Binding>,
    key: DataKey,
    credentials: AppCredentials,
    trace: TraceContext,
    permit: Permit,
}

impl PendingExchange {
    /// Takes up an exchange that the background work claimed.
    pub(super) fn from_claimed(
        vault: &Vault,
        claimed: Claimed<AccessCode>,
        permit: Permit,
    ) -> Result<Self, VaultError> {
        let places = Places { app: claimed.app, user: claimed.user, id: claimed.id };
        let key = vault.unwrap(&claimed.user_key)?;
        Ok(Self {
            places,
            connection_id: claimed.connection_id,
            epoch: claimed.epoch,
            code: claimed.secret.open(&key, &places.code())?,
            user_secret: claimed.user_secret,
            binding: claimed.binding,
            key,
            credentials: claimed.credentials.open(vault)?,
            trace: TraceContext::fresh(),
            permit,
        })
    }

    /// Runs it in a task of its own, for which a shutdown waits.
    pub(super) fn spawn(self, context: &Context) -> Exchanging {
        context.tasks.spawn(self.traced(context.clone()))
    }

    /// The same for the background work, which looks at the row when it has to.
    pub(super) fn spawn_unwatched(self, context: &Context) -> JoinHandle<()> {
        context.tasks.spawn(self.traced(context.clone()).map(drop))
    }

    fn traced(self, context: Context) -> impl Future<Output = Option<Connection>> + Send {
        let span =
            tracing::info_span!("exchange", connection = %self.places.id, epoch = self.epoch);
        tracing::Instrument::instrument(async move { self.run(&context).await }, span)
    }

    /// Calls Dapi and commits what comes of it.
    async fn run(self, context: &Context) -> Option<Connection> {
        let started = Instant::now();
        let id = self.places.id;
        fail::fail_point!("exchange::before_call");
        let Self { permit, code, credentials, connection_id, trace, .. } = &self;
        let answer = context.dapi.exchange(permit, credentials, code, connection_id, trace).await;
        fail::fail_point!("exchange::answered");
        let outcome = match self.outcome(answer) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(cause = %error, "an answer could not be sealed");
                context.metrics.answers_lost.inc();
                return None;
            }
        };
        let Concluded { what, active } = commit_outcome(context, &outcome).await;
        fail::fail_point!("exchange::concluded");
        context.metrics.exchange(what, started.elapsed());
        context.settled.tell(id);
        if matches!(what, "unsettled" | "held" | "revoked" | "lost") {
            context.wake.notify_one();
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
        let Self { places, connection_id, epoch, .. } = self;
        Ok(Outcome { places, connection_id, epoch, answer, token, retry_after })
    }

    fn seal(&self, token: ExchangedToken) -> Result<SealedToken, VaultError> {
        let (token_of, place) = (&token.access_token, self.places.access_token());
        let access_token = match &self.binding {
            Some(binding) => Sealed::seal_bound(token_of, &self.key, &place, binding)?,
            None => Sealed::seal(token_of, &self.key, &place)?,
        };
        Ok(SealedToken {
            access_token,
            user_secret: self.user_secret.clone(),
            token_id: token.token_id,
            dapi_user_id: token.user_id,
        })
    }
}
