//! Four eyes: what cannot be undone waits, if the deployment says so, until a second person has approved it.
//!
//! Whatever is held by it takes a [`Permitted`], and only this module makes one: because four eyes do not apply, or by
//! [`approve`], in the transaction that also carries the request out. So an approval is used once, and together with what
//! it was given for or not at all (ADR 32). A table of its own holds the minimum by constraints.
//!
//! May import: audit, common, config, database, http, vault.

mod metrics;
mod model;
pub mod routes;
mod store;

pub use metrics::Metrics;
pub use model::{
    Approval, ApprovalStatus, Awaiting, AwaitingApproval, Gated, Kind, NewRequest, Permitted,
    Waiting,
};
pub use store::{delete_old, expire, find, list, pending_count, request, waiting};

use uuid::Uuid;

use crate::audit;
use crate::common::actor::{Actor, Who};
use crate::common::ids::{AppId, ApprovalId, OperatorSessionId};
use crate::database::{Conn, Inconsistent};
use crate::vault::{KeyedHash, Vault};

/// For how many minutes a proof of who someone is lets them approve.
pub const FRESH_MINUTES: i32 = 5;
/// For how many minutes a session lives: what a rejection needs.
const SESSION_MINUTES: i32 = 12 * 60;
/// Requests of one requester that wait in an app, or in the deployment, at most. There is no limit for all of them together: a
/// client whose secret was stolen would keep everybody from asking for what stops it.
const MAX_PENDING: i64 = 20;

/// Why a request was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many wait already.
    #[error("{MAX_PENDING} requests of yours wait for an approval already; withdraw some of them")]
    TooMany,
    /// The actor is neither a client nor an operator.
    #[error("only a client or an operator can ask for this")]
    NoPerson,
    /// The database's error.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Why a request could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none of this id in the app.
    #[error("there is no such request here")]
    Unknown,
    /// It was decided, withdrawn, or its hour is over.
    #[error("the request does not wait any more")]
    Stale,
    /// The approver asked for it themselves.
    #[error("somebody else than the requester has to approve")]
    OwnRequest,
    /// The session has ended, is not fresh, or its operator was disabled or lost the role that this needs.
    #[error("this session may not approve it")]
    MayNot,
    /// The stored request is not the one that was asked for.
    #[error("the stored request was changed since it was asked for")]
    Changed,
}

/// Why a decision failed.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The database's error.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A request that somebody approved in this transaction, to be carried out in it.
#[derive(Debug)]
pub struct Approved {
    /// The approval.
    pub id: ApprovalId,
    /// The app; `None` for the deployment.
    pub app: Option<AppId>,
    /// What is carried out.
    pub kind: Kind,
    /// The whole request, as the feature wrote it.
    pub request: String,
    /// What the effect takes.
    pub permitted: Permitted,
}

/// Returns who asks, as the table has it.
fn requester(actor: &Actor) -> Option<String> {
    match &actor.who {
        Who::Client { id, .. } | Who::ClientBySecret(id) => Some(format!("client: {id}")),
        Who::Operator(Some(name)) => Some(format!("operator: {name}")),
        Who::Operator(None) => Some("operator".to_owned()),
        Who::Session(_) | Who::Service => None,
    }
}

/// Keyed, so that who can write to the table but not read the keys cannot change what is carried out.
fn digest(vault: &Vault, app: Option<AppId>, kind: Kind, request: &str) -> KeyedHash {
    let app = app.map_or_else(Uuid::nil, AppId::uuid);
    let parts: [&[u8]; 4] =
        [b"approval", app.as_bytes(), kind.as_str().as_bytes(), request.as_bytes()];
    vault.secret_hashes().hash(&parts)
}

/// Permits a request that needs no second person, or records it. The same request of the same requester is recorded once
/// while it waits.
///
/// # Errors
/// See [`AskError`].
pub async fn ask(
    conn: &mut Conn,
    vault: &Vault,
    actor: &Actor,
    needed: bool,
    new: &NewRequest,
) -> Result<Gated<Permitted>, AskError> {
    if !needed {
        return Ok(Gated::Done(Permitted::unneeded()));
    }
    let requested_by = requester(actor).ok_or(AskError::NoPerson)?;
    let digest = digest(vault, new.app, new.kind, &new.request);
    // What has expired would stand in the way of the same request.
    store::expire(conn).await?;
    let mut tx = conn.begin().await?;
    if let Some(waiting) = store::find_pending(&mut tx, &digest, &requested_by).await? {
        tx.commit().await?;
        return Ok(Gated::Awaits(waiting));
    }
    if store::pending_count(&mut tx, new.app, Some(&requested_by)).await? >= MAX_PENDING {
        return Err(AskError::TooMany);
    }
    let id = ApprovalId::new();
    if store::insert(&mut tx, id, new, &digest, &requested_by).await? {
        let detail = format!("{id}: {}", new.kind.as_str());
        record(&mut tx, actor, new.app, "approval.requested", "pending", &detail).await?;
    }
    let waiting = store::find_pending(&mut tx, &digest, &requested_by).await?;
    let missing = || sqlx::Error::from(Inconsistent::new("approvals", id));
    let waiting = waiting.ok_or_else(missing)?;
    tx.commit().await?;
    Ok(Gated::Awaits(waiting))
}

