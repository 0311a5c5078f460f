//! Importing a token that the app already holds: without this no running app could move in.
//!
//! With `verify` Dapi is asked first, and nothing is written unless it takes the token. Without, what the
//! token supersedes is kept for a while (see `model::kept_after`).

pub mod routes;
mod verification;

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::audit::AuditActor;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, ConnectionId, TokenLeaseId};
use crate::base::secret::Sealable as _;
use crate::base::trace::TraceContext;
use crate::connections::exchange::is_user_gone;
use crate::connections::exchange::store::NewConnection;
use crate::connections::import::verification::{Candidate, VerificationAnswer};
use crate::connections::model::{Status, Transition, Verification};
use crate::connections::token_lease::{CallRequest, TokenLease};
use crate::connections::transitions::supersede;
use crate::connections::{
    ConnectionAad, ConnectionError, Context, bank_login, exchange, model, reveal, token_lease,
};
use crate::dapi::{AccessToken, Busy, Refusal, UserSecret};
use crate::database::Conn;
use crate::users;
use crate::users::User;
use crate::vault::{Binding, Sealed};

/// How often an import is tried that an exchange of the same login came before.
const TRIES: u32 = 4;

/// A token to be imported, checked.
#[derive(Debug)]
pub struct Import {
    pub app: AppId,
    pub client_user_id: String,
    pub dapi_connection_id: String,
    pub access_token: AccessToken,
    pub user_secret: UserSecret,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    /// Ask Dapi whether it takes the token, with this trace.
    pub verify: Option<TraceContext>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// A new connection.
    New(ConnectionId),
    /// This user's connection holds this very token already.
    Repeated(ConnectionId),
    /// The login is another user's.
    LoginOfAnotherUser,
    /// The user is being erased.
    UserBeingErased,
    /// Dapi refused the token. Nothing has changed.
    Refused(Refusal),
    /// Dapi did not say whether it takes the token. Nothing has changed.
    Unanswered {
        /// Time ran out.
        timeout: bool,
    },
    /// Dapi could not be asked now. Nothing has changed.
    Busy(Busy),
}

/// Imports a token. It supersedes what the user had linked of the same login.
pub async fn import(
    context: &Context,
    actor: &Actor,
    import: &Import,
) -> Result<Imported, ConnectionError> {
    if import.verify.is_none() {
        return add(context, actor, import, &Verification::Unproven).await;
    }
    let Some(lease) = ProofLease::take(context, import).await? else {
        return Ok(Imported::Unanswered { timeout: true });
    };
    let imported = match verify(context, actor, import).await {
        Ok(Ok(verification)) => add(context, actor, import, &verification).await,
        Ok(Err(not_imported)) => Ok(not_imported),
        Err(error) => Err(error),
    };
    lease.end(context).await;
    imported
}

async fn add(
    context: &Context,
    actor: &Actor,
    import: &Import,
    verification: &Verification,
) -> Result<Imported, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    let user = users::ensure(&mut conn, &context.vault, import.app, &import.client_user_id).await?;
    if user.erasing {
        return Ok(Imported::UserBeingErased);
    }
    for _ in 0..TRIES {
        match try_import(context, &mut conn, actor, import, &user, verification).await {
            // An exchange of the same login was activated in the same moment, by the one statement that
            // does not wait for the login's lock. Now there is a row to be seen.
            Err(ConnectionError::Database(error)) if is_conflict(&error) => {}
            // The user is being erased since, or is erased.
            Err(ConnectionError::Database(error)) if is_user_gone(&error) => {
                return Ok(Imported::UserBeingErased);
            }
            result => return result,
        }
    }
    // Again and again in the same moment: it passes.
    Err(ConnectionError::Contended)
}

