//! Bulk revocation: revoking many connections at once. The API calls one an order (`ord_…`).
//!
//! Creating one is one small transaction: its row, which holds the filter, and one audit row. It is in force
//! from its commit, however many connections match and whatever is locked, because every reveal and every call
//! checks the bulk revocations in force (ADR 17). [`marking`] then writes the decision on the connections' rows,
//! batch by batch. A marked token carries the bulk revocation's id and is held, sealed, until the throttle
//! releases it to the ordinary delinking, `per_second` at a time.
//!
//! *Paused*, the throttle releases nothing. *Cancelled*, every token whose delinking Dapi has not confirmed ends
//! `invalidated`, unconfirmed, its secrets destroyed, like `invalidate` with `revokeUpstream: false` for a single
//! connection. Neither makes a token usable again; to delink later, pause.

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
use crate::common::actor::{Actor, Who};
use crate::common::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::common::paging::{Cursor, Page};
use crate::connections::Context;
use crate::connections::deferred::Reconciler;
use crate::connections::effects::RevocationEnd;
use crate::connections::isolation::isolated;
use crate::connections::model::RevocationKind;
use crate::database::{Conn, Fault, Inconsistent, LongWork};
use crate::vault::{KeyedHash, Vault};

/// Connections that the throttle releases per second if the request does not say.
pub const DEFAULT_PER_SECOND: i32 = 20;
pub const MAX_PER_SECOND: i32 = 1000;
/// Connections that a dry run lists.
pub const SAMPLE: i32 = 10;
/// Interval between two releases of a bulk revocation: `per_second` counts per this.
pub const RELEASE_EVERY: Duration = Duration::from_secs(1);
/// Time that the creating request spends on marking before it answers: usually enough for all connections,
/// so that the answer holds `matched`.
const MARK_AT_ONCE: Duration = Duration::from_millis(300);
/// Time that one round of the background work spends on marking before it goes on with the throttle.
const MARK_IN_A_ROUND: Duration = Duration::from_secs(1);
/// Attempts to commit a bulk revocation while calls under way hold the usage lock.
const CREATE_ATTEMPTS: u32 = 3;
/// Interval between two checks of a bulk revocation that holds nothing, for what is still under way.
pub const CHECK_AGAIN: Duration = Duration::from_secs(5);

/// The status of a bulk revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkRevocationStatus {
    /// Its connections are being delinked at Dapi.
    Running,
    /// Nothing more is delinked until it is resumed.
    Paused,
    /// Delinkings that Dapi had not confirmed were given up.
    Cancelled,
    /// Everything has ended.
    Done,
}

/// An answer of Dapi's, and how often it came.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorCount {
    /// The last answer that did not confirm.
    #[schema(example = "HTTP 503")]
    pub error: String,
    /// How many connections have it as their last error.
    pub count: i64,
}

/// A bulk revocation and its progress. Once it is known, `matched` is `told + failed + telling + waiting`,
/// but for connections of users who were erased since.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkRevocation {
    /// Its id.
    pub id: BulkRevocationId,
    /// Its status.
    pub status: BulkRevocationStatus,
    /// How the connections are revoked.
    pub kind: RevocationKind,
    /// The reason that was given.
    #[schema(example = "client secret leaked")]
    pub reason: String,
    /// The filter that was given; of lists, their lengths.
    #[schema(value_type = serde_json::Map<String, Value>, example = json!({ "all": true }))]
    pub filter: Value,
    /// How many connections a second are delinked, at most.
    #[schema(minimum = 1, maximum = 1000, example = 20)]
    pub per_second: i32,
    /// The client that created it; `null` for the operator.
    #[schema(example = "payroll7Qm2Xv9")]
    pub created_by: Option<String>,
    /// When it was created: since then every connection that it matches is unusable.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the last of its connections had ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// How many connections it matches; `null` until they are counted. They are unusable all the same.
    pub matched: Option<i64>,
    /// How many ended with the certainty that Dapi holds nothing usable.
    pub told: i64,
    /// How many ended without it.
    pub failed: i64,
    /// How many are being delinked, including those that are retried.
    pub telling: i64,
    /// How many are held until `perSecond` allows them.
    pub waiting: i64,
    /// What Dapi answered instead of confirming: the five most frequent answers.
    pub errors: Vec<ErrorCount>,
}

/// The result of a dry run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// How many connections would be revoked.
    pub matched: i64,
    /// The newest of them, ten at most.
    pub sample: Vec<ConnectionId>,
}

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