/// Approves a request in the transaction that `tx` is in, for the effect that is to follow in the same one. Whether the
/// session is live and fresh and its operator may, is read here and held until the transaction ends.
///
/// # Errors
/// [`Refused`]; the database's.
pub async fn approve(
    tx: &mut Conn,
    vault: &Vault,
    session: OperatorSessionId,
    actor: &Actor,
    app: AppId,
    id: ApprovalId,
) -> Result<Approved, DecideError> {
    let pending = store::lock(tx, app, id).await?.ok_or(Refused::Unknown)?;
    let request = pending.request.filter(|_| pending.live).ok_or(Refused::Stale)?;
    let approver = store::approver(tx, session, FRESH_MINUTES).await?.ok_or(Refused::MayNot)?;
    if !pending.kind.may_be_decided_by(&approver.role) || requester(actor) != Some(approver.name())
    {
        return Err(Refused::MayNot.into());
    }
    if approver.name() == pending.requested_by {
        return Err(Refused::OwnRequest.into());
    }
    if !digest(vault, pending.app, pending.kind, &request).matches(&pending.digest) {
        return Err(Refused::Changed.into());
    }
    store::end(tx, id, ApprovalStatus::Approved, &approver.name(), Some(session), None).await?;
    let detail = format!("{id}: {}, asked for by {}", pending.kind.as_str(), pending.requested_by);
    record(tx, actor, pending.app, "approval.approved", "approved", &detail).await?;
    let (app, kind) = (pending.app, pending.kind);
    Ok(Approved { id, app, kind, request, permitted: Permitted::by_approval() })
}

/// Rejects a request that waits, also one's own.
///
/// # Errors
/// [`Refused`]; the database's.
pub async fn reject(
    conn: &mut Conn,
    session: OperatorSessionId,
    actor: &Actor,
    app: AppId,
    id: ApprovalId,
    reason: &str,
) -> Result<(), DecideError> {
    let mut tx = conn.begin().await?;
    let pending = store::lock(&mut tx, app, id).await?.ok_or(Refused::Unknown)?;
    if !pending.live {
        return Err(Refused::Stale.into());
    }
    let approver = store::approver(&mut tx, session, SESSION_MINUTES).await?;
    let approver = approver.filter(|it| pending.kind.may_be_decided_by(&it.role));
    let name = approver.ok_or(Refused::MayNot)?.name();
    store::end(&mut tx, id, ApprovalStatus::Rejected, &name, Some(session), Some(reason)).await?;
    let detail = format!("{id}: {}: {reason}", pending.kind.as_str());
    record(&mut tx, actor, pending.app, "approval.rejected", "rejected", &detail).await?;
    Ok(tx.commit().await?)
}

/// Withdraws a request of the app or of the deployment that waits. Only its requester may.
///
/// # Errors
/// [`Refused`]; the database's.
pub async fn withdraw(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: ApprovalId,
) -> Result<(), DecideError> {
    let mut tx = conn.begin().await?;
    let pending = store::lock(&mut tx, app, id).await?.ok_or(Refused::Unknown)?;
    if !pending.live {
        return Err(Refused::Stale.into());
    }
    let name = requester(actor).filter(|name| *name == pending.requested_by);
    let name = name.ok_or(Refused::MayNot)?;
    store::end(&mut tx, id, ApprovalStatus::Withdrawn, &name, None, None).await?;
    let detail = format!("{id}: {}", pending.kind.as_str());
    record(&mut tx, actor, pending.app, "approval.withdrawn", "withdrawn", &detail).await?;
    Ok(tx.commit().await?)
}

async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: Option<AppId>,
    action: &'static str,
    outcome: &'static str,
    detail: &str,
) -> sqlx::Result<()> {
    let Some(app) = app else { return audit::record_everywhere(conn, actor, action, detail).await };
    let reason = Some(detail);
    let event = audit::Event { app, action, outcome, user: None, connection: None, reason };
    audit::record(conn, actor, &event).await
}
