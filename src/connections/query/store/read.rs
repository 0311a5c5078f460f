//! A client's reads: one connection, a session's connection, a list.

use std::collections::HashMap;

use uuid::Uuid;

use crate::common::ids::{AppId, ConnectionId, SessionId};
use crate::common::paging::{Cursor, Page};
use crate::connections::model::{Connection, Status};
use crate::connections::query::store::view::{Row, select_effective_view, select_view};
use crate::connections::sql::column;
use crate::database::{BatchQuery, Conn};

/// Reads a connection of an app. Its status is `revoking` if a bulk revocation in force matches it, even if its row is
/// not marked yet.
#[derive(Debug)]
pub struct ViewQuery {
    pub app: AppId,
    pub id: ConnectionId,
}

impl BatchQuery for ViewQuery {
    const NAME: &'static str = "view_connections";

    type Output = Option<Connection>;

    async fn run(conn: &mut Conn, inputs: &[Self]) -> sqlx::Result<Vec<Self::Output>> {
        let rows = select_effective_view!(
            "view_connections",
            "JOIN unnest($1::uuid[], $2::uuid[]) AS i (app_id, id) ON c.app_id = i.app_id AND c.id = i.id",
            &column(inputs, |input| input.app.uuid()),
            &column(inputs, |input| input.id.uuid()),
        )
        .fetch_all(conn)
        .await?;
        // Keyed by app and id: in one batch, two apps may ask for the same id.
        let mut found = HashMap::new();
        for row in rows {
            found.insert((row.app_id, row.id), Connection::try_from(row)?);
        }
        Ok(column(inputs, |input| found.get(&(input.app, input.id)).cloned()))
    }
}

/// Returns one connection of the app.
pub async fn find(
    conn: &mut Conn,
    app: AppId,
    id: ConnectionId,
) -> sqlx::Result<Option<Connection>> {
    Ok(ViewQuery::run(conn, &[ViewQuery { app, id }]).await?.pop().flatten())
}

/// Returns one connection of the app, if this session submitted it.
pub async fn find_of_session(
    conn: &mut Conn,
    app: AppId,
    session: SessionId,
    id: ConnectionId,
) -> sqlx::Result<Option<Connection>> {
    select_effective_view!(
        "view_connection_of_session",
        "JOIN connect_session_results r ON r.connection_id = c.id
         WHERE c.app_id = $1 AND r.session_id = $2 AND c.id = $3",
        app.uuid(),
        session.uuid(),
        id.uuid(),
    )
    .fetch_optional(conn)
    .await?
    .map(Connection::try_from)
    .transpose()
}

/// Selects the connections of a list: those that match every field that is given.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    pub app: AppId,
    /// The session that submitted them.
    pub session: Option<SessionId>,
    pub client_user_id: Option<&'a str>,
    pub status: Option<Status>,
    pub attention: Option<bool>,
    pub limit: u8,
    /// Exclusive.
    pub cursor: Option<Cursor>,
}

/// Returns a page of connections, newest first, with the status of their rows: until it is marked, a connection that a
/// bulk revocation matches is listed with its old status.
///
/// Each kind of filter has its own statement, so that each is answered from the index that fits it. Row comparisons with
/// `list_key` leave the planner that one, and `coalesce` hides the columns from every other.
pub async fn list(conn: &mut Conn, filter: &Filter<'_>) -> sqlx::Result<Page<Connection>> {
    let rows = match (filter.session, filter.client_user_id, filter.status) {
        (Some(session), ..) => rows_of_session(conn, filter, session).await?,
        (None, Some(user), _) => rows_of_user(conn, filter, user).await?,
        _ if filter.attention == Some(true) => rows_needing_attention(conn, filter).await?,
        (None, None, Some(status)) => rows_in_status(conn, filter, status).await?,
        (None, None, None) => rows_of_app(conn, filter).await?,
    };
    let connections: Vec<_> =
        rows.into_iter().map(Connection::try_from).collect::<Result<_, _>>()?;
    Ok(Page::from_query(connections, filter.limit, |connection| connection.id.uuid()))
}

impl Filter<'_> {
    /// Returns the id before which the page starts.
    fn before(&self) -> Uuid {
        self.cursor.map_or(Uuid::max(), Cursor::id)
    }

    /// Returns the number of rows to read: one more than the page holds, to know whether another one follows.
    fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

