//! Accepting what Connect returned: the intent is committed before anything leaves, and read back if it is not
//! known whether it was.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, SessionId};
use crate::base::trace::TraceContext;
use crate::connections::exchange::store::{
    LookUp, NewCode, NewConnection, NewIntent, SessionResultOutcome,
};
use crate::connections::exchange::{PendingExchange, store};
use crate::connections::model::Connection;
use crate::connections::{ConnectionAad, ConnectionError, Context, sql};
use crate::dapi::{AccessCode, Busy, Lane, UserSecret};
use crate::database::{BatchQuery as _, Fault, is_outage};
use crate::users;
use crate::vault::{Binding, KeyedHash, Sealed, Vault, VaultError};

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
    pub dapi_connection_id: String,
    /// Dapi's name for the user.
    pub dapi_user_id: Option<String>,
    /// Dapi's name for the token.
    pub dapi_token_id: Option<String>,
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
) -> Result<Received, ConnectionError> {
    let hash = code_hash(&context.vault, submission.app, &submission.code);
    let received_at = Instant::now();
    // A code that is received twice in the same moment is found by its hash the second time round.
    for _ in 0..3 {
        let look_up = LookUp {
            app: submission.app,
            client_user_id: submission.client_user_id.clone(),
            code_hash: hash,
            dapi_connection_id: submission.dapi_connection_id.clone(),
        };
        let found = context.batch(look_up).await?;
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
    Err(ConnectionError::Contended)
}

async fn repeated(
    context: &Context,
    session: Option<SessionId>,
    id: ConnectionId,
) -> Result<Received, ConnectionError> {
    let Some(session) = session else { return Ok(Received::Repeated(id)) };
    let mut tx = context.pool.begin().await?;
    let noted = store::insert_session_result(&mut tx, session, id, SESSION_RESULTS).await?;
    tx.commit().await?;
    Ok(match noted {
        SessionResultOutcome::Noted => Received::Repeated(id),
        SessionResultOutcome::Exhausted => Received::SessionExhausted,
        SessionResultOutcome::Gone => Received::UserBeingErased,
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
) -> Result<Option<Received>, ConnectionError> {
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
    let aad = ConnectionAad { app: submission.app, user, id };
    let binding = Binding::new()?;
    let sealed_code = Sealed::seal(&submission.code, &key, &aad.code())?;
    let user_secret = submission.user_secret.as_ref();
    let user_secret =
        user_secret.map(|secret| Sealed::seal(secret, &key, &aad.user_secret())).transpose()?;

    let (permit, wait) = if found.revoking {
        (None, sql::WAIT_FOR_DELINKING)
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
            aad,
            dapi_connection_id: submission.dapi_connection_id.clone(),
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
        dapi_connection_id: submission.dapi_connection_id.clone(),
        dapi_user_id: submission.dapi_user_id.clone(),
        dapi_token_id: submission.dapi_token_id.clone(),
        binding,
        user_secret,
    };
    let lease = exchange.as_ref().map(|_| context.exchange_lease());
    let code = NewCode { hash: intent.hash, sealed: sealed_code, ends: intent.ends, lease, wait };
    let new = NewIntent { actor: AuditActor::from(intent.actor), new, code };
    fail::fail_point!("exchange::before_intent");
    let keeping =
        IntentCommit { context: context.clone(), session: submission.session, new, exchange };
    keeping.keep(intent.received_at).await
}

/// For how long a caller hears nothing while it is not known whether their intent was committed.
const UNTOLD: Duration = Duration::from_secs(9);
/// For how long it is tried to find out.
const READ_BACK: Duration = Duration::from_mins(1);

/// An intent on its way into the database, with the exchange that follows.
struct IntentCommit {
    context: Context,
    session: Option<SessionId>,
    new: NewIntent,
    exchange: Option<PendingExchange>,
}

impl IntentCommit {
    async fn keep(self, received_at: Instant) -> Result<Option<Received>, ConnectionError> {
        match keep(&self.context, self.session, self.new.clone()).await {
            Ok(kept) => Ok(self.kept(&kept)),
            Err(error) if is_outage(&error) => {
                // It may have been committed under our lease, and nobody else exchanges it then.
                let tasks = self.context.tasks.clone();
                let mut found_out =
                    tasks.spawn(tracing::Instrument::in_current_span(self.read_back()));
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
    fn kept(self, kept: &IntentOutcome) -> Option<Received> {
        match kept {
            IntentOutcome::Yes => {}
            IntentOutcome::LookAgain => return None,
            IntentOutcome::SessionExhausted => return Some(Received::SessionExhausted),
            IntentOutcome::SessionGone => return Some(Received::UserBeingErased),
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
    async fn read_back(self) -> Result<Option<Received>, ConnectionError> {
        let given_up = Instant::now() + READ_BACK;
        let mut wait = Duration::from_millis(50);
        loop {
            tokio::time::sleep(wait).await;
            match self.schedule_retry().await {
                Ok(kept) => return Ok(self.kept(&kept)),
                Err(error) if Fault::of(&error).is_passing() && Instant::now() < given_up => {
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn schedule_retry(&self) -> Result<IntentOutcome, sqlx::Error> {
        let kept = keep(&self.context, self.session, self.new.clone()).await?;
        if !matches!(kept, IntentOutcome::LookAgain) {
            return Ok(kept);
        }
        let (NewConnection { app, id, .. }, lease) = (&self.new.new, self.new.code.lease);
        let mut conn = self.context.pool.acquire().await?;
        let mine = store::renew_first_lease(&mut conn, *app, *id, lease).await?;
        Ok(if mine { IntentOutcome::Yes } else { IntentOutcome::LookAgain })
    }
}

enum IntentOutcome {
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
) -> Result<IntentOutcome, sqlx::Error> {
    let Some(session) = session else {
        return match context.batch(intent).await {
            Ok(true) => Ok(IntentOutcome::Yes),
            Ok(false) => Ok(IntentOutcome::LookAgain),
            Err(error) if is_user_gone(&error) => Ok(IntentOutcome::LookAgain),
            Err(error) => Err(error),
        };
    };
    let mut tx = context.pool.begin().await?;
    let id = intent.new.id;
    match store::insert_session_result(&mut tx, session, id, SESSION_RESULTS).await? {
        SessionResultOutcome::Noted => {}
        SessionResultOutcome::Exhausted => return Ok(IntentOutcome::SessionExhausted),
        SessionResultOutcome::Gone => return Ok(IntentOutcome::SessionGone),
    }
    match NewIntent::run(&mut tx, &[intent]).await {
        Ok(kept) if kept == [true] => {}
        Ok(_) => return Ok(IntentOutcome::LookAgain),
        Err(error) if is_user_gone(&error) => return Ok(IntentOutcome::SessionGone),
        Err(error) => return Err(error),
    }
    tx.commit().await?;
    Ok(IntentOutcome::Yes)
}

/// The row refers to a user who is being erased, or is not there any more.
pub fn is_user_gone(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
