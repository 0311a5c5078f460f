//! Accepts a result of Connect.
//!
//! The intent (a `pending` connection with its sealed code) is committed before anything is sent to Dapi. If the
//! COMMIT goes unanswered, the intent is read back: it may be there, under a lease that only this task knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, SessionId, UserId};
use crate::common::trace::TraceContext;
use crate::connections::exchange::store::{
    ClaimedAccounts, LookUp, NewCode, NewConnection, NewIntent, SessionResultOutcome,
};
use crate::connections::exchange::{PendingExchange, store};
use crate::connections::model::Connection;
use crate::connections::{ConnectionAad, ConnectionError, Context, sql};
use crate::database::{BatchQuery as _, Fault, Waits, is_outage, retry_until};
use crate::providers::{AccessCode, Busy, Lane, Permit, Provider, UserSecret};
use crate::users;
use crate::vault::{Binding, DataKey, KeyedHash, Sealed, Vault, WrappedKey, is_key_destroyed};

/// The most connections that one session may submit.
const SESSION_RESULTS: i64 = 10;
/// How long after its `exp` a code is still accepted: clocks differ, and within this margin Dapi decides.
const EXP_MARGIN: time::Duration = time::Duration::seconds(60);

/// A validated result of Connect.
#[derive(Debug)]
pub struct Submission {
    pub app: AppId,
    /// The connect session that submits it; `None` for a backend.
    pub session: Option<SessionId>,
    pub client_user_id: String,
    pub code: AccessCode,
    /// `None` if the provider has none, or if the result came through Dapi's own wire, which does not carry it.
    pub user_secret: Option<UserSecret>,
    pub provider: Provider,
    /// `None` if the exchange is to bring it.
    pub login_id: Option<String>,
    /// What the link's metadata says that the login is of.
    pub claimed: ClaimedAccounts,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
}

/// A running exchange. It returns the connection if the single-statement activation succeeded, and `None` for
/// every other outcome: then the row has to be read.
pub type Exchanging = JoinHandle<Option<Connection>>;

/// What became of a submission.
#[derive(Debug)]
pub enum Received {
    /// The intent is committed. The exchange is `None` if the background work starts it later.
    New(ConnectionId, Option<Exchanging>),
    /// The same user submitted this code before.
    Repeated(ConnectionId),
    Refused(Refusal),
}

/// Why a submission is refused: nothing of it is kept, and nothing was sent to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another user submitted this code before.
    CodeOfAnotherUser,
    /// The bank login is active or revoking for another user.
    LoginOfAnotherUser,
    /// The code's window had closed before it was received.
    Expired,
    /// The session has reached [`SESSION_RESULTS`].
    SessionExhausted,
    UserBeingErased,
    /// The app is of this bank link, and the result is of another.
    OfAnotherProvider(Provider),
}

/// Hashes a code with the vault's key, and with the app, so that a code is unique per app without being readable.
fn code_hash(vault: &Vault, app: AppId, code: &AccessCode) -> KeyedHash {
    vault.code_hashes_of(app).hash(&[
        b"access code",
        app.uuid().as_bytes(),
        code.expose().as_bytes(),
    ])
}

/// Returns the app's own name for the user who submitted this code before.
pub async fn user_of_code(
    context: &Context,
    app: AppId,
    code: &AccessCode,
) -> Result<Option<String>, ConnectionError> {
    let hash = code_hash(&context.vault, app, code);
    Ok(store::user_of_code(&mut context.pool.acquire().await?, app, &hash).await?)
}

