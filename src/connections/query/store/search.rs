//! An operator's reads across users.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::ids::{AppId, BulkRevocationId, ConnectionId, UserId};
use crate::common::paging::{Cursor, Page};
use crate::connections::model::Status;
use crate::connections::query::search::{Found, Search, StatusCount};
use crate::connections::query::store::ViewQuery;
use crate::connections::sql::{column, parse_status};
use crate::database::{BatchQuery as _, Conn};

struct Row {
    id: ConnectionId,
    user: UserId,
    created_by: Option<String>,
    bulk_revocation: Option<BulkRevocationId>,
    exchange_attempts: i32,
}

/// Selects what an operator sees of a connection beyond its client's view. `$rest` ends with the first part of the
/// sort key; the macro appends `DESC LIMIT`. The text is searched in every id of the connection.
macro_rules! select_found {
    ($rest:tt, $search:expr, $app:expr, $from:expr, $first:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                    c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts
             FROM connections c JOIN users u ON u.id = c.user_id
             WHERE c.app_id = $1
               AND ($3::timestamptz IS NULL OR c.created_at < $3)
               AND ($4::timestamptz IS NULL OR c.created_at >= $4)
               AND ($5::text IS NULL
                    OR position(lower($5) IN lower(concat_ws(' ', 'conn_' || c.id::text,
                        'usr_' || c.user_id::text, c.login_id, c.dapi_user_id, c.dapi_token_id,
                        u.client_user_id))) > 0)
               AND ($9::bool IS NULL OR $9 = (c.attention_type IS NOT NULL AND c.status = 'active'))
               AND "# + $rest + " DESC LIMIT $7",
            $app.uuid(),
            $first,
            $search.created_before,
            $search.created_after,
            $search.text,
            $search.cursor.map_or(Uuid::max(), Cursor::id),
            i64::from($search.limit) + 1,
            $from,
            $search.attention
            $(, $argument)*
        )
    };
}

