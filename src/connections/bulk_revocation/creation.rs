//! Creating a bulk revocation.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{RevocationFilter, marking, record, store};
use crate::approvals::{self, AskError, Gated, Kind, NewRequest, Permitted};
use crate::common::actor::{Actor, Who};
use crate::common::ids::{AppId, BulkRevocationId};
use crate::config::FourEyes;
use crate::connections::model::RevocationKind;
use crate::database::{Conn, Fault, Inconsistent, LongWork};
use crate::vault::{KeyedHash, Vault};

/// Time that the creating request spends on marking before it answers: usually enough for all connections,
/// so that the answer holds `matched`.
const MARK_AT_ONCE: Duration = Duration::from_millis(300);
/// Attempts to commit a bulk revocation while calls under way hold the usage lock.
const CREATE_ATTEMPTS: u32 = 3;

/// A bulk revocation to create.
#[derive(Debug)]
pub struct NewBulkRevocation<'a> {
    pub app: AppId,
    pub kind: RevocationKind,
    /// For the audit trail, and every matching connection's `revocation.reason`.
    pub reason: &'a str,
    pub matching: &'a RevocationFilter,
    /// Rate of the throttle.
    pub per_second: i32,
    /// Unique per app; a repeated request with the same key and hash creates nothing.
    pub idempotency_key: Option<&'a str>,
    /// Distinguishes a repeated request from another one that reuses the key; see [`request_hash`].
    pub request_hash: KeyedHash,
}

/// Returns a keyed hash of the request. Keyed, because the filter may hold users' names, which a plain hash
/// would not hide from a guess.
#[must_use]
pub fn request_hash(
    vault: &Vault,
    app: AppId,
    kind: RevocationKind,
    reason: &str,
    per_second: i32,
    matching: &RevocationFilter,
) -> KeyedHash {
    let (matching, rate) = (json!(matching).to_string(), per_second.to_be_bytes());
    let parts: [&[u8]; 5] = [
        b"revocation order",
        kind.as_str().as_bytes(),
        reason.as_bytes(),
        &rate,
        matching.as_bytes(),
    ];
    vault.secret_hashes_of(app).hash(&parts)
}

/// The outcome of creating a bulk revocation.
#[derive(Debug)]
pub enum CreateOutcome {
    /// It is in force.
    New {
        id: BulkRevocationId,
        /// Connections that ended at once, because their code was never sent to Dapi.
        ended: i64,
    },
    /// The same request created it before.
    Repeated(BulkRevocationId),
    /// A different request has used the key.
    KeyTaken,
    /// The request that uses the key has not committed yet.
    InProgress,
}

/// A bulk revocation that waits for a second person, in full.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestedRevocation {
    kind: String,
    /// For the audit trail.
    pub reason: String,
    /// Rate of the throttle.
    pub per_second: i32,
    /// Which connections.
    pub filter: RevocationFilter,
    idempotency_key: Option<String>,
}

impl RequestedRevocation {
    fn of(new: &NewBulkRevocation<'_>) -> Self {
        Self {
            kind: new.kind.as_str().to_owned(),
            reason: new.reason.to_owned(),
            per_second: new.per_second,
            filter: new.matching.clone(),
            idempotency_key: new.idempotency_key.map(str::to_owned),
        }
    }

    /// Returns how connections are revoked; `None` if it is no kind of this release.
    #[must_use]
    pub fn kind(&self) -> Option<RevocationKind> {
        RevocationKind::parse(&self.kind)
    }

    /// Returns what is to be created; `None` if its kind is none of this release.
    #[must_use]
    pub fn to_new(&self, vault: &Vault, app: AppId) -> Option<NewBulkRevocation<'_>> {
        let (kind, reason, per_second) = (self.kind()?, self.reason.as_str(), self.per_second);
        Some(NewBulkRevocation {
            app,
            kind,
            reason,
            matching: &self.filter,
            per_second,
            idempotency_key: self.idempotency_key.as_deref(),
            request_hash: request_hash(vault, app, kind, reason, per_second, &self.filter),
        })
    }

    fn to_request(&self, app: AppId, matched: i64) -> NewRequest {
        let described = json!({
            "kind": self.kind,
            "reason": self.reason,
            "perSecond": self.per_second,
            "filter": self.filter.described(),
        });
        NewRequest {
            app: Some(app),
            kind: Kind::BulkRevocation,
            request: json!(self).to_string(),
            described,
            matched: Some(matched),
        }
    }
}