/// Commits the intent of a submission and starts its exchange.
///
/// The checks before the commit give early answers only. What must hold is enforced when the intent is inserted
/// (the code is unique, the user is not being erased) and when the token is activated (the login is unique).
pub async fn receive(
    context: &Context,
    actor: &Actor,
    trace: &TraceContext,
    submission: Submission,
) -> Result<Received, ConnectionError> {
    let hash = code_hash(&context.vault, submission.app, &submission.code);
    let received_at = Instant::now();
    // If the same code is inserted concurrently, the next look-up finds it by its hash.
    for _ in 0..3 {
        let look_up = LookUp {
            app: submission.app,
            client_user_id: submission.client_user_id.clone(),
            code_hash: hash,
            login_id: submission.login_id.clone(),
        };
        let found = context.batch(look_up).await?;
        let window_cap = window_cap(context, &submission.code);
        if let Some(refusal) = refusal(&submission, &found, window_cap) {
            return Ok(Received::Refused(refusal));
        }
        if let Some((id, _)) = found.existing {
            return repeated(context, submission.session, id).await;
        }
        let intent = Intent { actor, trace, hash, window_cap, received_at };
        let committed = Box::pin(commit_intent(context, &intent, &submission, found)).await?;
        if let Some(received) = committed {
            return Ok(received);
        }
    }
    Err(ConnectionError::Contended)
}

/// Returns why the submission is refused, as far as the look-up shows it.
fn refusal(
    submission: &Submission,
    found: &store::Found,
    window_cap: Option<OffsetDateTime>,
) -> Option<Refusal> {
    let user = found.user.as_ref().map(|(user, _)| *user);
    if found.credentials.provider != submission.provider {
        return Some(Refusal::OfAnotherProvider(found.credentials.provider));
    }
    // A session is deleted with its user, so a session whose user is missing belongs to an erased one.
    if found.erasing || (submission.session.is_some() && user.is_none()) {
        return Some(Refusal::UserBeingErased);
    }
    match found.existing {
        Some((_, owner)) => (user != Some(owner)).then_some(Refusal::CodeOfAnotherUser),
        None if found.of_another_user => Some(Refusal::LoginOfAnotherUser),
        None => window_cap.is_some_and(|end| end <= found.now).then_some(Refusal::Expired),
    }
}

/// Counts a repeated code among its session's results, in case another session submitted it first.
async fn repeated(
    context: &Context,
    session: Option<SessionId>,
    id: ConnectionId,
) -> Result<Received, ConnectionError> {
    let Some(session) = session else { return Ok(Received::Repeated(id)) };
    let mut tx = context.pool.begin().await?;
    let outcome = store::insert_session_result(&mut tx, session, id, SESSION_RESULTS).await?;
    tx.commit().await?;
    Ok(refusal_of_session(outcome).map_or(Received::Repeated(id), Received::Refused))
}

const fn refusal_of_session(outcome: SessionResultOutcome) -> Option<Refusal> {
    match outcome {
        SessionResultOutcome::Recorded => None,
        SessionResultOutcome::Exhausted => Some(Refusal::SessionExhausted),
        // Deleted with its user.
        SessionResultOutcome::Gone => Some(Refusal::UserBeingErased),
    }
}

/// Returns when the code itself expires, if that may shorten its window (`code_exp_cap`).
fn window_cap(context: &Context, code: &AccessCode) -> Option<OffsetDateTime> {
    let exp = code.expires_at().filter(|_| context.pace.code_exp_cap)?;
    Some(exp.saturating_add(EXP_MARGIN))
}

/// What a submission came with, beside itself.
struct Intent<'a> {
    actor: &'a Actor,
    trace: &'a TraceContext,
    hash: KeyedHash,
    window_cap: Option<OffsetDateTime>,
    received_at: Instant,
}

