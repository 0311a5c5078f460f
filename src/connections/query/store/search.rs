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
    ($name:tt, $rest:tt, $scan:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + r#"
             SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
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
            $scan.app.uuid(),
            $scan.search.status.map(Status::as_str),
            $scan.search.created_before,
            $scan.search.created_after,
            $scan.search.text,
            $scan.search.cursor.map_or(Uuid::max(), Cursor::id),
            i64::from($scan.search.limit) + 1,
            $scan.from,
            $scan.search.attention
            $(, $argument)*
        )
    };
}

/// One page's search, from the cursor down to the connection `from`.
///
/// Each kind of search has its own statement. The row comparisons with `app_id::text` leave the planner no index but
/// those of the app's own rows to sort by: by the primary key, a small app's search would read all other apps' rows.
struct Scan<'a> {
    app: AppId,
    search: &'a Search<'a>,
    from: Uuid,
}

impl Scan<'_> {
    async fn user(&self, conn: &mut Conn, client_user_id: &str) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_of_user",
            "c.id < $6 AND c.id >= $8
             AND c.user_id = (SELECT id FROM users WHERE app_id = $1 AND client_user_id = $10)
             AND ($2::text IS NULL OR c.status = $2)
             ORDER BY c.id",
            self,
            client_user_id,
        )
        .fetch_all(conn)
        .await
    }

    async fn needing_attention(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_needing_attention",
            "(c.app_id::text, c.id) < ($1::uuid::text, $6)
             AND (c.app_id::text, c.id) >= ($1::uuid::text, $8)
             AND c.attention_type IS NOT NULL AND c.status = 'active'
             AND ($2::text IS NULL OR c.status = $2)
             ORDER BY c.app_id::text DESC, c.id",
            self,
        )
        .fetch_all(conn)
        .await
    }

    async fn status(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_by_status",
            "(c.app_id::text, c.status, c.id) < ($1::uuid::text, $2, $6)
             AND (c.app_id::text, c.status, c.id) >= ($1::uuid::text, $2, $8)
             ORDER BY c.app_id::text DESC, c.status DESC, c.id",
            self,
        )
        .fetch_all(conn)
        .await
    }

    async fn app(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections",
            "(c.app_id::text, c.id) < ($1::uuid::text, $6)
             AND (c.app_id::text, c.id) >= ($1::uuid::text, $8) AND $2::text IS NULL
             ORDER BY c.app_id::text DESC, c.id",
            self,
        )
        .fetch_all(conn)
        .await
    }
}

/// Returns a page of the app's connections that match, newest first.
///
/// A filter that no index answers (text, time) reads at most [`SCANNED`] rows per page; the cursor then continues
/// behind the last row that was read.
pub async fn search(conn: &mut Conn, app: AppId, search: &Search<'_>) -> sqlx::Result<Page<Found>> {
    let end = end_of_scan(conn, app, search).await?;
    let scan = Scan { app, search, from: end.unwrap_or(Uuid::nil()) };
    let rows = match (search.client_user_id, search.status) {
        (Some(user), _) => scan.user(conn, user).await?,
        (None, _) if search.attention == Some(true) => scan.needing_attention(conn).await?,
        (None, Some(_)) => scan.status(conn).await?,
        (None, None) => scan.app(conn).await?,
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
    sqlx::query_file_as!(
        Row,
        "src/connections/query/store/older_by_name.sql",
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
