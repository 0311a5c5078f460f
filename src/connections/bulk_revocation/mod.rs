//! Orders: revoking many connections at once.
//!
//! An order is one small transaction: its row, which says whom it means, and one audit row. It is in
//! force from its commit on, however many connections it means and whatever is locked: whoever reads or
//! uses a token asks the orders in force (ADR 17). `marking` then writes on the rows
//! what the order has decided, batch by batch. What it met carries its id and waits, with its secrets
//! sealed; the background work lets so many a second through to the ordinary delinking, which goes on as
//! for any other revocation.
//!
//! *Paused*, an order lets nothing through. *Cancelled*, it ends what Dapi was not told of:
//! `invalidated`, unconfirmed, the secrets destroyed, as `invalidate` with `revokeUpstream: false` does
//! with a single connection. Neither makes a token usable again; whoever wants to tell Dapi later
//! pauses.

mod filter;
pub mod marking;
pub mod routes;
pub mod store;

pub use filter::RevocationFilter;

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit;
use crate::base::actor::{Actor, Who};
use crate::base::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::base::paging::{Cursor, Page};
use crate::connections::Context;
use crate::connections::model::RevocationKind;
use crate::connections::reconcile::Reconciler;
use crate::connections::reconcile::isolated;
use crate::database::{Conn, Fault, LongWork};
use crate::vault::{KeyedHash, Vault};

/// How many connections a second are let through to Dapi, where an order does not say.
pub const DEFAULT_PER_SECOND: i32 = 20;
/// The most that an order may say.
pub const MAX_PER_SECOND: i32 = 1000;
/// How many connections a dry run shows.
pub const SAMPLE: i32 = 10;
/// How often an order lets some through.
pub const RELEASE_EVERY: Duration = Duration::from_secs(1);
/// How long the one who gives an order marks what it means before it is answered: as a rule all of it,
/// so that the answer tells how many it met.
const MARK_AT_ONCE: Duration = Duration::from_millis(300);
/// How long a round of the background work marks before it looks at something else.
const MARK_IN_A_ROUND: Duration = Duration::from_secs(1);
/// How often an order is tried to be given that waits for calls under way.
const TRIES: u32 = 3;
/// When an order is looked at again that holds nothing back any more.
pub const CHECK_AGAIN: Duration = Duration::from_secs(5);

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkRevocationStatus {
    /// Dapi is being told.
    Running,
    /// Dapi is told of nothing more until it is resumed.
    Paused,
    /// What was not told was given up.
    Cancelled,
    /// Nothing is left to be told.
    Done,
}

/// What Dapi answered, and how often.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorCount {
    /// The last answer that did not confirm.
    pub error: String,
    /// On how many connections it stands.
    pub count: i64,
}

/// An order and how far it has come. Once it is known, `matched` is `told + failed + telling + waiting`,
/// but for connections of users who were erased since.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkRevocation {
    /// Its id.
    pub id: BulkRevocationId,
    /// How it stands.
    pub status: BulkRevocationStatus,
    /// How the connections are revoked.
    pub kind: RevocationKind,
    /// Why.
    pub reason: String,
    /// What was meant; of lists, how many they named.
    pub filter: Value,
    /// How many connections a second are let through to Dapi.
    pub per_second: i32,
    /// The client that gave it; `null` for the operator.
    pub created_by: Option<String>,
    /// When it was given: since then everything that it met is unusable.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the last of it had ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// How many connections it met; `null` until they are counted. They are unusable all the same.
    pub matched: Option<i64>,
    /// How many ended with the certainty that Dapi holds nothing usable.
    pub told: i64,
    /// How many ended without it.
    pub failed: i64,
    /// How many Dapi is being told of, the ones that are tried again among them.
    pub telling: i64,
    /// How many wait for their turn.
    pub waiting: i64,
    /// What Dapi answered instead of confirming: the five most frequent answers.
    pub errors: Vec<ErrorCount>,
}

/// What a dry run tells.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// How many connections would be revoked.
    pub matched: i64,
    /// The newest of them, ten at most.
    pub sample: Vec<ConnectionId>,
}

/// An order to be given.
#[derive(Debug)]
pub struct NewBulkRevocation<'a> {
    /// The app.
    pub app: AppId,
    /// How.
    pub kind: RevocationKind,
    /// Why.
    pub reason: &'a str,
    /// Whom it means.
    pub matching: &'a RevocationFilter,
    /// How many a second are let through to Dapi.
    pub per_second: i32,
    /// The name under which the request may be repeated.
    pub idempotency_key: Option<&'a str>,
    /// Tells this request from another under the same key.
    pub request_hash: KeyedHash,
}