async fn rows_of_session(
    conn: &mut Conn,
    filter: &Filter<'_>,
    session: SessionId,
) -> sqlx::Result<Vec<Row>> {
    select_view!(
        "list_connections_of_session",
        "JOIN connect_session_results r ON r.connection_id = c.id
         WHERE c.app_id = $1 AND r.session_id = $2
           AND ($3::text IS NULL OR u.client_user_id = $3)
           AND ($4::text IS NULL OR c.status = $4) AND c.id < $5
           AND ($7::bool IS NULL OR $7 = (c.attention_type IS NOT NULL AND c.status = 'active'))
         ORDER BY c.id DESC LIMIT $6",
        filter.app.uuid(),
        session.uuid(),
        filter.client_user_id,
        filter.status.map(Status::as_str),
        filter.before(),
        filter.rows(),
        filter.attention,
    )
    .fetch_all(conn)
    .await
}

async fn rows_of_user(conn: &mut Conn, filter: &Filter<'_>, user: &str) -> sqlx::Result<Vec<Row>> {
    select_view!(
        "list_connections_of_user",
        "WHERE (c.user_id, c.id)
                   < ((SELECT id FROM users WHERE app_id = $1 AND client_user_id = $2), $4)
           AND (c.user_id, c.id)
                   >= ((SELECT id FROM users WHERE app_id = $1 AND client_user_id = $2), $7)
           AND ($3::text IS NULL OR c.status = $3)
           AND ($6::bool IS NULL OR $6 = (c.attention_type IS NOT NULL AND c.status = 'active'))
         ORDER BY c.user_id DESC, c.id DESC LIMIT $5",
        filter.app.uuid(),
        user,
        filter.status.map(Status::as_str),
        filter.before(),
        filter.rows(),
        filter.attention,
        Uuid::nil(),
    )
    .fetch_all(conn)
    .await
}

async fn rows_needing_attention(conn: &mut Conn, filter: &Filter<'_>) -> sqlx::Result<Vec<Row>> {
    select_view!(
        "list_connections_needing_attention",
        "WHERE (c.app_id, c.id) < ($1, $3) AND (c.app_id, c.id) >= ($1, $5)
           AND c.attention_type IS NOT NULL AND c.status = 'active' AND ($2::text IS NULL OR $2 = 'active')
         ORDER BY c.app_id DESC, c.id DESC LIMIT $4",
        filter.app.uuid(),
        filter.status.map(Status::as_str),
        filter.before(),
        filter.rows(),
        Uuid::nil(),
    )
    .fetch_all(conn)
    .await
}

async fn rows_in_status(
    conn: &mut Conn,
    filter: &Filter<'_>,
    status: Status,
) -> sqlx::Result<Vec<Row>> {
    select_view!(
        "list_connections_by_status",
        "WHERE (list_key(c.app_id, c.status), c.id) < (list_key($1, $2), $3)
           AND (list_key(c.app_id, c.status), c.id) >= (list_key($1, $2), $6)
           AND coalesce(c.app_id = $1 AND c.status = $2, false)
           AND ($5::bool IS NULL OR c.attention_type IS NULL OR c.status <> 'active')
         ORDER BY list_key(c.app_id, c.status) DESC, c.id DESC LIMIT $4",
        filter.app.uuid(),
        status.as_str(),
        filter.before(),
        filter.rows(),
        filter.attention,
        Uuid::nil(),
    )
    .fetch_all(conn)
    .await
}

async fn rows_of_app(conn: &mut Conn, filter: &Filter<'_>) -> sqlx::Result<Vec<Row>> {
    select_view!(
        "list_connections",
        "WHERE (list_key(c.app_id), c.id) < (list_key($1), $2)
           AND (list_key(c.app_id), c.id) >= (list_key($1), $5)
           AND coalesce(c.app_id = $1, false)
           AND ($4::bool IS NULL OR c.attention_type IS NULL OR c.status <> 'active')
         ORDER BY list_key(c.app_id) DESC, c.id DESC LIMIT $3",
        filter.app.uuid(),
        filter.before(),
        filter.rows(),
        filter.attention,
        Uuid::nil(),
    )
    .fetch_all(conn)
    .await
}