/// Returns a page of the app's connections that match, newest first. Each kind of search has its own statement. The row
/// comparisons with `app_id::text` leave the planner no index but those of the app's own rows to sort by: by the
/// primary key, a small app's search would read all other apps' rows.
///
/// A filter that no index answers (text, time) reads at most [`SCANNED`] rows per page; the cursor then continues
/// behind the last row that was read.
pub async fn search(conn: &mut Conn, app: AppId, search: &Search<'_>) -> sqlx::Result<Page<Found>> {
    let status = search.status.map(Status::as_str);
    let end = end_of_scan(conn, app, search).await?;
    let from = end.unwrap_or(Uuid::nil());
    let rows = match (search.client_user_id, status) {
        (Some(user), status) => {
            select_found!(
                "c.id < $6 AND c.id >= $8
                 AND c.user_id = (SELECT id FROM users WHERE app_id = $1 AND client_user_id = $10)
                 AND ($2::text IS NULL OR c.status = $2)
                 ORDER BY c.id",
                search,
                app,
                from,
                status,
                user,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        (None, status) if search.attention == Some(true) => {
            select_found!(
                "(c.app_id::text, c.id) < ($1::uuid::text, $6)
                 AND (c.app_id::text, c.id) >= ($1::uuid::text, $8)
                 AND c.attention_type IS NOT NULL AND c.status = 'active'
                 AND ($2::text IS NULL OR c.status = $2)
                 ORDER BY c.app_id::text DESC, c.id",
                search,
                app,
                from,
                status,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        (None, Some(status)) => {
            select_found!(
                "(c.app_id::text, c.status, c.id) < ($1::uuid::text, $2, $6)
                 AND (c.app_id::text, c.status, c.id) >= ($1::uuid::text, $2, $8)
                 ORDER BY c.app_id::text DESC, c.status DESC, c.id",
                search,
                app,
                from,
                status,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        (None, None) => {
            select_found!(
                "(c.app_id::text, c.id) < ($1::uuid::text, $6)
                 AND (c.app_id::text, c.id) >= ($1::uuid::text, $8) AND $2::text IS NULL
                 ORDER BY c.app_id::text DESC, c.id",
                search,
                app,
                from,
                None::<&str>,
            )
            .fetch_all(&mut *conn)
            .await?
        }
    };
    let mut page = Page::from_query(rows, search.limit, |row| row.id.uuid());
    if let (None, Some(end)) = (page.next, end) {
        page.next = Some(Cursor::after(end));
        if search.cursor.is_none() {
            page.items.extend(older_by_name(conn, app, search, end, page.items.len()).await?);
        }
    }
    Ok(Page { items: with_views(conn, app, page.items).await?, next: page.next })
}

/// Rows that one search reads at most if no index answers its filter.
const SCANNED: i64 = 30_000;

/// Returns the last connection that this search reads, or `None` if it reads all that are left.
async fn end_of_scan(
    conn: &mut Conn,
    app: AppId,
    search: &Search<'_>,
) -> sqlx::Result<Option<Uuid>> {
    let Search { client_user_id, text, created_before, created_after, .. } = search;
    let filtered = text.is_some() || created_before.is_some() || created_after.is_some();
    if client_user_id.is_some() || !filtered {
        return Ok(None);
    }
    let cursor = search.cursor.map_or(Uuid::max(), Cursor::id);
    let Some(status) = search.status.map(Status::as_str) else {
        return sqlx::query_scalar!(
            "SELECT id FROM connections c
             WHERE (c.app_id::text, c.id) < ($1::uuid::text, $2)
               AND (c.app_id::text, c.id) >= ($1::uuid::text, $4)
             ORDER BY c.app_id::text DESC, c.id DESC OFFSET $3 LIMIT 1",
            app.uuid(),
            cursor,
            SCANNED - 1,
            Uuid::nil(),
        )
        .fetch_optional(conn)
        .await;
    };
    sqlx::query_scalar!(
        "SELECT id FROM connections c
         WHERE (c.app_id::text, c.status, c.id) < ($1::uuid::text, $5, $2)
           AND (c.app_id::text, c.status, c.id) >= ($1::uuid::text, $5, $4)
         ORDER BY c.app_id::text DESC, c.status DESC, c.id DESC OFFSET $3 LIMIT 1",
        app.uuid(),
        cursor,
        SCANNED - 1,
        Uuid::nil(),
        status,
    )
    .fetch_optional(conn)
    .await
}

/// Returns connections beyond the end of the scan that an index finds by the text: one of their ids is the text, or
/// their user's name begins with it.
async fn older_by_name(
    conn: &mut Conn,
    app: AppId,
    search: &Search<'_>,
    end: Uuid,
    found: usize,
) -> sqlx::Result<Vec<Row>> {
    let Some(text) = search.text else { return Ok(Vec::new()) };
    sqlx::query_as!(
        Row,
        r#"WITH named AS (
            SELECT c.id FROM connections c WHERE c.id = $3 AND c.app_id = $1
            UNION
            SELECT c.id FROM connections c WHERE c.login_id = $2 AND c.app_id = $1
            UNION
            SELECT c.id FROM connections c WHERE c.user_id = $4
            UNION
            SELECT c.id FROM (
                SELECT u.id FROM users u
                WHERE u.app_id = $1 AND u.client_user_id ~>=~ $2
                  AND u.client_user_id ~<~ ($2 || chr(1114111))
                ORDER BY u.client_user_id USING ~<~ LIMIT $9) u
            JOIN connections c ON c.user_id = u.id)
         SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts
         FROM connections c
         WHERE c.id IN (SELECT id FROM named) AND c.app_id = $1 AND c.id < $5
           AND ($6::timestamptz IS NULL OR c.created_at < $6)
           AND ($7::timestamptz IS NULL OR c.created_at >= $7)
           AND ($8::text IS NULL OR c.status = $8)
         ORDER BY c.id DESC LIMIT $9"#,
        app.uuid(),
        text,
        text.parse::<ConnectionId>().ok().map(ConnectionId::uuid),
        text.parse::<UserId>().ok().map(UserId::uuid),
        end,
        search.created_before,
        search.created_after,
        search.status.map(Status::as_str),
        i64::from(search.limit).saturating_sub(i64::try_from(found).unwrap_or(i64::MAX)),
    )
    .fetch_all(conn)
    .await
}

/// Returns one connection of the app, as an operator sees it.
pub async fn find_for_operator(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts
         FROM connections c WHERE c.app_id = $1 AND c.id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(with_views(conn, app, row.into_iter().collect()).await?.pop())
}

/// Adds the client's view to each row. Leaves out connections that an erasure has deleted since.
async fn with_views(conn: &mut Conn, app: AppId, rows: Vec<Row>) -> sqlx::Result<Vec<Found>> {
    let queries = column(&rows, |row| ViewQuery { app, id: row.id });
    let connections = ViewQuery::run(conn, &queries).await?;
    let found = rows.into_iter().zip(connections).filter_map(|(row, connection)| {
        Some(Found {
            connection: connection?,
            user: row.user,
            created_by: row.created_by,
            bulk_revocation: row.bulk_revocation,
            exchange_attempts: row.exchange_attempts,
        })
    });
    Ok(found.collect())
}

/// Counts the app's connections that need attention.
pub async fn count_needing_attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM connections c
         WHERE c.app_id::text = $1::uuid::text AND c.attention_type IS NOT NULL AND c.status = 'active'"#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Counts the app's connections by status and age. One clock reading for all rows, so that each falls into exactly one
/// age.
pub async fn count_by_status(conn: &mut Conn, app: AppId) -> sqlx::Result<Vec<StatusCount>> {
    let rows = sqlx::query!(
        r#"SELECT status, count(*) AS "total!",
                count(*) FILTER (WHERE age < interval '1 hour') AS "hour!",
                count(*) FILTER (WHERE age >= interval '1 hour' AND age < interval '1 day') AS "day!",
                count(*) FILTER (WHERE age >= interval '1 day' AND age < interval '7 days') AS "week!",
                count(*) FILTER (WHERE age >= interval '7 days' AND age < interval '30 days') AS "month!",
                count(*) FILTER (WHERE age >= interval '30 days') AS "older!",
                min(created_at) AS "oldest!: OffsetDateTime"
         FROM (SELECT c.status, c.created_at, t.now - c.created_at AS age
               FROM connections c, (SELECT strongroom_now() AS now) t
               WHERE c.app_id::text = $1::uuid::text) c
         GROUP BY status ORDER BY status"#,
        app.uuid(),
    )
    .fetch_all(conn)
    .await?;
    let counts = rows.into_iter().map(|row| {
        let ages = [row.hour, row.day, row.week, row.month, row.older];
        Ok(StatusCount::new(parse_status(&row.status)?, row.total, ages, row.oldest))
    });
    counts.collect()
}