fn is_conflict(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

async fn try_import(
    context: &Context,
    conn: &mut Conn,
    actor: &Actor,
    import: &Import,
    user: &User,
    standing: &Verification,
) -> Result<Imported, ConnectionError> {
    let id = ConnectionId::new();
    let aad = ConnectionAad { app: import.app, user: user.id, id };
    let key = context.vault.unwrap(&user.key)?;
    let binding = Binding::new()?;
    let token = Sealed::seal_bound(&import.access_token, &key, &aad.access_token(), &binding)?;
    let user_secret = Sealed::seal(&import.user_secret, &key, &aad.user_secret())?;

    let mut tx = conn.begin().await?;
    let login = &import.dapi_connection_id;
    let locked = bank_login::lock_bank_login(&mut tx, import.app, login, None, user.id).await?;
    if let Some(older) = locked.login.older_active
        && holds(&mut tx, import, older, user, &key).await?
    {
        return Ok(Imported::Repeated(older));
    }
    let active = match model::on_token_for_pending(locked.login) {
        Transition::Activate { supersedes } => {
            if let Some(older) = supersedes {
                let by_unproven = *standing == Verification::Unproven;
                supersede(context, &mut tx, import.app, older, (id, by_unproven)).await?;
            }
            true
        }
        Transition::Hold => false,
        _ => return Ok(Imported::LoginOfAnotherUser),
    };
    let new = NewConnection {
        app: import.app,
        id,
        user: user.id,
        dapi_connection_id: login.clone(),
        dapi_user_id: import.dapi_user_id.clone(),
        dapi_token_id: import.dapi_token_id.clone(),
        binding,
        user_secret: Some(user_secret),
    };
    exchange::store::insert_imported(
        &mut tx,
        &AuditActor::from(actor),
        &new,
        &token,
        active,
        standing,
    )
    .await?;
    tx.commit().await?;
    Ok(Imported::New(id))
}

/// Whether the connection holds this very token.
async fn holds(
    tx: &mut Conn,
    import: &Import,
    id: ConnectionId,
    user: &User,
    key: &crate::vault::DataKey,
) -> Result<bool, ConnectionError> {
    let aad = ConnectionAad { app: import.app, user: user.id, id };
    let held = reveal::store::held_token(tx, import.app, id).await?;
    let held =
        held.map(|(sealed, binding)| sealed.open_bound(key, &aad.access_token(), binding.as_ref()));
    let held = held.transpose()?;
    Ok(held.is_some_and(|held| held.same_as(&import.access_token)))
}

/// How much longer a proof may take than its call and the one it waits for: until there is a place before Dapi,
/// and for what is written.
const PROOF_MARGIN: Duration = Duration::from_secs(20);
/// How often a lease is asked for that somebody else has.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The lease with a token that may not be here yet, from before its proof until its import is committed: another
/// import of it, at any replica, would make a second call at once, and Dapi fails both.
struct ProofLease {
    name: ConnectionId,
    number: TokenLeaseId,
}

impl ProofLease {
    /// Takes it; `None` if somebody else keeps it for as long as a call may take.
    async fn take(context: &Context, import: &Import) -> Result<Option<Self>, ConnectionError> {
        let (app, token) = (import.app.uuid(), import.access_token.expose());
        let parts = [b"proof of a token".as_slice(), app.as_bytes(), token.as_bytes()];
        let hash = context.vault.secret_hashes().hash(&parts);
        let name: [u8; 16] =
            std::array::from_fn(|at| hash.as_bytes().get(at).copied().unwrap_or(0));
        let lease = Self { name: Uuid::from_bytes(name).into(), number: TokenLeaseId::new() };
        let limit = context.dapi.settings().call_timeout;
        let given_up = Instant::now() + limit;
        loop {
            let mut conn = context.pool.acquire().await?;
            let lasts = limit * 2 + PROOF_MARGIN;
            if token_lease::store::take_lease_by_name(&mut conn, lease.name, lease.number, lasts)
                .await?
            {
                return Ok(Some(lease));
            }
            drop(conn);
            if Instant::now() >= given_up {
                return Ok(None);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Gives it back. If that fails, it ends by itself.
    async fn end(self, context: &Context) {
        let freed = async {
            let mut conn = context.pool.acquire().await?;
            token_lease::store::release_delink_lease(&mut conn, self.name, self.number).await
        };
        if let Err(error) = freed.await {
            tracing::warn!(cause = %error, "the lease of a proof ends by itself");
        }
    }
}

/// What is known of the token before anything is written; or why it is not imported.
async fn verify(
    context: &Context,
    actor: &Actor,
    import: &Import,
) -> Result<Result<Verification, Imported>, ConnectionError> {
    let Some(trace) = &import.verify else { return Ok(Ok(Verification::Unproven)) };
    let turn = match held_here(context, import).await? {
        None => None,
        Some(id) => match lease_of(context, actor, import, id).await? {
            Ok(turn) => turn,
            Err(not_now) => return Ok(Err(not_now)),
        },
    };
    let Import { app, access_token, user_secret, .. } = import;
    let candidate = Candidate { app: *app, access_token, user_secret, trace };
    let proven = verification::verify_token(context, &candidate).await;
    if let Some(turn) = turn {
        let (word, status) = match &proven {
            Ok((proof, status)) => (proof.word(), *status),
            Err(_) => ("failed", None),
        };
        if matches!(&proven, Ok((VerificationAnswer::Works(None), _))) {
            turn.prove_token(context).await?;
        }
        turn.end(context, word, status, None).await?;
    }
    Ok(match proven?.0 {
        VerificationAnswer::Works(attention) => Ok(Verification::Proven { attention }),
        VerificationAnswer::Refused(refusal) => Err(Imported::Refused(refusal)),
        VerificationAnswer::NoAnswer { timeout } => Err(Imported::Unanswered { timeout }),
        VerificationAnswer::Busy(busy) => Err(Imported::Busy(busy)),
    })
}

/// The user's active connection that holds this very token.
async fn held_here(
    context: &Context,
    import: &Import,
) -> Result<Option<ConnectionId>, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    let Some(user) = users::find(&mut conn, import.app, &import.client_user_id).await? else {
        return Ok(None);
    };
    let found =
        reveal::store::active_of_login(&mut conn, import.app, user.id, &import.dapi_connection_id);
    let Some(id) = found.await? else { return Ok(None) };
    let key = context.vault.unwrap(&user.key)?;
    Ok(holds(&mut conn, import, id, &user, &key).await?.then_some(id))
}

/// The turn with a token that is here already: Dapi fails all calls that use one token at once. None is
/// needed, and none is to be had, where the connection is not active any more.
async fn lease_of(
    context: &Context,
    actor: &Actor,
    import: &Import,
    id: ConnectionId,
) -> Result<Result<Option<TokenLease>, Imported>, ConnectionError> {
    let limit = context.dapi.settings().call_timeout;
    let request =
        CallRequest { actor: actor.clone(), app: import.app, id, path: verification::PATH, limit };
    let given_up = Instant::now() + limit;
    loop {
        if let Some(turn) = token_lease::take(context, &request, None).await? {
            return Ok(Ok(Some(turn)));
        }
        match token_lease::standing(context, import.app, id).await? {
            // Another call could lock the user's bank account. What is known stands on the connection.
            Some((Status::Active, Some(_))) => return Ok(Err(Imported::Repeated(id))),
            Some((Status::Active, None)) if Instant::now() < given_up => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Some((Status::Active, None)) => return Ok(Err(Imported::Unanswered { timeout: true })),
            _ => return Ok(Ok(None)),
        }
    }
}
