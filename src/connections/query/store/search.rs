//! An operator's reads across users.

use uuid::Uuid;

use crate::common::ids::{AppId, BulkRevocationId, ConnectionId, UserId};
use crate::common::paging::{Cursor, Page};
use crate::connections::model::{RevocationProgress, Status};
use crate::connections::query::search::{Found, Search};
use crate::connections::query::store::ViewQuery;
use crate::connections::sql::column;
use crate::database::{BatchQuery as _, Conn};

struct Row {
    id: ConnectionId,
    user: UserId,
    created_by: Option<String>,
    bulk_revocation: Option<BulkRevocationId>,
    exchange_attempts: i32,
}

/// Selects what an operator sees of a connection beyond its client's view. `$scan_rows` selects the rows that are read, in
/// the order of the list. The text is searched in every id of the connection.
///
/// A LIMIT ends the scan: by a row comparison alone, PostgreSQL reads an index behind the least row that satisfies it.
macro_rules! select_found {
    ($name:tt, $scan_rows:tt, $order:tt, $scan:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "-- name: " + $name + r#"
             SELECT c.id AS "id: ConnectionId", c.user_id AS "user: UserId", c.created_by,
                    c.bulk_revocation_id AS "bulk_revocation: BulkRevocationId", c.exchange_attempts
             FROM (SELECT * FROM connections c WHERE "# + $scan_rows + " ORDER BY " + $order + r#" LIMIT $9) c
             JOIN users u ON u.id = c.user_id
             WHERE c.app_id = $1 AND c.id >= $8
               AND ($2::text IS NULL OR c.status = $2)
               AND ($3::timestamptz IS NULL OR c.created_at < $3)
               AND ($4::timestamptz IS NULL OR c.created_at >= $4)
               AND ($5::text IS NULL
                    OR position(lower($5) IN lower(concat_ws(' ', 'conn_' || c.id::text,
                        'usr_' || c.user_id::text, c.login_id, c.dapi_user_id, c.dapi_token_id,
                        u.client_user_id))) > 0)
               AND ($10::bool IS NULL OR $10 = (c.attention_type IS NOT NULL AND c.status = 'active'))
               AND ($11::text IS NULL OR c.created_by = $11)
             ORDER BY c.id DESC LIMIT $7"#,
            $scan.app.uuid(),
            $scan.search.status.map(Status::as_str),
            $scan.search.created_before,
            $scan.search.created_after,
            $scan.search.text,
            $scan.search.cursor.map_or(Uuid::max(), Cursor::id),
            $scan.rows(),
            $scan.end.unwrap_or(Uuid::nil()),
            $scan.most(),
            $scan.search.attention,
            $scan.search.created_by
            $(, $argument)*
        )
    };
}

/// One page's search, from the cursor down to the connection `end`.
///
/// Each kind of search has its own statement. The row comparisons leave the planner one index to read and to sort by, and
/// `coalesce` hides the columns from every other: by the primary key, a small app's search would read all other apps' rows.
struct Scan<'a> {
    app: AppId,
    search: &'a Search<'a>,
    end: Option<Uuid>,
}

impl Scan<'_> {
    /// Returns the rows of a page, and one more to know whether another follows.
    fn rows(&self) -> i64 {
        i64::from(self.search.limit) + 1
    }

    /// Returns how many rows are read at most. If a filter leaves out some of them, more than there are down to `end`, for
    /// those that have arrived since it was found.
    fn most(&self) -> i64 {
        match self.search.client_user_id {
            Some(_) => i64::MAX,
            None => most_scanned(self.search).map_or(self.rows(), |most| most + 500),
        }
    }

    async fn user(&self, conn: &mut Conn, client_user_id: &str) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_of_user",
            "(c.user_id, c.id)
                     < ((SELECT id FROM users WHERE app_id = $1 AND client_user_id = $12), $6)
             AND (c.user_id, c.id) >= ((SELECT id FROM users WHERE app_id = $1 AND client_user_id = $12),
                                       '00000000-0000-0000-0000-000000000000')",
            "c.user_id DESC, c.id DESC",
            self,
            client_user_id,
        )
        .fetch_all(conn)
        .await
    }

    async fn needing_attention(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_needing_attention",
            "(c.app_id, c.id) < ($1, $6)
             AND (c.app_id, c.id) >= ($1, '00000000-0000-0000-0000-000000000000')
             AND c.attention_type IS NOT NULL AND c.status = 'active'",
            "c.app_id DESC, c.id DESC",
            self,
        )
        .fetch_all(conn)
        .await
    }

    async fn status(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections_by_status",
            "(list_key(c.app_id, c.status), c.id) < (list_key($1, $2), $6)
             AND (list_key(c.app_id, c.status), c.id)
                     >= (list_key($1, $2), '00000000-0000-0000-0000-000000000000')
             AND coalesce(c.app_id = $1 AND c.status = $2, false)",
            "list_key(c.app_id, c.status) DESC, c.id DESC",
            self,
        )
        .fetch_all(conn)
        .await
    }

    async fn app(&self, conn: &mut Conn) -> sqlx::Result<Vec<Row>> {
        select_found!(
            "search_connections",
            "(list_key(c.app_id), c.id) < (list_key($1), $6)
             AND (list_key(c.app_id), c.id) >= (list_key($1), '00000000-0000-0000-0000-000000000000')
             AND coalesce(c.app_id = $1, false)",
            "list_key(c.app_id) DESC, c.id DESC",
            self,
        )
        .fetch_all(conn)
        .await
    }
}

