//! `GET /v1/connections` and `GET /v1/connections/{id}`: never a secret in the answer.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::common::ids::ConnectionId;
use crate::common::paging::PageCursor;
use crate::connections::Context;
use crate::connections::model::{Connection, Status};
use crate::connections::query::store;
use crate::connections::query::store::{Filter, ViewQuery};
use crate::http::body::{Id, UrlQuery};
use crate::http::caller::{SessionOr, needs};
use crate::http::paging;
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems};
use crate::users::ClientUserID;

/// Which connections, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only this user's.
    #[serde(rename = "clientUserID")]
    #[param(value_type = ClientUserID, required = false)]
    client_user_id: Option<String>,
    /// Only in this status.
    #[param(value_type = Status, required = false)]
    status: Option<String>,
    /// Only those that need attention (`true`), or only those that do not (`false`).
    #[param(value_type = bool, required = false, example = true)]
    attention: Option<String>,
    /// How many at most: 50 by default, up to 100.
    #[param(value_type = u8, required = false, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = PageCursor, required = false)]
    cursor: Option<String>,
}

/// One page of connections, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionList {
    /// The connections.
    connections: Vec<Connection>,
    /// Where the next page starts; `null` on the last.
    next_cursor: Option<String>,
}

/// Lists connections, newest first. A session sees those that it handed in.
#[utoipa::path(
    get, path = "/v1/connections", tag = "Connections", operation_id = "listConnections",
    security(("connect_session" = []), ("bearer" = ["connections:read"])),
    params(ListQuery),
    responses(
        (status = 200, description = "One page", body = ConnectionList),
        Problems<ForClients>,
    )
)]
pub async fn list(
    caller: SessionOr<needs::ConnectionsRead>,
    context: web::Data<Context>,
    query: UrlQuery<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.0;
    if let Some(user) = &query.client_user_id {
        crate::connections::input::client_user_id(user)?;
    }
    let filter = Filter {
        app: caller.app(),
        session: caller.session().map(|session| session.id),
        client_user_id: query.client_user_id.as_deref(),
        status: query.status.as_deref().map(status).transpose()?,
        attention: query.attention.as_deref().map(attention).transpose()?,
        limit: paging::limit(query.limit.as_deref())?,
        cursor: paging::cursor(query.cursor.as_deref())?,
    };
    let page = store::list(&mut context.pool.acquire().await?, &filter).await?;
    Ok(HttpResponse::Ok().json(ConnectionList {
        connections: page.items,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

pub fn status(text: &str) -> Result<Status, Problem> {
    Status::parse(text).ok_or_else(|| {
        let all = Status::ALL.map(Status::as_str).join(", ");
        Problem::invalid_field("status", format_args!("must be one of {all}"))
    })
}

pub fn attention(text: &str) -> Result<bool, Problem> {
    text.parse().map_err(|_| Problem::invalid_field("attention", "must be true or false"))
}

/// One connection. A session sees those that it handed in.
#[utoipa::path(
    get, path = "/v1/connections/{id}", tag = "Connections", operation_id = "getConnection",
    security(("connect_session" = []), ("bearer" = ["connections:read"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses(
        (status = 200, description = "The connection", body = Connection),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn get(
    caller: SessionOr<needs::ConnectionsRead>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
) -> Result<HttpResponse, Problem> {
    let found = match caller.session() {
        Some(session) => {
            let mut conn = context.pool.acquire().await?;
            store::find_of_session(&mut conn, session.app, session.id, id.0).await?
        }
        None => context.batch(ViewQuery { app: caller.app(), id: id.0 }).await?,
    };
    found.map(|connection| HttpResponse::Ok().json(connection)).ok_or_else(Problem::not_found)
}
