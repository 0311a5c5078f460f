//! What an operator sees across users.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::base::ids::{AppId, BulkRevocationId, ConnectionId, UserId};
use crate::base::paging::{Cursor, Page};
use crate::connections::model::Status;
use crate::connections::query::search::{Found, Search, StatusCount};
use crate::connections::query::store::ViewQuery;
use crate::connections::sql::{column, parse_status};
use crate::database::{BatchQuery as _, Conn};

struct Row {
    id: ConnectionId,
    user: UserId,
    created_by: Option<String>,
    order: Option<BulkRevocationId>,
    exchange_attempts: i32,
}

/// What an operator sees of a connection beside what its app's clients see. Text is looked for in every
/// id that the connection has.
macro_rules! select_found {
    ($rest:tt, $search:expr, $app:expr, $from:expr, $first:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                    c.bulk_revocation_id AS "order: BulkRevocationId", c.exchange_attempts
             FROM connections c JOIN users u ON u.id = c.user_id
             WHERE c.app_id = $1
               AND ($3::timestamptz IS NULL OR c.created_at < $3)
               AND ($4::timestamptz IS NULL OR c.created_at >= $4)
               AND ($5::text IS NULL
                    OR position(lower($5) IN lower(concat_ws(' ', 'conn_' || c.id::text,
                        'usr_' || c.user_id::text, c.dapi_connection_id, c.dapi_user_id, c.dapi_token_id,
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

/// Connections of the app that are looked for, newest first. As with lists, each kind of search has a
/// statement of its own. Rows are compared as wholes, so that no index but that of the app's own rows gives
/// their order: by the primary key, a small app's search would pass over everybody else's.
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
    Ok(Page { items: shown(conn, app, page.items).await?, next: page.next })
}

/// How many connections one search looks at that no index answers.
const SCANNED: i64 = 30_000;

/// The last connection that this search looks at; `None` if it looks at all that are left.
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

/// Connections beyond the end of the scan that an index finds by the text: it is one of their names, or their
/// user's name begins with it.
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
            SELECT c.id FROM connections c WHERE c.dapi_connection_id = $2 AND c.app_id = $1
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
                c.bulk_revocation_id AS "order: BulkRevocationId", c.exchange_attempts
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

/// One connection of the app, as an operator sees it.
pub async fn find_for_operator(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                c.bulk_revocation_id AS "order: BulkRevocationId", c.exchange_attempts
         FROM connections c WHERE c.app_id = $1 AND c.id = $2"#,
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(shown(conn, app, row.into_iter().collect()).await?.pop())
}

/// With what everybody sees of them; one that an erasure took meanwhile is left out.
async fn shown(conn: &mut Conn, app: AppId, rows: Vec<Row>) -> sqlx::Result<Vec<Found>> {
    let wanted = column(&rows, |row| ViewQuery { app, id: row.id });
    let connections = ViewQuery::run(conn, &wanted).await?;
    let found = rows.into_iter().zip(connections).filter_map(|(row, connection)| {
        Some(Found {
            connection: connection?,
            user: row.user,
            created_by: row.created_by,
            order: row.order,
            exchange_attempts: row.exchange_attempts,
        })
    });
    Ok(found.collect())
}

/// How many of the app's connections need attention.
pub async fn count_needing_attention(conn: &mut Conn, app: AppId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM connections c
         WHERE c.app_id::text = $1::uuid::text AND c.attention_type IS NOT NULL AND c.status = 'active'"#,
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// How many connections the app has in each status, by their age.
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