/// A keyed hash of what is asked: names of users stand in it, which a plain hash would not hide.
#[must_use]
pub fn request_hash(
    vault: &Vault,
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
    vault.secret_hashes().hash(&parts)
}

/// What became of an order.
#[derive(Debug)]
pub enum CreateOutcome {
    /// It is in force; `ended` of what it met ended at once.
    New {
        /// The order.
        id: BulkRevocationId,
        /// Codes that were never sent.
        ended: i64,
    },
    /// The same request gave it before.
    Repeated(BulkRevocationId),
    /// Another request has used the key.
    KeyTaken,
    /// The request that uses the key is still under way.
    InProgress,
}

/// What an order would meet at this moment.
pub async fn dry_run(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<DryRun> {
    let (matched, sample) = store::count_usable(conn, app, matching).await?;
    Ok(DryRun { matched, sample })
}

/// Gives an order: when this returns, nothing reads or uses what it means any more.
pub async fn give(
    conn: &mut Conn,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> sqlx::Result<CreateOutcome> {
    let mut tries = 1;
    let given = loop {
        match try_to_give(conn, actor, new).await {
            // A call or a reading took longer to commit than this was willing to wait.
            Err(error) if Fault::of(&error) == Fault::Contention && tries < TRIES => tries += 1,
            given => break given?,
        }
    };
    let CreateOutcome::New { id, .. } = given else { return Ok(given) };
    // In force whatever comes of this: the background work marks what is left.
    match marking::mark_one(conn, id, Instant::now() + MARK_AT_ONCE).await {
        Ok(marked) => Ok(CreateOutcome::New { id, ended: marked.ended }),
        Err(error) => {
            tracing::warn!(order = %id, cause = %error, "an order is not marked yet");
            Ok(CreateOutcome::New { id, ended: 0 })
        }
    }
}

async fn try_to_give(
    conn: &mut Conn,
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
        // Nothing but the key can be in the way of an insert.
        Err(error) if Fault::of(&error) == Fault::Contention => {
            return Ok(CreateOutcome::InProgress);
        }
        inserted => inserted?,
    };
    if !is_new {
        let key = new.idempotency_key.unwrap_or_default();
        let (id, hash) = store::find_by_idempotency_key(&mut tx, new.app, key)
            .await?
            .ok_or(sqlx::Error::RowNotFound)?;
        let same = new.request_hash.matches(&hash);
        return Ok(if same { CreateOutcome::Repeated(id) } else { CreateOutcome::KeyTaken });
    }
    store::insert_targets(&mut tx, id, new.app, new.matching).await?;
    let told = format!("{id}: {}: {}", new.kind.as_str(), new.reason);
    record(&mut tx, actor, new.app, "revocations.ordered", "running", &told).await?;
    store::wait_for_uses(&mut tx, new.app).await?;
    fail::fail_point!("orders::before_commit");
    tx.commit().await?;
    Ok(CreateOutcome::New { id, ended: 0 })
}

/// What can be done to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Let nothing more through to Dapi.
    Pause,
    /// Go on.
    Resume,
    /// Give up what Dapi was not told of.
    Cancel,
}

