//! Revocations of many connections at once: the table `revocation_orders`, and what it does to
//! `connections`.
//!
//! However many connections an order concerns, it is one statement that makes them unusable. No row of
//! theirs ever comes here.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::base::ids::{AppId, ConnectionId, RevocationOrderId};
use crate::base::objects;
use crate::base::paging::{Cursor, Page};
use crate::connections::model::RevocationKind;
use crate::connections::orders::{ErrorCount, Matching, NewOrder, Order, OrderStatus, SAMPLE};
use crate::database::Conn;

/// The ids of an app's connections that a [`Matching`] means and that can be revoked, as `usable`.
/// Everything but the status stays what it is for ever, so that whoever locks them has only that to
/// look at again.
macro_rules! over_usable {
    ($rest:tt, $app:expr, $matching:expr, $names:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query!(
            "WITH matching AS (
                SELECT c.id FROM connections c WHERE $2::uuid[] IS NOT NULL AND c.id = ANY ($2)
                UNION ALL
                SELECT c.id FROM connections c
                WHERE $3::text[] IS NOT NULL AND c.connection_id = ANY ($3) AND c.app_id = $1
                UNION ALL
                SELECT c.id FROM users u JOIN connections c ON c.user_id = u.id
                WHERE $2::uuid[] IS NULL AND $4::text[] IS NOT NULL
                  AND u.app_id = $1 AND u.client_user_id = ANY ($4)
                UNION ALL
                SELECT c.id FROM connections c
                WHERE $2::uuid[] IS NULL AND $4::text[] IS NULL
                  AND c.app_id::text = $1::uuid::text AND c.status IN ('pending', 'active')),
             usable AS (
                SELECT c.id FROM connections c
                WHERE c.id IN (SELECT id FROM matching) AND c.app_id = $1
                  AND c.status IN ('pending', 'active')
                  AND ($4::text[] IS NULL OR EXISTS (
                      SELECT FROM users u WHERE u.id = c.user_id AND u.client_user_id = ANY ($4)))
                  AND ($5::timestamptz IS NULL OR c.created_at < $5)
                  AND ($6::timestamptz IS NULL OR c.created_at >= $6)
                  AND ($7::text IS NULL OR c.created_by = $7))" + $rest,
            $app.uuid(),
            $names.0.as_deref(),
            $names.1.as_deref(),
            $matching.client_user_ids.as_deref(),
            $matching.created_before,
            $matching.created_after,
            $matching.client_id
            $(, $argument)*
        )
    };
}

/// How many connections would be revoked, and the newest of them.
pub(in crate::connections) async fn count_usable(
    conn: &mut Conn,
    app: AppId,
    matching: &Matching,
) -> sqlx::Result<(i64, Vec<ConnectionId>)> {
    let names = (matching.ids(), matching.logins());
    let row = over_usable!(
        "SELECT (SELECT count(*) FROM usable) AS \"count!\",
                ARRAY(SELECT id FROM usable ORDER BY id DESC LIMIT $8::int) AS \"sample!: Vec<Uuid>\"",
        app,
        matching,
        names,
        SAMPLE,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.count, row.sample.into_iter().map(ConnectionId::from).collect()))
}

/// What is written on every connection that is revoked with others.
#[derive(Debug)]
pub(in crate::connections) struct Many<'a> {
    pub(in crate::connections) kind: RevocationKind,
    pub(in crate::connections) reason: &'a str,
    /// The order, which lets them through to Dapi; without one Dapi is told at once.
    pub(in crate::connections) order: Option<RevocationOrderId>,
}

/// How many connections one statement revoked.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::connections) struct Revoked {
    pub(in crate::connections) all: i64,
    /// Of these: codes that were never sent, and ended at once.
    pub(in crate::connections) ended: i64,
}

