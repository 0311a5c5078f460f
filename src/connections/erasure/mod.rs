//! Erasure: everything of a user is revoked, then destroyed with the key that sealed it.
//!
//! It begins with one small commit, whatever is locked: from then on nothing new is received for the user,
//! their sessions have ended, and a revocation of everything of theirs is in force, as of a bulk revocation
//! (ADR 17). It is concluded, here or by the background work, once nothing is outstanding at Dapi: the
//! sessions, the connections, the data key and the row that links the app's name for the user with the
//! random one are deleted. What stays is the audit trail, which knows the random name alone, and a row of
//! counts that the receipt is made of.

pub mod store;

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::base::actor::Actor;
use crate::base::ids::{AppId, BulkRevocationId, DataKeyId, ErasureId, UserId};
use crate::connections::bulk_revocation::marking;
use crate::connections::reconcile::Reconciler;
use crate::connections::{Context, bulk_revocation, reconcile};
use crate::database::{Conn, Fault};
use crate::vault::{KeyedHash, Vault};
use crate::{audit, users};

/// How long the connections of a user are marked before something else is looked at.
const MARK_AT_ONCE: Duration = Duration::from_millis(500);
/// How often an erasure is tried to be begun that waits for calls under way.
const TRIES: u32 = 3;
/// How many sessions are deleted at once.
const SESSIONS_AT_ONCE: i64 = 5000;

/// Whether Dapi confirmed that it holds nothing usable of the user any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// For every token, or none was ever had.
    Confirmed,
    /// Not for all of them.
    Unconfirmed,
}

/// An erasure as it stands.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Its id.
    pub id: ErasureId,
    /// The random name of the user, which the audit trail goes on to hold.
    pub user: UserId,
    /// When it was asked for: since then nothing of the user's is usable here.
    pub requested_at: OffsetDateTime,
    /// How many connections Dapi has not confirmed yet.
    pub outstanding: i64,
    /// What was destroyed, once it was.
    pub erased: Option<Erased>,
}

/// What an erasure destroyed.
#[derive(Debug, Clone)]
pub struct Erased {
    /// When.
    pub at: OffsetDateTime,
    /// The user's data key.
    pub data_key: DataKeyId,
    /// How many connections, with Dapi's names for them.
    pub connections: i64,
    /// How many sealed values were held when the erasure began.
    pub sealed: i64,
    /// How many connect sessions.
    pub sessions: i64,
    /// How many tokens Dapi may still honour.
    pub unconfirmed: i64,
}

impl Erased {
    /// What Dapi said to it.
    #[must_use]
    pub const fn upstream(&self) -> Upstream {
        if self.unconfirmed == 0 { Upstream::Confirmed } else { Upstream::Unconfirmed }
    }
}

fn name_hash(vault: &Vault, app: AppId, client_user_id: &str) -> KeyedHash {
    let app = app.uuid();
    vault.secret_hashes().hash(&[b"erased user", app.as_bytes(), client_user_id.as_bytes()])
}

/// Begins the erasure of a user, or finds the one that was begun or, for thirty days, concluded. `None`
/// where the app never told of this user. When this returns, nothing of theirs is usable any more.
pub async fn begin(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    app: AppId,
    client_user_id: &str,
) -> sqlx::Result<Option<ErasureId>> {
    let hash = name_hash(vault, app, client_user_id);
    let mut tries = 1;
    loop {
        match try_to_begin(conn, &hash, actor, app, client_user_id).await {
            // A call or a reading took longer to commit than this was willing to wait.
            Err(error) if Fault::of(&error) == Fault::Contention && tries < TRIES => tries += 1,
            begun => return begun,
        }
    }
}

async fn try_to_begin(
    conn: &mut Conn,
    hash: &KeyedHash,
    actor: &Actor,
    app: AppId,
    client_user_id: &str,
) -> sqlx::Result<Option<ErasureId>> {
    let mut tx = conn.begin().await?;
    let Some(user) = users::id_of(&mut tx, app, client_user_id).await? else {
        return store::erasure_of_name(&mut tx, app, hash).await;
    };
    let id = ErasureId::new();
    if !store::insert_erasure(&mut tx, id, app, user, hash).await? {
        return store::erasure_of_user(&mut tx, app, user).await;
    }
    let order = BulkRevocationId::new();
    bulk_revocation::store::insert_for_erasure(&mut tx, order, app, id, user).await?;
    let told = id.to_string();
    let event = audit::Event {
        app,
        action: "user.erasure_requested",
        outcome: "pending",
        user: Some(user),
        connection: None,
        reason: Some(&told),
    };
    audit::record(&mut tx, actor, &event).await?;
    bulk_revocation::store::wait_for_uses(&mut tx, app).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// One erasure of the app.
pub async fn find(conn: &mut Conn, app: AppId, id: ErasureId) -> sqlx::Result<Option<Erasure>> {
    store::find_erasure(conn, app, id).await
}

/// Takes an erasure as far as it goes at this moment: marks what is revoked, lets it through to Dapi, and
/// destroys everything once nothing is outstanding. Returns whether it was concluded by this. What is locked
/// is waited for by a later call.
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

/// Destroys everything of a user, where nothing of theirs is outstanding or locked.
async fn destroy(tx: &mut Conn, id: ErasureId, app: AppId, user: UserId) -> sqlx::Result<bool> {
    if store::is_outstanding(tx, id, user).await?
        || !store::delete_sessions(tx, user, SESSIONS_AT_ONCE).await?
        || !users::try_lock(tx, user).await?
        || !store::lock_connections(tx, user).await?
    {
        return Ok(false);
    }
    let destroyed = store::delete_connections(tx, user).await?;
    let key = users::destroy(tx, user).await?.ok_or(sqlx::Error::RowNotFound)?;
    store::end_erasure(tx, id, key, &destroyed).await?;
    let (told, confirmed) = (id.to_string(), destroyed.unconfirmed == 0);
    let event = audit::Event {
        app,
        action: "user.erased",
        outcome: if confirmed { "confirmed" } else { "unconfirmed" },
        user: Some(user),
        connection: None,
        reason: Some(&told),
    };
    audit::record(tx, &Actor::service(), &event).await?;
    Ok(true)
}

/// After how many failures a pass ends: each may have waited for a lock.
const FAILURES: usize = 3;

/// Concludes what can be concluded of what is due. Returns how many users were erased. An erasure that fails
/// is left alone for a while.
pub async fn reconcile(context: &Context, limit: i64) -> usize {
    const ERASURES: Reconciler = Reconciler::Erasures;
    let due = async { store::due_erasures(&mut context.pool.acquire().await?, limit).await };
    let due = match due.await {
        Ok(due) => due,
        Err(error) => {
            reconcile::failed(context, ERASURES, &error);
            return 0;
        }
    };
    let except = context.deferred.rows(ERASURES, Instant::now());
    let (mut erased, mut failures) = (0, 0);
    for id in due.into_iter().filter(|id| !except.contains(&id.uuid())) {
        let concluded = async {
            let mut conn = context.pool.acquire().await?;
            Ok(conclude(&mut conn, id).await?)
        };
        let concluded = reconcile::isolated(context, ERASURES, id.uuid(), concluded.boxed()).await;
        failures += usize::from(concluded.is_none());
        erased += usize::from(concluded.unwrap_or(false));
        if failures == FAILURES {
            break;
        }
    }
    erased
}