impl Change {
    const fn state(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "running",
            Self::Cancel => "cancelled",
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Pause => "revocations.paused",
            Self::Resume => "revocations.resumed",
            Self::Cancel => "revocations.cancelled",
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It is so now, or was already; so many connections ended by it.
    Yes(u64),
    /// The order is at its end: it is cancelled or nothing of it is left.
    AtItsEnd,
    /// There is no such order.
    Unknown,
}

/// Changes an order. Repeatable.
pub async fn change(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    id: BulkRevocationId,
    change: Change,
) -> sqlx::Result<ChangeOutcome> {
    let mut tx = conn.begin().await?;
    let Some((state, finished)) = store::lock(&mut tx, app, id).await? else {
        return Ok(ChangeOutcome::Unknown);
    };
    if state == change.state() {
        return Ok(ChangeOutcome::Yes(0));
    }
    if finished || state == Change::Cancel.state() {
        return Ok(ChangeOutcome::AtItsEnd);
    }
    tx.allow(LongWork::BulkRevocation).await?;
    store::set_state(&mut tx, id, change.state()).await?;
    let mut ended = 0;
    match change {
        Change::Pause => store::hold_back(&mut tx, id).await?,
        Change::Resume => {}
        Change::Cancel => ended = store::end_unconfirmed(&mut tx, id).await?,
    }
    let told = match change {
        Change::Cancel => format!("{id}: {ended} connections given up"),
        _ => id.to_string(),
    };
    record(&mut tx, actor, app, change.action(), change.state(), &told).await?;
    tx.commit().await?;
    Ok(ChangeOutcome::Yes(ended))
}

/// One order of the app.
pub async fn find(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
) -> sqlx::Result<Option<BulkRevocation>> {
    store::find(conn, app, id).await
}

/// The app's orders, newest first.
pub async fn list(
    conn: &mut Conn,
    app: AppId,
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<BulkRevocation>> {
    store::list(conn, app, cursor, limit).await
}

const ORDERS: Reconciler = Reconciler::BulkRevocations;
/// Under which names parts of this work that belong to no single order are left alone when they fail.
const MARKING: Uuid = Uuid::from_u128(1);
const HOLDING: Uuid = Uuid::from_u128(2);

/// What a round did for orders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconciled {
    /// Connections that were marked.
    pub marked: usize,
    /// Connections that were let through to Dapi.
    pub released: usize,
}

/// Marks what orders in force mean, holds what paused ones mean, lets through what is next, and concludes
/// orders of which nothing is left. An order that fails is left alone for a while.
pub async fn reconcile(context: &Context, batch: i64) -> Reconciled {
    let marked = marking::mark_due(context, Instant::now() + MARK_IN_A_ROUND);
    let marked = isolated(context, ORDERS, MARKING, marked.boxed()).await.unwrap_or_default();
    context.metrics.revocations("confirmed", marked.ended);
    let held = async { Ok(store::hold_paused(&mut context.pool.acquire().await?, batch).await?) };
    isolated(context, ORDERS, HOLDING, held.boxed()).await;
    let released = release(context, batch).await;
    Reconciled { marked: usize::try_from(marked.connections).unwrap_or(0), released }
}

/// Lets through what is next, and concludes orders of which nothing is left. Returns how many connections
/// were let through.
async fn release(context: &Context, batch: i64) -> usize {
    let awaited =
        async { Ok(store::release_awaited(&mut context.pool.acquire().await?, batch).await?) };
    let awaited = isolated(context, ORDERS, Uuid::nil(), awaited.boxed()).await.unwrap_or(0);
    let mut released = usize::try_from(awaited).unwrap_or(0);
    loop {
        let next = async { Ok(store::release(&mut context.pool.acquire().await?).await?) };
        let Some((id, count)) =
            isolated(context, ORDERS, Uuid::nil(), next.boxed()).await.flatten()
        else {
            return released;
        };
        released += usize::try_from(count).unwrap_or(0);
        if count == 0 {
            let finish = async { Ok(store::finish(&mut context.pool.acquire().await?, id).await?) };
            isolated(context, ORDERS, id.uuid(), finish.boxed()).await;
        }
    }
}

async fn record(
    conn: &mut Conn,
    actor: &Actor,
    app: AppId,
    action: &'static str,
    outcome: &'static str,
    reason: &str,
) -> sqlx::Result<()> {
    let reason = Some(reason);
    let event = audit::Event { app, action, outcome, user: None, connection: None, reason };
    audit::record(conn, actor, &event).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::bulk_revocation::filter::InvalidFilter;

    fn of_users(names: &[&str]) -> RevocationFilter {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        RevocationFilter { client_user_ids: Some(names), ..RevocationFilter::default() }
    }

    #[test]
    fn a_filter_that_says_nothing_is_refused_unless_it_says_all() {
        assert_eq!(RevocationFilter::default().check(), Err(InvalidFilter::Empty));
        let all = RevocationFilter { all: true, ..RevocationFilter::default() };
        assert_eq!(all.check(), Ok(()));
        assert_eq!(of_users(&["ada"]).check(), Ok(()));
        assert_eq!(of_users(&[]).check(), Err(InvalidFilter::EmptyList));
        let both = RevocationFilter { all: true, ..of_users(&["ada"]) };
        assert_eq!(both.check(), Err(InvalidFilter::AllAndMore));
    }

    #[test]
    fn an_order_keeps_how_many_were_named_and_not_who() {
        let described = of_users(&["ada", "bob"]).described();
        assert_eq!(described, json!({ "clientUserIDs": 2 }));
    }

    #[test]
    fn both_names_of_a_connection_are_understood() {
        let id = ConnectionId::new();
        let ids = vec![id.to_string(), "e5f6".to_owned()];
        let matching =
            RevocationFilter { connection_ids: Some(ids), ..RevocationFilter::default() };
        assert_eq!(matching.ids(), Some(vec![id.uuid()]));
        assert_eq!(matching.logins(), Some(vec!["e5f6".to_owned()]));
    }
}