/// Seals the code and commits the intent. Returns `None` if the rows it depends on changed concurrently: the
/// caller looks them up again.
async fn commit_intent(
    context: &Context,
    intent: &Intent<'_>,
    submission: &Submission,
    found: store::Found,
) -> Result<Option<Received>, ConnectionError> {
    // At once, so that they are one trip to a master key that is elsewhere. Before the permit and the commit.
    let credentials = found.credentials.open(&context.vault);
    let ((user, key), credentials) = futures_util::try_join!(
        async { user_and_key(context, submission, found.user).await },
        async { Ok(credentials.await?) },
    )?;
    let id = ConnectionId::new();
    let aad = ConnectionAad { app: submission.app, user, id };
    let binding = Binding::new()?;
    let sealed_code = Sealed::seal(&submission.code, &key, &aad.code())?;
    let user_secret = submission.user_secret.as_ref();
    let user_secret =
        user_secret.map(|secret| Sealed::seal(secret, &key, &aad.user_secret())).transpose()?;

    let (permit, wait) = enter_gate(context, submission.app, found.revoking);
    let exchange = permit.map(|permit| PendingExchange {
        aad,
        login_id: submission.login_id.clone(),
        epoch: 1,
        code: submission.code.clone(),
        user_secret: user_secret.clone(),
        binding: Some(binding),
        key,
        credentials,
        trace: intent.trace.clone(),
        permit,
    });
    let connection = NewConnection {
        app: submission.app,
        id,
        user,
        provider: submission.provider,
        login_id: submission.login_id.clone(),
        claimed: submission.claimed.clone(),
        dapi_user_id: submission.dapi_user_id.clone(),
        dapi_token_id: submission.dapi_token_id.clone(),
        binding,
        user_secret,
    };
    let lease = exchange.as_ref().map(|_| context.exchange_lease(submission.provider));
    let window_cap = intent.window_cap;
    let code = NewCode { hash: intent.hash, sealed: sealed_code, window_cap, lease, wait };
    let new = NewIntent { actor: AuditActor::from(intent.actor), connection, code };
    fail::fail_point!("exchange::before_intent");
    let (context, session) = (context.clone(), submission.session);
    Box::pin(IntentCommit { context, session, new, exchange }.run(intent.received_at)).await
}

/// Returns the user who was found, or creates them, with their opened data key.
async fn user_and_key(
    context: &Context,
    submission: &Submission,
    found: Option<(UserId, WrappedKey)>,
) -> Result<(UserId, Arc<DataKey>), ConnectionError> {
    let (user, key) = if let Some(user) = found {
        user
    } else {
        let name = &submission.client_user_id;
        let user = users::ensure(&context.pool, &context.vault, submission.app, name).await?;
        (user.id, user.key)
    };
    Ok((user, context.vault.unwrap(&key).await?))
}

/// Takes a permit for the exchange, if one is free and no older link of the login has to be delinked first.
/// Otherwise returns how long the background work waits before it tries.
fn enter_gate(context: &Context, app: AppId, revoking: bool) -> (Option<Permit>, Duration) {
    if revoking {
        return (None, sql::WAIT_FOR_DELINKING);
    }
    match context.providers.gate().try_enter(app, Lane::Exchange) {
        Ok(permit) => (Some(permit), Duration::ZERO),
        Err(Busy { held: true, retry_after }) => (None, retry_after),
        // The gate wakes the background work as soon as a permit is free.
        Err(Busy { held: false, .. }) => (None, Duration::ZERO),
    }
}

/// How long a caller waits for an answer while the commit of their intent is uncertain.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);
/// How soon an uncertain intent is read back, for the first time.
const READ_BACK_PAUSE: Duration = Duration::from_millis(50);
/// How long an uncertain intent is read back.
const READ_BACK_FOR: Duration = Duration::from_mins(1);

/// An intent that is being committed, with the exchange that follows.
struct IntentCommit {
    context: Context,
    session: Option<SessionId>,
    new: NewIntent,
    exchange: Option<PendingExchange>,
}