/// Returns a page of the app's connections that match, newest first.
///
/// A filter that no index answers (text, time, client, no attention) reads at most [`SCANNED_FOR_TEXT`] or [`SCANNED`] rows per page;
/// the cursor then continues behind the last row that was read.
pub async fn search(conn: &mut Conn, app: AppId, search: &Search<'_>) -> sqlx::Result<Page<Found>> {
    let end = end_of_scan(conn, app, search).await?;
    let scan = Scan { app, search, end };
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
            let mut older = older_by_name(conn, app, search, end, page.items.len()).await?;
            older.retain(|row| {
                search.created_by.is_none() || row.created_by.as_deref() == search.created_by
            });
            page.items.extend(older);
        }
    }
    Ok(Page { items: with_views(conn, app, page.items).await?, next: page.next })
}

/// Rows in whose ids one search looks for a text at most: some 10 µs each.
const SCANNED_FOR_TEXT: i64 = 2000;
/// Rows of which one search compares the time, the client or the attention at most: some 3 µs each.
const SCANNED: i64 = 6000;

/// Returns how many rows a search reads at most, or `None` if an index answers all of it.
fn most_scanned(search: &Search<'_>) -> Option<i64> {
    if search.text.is_some() {
        return Some(SCANNED_FOR_TEXT);
    }
    let timed = search.created_before.is_some() || search.created_after.is_some();
    let filtered = timed || search.created_by.is_some() || search.attention == Some(false);
    filtered.then_some(SCANNED)
}

/// Returns the last connection that this search reads, or `None` if it reads all that are left.
async fn end_of_scan(
    conn: &mut Conn,
    app: AppId,
    search: &Search<'_>,
) -> sqlx::Result<Option<Uuid>> {
    let (Some(most), None) = (most_scanned(search), search.client_user_id) else {
        return Ok(None);
    };
    let cursor = search.cursor.map_or(Uuid::max(), Cursor::id);
    let Some(status) = search.status.map(Status::as_str) else {
        return sqlx::query_scalar!(
            "-- name: find_end_of_scan
             SELECT id FROM connections c
             WHERE (list_key(c.app_id), c.id) < (list_key($1), $2)
               AND (list_key(c.app_id), c.id) >= (list_key($1), $4)
             ORDER BY list_key(c.app_id) DESC, c.id DESC OFFSET $3 LIMIT 1",
            app.uuid(),
            cursor,
            most - 1,
            Uuid::nil(),
        )
        .fetch_optional(conn)
        .await;
    };
    sqlx::query_scalar!(
        "-- name: find_end_of_scan_by_status
         SELECT id FROM connections c
         WHERE (list_key(c.app_id, c.status), c.id) < (list_key($1, $5), $2)
           AND (list_key(c.app_id, c.status), c.id) >= (list_key($1, $5), $4)
         ORDER BY list_key(c.app_id, c.status) DESC, c.id DESC OFFSET $3 LIMIT 1",
        app.uuid(),
        cursor,
        most - 1,
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

/// Returns a page of the connections of one bulk revocation that are this far, newest first.
pub async fn search_of_bulk_revocation(
    conn: &mut Conn,
    app: AppId,
    id: BulkRevocationId,
    progress: &[RevocationProgress],
    cursor: Option<Cursor>,
    limit: u8,
) -> sqlx::Result<Page<Found>> {
    let progress: Vec<_> = progress.iter().map(|progress| progress.as_str()).collect();
    let rows = sqlx::query_file_as!(
        Row,
        "src/connections/query/store/of_bulk_revocation.sql",
        app.uuid(),
        id.uuid(),
        &progress as &[&str],
        cursor.map_or(Uuid::max(), Cursor::id),
        i64::from(limit) + 1,
        Uuid::nil(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let page = Page::from_query(rows, limit, |row| row.id.uuid());
    Ok(Page { items: with_views(conn, app, page.items).await?, next: page.next })
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
