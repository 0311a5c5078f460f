//! Imports a token that the app already holds, so that a running app can move in.
//!
//! With `verify`, Dapi is called first and nothing is written unless it accepts the token. Without, the token that
//! the import supersedes is kept for a while (see `model::predecessor_transition`).

pub mod request;
pub mod routes;
pub mod store;
mod verification;

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::audit::AuditActor;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, TokenLeaseId};
use crate::common::secret::Sealable as _;
use crate::common::trace::TraceContext;
use crate::connections::effects::Effects;
use crate::connections::exchange::is_user_gone;
use crate::connections::exchange::store::{ClaimedAccounts, NewConnection};
use crate::connections::import::verification::{Candidate, VerificationAnswer};
use crate::connections::model::{Status, Transition, Verification};
use crate::connections::token_lease::{CallRequest, TokenLease};
use crate::connections::{
    ConnectionAad, ConnectionError, Context, bank_login, model, superseded, token_lease,
    transitions,
};
use crate::database::Conn;
use crate::providers::{AccessToken, Busy, Provider, Refusal, UserSecret};
use crate::users::User;
use crate::vault::{Binding, DataKey, Sealed};
use crate::{apps, users};

/// How often an import is tried that conflicts with exchanges of the same login.
const TRIES: u32 = 4;

/// A validated request to import a token.
#[derive(Debug)]
pub struct Import {
    pub app: AppId,
    pub client_user_id: String,
    pub provider: Provider,
    pub login_id: String,
    pub access_token: AccessToken,
    /// `None` if the provider has none.
    pub user_secret: Option<UserSecret>,
    pub dapi_user_id: Option<String>,
    pub dapi_token_id: Option<String>,
    /// If set, the token is verified by a call to Dapi, which carries this trace.
    pub verify: Option<TraceContext>,
    pub known_login: KnownLogin,
}

/// What an import does about a bank login of which the user has had a connection already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownLogin {
    /// Supersedes the active connection, if there is one.
    Supersede,
    /// Imports nothing. So a file that is imported once more neither replaces what the user has linked anew meanwhile nor
    /// brings back what was revoked.
    Leave,
}

/// What became of an import. Everything but `New` leaves the user's connections as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    New(ConnectionId),
    /// The user's active connection of the login already holds this token.
    Repeated(ConnectionId),
    /// The user's newest connection of the login, which [`KnownLogin::Leave`] leaves alone.
    Known(ConnectionId, Status),
    Not(NotImported),
}

/// Why a token was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotImported {
    LoginOfAnotherUser,
    UserBeingErased,
    /// The app is of this bank link, and the token is of another.
    OfAnotherProvider(Provider),
    /// The provider refused the token.
    Refused(Refusal),
    /// Dapi gave no usable answer about the token, or none in time (`timeout`).
    Unanswered {
        timeout: bool,
    },
    /// No call to Dapi can be made now.
    Busy(Busy),
}

impl From<NotImported> for Imported {
    fn from(why: NotImported) -> Self {
        Self::Not(why)
    }
}

/// Imports a token. It supersedes the user's active connection of the same login.
pub async fn import(
    context: &Context,
    actor: &Actor,
    import: &Import,
) -> Result<Imported, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    match apps::provider_of(&mut conn, import.app).await? {
        Some(provider) if provider != import.provider => {
            return Ok(NotImported::OfAnotherProvider(provider).into());
        }
        _ => drop(conn),
    }
    if import.verify.is_none() {
        return insert(context, actor, import, &Verification::Unproven).await;
    }
    if let Some(known) = known_before_verification(context, import).await? {
        return Ok(known);
    }
    let Some(lease) = VerificationLease::acquire(context, import).await? else {
        return Ok(NotImported::Unanswered { timeout: true }.into());
    };
    let imported = match verify(context, actor, import).await {
        Ok(Ok(verification)) => insert(context, actor, import, &verification).await,
        Ok(Err(not_imported)) => Ok(not_imported),
        Err(error) => Err(error),
    };
    lease.release(context).await;
    imported
}

/// Looks for a connection that is left alone, so that its token is not verified for nothing; the import itself decides.
async fn known_before_verification(
    context: &Context,
    import: &Import,
) -> Result<Option<Imported>, ConnectionError> {
    if import.known_login == KnownLogin::Supersede {
        return Ok(None);
    }
    let mut conn = context.pool.acquire().await?;
    let Some(user) = users::find(&mut conn, import.app, &import.client_user_id).await? else {
        return Ok(None);
    };
    let newest = store::newest_of_login(&mut conn, import.app, user.id, &import.login_id).await?;
    Ok(newest.map(|(id, status)| Imported::Known(id, status)))
}