/// Makes everything that is meant unusable, in one statement, by the rules of
/// [`model::on_revocation`](crate::connections::model::on_revocation): a code that was never sent ends,
/// a lease that is alive lives on, and a token waits to be let through. The rows are locked in the
/// order in which [`lock_login`](super::lock_login) locks them, so that the two cannot wait for each
/// other; a row that somebody changes in this moment is looked at again once that is committed.
pub(in crate::connections) async fn revoke_many(
    conn: &mut Conn,
    app: AppId,
    matching: &Matching,
    many: &Many<'_>,
) -> sqlx::Result<Revoked> {
    let names = (matching.ids(), matching.logins());
    let row = over_usable!(
        ", chosen AS MATERIALIZED (
            SELECT c.id FROM connections c
            WHERE c.id IN (SELECT id FROM usable) AND c.status IN ('pending', 'active')
            ORDER BY c.id FOR UPDATE OF c),
         changed AS (
            UPDATE connections c
            SET status = CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN $8 ELSE 'revoking' END,
                user_secret = CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN NULL
                                   ELSE c.user_secret END,
                code = CASE WHEN c.lease_epoch = 0 THEN NULL ELSE c.code END,
                due_at = CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN NULL
                              WHEN c.code IS NULL AND $11::uuid IS NOT NULL THEN NULL
                              ELSE coalesce(c.leased_until, t.now) END,
                revocation_kind = $9, revocation_reason = $10, revocation_order = $11,
                revocation_requested_at = t.now,
                revocation_confirmed_at =
                    CASE WHEN c.code IS NOT NULL AND c.lease_epoch = 0 THEN t.now END
            FROM chosen, (SELECT strongroom_now() AS now) t
            WHERE c.id = chosen.id
            RETURNING c.status)
         SELECT count(*) AS \"all!\", count(*) FILTER (WHERE status <> 'revoking') AS \"ended!\"
         FROM changed",
        app,
        matching,
        names,
        many.kind.ends(true).as_str(),
        many.kind.as_str(),
        many.reason,
        many.order.map(RevocationOrderId::uuid),
    )
    .fetch_one(conn)
    .await?;
    Ok(Revoked { all: row.all, ended: row.ended })
}

/// Lets a statement run for as long as a large order takes, in this transaction.
pub(in crate::connections) async fn be_patient(conn: &mut Conn) -> sqlx::Result<()> {
    sqlx::query!("SELECT set_config('statement_timeout', '10min', true)").fetch_one(conn).await?;
    Ok(())
}

/// Keeps a new order. `false` where its app has given another one this key.
pub(in crate::connections) async fn insert_order(
    conn: &mut Conn,
    id: RevocationOrderId,
    new: &NewOrder<'_>,
    created_by: Option<&str>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO revocation_orders (
            id, app_id, kind, reason, filter, per_second, created_by, idempotency_key, request_hash)
         VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8, $9)
         ON CONFLICT (app_id, idempotency_key) DO NOTHING",
        id.uuid(),
        new.app.uuid(),
        new.kind.as_str(),
        new.reason,
        new.matching.described().to_string(),
        new.per_second,
        created_by,
        new.idempotency_key,
        new.request_hash.as_bytes(),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes how many connections an order met.
pub(in crate::connections) async fn note_matched(
    conn: &mut Conn,
    id: RevocationOrderId,
    matched: i64,
) -> sqlx::Result<()> {
    sqlx::query!("UPDATE revocation_orders SET matched = $2 WHERE id = $1", id.uuid(), matched)
        .execute(conn)
        .await?;
    Ok(())
}

/// The order that was given this key, with the hash of what was asked.
pub(in crate::connections) async fn order_of_key(
    conn: &mut Conn,
    app: AppId,
    key: &str,
) -> sqlx::Result<Option<(RevocationOrderId, Vec<u8>)>> {
    let row = sqlx::query!(
        "SELECT id AS \"id: RevocationOrderId\", request_hash FROM revocation_orders
         WHERE app_id = $1 AND idempotency_key = $2",
        app.uuid(),
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.request_hash)))
}

struct Row {
    id: RevocationOrderId,
    kind: String,
    reason: String,
    filter: String,
    per_second: i32,
    state: String,
    created_by: Option<String>,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    matched: i64,
    told: i64,
    failed: i64,
    telling: i64,
    waiting: i64,
}

