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

mod cancellation;
mod creation;
mod filter;
pub mod marking;
pub mod routes;
pub mod store;

pub use cancellation::{RequestedCancellation, cancel};
pub use creation::{
    CreateOutcome, NewBulkRevocation, RequestedRevocation, create, create_in, request_hash,
};
pub use filter::RevocationFilter;
pub use store::ERRORS_COUNTED;

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::approvals::Permitted;
use crate::audit;
use crate::common::actor::Actor;
use crate::common::ids::{AppId, BulkRevocationId, ConnectionId};
use crate::common::paging::{Cursor, Page};
use crate::connections::deferred::Reconciler;
use crate::connections::effects::RevocationEnd;
use crate::connections::isolation::isolated;
use crate::connections::model::RevocationKind;
use crate::connections::{ConnectionError, Context};
use crate::database::{Conn, LongWork};

/// Connections that the throttle releases per second if the request does not say.
pub const DEFAULT_PER_SECOND: i32 = 20;
pub const MAX_PER_SECOND: i32 = 1000;
/// Connections that a dry run lists.
pub const SAMPLE: i32 = 10;
/// Interval between two releases of a bulk revocation: `per_second` counts per this.
pub const RELEASE_EVERY: Duration = Duration::from_secs(1);
/// Time that one round of the background work spends on marking, and on what was cancelled, before it goes on with the throttle.
const MARK_IN_A_ROUND: Duration = Duration::from_secs(1);
/// Connections that a cancellation ends in its own transaction, or that a pause holds. Others follow in the background, because
/// somebody waits, and because a transaction that changes a million would run into the timeout of its statement.
const CHANGED_AT_ONCE: i64 = 5_000;
/// Connections that one statement of the background ends.
const GIVEN_UP_IN_A_BATCH: i64 = 1_000;
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

impl BulkRevocationStatus {
    /// Whether there may be delinkings left to give up.
    #[must_use]
    pub const fn may_be_cancelled(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
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
    /// What Dapi answered instead of confirming: the five most frequent answers, of the thousand oldest connections that are
    /// not confirmed.
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

/// Counts and samples the connections that a bulk revocation with this filter would revoke now.
pub async fn dry_run(
    conn: &mut Conn,
    app: AppId,
    matching: &RevocationFilter,
) -> sqlx::Result<DryRun> {
    let (matched, sample) = store::count_usable(conn, app, matching).await?;
    Ok(DryRun { matched, sample })
}

/// A change of a bulk revocation's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Releases nothing until it is resumed.
    Pause,
    Resume,
    /// Ends, unconfirmed, every connection whose delinking Dapi has not confirmed. Final, and held by four eyes:
    /// [`cancel`] asks.
    Cancel {
        permitted: &'a Permitted,
        /// For the audit trail, if one was given.
        reason: Option<&'a str>,
    },
}

/// The state that is final.
const CANCELLED: &str = "cancelled";

impl Change<'_> {
    const fn state(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "running",
            Self::Cancel { .. } => CANCELLED,
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Pause => "revocations.paused",
            Self::Resume => "revocations.resumed",
            Self::Cancel { .. } => "revocations.cancelled",
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
    change: Change<'_>,
) -> sqlx::Result<ChangeOutcome> {
    let mut tx = conn.begin().await?;
    let Some((state, finished)) = store::lock(&mut tx, app, id).await? else {
        return Ok(ChangeOutcome::Unknown);
    };
    if state == change.state() {
        return Ok(ChangeOutcome::Yes(0));
    }
    if finished || state == CANCELLED {
        return Ok(ChangeOutcome::AtItsEnd);
    }
    tx.allow(LongWork::BulkRevocation).await?;
    store::set_state(&mut tx, id, change.state()).await?;
    let mut ended = 0;
    match change {
        Change::Pause => store::hold_back(&mut tx, id, CHANGED_AT_ONCE).await?,
        Change::Resume => {}
        Change::Cancel { .. } => {
            ended = store::end_unconfirmed(&mut tx, id, CHANGED_AT_ONCE).await?;
        }
    }
    let detail = match change {
        Change::Cancel { reason, .. } => {
            let all = i64::try_from(ended) != Ok(CHANGED_AT_ONCE);
            let others = if all { "" } else { ", and others follow" };
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{id}: {ended} connections given up{others}{reason}")
        }
        Change::Pause | Change::Resume => id.to_string(),
    };
    record(&mut tx, actor, app, change.action(), change.state(), &detail).await?;
    tx.commit().await?;
    Ok(ChangeOutcome::Yes(ended))
}

/// Counts connections that a cancellation gave up.
pub fn count_given_up(context: &Context, ended: u64) {
    let ended = i64::try_from(ended).unwrap_or(i64::MAX);
    context.metrics.revocations(RevocationEnd::Unconfirmed, ended);
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
const FOLDING: Uuid = Uuid::from_u128(3);
const GIVING_UP: Uuid = Uuid::from_u128(4);

/// The result of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconciled {
    pub marked: usize,
    /// Connections that the throttle released to the delinking.
    pub released: usize,
}

/// Runs one round for all bulk revocations: marks those in force, gives up what cancelled ones have left, holds the tokens of
/// paused ones, releases the next tokens and finishes those of which nothing is outstanding. Defers one that fails.
pub async fn reconcile(context: &Context, batch: i64) -> Reconciled {
    let marked = marking::mark_due(context, Instant::now() + MARK_IN_A_ROUND);
    let marked = isolated(context, RECONCILER, MARKING, marked.boxed()).await.unwrap_or_default();
    context.metrics.revocations(RevocationEnd::Confirmed, marked.ended);
    context.metrics.revocations(RevocationEnd::Unconfirmed, marked.given_up);
    let given_up = give_up(context, Instant::now() + MARK_IN_A_ROUND);
    isolated(context, RECONCILER, GIVING_UP, given_up.boxed()).await;
    let held = async { Ok(store::hold_paused(&mut context.pool.acquire().await?, batch).await?) };
    isolated(context, RECONCILER, HOLDING, held.boxed()).await;
    let released = release(context, batch).await;
    // Last, so that what a reader adds up is what this round has changed at most.
    let fold = async { Ok(store::fold_counts(&mut context.pool.acquire().await?).await?) };
    isolated(context, RECONCILER, FOLDING, fold.boxed()).await;
    Reconciled { marked: usize::try_from(marked.connections).unwrap_or(0), released }
}

/// Ends what cancelled bulk revocations have left, batch by batch, until nothing is or until `until`.
async fn give_up(context: &Context, until: Instant) -> Result<(), ConnectionError> {
    let mut conn = context.pool.acquire().await?;
    while Instant::now() < until {
        let Some(id) = store::find_cancelled(&mut conn).await? else { break };
        match store::end_unconfirmed(&mut conn, id, GIVEN_UP_IN_A_BATCH).await? {
            // Somebody has the rest locked.
            0 => break,
            ended => count_given_up(context, ended),
        }
    }
    Ok(())
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
    use serde_json::json;

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