async fn insert(
    context: &Context,
    actor: &Actor,
    import: &Import,
    verification: &Verification,
) -> Result<Imported, ConnectionError> {
    let (name, vault) = (&import.client_user_id, &context.vault);
    let user = users::ensure(&context.pool, vault, import.app, name).await?;
    if user.erasing {
        return Ok(NotImported::UserBeingErased.into());
    }
    let key = vault.unwrap(&user.key).await?;
    let mut conn = context.pool.acquire().await?;
    for _ in 0..TRIES {
        match try_insert(context, &mut conn, actor, import, (&user, &key), verification).await {
            // An exchange of the same login was activated concurrently, by the one statement that does not take
            // the login's lock (`Activation`). The next try sees its row.
            Err(ConnectionError::Database(error)) if is_conflict(&error) => {}
            Err(ConnectionError::Database(error)) if is_user_gone(&error) => {
                return Ok(NotImported::UserBeingErased.into());
            }
            result => return result,
        }
    }
    Err(ConnectionError::Contended)
}

/// Returns whether the unique index on active logins refused the insert (SQLSTATE 23505).
fn is_conflict(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

async fn try_insert(
    context: &Context,
    conn: &mut Conn,
    actor: &Actor,
    import: &Import,
    (user, key): (&User, &DataKey),
    verification: &Verification,
) -> Result<Imported, ConnectionError> {
    let id = ConnectionId::new();
    let aad = ConnectionAad { app: import.app, user: user.id, id };
    let binding = Binding::new()?;
    let token = Sealed::seal_bound(&import.access_token, key, &aad.access_token(), &binding)?;
    let user_secret = import.user_secret.as_ref();
    let user_secret =
        user_secret.map(|secret| Sealed::seal(secret, key, &aad.user_secret())).transpose()?;

    let mut tx = conn.begin().await?;
    let login = &import.login_id;
    let locked =
        bank_login::lock_bank_login(&mut tx, import.app, Some(login), None, user.id).await?;
    if let Some(older) = locked.login.older_active
        && holds_token(&mut tx, import, older, user, key).await?
    {
        return Ok(Imported::Repeated(older));
    }
    if import.known_login == KnownLogin::Leave
        && let Some((id, status)) =
            store::newest_of_login(&mut tx, import.app, user.id, login).await?
    {
        return Ok(Imported::Known(id, status));
    }
    let mut effects = Effects::default();
    let older = locked.login.older_active;
    let active = match model::on_token_for_pending(locked.login) {
        Transition::Activate { .. } => {
            if let Some(older) = older {
                let by_unproven = *verification == Verification::Unproven;
                effects =
                    transitions::supersede(&mut tx, import.app, older, (id, by_unproven)).await?;
            }
            true
        }
        Transition::Hold => false,
        _ => return Ok(NotImported::LoginOfAnotherUser.into()),
    };
    let new = NewConnection {
        app: import.app,
        id,
        user: user.id,
        provider: import.provider,
        login_id: Some(login.clone()),
        claimed: ClaimedAccounts::default(),
        dapi_user_id: import.dapi_user_id.clone(),
        dapi_token_id: import.dapi_token_id.clone(),
        binding,
        user_secret,
    };
    store::insert_imported(&mut tx, &AuditActor::from(actor), &new, &token, active, verification)
        .await?;
    if let Some(older) = older.filter(|_| active) {
        superseded::store::hand_on_rotation(&mut tx, import.app, older, id).await?;
    }
    tx.commit().await?;
    // The background work asks for its institution and accounts.
    let effects = if import.provider.has_details() { effects.wake() } else { effects };
    effects.apply(context);
    Ok(Imported::New(id))
}

/// Returns whether the connection is active and holds exactly this token.
async fn holds_token(
    tx: &mut Conn,
    import: &Import,
    id: ConnectionId,
    user: &User,
    key: &DataKey,
) -> Result<bool, ConnectionError> {
    let aad = ConnectionAad { app: import.app, user: user.id, id };
    let held = token_lease::store::held_token(tx, import.app, id).await?;
    let held =
        held.map(|(sealed, binding)| sealed.open_bound(key, &aad.access_token(), binding.as_ref()));
    let held = held.transpose()?;
    Ok(held.is_some_and(|held| held.same_as(&import.access_token)))
}

/// How much longer a verification may take than its call and the one it waits for: for a permit of the gate, and for
/// the import's own transaction.
const VERIFICATION_MARGIN: Duration = Duration::from_secs(20);
/// Pause before a lease that is held elsewhere is requested again.
const POLL_LEASE: Duration = Duration::from_millis(100);

/// A lease on a token that no connection holds yet, from before its verification until its import is committed.
///
/// Dapi fails concurrent calls with one token, so a second import of the same token, at any replica, would fail both.
struct VerificationLease {
    /// Stands for the token: derived from its keyed hash, the same at every replica.
    name: ConnectionId,
    id: TokenLeaseId,
}

impl VerificationLease {
    /// Acquires the lease; returns `None` if it is held elsewhere for as long as a call may take.
    async fn acquire(context: &Context, import: &Import) -> Result<Option<Self>, ConnectionError> {
        let (app, token) = (import.app.uuid(), import.access_token.expose());
        let parts = [b"proof of a token".as_slice(), app.as_bytes(), token.as_bytes()];
        let hash = context.vault.secret_hashes().hash(&parts);
        let name: [u8; 16] =
            std::array::from_fn(|at| hash.as_bytes().get(at).copied().unwrap_or(0));
        let lease = Self { name: Uuid::from_bytes(name).into(), id: TokenLeaseId::new() };
        let limit = context.providers.settings(import.provider).call_timeout;
        let give_up_at = Instant::now() + limit;
        loop {
            let mut conn = context.pool.acquire().await?;
            let lasts = limit * 2 + VERIFICATION_MARGIN;
            if token_lease::store::acquire_lease_by_name(&mut conn, lease.name, lease.id, lasts)
                .await?
            {
                return Ok(Some(lease));
            }
            drop(conn);
            if Instant::now() >= give_up_at {
                return Ok(None);
            }
            tokio::time::sleep(POLL_LEASE).await;
        }
    }

    /// Releases the lease. If that fails, it expires.
    async fn release(self, context: &Context) {
        let released = async {
            let mut conn = context.pool.acquire().await?;
            token_lease::store::release_by_id(&mut conn, self.name, self.id).await
        };
        if let Err(error) = released.await {
            tracing::warn!(cause = %error, "the lease of a verification was not released and expires");
        }
    }
}

/// Verifies the token with Dapi; the inner error says why it is not imported.
async fn verify(
    context: &Context,
    actor: &Actor,
    import: &Import,
) -> Result<Result<Verification, Imported>, ConnectionError> {
    let Some(trace) = &import.verify else { return Ok(Ok(Verification::Unproven)) };
    let lease = match holder_of(context, import).await? {
        None => None,
        Some(id) => match acquire_lease_of(context, actor, import, id).await? {
            Ok(lease) => lease,
            Err(not_imported) => return Ok(Err(not_imported)),
        },
    };
    let Import { app, login_id, access_token, user_secret, .. } = import;
    let user_secret = user_secret.as_ref();
    let candidate = Candidate { app: *app, login_id, access_token, user_secret, trace };
    let answer = verification::verify_token(context, &candidate).await;
    if let Some(lease) = lease {
        let (outcome, status) = match &answer {
            Ok((answer, status)) => (answer.outcome(), *status),
            Err(_) => ("failed", None),
        };
        // First, so that nothing that fails holds up the other calls and the revocation of this token.
        lease.end(context, outcome, status, None).await?;
        if matches!(&answer, Ok((VerificationAnswer::Works(None), _))) {
            // It has worked, and is of this login: `providers::Client::verify` compares it.
            let mut tx = context.pool.begin().await?;
            superseded::prove(&mut tx, *app, lease.connection()).await?;
            tx.commit().await?;
        }
    }
    Ok(match answer?.0 {
        VerificationAnswer::Works(attention) => Ok(Verification::Proven { attention }),
        VerificationAnswer::Refused(refusal) => Err(NotImported::Refused(refusal).into()),
        VerificationAnswer::NoAnswer { timeout } => Err(NotImported::Unanswered { timeout }.into()),
        VerificationAnswer::Busy(busy) => Err(NotImported::Busy(busy).into()),
    })
}

/// Finds the user's active connection that already holds this token.
async fn holder_of(
    context: &Context,
    import: &Import,
) -> Result<Option<ConnectionId>, ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    let Some(user) = users::find(&mut conn, import.app, &import.client_user_id).await? else {
        return Ok(None);
    };
    let found = store::active_of_login(&mut conn, import.app, user.id, &import.login_id);
    let Some(id) = found.await? else { return Ok(None) };
    drop(conn);
    let key = context.vault.unwrap(&user.key).await?;
    let mut conn = context.pool.acquire().await?;
    Ok(holds_token(&mut conn, import, id, &user, &key).await?.then_some(id))
}

