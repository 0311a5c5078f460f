//! Erasure: everything of a user is revoked, then destroyed with the key that sealed it.
//!
//! It begins in one transaction: the user is locked and marked, so that nothing new is received for
//! them; their sessions end; everything of theirs that could be used is revoked. It is concluded, here
//! or by the background work, once nothing is outstanding at Dapi: the connections, the data key and the
//! row that links the app's name for the user with the random one are deleted. What stays is the audit
//! trail, which knows the random name alone, and a row of counts that the receipt is made of.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::model::RevocationKind;
use super::orders::Matching;
use super::store::{self, Many};
use super::{Context, Failed};
use crate::audit;
use crate::base::actor::Actor;
use crate::base::ids::{AppId, DataKeyId, ErasureId, UserId};
use crate::database::Conn;
use crate::users;
use crate::vault::{KeyedHash, Vault};

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
    let mut tx = conn.begin().await?;
    let user = match users::begin_erasing(&mut tx, app, client_user_id).await? {
        None => return store::erasure_of_name(&mut tx, app, &hash).await,
        Some((user, true)) => return store::erasure_of_user(&mut tx, app, user).await,
        Some((user, false)) => user,
    };
    let id = ErasureId::new();
    store::insert_erasure(&mut tx, id, app, user, &hash).await?;
    revoke(&mut tx, app, client_user_id).await?;
    store::release_of_user(&mut tx, user).await?;
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
    tx.commit().await?;
    Ok(Some(id))
}

/// Revokes whatever of the user's could be used.
async fn revoke(conn: &mut Conn, app: AppId, client_user_id: &str) -> sqlx::Result<()> {
    let names = Some(vec![client_user_id.to_owned()]);
    let matching = Matching { client_user_ids: names, ..Matching::default() };
    let many =
        Many { kind: RevocationKind::Delink, reason: "the user is being erased", order: None };
    store::destroy_superseded_matching(conn, app, &matching).await?;
    store::revoke_many(conn, app, &matching, &many).await?;
    Ok(())
}

/// One erasure of the app.
pub async fn find(conn: &mut Conn, app: AppId, id: ErasureId) -> sqlx::Result<Option<Erasure>> {
    store::find_erasure(conn, app, id).await
}

/// Concludes an erasure, where nothing of it is outstanding. Returns whether it was concluded by this.
pub async fn conclude(conn: &mut Conn, id: ErasureId) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let Some((app, user)) = store::lock_erasure(&mut tx, id).await? else { return Ok(false) };
    // Whoever is adding something for the user at this moment is waited for, and nobody comes after.
    let Some(client_user_id) = users::lock(&mut tx, user).await? else { return Ok(false) };
    revoke(&mut tx, app, &client_user_id).await?;
    if store::is_outstanding(&mut tx, user).await? {
        store::postpone_erasure(&mut tx, id).await?;
        tx.commit().await?;
        return Ok(false);
    }
    let destroyed = store::delete_connections(&mut tx, user).await?;
    let key = users::destroy(&mut tx, user).await?.ok_or(sqlx::Error::RowNotFound)?;
    store::end_erasure(&mut tx, id, key, &destroyed).await?;
    let (told, confirmed) = (id.to_string(), destroyed.unconfirmed == 0);
    let event = audit::Event {
        app,
        action: "user.erased",
        outcome: if confirmed { "confirmed" } else { "unconfirmed" },
        user: Some(user),
        connection: None,
        reason: Some(&told),
    };
    audit::record(&mut tx, &Actor::service(), &event).await?;
    fail::fail_point!("erasure::before_commit");
    tx.commit().await?;
    Ok(true)
}

/// Concludes what can be concluded of what is due. Returns how many users were erased.
pub(super) async fn reconcile(context: &Context, limit: i64) -> Result<usize, Failed> {
    let mut conn = context.pool.acquire().await?;
    let mut erased = 0;
    for id in store::due_erasures(&mut conn, limit).await? {
        erased += usize::from(conclude(&mut conn, id).await?);
    }
    Ok(erased)
}
