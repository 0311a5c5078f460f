//! What a login is of: the institution and the accounts, confirmed with the provider.
//!
//! A link's metadata is the browser's claim. The task of an exchange confirms it with one call once the token is sealed;
//! the background work does so after a crash or a failure. A link whose accounts the same user has connected before is a
//! duplicate: it names the older connection, and supersedes it if the app wants that.

mod named_login;
pub mod store;

use std::time::{Duration, Instant};

use crate::common::actor::Actor;
use crate::common::ids::{AppId, ConnectionId, UserId};
use crate::common::trace::TraceContext;
use crate::connections::deferred::Reconciler;
use crate::connections::details::named_login::Named;
use crate::connections::details::store::{Confirmed, DueDetails, Unconfirmed};
use crate::connections::effects::Effects;
use crate::connections::isolation::{found, isolated};
use crate::connections::model::{Connection, PredecessorEvent, RevocationKind, State};
use crate::connections::query::store::ViewQuery;
use crate::connections::token_lease::{CallRequest, Opened, TokenLease};
use crate::connections::transitions::store::NewRevocation;
use crate::connections::{
    ConnectionError, Context, backoff, bank_login, end_dead_token, restore_predecessor, superseded,
    token_lease, transitions,
};
use crate::database::{Conn, retry};
use crate::providers::plaid::{INVALID_ACCESS_TOKEN, ItemDetails, fingerprint};
use crate::providers::{DetailsError, Lane, Permit, Provider};

/// The call that confirms.
const PATH: &str = "accounts/get";
/// How long the answer to a new connection waits for its details.
const WAIT_FOR_NEW: Duration = Duration::from_secs(3);
/// How long a confirmation waits for a permit of the gate.
const GATE_PATIENCE: Duration = Duration::from_secs(1);
/// The first wait before a confirmation is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(6));
/// How many due confirmations one pass takes up, and how many it makes at once.
const PORTION: (i64, usize) = (100, 8);
/// The reason in the audit trail and on the older connection.
const SUPERSEDED: &str = "superseded by a link of the same accounts";

/// Confirms a connection that has just become active, and returns it as it is then, whatever its status; as it was
/// (`active`) if that takes long.
pub async fn confirm_new(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    active: Option<Connection>,
) -> Option<Connection> {
    let confirming = {
        let context = context.clone();
        async move { confirm(&context, app, id, 0).await }
    };
    let confirmed = tokio::time::timeout(WAIT_FOR_NEW, context.tasks.spawn(confirming)).await;
    if !matches!(confirmed, Ok(Ok(Ok(())))) {
        return active;
    }
    match context.batch(ViewQuery { app, id }).await {
        Ok(Some(now)) => Some(now),
        _ => active,
    }
}

/// Confirms the details that are due. Returns how many, when all of them have been tried once.
pub async fn reconcile(context: &Context) -> usize {
    use futures_util::StreamExt as _;
    const DETAILS: Reconciler = Reconciler::Details;
    let except = context.deferred.rows(DETAILS, Instant::now());
    let due = async {
        let mut conn = context.pool.acquire().await?;
        store::due(&mut conn, PORTION.0, &except).await
    };
    let due = found(context, DETAILS, due.await);
    let confirming = futures_util::stream::iter(due).map(|due: DueDetails| async move {
        let confirm = confirm(context, due.app, due.id, due.attempts);
        isolated(context, DETAILS, due.id.uuid(), Box::pin(confirm)).await;
    });
    confirming.buffer_unordered(PORTION.1).count().await
}

/// Asks the provider once. Without a usable answer, another attempt becomes due.
async fn confirm(
    context: &Context,
    app: AppId,
    id: ConnectionId,
    attempts: i32,
) -> Result<(), ConnectionError> {
    let postpone = async |what: &str| {
        tracing::debug!(connection = %id, what, "institution and accounts are asked for later");
        let wait = backoff(RETRY.0, RETRY.1, attempts.saturating_add(1), None);
        let mut conn = context.pool.acquire().await?;
        Ok(store::postpone(&mut conn, app, id, wait).await?)
    };
    let Ok(permit) = context.providers.gate().enter(app, Lane::Call, GATE_PATIENCE).await else {
        return postpone("no permit").await;
    };
    let limit = context.providers.settings(Provider::Plaid).call_timeout;
    let (actor, provider) = (Actor::service(), Provider::Plaid);
    let request =
        CallRequest { actor, app, id, provider, path: PATH, despite_attention: false, limit };
    let Some(lease) = token_lease::acquire(context, &request, None).await? else {
        return postpone("no lease").await;
    };
    let opened = match lease.open(&context.vault).await {
        Ok(opened) => opened,
        Err(error) => {
            lease.end_unused(context, "failed", None, None).await?;
            return Err(error.into());
        }
    };
    match ask(context, &permit, &lease, &opened).await {
        Ok(details) => {
            // First, so that nothing that fails holds up the other calls and the revocation of this token.
            lease.end_unused(context, "answered", Some(200), None).await?;
            drop(permit);
            lease.record_success(context, false).await;
            record(context, &lease, app, &details).await
        }
        Err(error) => {
            let outcome = error.outcome();
            let DetailsError { what, kind, status, dead } = error;
            let attention = kind.clone();
            let attention =
                attention.filter(|kind| context.providers.needs_attention(provider, kind));
            lease.end_unused(context, outcome, status, attention).await?;
            // Right after its exchange a token may be unknown where it is used: one such refusal proves nothing.
            let is_early = attempts == 0 && kind.as_deref() == Some(INVALID_ACCESS_TOKEN);
            if let Some(kind) = kind.as_ref().filter(|_| dead && !is_early) {
                let token = Some(lease.token());
                end_dead_token(context, app, id, provider, kind, token).await?;
                return Ok(());
            }
            let doubts =
                |kind: &&String| context.providers.doubts_token(provider, kind, lease.is_proven());
            if let Some(kind) = kind.as_ref().filter(doubts)
                && restore_predecessor(context, app, id, provider, kind).await?
            {
                return Ok(());
            }
            postpone(&what).await
        }
    }
}