impl IntentCommit {
    async fn run(self, received_at: Instant) -> Result<Option<Received>, ConnectionError> {
        match insert(&self.context, self.session, self.new.clone()).await {
            Ok(outcome) => Ok(self.start_exchange(&outcome)),
            Err(error) if is_outage(&error) => {
                // It may have been committed under our lease, and then no other task exchanges it.
                let tasks = self.context.tasks.clone();
                let mut read_back =
                    tasks.spawn(tracing::Instrument::in_current_span(self.read_back()));
                let left = ANSWER_WITHIN.saturating_sub(received_at.elapsed());
                match tokio::time::timeout(left, &mut read_back).await {
                    Ok(Ok(received)) => received,
                    Ok(Err(_)) | Err(_) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the exchange if the intent is committed.
    fn start_exchange(self, outcome: &IntentOutcome) -> Option<Received> {
        match outcome {
            IntentOutcome::Committed => {}
            IntentOutcome::Conflict => return None,
            IntentOutcome::Refused(refusal) => return Some(Received::Refused(*refusal)),
        }
        fail::fail_point!("exchange::leased");
        let context = &self.context;
        if self.exchange.is_none() {
            context.wake.notify_one();
        }
        let exchanging = self.exchange.map(|exchange| exchange.spawn(context));
        Some(Received::New(self.new.connection.id, exchanging))
    }

    /// Retries the commit until the database answers. The intent keeps its id, so it is inserted at most once.
    async fn read_back(self) -> Result<Option<Received>, ConnectionError> {
        let give_up_at = Instant::now() + READ_BACK_FOR;
        tokio::time::sleep(READ_BACK_PAUSE).await;
        let waits = Waits::doubling(READ_BACK_PAUSE, Duration::from_secs(1));
        let passing = |error: &sqlx::Error| Fault::of(error).is_passing();
        let outcome = retry_until(give_up_at, waits, passing, || self.insert_or_find()).await?;
        Ok(self.start_exchange(&outcome))
    }

    /// Inserts the intent, or recognises the row of an earlier try by its id.
    async fn insert_or_find(&self) -> Result<IntentOutcome, sqlx::Error> {
        let outcome = insert(&self.context, self.session, self.new.clone()).await?;
        if !matches!(outcome, IntentOutcome::Conflict) {
            return Ok(outcome);
        }
        let (NewConnection { app, id, .. }, lease) = (&self.new.connection, self.new.code.lease);
        let mut conn = self.context.pool.acquire().await?;
        let ours = store::renew_first_lease(&mut conn, *app, *id, lease).await?;
        Ok(if ours { IntentOutcome::Committed } else { IntentOutcome::Conflict })
    }
}

enum IntentOutcome {
    Committed,
    /// The same code was committed concurrently, or the user was erased, or their data key was replaced.
    Conflict,
    Refused(Refusal),
}

/// Inserts an intent: in a batch for a backend; for a session in a transaction that also counts its results.
async fn insert(
    context: &Context,
    session: Option<SessionId>,
    intent: NewIntent,
) -> Result<IntentOutcome, sqlx::Error> {
    let Some(session) = session else {
        return match context.batch(intent).await {
            Ok(true) => Ok(IntentOutcome::Committed),
            Ok(false) => Ok(IntentOutcome::Conflict),
            Err(error) if is_user_gone(&error) || is_key_destroyed(&error) => {
                Ok(IntentOutcome::Conflict)
            }
            Err(error) => Err(error),
        };
    };
    let mut tx = context.pool.begin().await?;
    let id = intent.connection.id;
    let counted = store::insert_session_result(&mut tx, session, id, SESSION_RESULTS).await?;
    if let Some(refusal) = refusal_of_session(counted) {
        return Ok(IntentOutcome::Refused(refusal));
    }
    match NewIntent::run(&mut tx, &[intent]).await {
        Ok(inserted) if inserted == [true] => {}
        Ok(_) => return Ok(IntentOutcome::Conflict),
        Err(error) if is_user_gone(&error) => {
            return Ok(IntentOutcome::Refused(Refusal::UserBeingErased));
        }
        Err(error) if is_key_destroyed(&error) => return Ok(IntentOutcome::Conflict),
        Err(error) => return Err(error),
    }
    tx.commit().await?;
    Ok(IntentOutcome::Committed)
}

/// Returns whether an insert failed because its user is being erased (the trigger `connections_arrive` raises
/// `foreign_key_violation`, SQLSTATE 23503) or is erased already (the foreign key itself).
pub fn is_user_gone(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