/// Creates a bulk revocation, or records that it waits for a second person. When this returns [`Gated::Done`], no reveal and
/// no call uses a matching token any more: those that had begun have committed, and later ones see it.
///
/// # Errors
/// See [`AskError`].
pub async fn create(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> Result<Gated<CreateOutcome>, AskError> {
    let permitted = if let Some(permitted) = Permitted::without(four_eyes) {
        permitted
    } else {
        if let Some(known) = by_key(conn, new).await? {
            return Ok(Gated::Done(known));
        }
        match ask(conn, vault, four_eyes, actor, new).await? {
            Gated::Done(permitted) => permitted,
            Gated::Awaits(awaiting) => return Ok(Gated::Awaits(awaiting)),
        }
    };
    Ok(Gated::Done(create_permitted(conn, &permitted, actor, new).await?))
}

/// Counts what would be revoked, and asks if that is more than one person may revoke. If it cannot be counted in time,
/// nothing is revoked.
async fn ask(
    conn: &mut Conn,
    vault: &Vault,
    four_eyes: FourEyes,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> Result<Gated<Permitted>, AskError> {
    let mut tx = conn.begin().await?;
    tx.allow(LongWork::BulkRevocation).await?;
    let (matched, _) = store::count_usable(&mut tx, new.app, new.matching).await?;
    tx.commit().await?;
    let request = RequestedRevocation::of(new).to_request(new.app, matched);
    approvals::ask(conn, vault, actor, four_eyes.is_exceeded_by(matched), &request).await
}

async fn create_permitted(
    conn: &mut Conn,
    permitted: &Permitted,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> sqlx::Result<CreateOutcome> {
    let mut attempts = 1;
    let outcome = loop {
        match create_in(conn, permitted, actor, new).await {
            // A call or a reveal held the usage lock for longer than the lock timeout.
            Err(error) if Fault::of(&error) == Fault::Contention && attempts < CREATE_ATTEMPTS => {
                attempts += 1;
            }
            outcome => break outcome?,
        }
    };
    let CreateOutcome::New { id, .. } = outcome else { return Ok(outcome) };
    // It is in force even if this fails: the background work marks the rest.
    match marking::mark_one(conn, id, Instant::now() + MARK_AT_ONCE).await {
        Ok(marked) => Ok(CreateOutcome::New { id, ended: marked.ended }),
        Err(error) => {
            tracing::warn!(bulk_revocation = %id, cause = %error, "a new bulk revocation is in force but not marked yet");
            Ok(CreateOutcome::New { id, ended: 0 })
        }
    }
}

/// Returns what a request with this key led to before.
async fn by_key(
    conn: &mut Conn,
    new: &NewBulkRevocation<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let Some(key) = new.idempotency_key else { return Ok(None) };
    let found = store::find_by_idempotency_key(conn, new.app, key).await?;
    Ok(found.map(|(id, hash)| {
        let same = new.request_hash.matches(&hash);
        if same { CreateOutcome::Repeated(id) } else { CreateOutcome::KeyTaken }
    }))
}

/// Creates a bulk revocation in the transaction that `conn` is in, or in one of its own. The background work marks its
/// connections.
///
/// # Errors
/// [`Fault::Contention`] if a call or a reveal holds the usage lock for long; the database's.
pub async fn create_in(
    conn: &mut Conn,
    _: &Permitted,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> sqlx::Result<CreateOutcome> {
    let id = BulkRevocationId::new();
    let mut tx = conn.begin().await?;
    let created_by = match &actor.who {
        Who::Client { id, .. } => Some(&**id),
        _ => None,
    };
    let is_new = match store::insert(&mut tx, id, new, created_by).await {
        // An insert waits for nothing but an uncommitted row with the same key.
        Err(error) if Fault::of(&error) == Fault::Contention => {
            return Ok(CreateOutcome::InProgress);
        }
        inserted => inserted?,
    };
    if !is_new {
        let known = by_key(&mut tx, new).await?;
        let missing =
            || Inconsistent::new("bulk_revocations", "an idempotency key that was just found");
        return Ok(known.ok_or_else(missing)?);
    }
    store::insert_targets(&mut tx, id, new.app, new.matching).await?;
    let detail = format!("{id}: {}: {}", new.kind.as_str(), new.reason);
    record(&mut tx, actor, new.app, "revocations.ordered", "running", &detail).await?;
    store::wait_for_uses(&mut tx, new.app).await?;
    fail::fail_point!("orders::before_commit");
    tx.commit().await?;
    Ok(CreateOutcome::New { id, ended: 0 })
}