async fn ask(
    context: &Context,
    permit: &Permit,
    lease: &TokenLease,
    opened: &Opened,
) -> Result<ItemDetails, DetailsError> {
    let (app, token) = (&opened.credentials, &opened.access_token);
    let (proven, trace) = (lease.is_proven(), TraceContext::fresh());
    context.providers.item_details(permit, app, token, proven, &trace).await
}

async fn record(
    context: &Context,
    lease: &TokenLease,
    app: AppId,
    details: &ItemDetails,
) -> Result<(), ConnectionError> {
    let effects = retry(|| record_once(context, lease, app, details)).await?;
    effects.apply(context);
    Ok(())
}

/// Records the details, and with them the login and that the token works, and finds duplicates. One confirmation of a
/// user at a time: of two links that are confirmed at the same moment, the second finds the first.
async fn record_once(
    context: &Context,
    lease: &TokenLease,
    app: AppId,
    details: &ItemDetails,
) -> Result<Effects, ConnectionError> {
    let id = lease.connection();
    let mut tx = context.pool.begin().await?;
    bank_login::wait_briefly(&mut tx).await?;
    store::lock_confirmations(&mut tx, app, id).await?;
    let mut effects = Effects::default().changed(id);
    if let Some(item_id) = details.item_id.as_deref() {
        let named = Named { app, id, item_id, lease };
        effects = effects.and(named_login::correct(&mut tx, context, &named).await?);
    }
    if let Some(me) = store::lock_active(&mut tx, app, id).await? {
        superseded::prove(&mut tx, app, id).await?;
        let others = same_accounts(&mut tx, app, (id, &me), details).await?;
        effects = effects.and(record_among(&mut tx, app, (id, &me), details, others).await?);
    }
    fail::fail_point!("details::before_commit");
    tx.commit().await?;
    Ok(effects)
}

/// Returns the user's other confirmed connections to the same accounts, in the order of their arrival.
async fn same_accounts(
    tx: &mut Conn,
    app: AppId,
    (id, me): (ConnectionId, &Unconfirmed),
    details: &ItemDetails,
) -> sqlx::Result<Vec<Confirmed>> {
    let (Some(institution), Some(mine)) = (&details.institution, fingerprint(&details.accounts))
    else {
        return Ok(Vec::new());
    };
    let mut others = store::confirmed_of(tx, app, me.user, id, &institution.id).await?;
    others.retain(|other| fingerprint(&other.accounts).as_ref() == Some(&mine));
    Ok(others)
}

/// Records the details of a connection among its duplicates. The newest of them stays, if the app wants only one;
/// whichever was confirmed first.
async fn record_among(
    tx: &mut Conn,
    app: AppId,
    (id, me): (ConnectionId, &Unconfirmed),
    details: &ItemDetails,
    others: Vec<Confirmed>,
) -> Result<Effects, ConnectionError> {
    let (older, newer): (Vec<Confirmed>, Vec<Confirmed>) =
        others.into_iter().partition(|other| (other.created_at, other.id) < (me.created_at, id));
    let duplicate_of = older.last().map(|older| older.id);
    let supersedes = me.supersedes && !(older.is_empty() && newer.is_empty());
    let stays = supersedes.then(|| newer.last().map_or(id, |newer| newer.id));
    let mut effects = Effects::default();
    if let Some(stays) = stays {
        if !store::hold_usable(tx, app, stays).await? {
            return Err(ConnectionError::Contended);
        }
        for other in older.iter().chain(&newer).filter(|other| other.id != stays) {
            let duplicate = (other.id, other.login_id.as_deref(), me.user);
            effects = effects.and(supersede(tx, app, duplicate, stays).await?);
        }
    }
    store::record(tx, app, id, details, duplicate_of).await?;
    if let Some(stays) = stays.filter(|stays| *stays != id) {
        let duplicate = (id, me.login_id.as_deref(), me.user);
        effects = effects.and(supersede(tx, app, duplicate, stays).await?);
    }
    for newer in newer {
        store::mark_duplicate(tx, app, newer.id, id).await?;
        effects = effects.changed(newer.id);
    }
    Ok(effects)
}

/// Begins the revocation of a duplicate. It is another item at the provider and would stay alive there.
async fn supersede(
    tx: &mut Conn,
    app: AppId,
    (id, login_id, user): (ConnectionId, Option<&str>, UserId),
    by: ConnectionId,
) -> Result<Effects, ConnectionError> {
    let locked = bank_login::lock_bank_login(tx, app, login_id, Some(id), user).await?;
    if locked.me.is_none_or(|me| me.state != State::Active) {
        return Ok(Effects::default());
    }
    let revocation = NewRevocation { kind: RevocationKind::Invalidate, reason: Some(SUPERSEDED) };
    let actor = (&Actor::service()).into();
    transitions::store::begin_revocation(tx, &actor, app, id, &revocation).await?;
    store::replaced_by(tx, app, id, by).await?;
    superseded::after(tx, app, id, PredecessorEvent::Revoked).await?;
    Ok(Effects::default().changed(id).wake())
}