impl TryFrom<Row> for Order {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let defect = || sqlx::Error::Decode("a revocation order".into());
        let outstanding = row.telling + row.waiting > 0;
        let status = match row.state.as_str() {
            "cancelled" => OrderStatus::Cancelled,
            _ if !outstanding => OrderStatus::Done,
            "paused" => OrderStatus::Paused,
            _ => OrderStatus::Running,
        };
        Ok(Self {
            id: row.id,
            status,
            kind: RevocationKind::parse(&row.kind).ok_or_else(defect)?,
            reason: row.reason,
            filter: objects::from_str(&row.filter).map_err(|_| defect())?,
            per_second: row.per_second,
            created_by: row.created_by,
            created_at: row.created_at,
            finished_at: row.finished_at,
            matched: row.matched,
            told: row.told,
            failed: row.failed,
            telling: row.telling,
            waiting: row.waiting,
            errors: Vec::new(),
        })
    }
}

/// Orders as they are shown. One that is finished has its counts; the others are counted.
macro_rules! select_orders {
    ($rest:tt, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT o.id AS \"id: RevocationOrderId\", o.kind, o.reason, o.filter::text AS \"filter!\",
                    o.per_second, o.state, o.created_by, o.created_at, o.finished_at, o.matched,
                    coalesce(o.told, p.told) AS \"told!\", coalesce(o.failed, p.failed) AS \"failed!\",
                    p.telling AS \"telling!\", p.waiting AS \"waiting!\"
             FROM revocation_orders o CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE c.revocation_confirmed_at IS NOT NULL) AS told,
                       count(*) FILTER (WHERE c.status <> 'revoking'
                                          AND c.revocation_confirmed_at IS NULL) AS failed,
                       count(*) FILTER (WHERE c.status = 'revoking' AND c.due_at IS NOT NULL) AS telling,
                       count(*) FILTER (WHERE c.status = 'revoking' AND c.due_at IS NULL) AS waiting
                FROM connections c
                WHERE c.revocation_order = o.id AND o.finished_at IS NULL) p " + $rest,
            $($argument),*
        )
    };
}

/// One order of the app, with what Dapi answered where it did not confirm.
pub(in crate::connections) async fn find_order(
    conn: &mut Conn,
    app: AppId,
    id: RevocationOrderId,
) -> sqlx::Result<Option<Order>> {
    let row = select_orders!("WHERE o.app_id = $1 AND o.id = $2", app.uuid(), id.uuid())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let errors = sqlx::query_as!(
        ErrorCount,
        "SELECT revocation_last_error AS \"error!\", count(*) AS \"count!\" FROM connections
         WHERE revocation_order = $1 AND revocation_confirmed_at IS NULL
           AND revocation_last_error IS NOT NULL
         GROUP BY revocation_last_error ORDER BY count(*) DESC, revocation_last_error LIMIT 5",
        id.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(Some(Order { errors, ..Order::try_from(row)? }))
}

/// The app's orders, newest first.
pub(in crate::connections) async fn list_orders(
    conn: &mut Conn,
    app: AppId,
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<Order>> {
    let rows = select_orders!(
        "WHERE o.app_id = $1 AND o.id < $2 ORDER BY o.id DESC LIMIT $3",
        app.uuid(),
        cursor.map_or(Uuid::max(), Cursor::id),
        i64::from(limit) + 1,
    )
    .fetch_all(conn)
    .await?;
    let orders = rows.into_iter().map(Order::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::from_query(orders, limit, |order| order.id.uuid()))
}

/// Locks an order; returns its state, and `None` for its end.
pub(in crate::connections) async fn lock_order(
    conn: &mut Conn,
    app: AppId,
    id: RevocationOrderId,
) -> sqlx::Result<Option<(String, bool)>> {
    let row = sqlx::query!(
        "SELECT state, finished_at IS NOT NULL AS \"finished!\" FROM revocation_orders
         WHERE app_id = $1 AND id = $2 FOR UPDATE",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.state, row.finished)))
}

/// Sets an order's state; what runs is looked at now.
pub(in crate::connections) async fn set_order_state(
    conn: &mut Conn,
    id: RevocationOrderId,
    state: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE revocation_orders SET state = $2, next_release_at = strongroom_now() WHERE id = $1",
        id.uuid(),
        state,
    )
    .execute(conn)
    .await?;
    Ok(())
}
