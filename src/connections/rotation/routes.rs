//! `DELETE /v1/connections/{id}/token`: the reader of a token is done with it.

use actix_web::{HttpResponse, web};

use crate::common::ids::ConnectionId;
use crate::connections::input::not_active;
use crate::connections::model::{Connection, Status};
use crate::connections::query::store::ViewQuery;
use crate::connections::{Context, rotation};
use crate::http::body::Id;
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{ForClients, Problems};

/// Says that the reader of a token needs it no more, so that it is replaced by another now and not only when some minutes
/// have passed. The copy that was read is dead then. Repeatable; a token that nobody has read since it was replaced stays.
///
/// For apps at Plaid with `rotate_after_reveal`; no other app's tokens can be replaced.
#[utoipa::path(
    delete, path = "/v1/connections/{id}/token", tag = "Connections",
    operation_id = "releaseToken",
    security(("bearer" = ["tokens:read"])),
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses(
        (status = 202, description = "The token is replaced in the background, or was", body = Connection),
        Problems<(ForClients, code::NotFound, code::ConnectionNotActive)>,
    )
)]
pub async fn release(
    caller: Authorized<needs::TokensRead>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
) -> Result<HttpResponse, Problem> {
    let (app, id) = (caller.client.app, id.0);
    let released = rotation::release(&context, &caller.actor, app, id).await?;
    let released = released.ok_or_else(Problem::not_found)?;
    if !released.rotates {
        let detail = "The tokens of this app are not replaced after a reveal: `strongroom apps set NAME \
                      --rotate-after-reveal true` makes it so, for an app at Plaid.";
        return Err(Problem::new(ProblemCode::InvalidRequest, detail));
    }
    // A bulk revocation in force may cover an active row.
    let connection = context.batch(ViewQuery { app, id }).await?.ok_or_else(Problem::not_found)?;
    if connection.status != Status::Active || released.status != Status::Active {
        return Err(not_active(id, connection.status));
    }
    Ok(HttpResponse::Accepted().json(connection))
}
