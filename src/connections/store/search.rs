//! What an operator sees across users.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Shown, column, parse_status};
use crate::base::ids::{AppId, ConnectionId, RevocationOrderId, UserId};
use crate::base::paging::{Cursor, Page};
use crate::connections::model::Status;
use crate::connections::search::{Found, Search, StatusCount};
use crate::database::{BatchQuery as _, Conn};

struct Row {
    id: ConnectionId,
    user: UserId,
    created_by: Option<String>,
    order: Option<RevocationOrderId>,
    exchange_attempts: i32,
}

/// What an operator sees of a connection beside what its app's clients see. Text is looked for in every
/// id that the connection has.
macro_rules! select_found {
    ($rest:tt, $search:expr, $app:expr, $first:expr $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            "SELECT c.id AS \"id: ConnectionId\", c.user_id AS \"user: UserId\", c.created_by,
                    c.revocation_order AS \"order: RevocationOrderId\", c.exchange_attempts
             FROM connections c JOIN users u ON u.id = c.user_id
             WHERE c.app_id = $1
               AND ($3::timestamptz IS NULL OR c.created_at < $3)
               AND ($4::timestamptz IS NULL OR c.created_at >= $4)
               AND ($5::text IS NULL
                    OR position(lower($5) IN lower(concat_ws(' ', 'conn_' || c.id::text,
                        'usr_' || c.user_id::text, c.connection_id, c.dapi_user_id, c.token_id,
                        u.client_user_id))) > 0)
               AND ($8::bool IS NULL OR $8 = (c.attention_type IS NOT NULL AND c.status = 'active'))
               AND c.id < $6 AND " + $rest + " ORDER BY c.id DESC LIMIT $7",
            $app.uuid(),
            $first,
            $search.created_before,
            $search.created_after,
            $search.text,
            $search.cursor.map_or(Uuid::max(), Cursor::id),
            i64::from($search.limit) + 1,
            $search.attention
            $(, $argument)*
        )
    };
}

/// Connections of the app that are looked for, newest first. As with lists, each kind of search has a
/// statement of its own.
pub(in crate::connections) async fn search(
    conn: &mut Conn,
    app: AppId,
    search: &Search<'_>,
) -> sqlx::Result<Page<Found>> {
    let status = search.status.map(Status::as_str);
    let rows = match (search.client_user_id, status) {
        (Some(user), status) => {
            select_found!(
                "c.user_id = (SELECT id FROM users WHERE app_id = $1 AND client_user_id = $9)
                 AND ($2::text IS NULL OR c.status = $2)",
                search,
                app,
                status,
                user,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        (None, status) if search.attention == Some(true) => {
            select_found!(
                "c.app_id::text = $1::uuid::text AND c.attention_type IS NOT NULL AND c.status = 'active'
                 AND ($2::text IS NULL OR c.status = $2)",
                search,
                app,
                status,
            )
            .fetch_all(&mut *conn)
            .await?
        }
        (None, Some(status)) => {
            select_found!("c.app_id::text = $1::uuid::text AND c.status = $2", search, app, status,)
                .fetch_all(&mut *conn)
                .await?
        }
        (None, None) => {
            select_found!(
                "c.app_id::text = $1::uuid::text AND $2::text IS NULL",
                search,
                app,
                None::<&str>,
            )
            .fetch_all(&mut *conn)
            .await?
        }
    };
    let page = Page::from_query(rows, search.limit, |row| row.id.uuid());
    Ok(Page { items: shown(conn, app, page.items).await?, next: page.next })
}

/// One connection of the app, as an operator sees it.
pub(in crate::connections) async fn find_for_operator(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT c.id AS \"id: ConnectionId\", c.user_id AS \"user: UserId\", c.created_by,
                c.revocation_order AS \"order: RevocationOrderId\", c.exchange_attempts
         FROM connections c WHERE c.app_id = $1 AND c.id = $2",
        app.uuid(),
        id.uuid(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(shown(conn, app, row.into_iter().collect()).await?.pop())
}

/// With what everybody sees of them; one that an erasure took meanwhile is left out.
async fn shown(conn: &mut Conn, app: AppId, rows: Vec<Row>) -> sqlx::Result<Vec<Found>> {
    let wanted = column(&rows, |row| Shown { app, id: row.id });
    let connections = Shown::run(conn, &wanted).await?;
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
pub(in crate::connections) async fn count_needing_attention(
    conn: &mut Conn,
    app: AppId,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "SELECT count(*) AS \"n!\" FROM connections c
         WHERE c.app_id::text = $1::uuid::text AND c.attention_type IS NOT NULL AND c.status = 'active'",
        app.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// How many connections the app has in each status, by their age.
pub(in crate::connections) async fn count_by_status(
    conn: &mut Conn,
    app: AppId,
) -> sqlx::Result<Vec<StatusCount>> {
    let rows = sqlx::query!(
        "SELECT status, count(*) AS \"total!\",
                count(*) FILTER (WHERE age < interval '1 hour') AS \"hour!\",
                count(*) FILTER (WHERE age >= interval '1 hour' AND age < interval '1 day') AS \"day!\",
                count(*) FILTER (WHERE age >= interval '1 day' AND age < interval '7 days') AS \"week!\",
                count(*) FILTER (WHERE age >= interval '7 days' AND age < interval '30 days') AS \"month!\",
                count(*) FILTER (WHERE age >= interval '30 days') AS \"older!\",
                min(created_at) AS \"oldest!: OffsetDateTime\"
         FROM (SELECT c.status, c.created_at, t.now - c.created_at AS age
               FROM connections c, (SELECT strongroom_now() AS now) t
               WHERE c.app_id::text = $1::uuid::text) c
         GROUP BY status ORDER BY status",
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