/// Acquires the lease of a token that a connection already holds: Dapi fails concurrent calls with one token. Returns
/// no lease if the connection is not active any more: then no other call can use the token either.
async fn acquire_lease_of(
    context: &Context,
    actor: &Actor,
    import: &Import,
    id: ConnectionId,
) -> Result<Result<Option<TokenLease>, Imported>, ConnectionError> {
    let limit = context.providers.settings(import.provider).call_timeout;
    let provider = import.provider;
    let path = context.providers.verification_path(provider);
    let request = CallRequest {
        actor: actor.clone(),
        app: import.app,
        id,
        provider,
        path,
        despite_attention: false,
        limit,
    };
    let give_up_at = Instant::now() + limit;
    loop {
        if let Some(lease) = token_lease::acquire(context, &request, None).await? {
            return Ok(Ok(Some(lease)));
        }
        match token_lease::status_of(context, import.app, id, provider).await? {
            // It needs attention: another call could lock the user's bank account.
            Some((Status::Active, Some(_))) => return Ok(Err(Imported::Repeated(id))),
            Some((Status::Active, None)) if Instant::now() < give_up_at => {
                tokio::time::sleep(POLL_LEASE).await;
            }
            Some((Status::Active, None)) => {
                return Ok(Err(NotImported::Unanswered { timeout: true }.into()));
            }
            _ => return Ok(Ok(None)),
        }
    }
}
