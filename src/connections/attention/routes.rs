//! `DELETE /v1/connections/{id}/attention`: allows calls again.

use actix_web::{HttpResponse, web};

use crate::common::ids::ConnectionId;
use crate::connections::model::Connection;
use crate::connections::{Context, attention};
use crate::http::body::Id;
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, code};
use crate::http::responses::{ForClients, Problems};

/// Says that calls may be made again, although the user has not linked the login again: they say that
/// they changed nothing, or that their bank unlocked the account. Repeatable.
///
/// Going on after `INVALID_CREDENTIALS` can lock the user's bank account.
#[utoipa::path(
    delete, path = "/v1/connections/{id}/attention", tag = "Connections", operation_id = "clearAttention",
    security(("bearer" = ["dapi:call"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses(
        (status = 200, description = "The connection, whose `attention` is null", body = Connection),
        Problems<(ForClients, code::NotFound)>,
    )
)]
pub async fn clear(
    caller: Authorized<needs::DapiCall>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
) -> Result<HttpResponse, Problem> {
    let cleared = attention::clear(&context, &caller.actor, caller.client.app, id.0).await?;
    Ok(HttpResponse::Ok().json(cleared.ok_or_else(Problem::not_found)?))
}
