//! Erasure of a user: revokes all their connections, then destroys everything together with the key that sealed it.
//!
//! It begins with one small commit, whatever is locked: from then on no code is received for the user, their
//! sessions have ended, and a bulk revocation of all their connections is in force (ADR 17). It ends, in the request
//! or in the background, once nothing is outstanding at Dapi: the sessions, the connections, the data key and the row
//! that maps the app's name for the user to the random id are deleted. What remains is the audit trail, which has the
//! random id alone, and the row in `erasures` with the counts of the receipt.

mod receipt;
pub mod routes;
pub mod store;

pub use receipt::{Receipt, State};

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::approvals::{self, AskError, Gated, Kind, NewRequest, Permitted};
use crate::common::actor::Actor;
use crate::common::ids::{AppId, BulkRevocationId, DataKeyId, ErasureId, UserId};
use crate::config::FourEyes;
use crate::connections::bulk_revocation::marking;
use crate::connections::deferred::Reconciler;
use crate::connections::isolation;
use crate::connections::{Context, bulk_revocation};
use crate::database::{Conn, Fault, Inconsistent};
use crate::vault::{KeyedHash, Vault};
use crate::{audit, users};

/// Time that one attempt spends on marking the user's connections.
const MARK_AT_ONCE: Duration = Duration::from_millis(500);
/// Attempts to begin an erasure while calls under way hold the usage lock.
const BEGIN_ATTEMPTS: u32 = 3;
/// Sessions that one statement deletes.
const SESSIONS_AT_ONCE: i64 = 5000;

/// Whether Dapi confirmed that it holds nothing usable of the user any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ErasureConfirmation)]
pub enum Upstream {
    /// For every token, or none was ever had.
    Confirmed,
    /// Not for all of them.
    Unconfirmed,
}

/// An erasure and its progress.
#[derive(Debug, Clone)]
pub struct Erasure {
    pub id: ErasureId,
    /// The user's random id, which remains in the audit trail.
    pub user: UserId,
    /// Since then, none of the user's connections is usable here.
    pub requested_at: OffsetDateTime,
    /// Connections whose revocation Dapi has not confirmed yet.
    pub outstanding: i64,
    /// Why the provider has not confirmed one of them.
    pub last_error: Option<String>,
    /// `None` while it is pending.
    pub erased: Option<Erased>,
}

/// What an erasure destroyed.
#[derive(Debug, Clone)]
pub struct Erased {
    pub at: OffsetDateTime,
    pub data_key: DataKeyId,
    pub connections: i64,
    /// Sealed values that were stored when the erasure began.
    pub sealed: i64,
    pub sessions: i64,
    /// Tokens that Dapi may still honour.
    pub unconfirmed: i64,
}

impl Erased {
    /// Returns whether Dapi confirmed the end of every token.
    #[must_use]
    pub const fn upstream(&self) -> Upstream {
        if self.unconfirmed == 0 { Upstream::Confirmed } else { Upstream::Unconfirmed }
    }
}

/// Returns the keyed hash under which a repeated request finds the erasure after the name is deleted. Keyed, because
/// names can be guessed.
fn name_hash(vault: &Vault, app: AppId, client_user_id: &str) -> KeyedHash {
    let key = vault.secret_hashes_of(app);
    key.hash(&[b"erased user", app.uuid().as_bytes(), client_user_id.as_bytes()])
}

/// An erasure that waits for a second person. Its user is in it by the random id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedErasure {
    /// The user.
    pub user: UserId,
}

/// Begins the erasure of a user, or records that it waits for a second person; or finds the one that has begun or, for
/// thirty days, that has ended. [`Gated::Done`] holds `None` if the app has never had this user; if it holds an erasure,
/// none of the user's connections is usable any more.
///
/// # Errors
/// See [`AskError`].
pub async fn begin(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    app: AppId,
    client_user_id: &str,
) -> Result<Gated<Option<ErasureId>>, AskError> {
    let hash = name_hash(vault, app, client_user_id);
    let Some(user) = users::id_of(conn, app, client_user_id).await? else {
        return Ok(Gated::Done(store::erasure_of_name(conn, app, &hash).await?));
    };
    let begun = store::erasure_of_user(conn, app, user).await?;
    if begun.is_some() {
        return Ok(Gated::Done(begun));
    }
    let request = json!(RequestedErasure { user });
    let new = NewRequest {
        app: Some(app),
        kind: Kind::Erasure,
        request: request.to_string(),
        described: request,
        matched: None,
    };
    let permitted = match approvals::ask(conn, vault, actor, four_eyes.is_on(), &new).await? {
        Gated::Done(permitted) => permitted,
        Gated::Awaits(awaiting) => return Ok(Gated::Awaits(awaiting)),
    };
    let mut attempts = 1;
    loop {
        match begin_in(conn, vault, &permitted, actor, app, client_user_id).await {
            // A call or a reveal held the usage lock for longer than the lock timeout.
            Err(error) if Fault::of(&error) == Fault::Contention && attempts < BEGIN_ATTEMPTS => {
                attempts += 1;
            }
            begun => return Ok(Gated::Done(begun?)),
        }
    }
}