/// Counts and samples the connections that a bulk revocation with this filter would revoke now.
pub async fn dry_run(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<DryRun> {
    let (matched, sample) = store::count_usable(conn, app, matching).await?;
    Ok(DryRun { matched, sample })
}

/// Creates a bulk revocation. When this returns, no reveal and no call uses a matching token any more: those that
/// had begun have committed, and later ones see it.
pub async fn create(
    conn: &mut Conn,
    actor: &Actor,
    new: &NewBulkRevocation<'_>,
) -> sqlx::Result<CreateOutcome> {
    let mut attempts = 1;
    let outcome = loop {
        match try_create(conn, actor, new).await {
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

async fn try_create(
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
        // An insert waits for nothing but an uncommitted row with the same key.
        Err(error) if Fault::of(&error) == Fault::Contention => {
            return Ok(CreateOutcome::InProgress);
        }
        inserted => inserted?,
    };
    if !is_new {
        let key = new.idempotency_key.unwrap_or_default();
        let (id, hash) =
            store::find_by_idempotency_key(&mut tx, new.app, key).await?.ok_or_else(|| {
                Inconsistent::new("bulk_revocations", "an idempotency key that was just found")
            })?;
        let same = new.request_hash.matches(&hash);
        return Ok(if same { CreateOutcome::Repeated(id) } else { CreateOutcome::KeyTaken });
    }
    store::insert_targets(&mut tx, id, new.app, new.matching).await?;
    let detail = format!("{id}: {}: {}", new.kind.as_str(), new.reason);
    record(&mut tx, actor, new.app, "revocations.ordered", "running", &detail).await?;
    store::wait_for_uses(&mut tx, new.app).await?;
    fail::fail_point!("orders::before_commit");
    tx.commit().await?;
    Ok(CreateOutcome::New { id, ended: 0 })
}

/// A change of a bulk revocation's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Releases nothing until it is resumed.
    Pause,
    Resume,
    /// Ends, unconfirmed, every connection whose delinking Dapi has not confirmed. Final.
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

/// The outcome of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The bulk revocation is in the requested state. Holds how many connections ended by this change.
    Yes(u64),
    /// It is cancelled or finished and cannot change any more.
    AtItsEnd,
    /// The app has no such bulk revocation.
    Unknown,
}

/// Pauses, resumes or cancels a bulk revocation. Idempotent.
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
    let detail = match change {
        Change::Cancel => format!("{id}: {ended} connections given up"),
        _ => id.to_string(),
    };
    record(&mut tx, actor, app, change.action(), change.state(), &detail).await?;
    tx.commit().await?;
    Ok(ChangeOutcome::Yes(ended))
}

/// Returns one bulk revocation of the app, with the errors that Dapi answered.
pub async fn find(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
) -> sqlx::Result<Option<BulkRevocation>> {
    store::find(conn, app, id).await
}

/// Returns a page of the app's bulk revocations, newest first, without their errors.
pub async fn list(
    conn: &mut Conn,
    app: AppId,
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<BulkRevocation>> {
    store::list(conn, app, cursor, limit).await
}

const RECONCILER: Reconciler = Reconciler::BulkRevocations;
/// Ids under which the steps that belong to no single bulk revocation are deferred when they fail.
const MARKING: Uuid = Uuid::from_u128(1);
const HOLDING: Uuid = Uuid::from_u128(2);

/// The result of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconciled {
    pub marked: usize,
    /// Connections that the throttle released to the delinking.
    pub released: usize,
}

/// Runs one round for all bulk revocations: marks those in force, holds the tokens of paused ones, releases the
/// next tokens and finishes those of which nothing is outstanding. Defers one that fails.
pub async fn reconcile(context: &Context, batch: i64) -> Reconciled {
    let marked = marking::mark_due(context, Instant::now() + MARK_IN_A_ROUND);
    let marked = isolated(context, RECONCILER, MARKING, marked.boxed()).await.unwrap_or_default();
    context.metrics.revocations(RevocationEnd::Confirmed, marked.ended);
    let held = async { Ok(store::hold_paused(&mut context.pool.acquire().await?, batch).await?) };
    isolated(context, RECONCILER, HOLDING, held.boxed()).await;
    let released = release(context, batch).await;
    Reconciled { marked: usize::try_from(marked.connections).unwrap_or(0), released }
}

/// Releases the next tokens of each bulk revocation and finishes those of which nothing is outstanding. Returns
/// how many connections it released.
async fn release(context: &Context, batch: i64) -> usize {
    let awaited =
        async { Ok(store::release_awaited(&mut context.pool.acquire().await?, batch).await?) };
    let awaited = isolated(context, RECONCILER, Uuid::nil(), awaited.boxed()).await.unwrap_or(0);
    let mut released = usize::try_from(awaited).unwrap_or(0);
    loop {
        let next = async { Ok(store::release(&mut context.pool.acquire().await?).await?) };
        let Some((id, count)) =
            isolated(context, RECONCILER, Uuid::nil(), next.boxed()).await.flatten()
        else {
            return released;
        };
        released += usize::try_from(count).unwrap_or(0);
        if count == 0 {
            let finish = async { Ok(store::finish(&mut context.pool.acquire().await?, id).await?) };
            isolated(context, RECONCILER, id.uuid(), finish.boxed()).await;
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
    fn a_filter_is_stored_with_the_lengths_of_its_lists_and_no_names() {
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