/// Begins the erasure of a user in the transaction that `conn` is in, or in one of its own.
///
/// # Errors
/// [`Fault::Contention`] if a call or a reveal holds the usage lock for long; the database's.
pub async fn begin_in(
    conn: &mut Conn,
    vault: &Vault,
    _: &Permitted,
    actor: &Actor,
    app: AppId,
    client_user_id: &str,
) -> sqlx::Result<Option<ErasureId>> {
    let hash = &name_hash(vault, app, client_user_id);
    let mut tx = conn.begin().await?;
    let Some(user) = users::id_of(&mut tx, app, client_user_id).await? else {
        return store::erasure_of_name(&mut tx, app, hash).await;
    };
    let id = ErasureId::new();
    if !store::insert_erasure(&mut tx, id, app, user, hash).await? {
        return store::erasure_of_user(&mut tx, app, user).await;
    }
    let revocation = BulkRevocationId::new();
    bulk_revocation::store::insert_for_erasure(&mut tx, revocation, app, id, user).await?;
    let detail = id.to_string();
    let event = audit::Event {
        app,
        action: "user.erasure_requested",
        outcome: "pending",
        user: Some(user),
        connection: None,
        reason: Some(&detail),
    };
    audit::record(&mut tx, actor, &event).await?;
    bulk_revocation::store::wait_for_uses(&mut tx, app).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// Returns one erasure of the app.
pub async fn find(conn: &mut Conn, app: AppId, id: ErasureId) -> sqlx::Result<Option<Erasure>> {
    store::find_erasure(conn, app, id).await
}

/// Advances an erasure as far as possible now: marks the connections, releases their tokens to the delinking, and
/// destroys everything if nothing is outstanding. Returns whether this call ended it. Never waits for locked rows: a
/// later call finds them.
pub async fn conclude(conn: &mut Conn, id: ErasureId) -> sqlx::Result<bool> {
    marking::mark_erasure(conn, id, Instant::now() + MARK_AT_ONCE).await?;
    let mut tx = conn.begin().await?;
    let Some((app, user)) = store::lock_erasure(&mut tx, id).await? else { return Ok(false) };
    bulk_revocation::store::release_of_user(&mut tx, user).await?;
    if !destroy(&mut tx, id, app, user).await? {
        store::postpone_erasure(&mut tx, id).await?;
        tx.commit().await?;
        return Ok(false);
    }
    fail::fail_point!("erasure::before_commit");
    tx.commit().await?;
    Ok(true)
}

/// Destroys everything of a user. Returns `false`, having destroyed at most some sessions, if a connection is
/// outstanding or a row is locked.
///
/// Lock order: the erasure, sessions, the user, connections.
async fn destroy(tx: &mut Conn, id: ErasureId, app: AppId, user: UserId) -> sqlx::Result<bool> {
    if store::is_outstanding(tx, id, user).await?
        || !store::delete_sessions(tx, user, SESSIONS_AT_ONCE).await?
        || !users::try_lock(tx, user).await?
        || !store::lock_connections(tx, user).await?
    {
        return Ok(false);
    }
    let destroyed = store::delete_connections(tx, user).await?;
    let key =
        users::destroy(tx, user).await?.ok_or_else(|| Inconsistent::new("data_keys", user))?;
    store::end_erasure(tx, id, key, &destroyed).await?;
    let (detail, confirmed) = (id.to_string(), destroyed.unconfirmed == 0);
    let event = audit::Event {
        app,
        action: "user.erased",
        outcome: if confirmed { "confirmed" } else { "unconfirmed" },
        user: Some(user),
        connection: None,
        reason: Some(&detail),
    };
    audit::record(tx, &Actor::service(), &event).await?;
    Ok(true)
}

/// Failures after which a round ends: each may have waited for a lock timeout.
const FAILURES: usize = 3;

/// Advances the erasures that are due. Returns how many ended. Defers one that fails.
pub async fn reconcile(context: &Context, limit: i64) -> usize {
    const ERASURES: Reconciler = Reconciler::Erasures;
    let due = async { store::due_erasures(&mut context.pool.acquire().await?, limit).await };
    let due = isolation::found(context, ERASURES, due.await);
    let except = context.deferred.rows(ERASURES, Instant::now());
    let (mut erased, mut failures) = (0, 0);
    for id in due.into_iter().filter(|id| !except.contains(&id.uuid())) {
        let concluding = async {
            let mut conn = context.pool.acquire().await?;
            Ok(conclude(&mut conn, id).await?)
        };
        let concluded = isolation::isolated(context, ERASURES, id.uuid(), concluding.boxed()).await;
        failures += usize::from(concluded.is_none());
        erased += usize::from(concluded.unwrap_or(false));
        if failures == FAILURES {
            break;
        }
    }
    erased
}
