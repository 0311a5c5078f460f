//! `POST /v1/connections/import`: imports a token that the app already holds.

use actix_web::{HttpResponse, web};

use crate::connections::import::request::{ImportRequest, problem_of};
use crate::connections::import::{Imported, KnownLogin};
use crate::connections::input::location;
use crate::connections::model::{Connection, Status};
use crate::connections::{Context, import, query, shape};
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::{Problem, code};
use crate::http::responses::{Calling, ForClients, Problems, WithJson};

/// Imports a token. The same token of the same user again gives the same connection.
///
/// A token that supersedes an active connection of the login without `verify` does so provisionally: the
/// older one is `invalidated` and unusable at once, but becomes `active` again if the provider calls the newer token
/// dead before a call with it has succeeded, within an hour. With `verify` nothing changes unless the provider takes
/// the token; a login that it cannot use (`INVALID_CREDENTIALS`) is imported and needs `attention`;
/// `token_rejected` comes with the provider's words as `failure`. What a call to the provider may end with (429, 502,
/// 504) comes with `verify` alone.
#[utoipa::path(
    post, path = "/v1/connections/import", tag = "Connections", operation_id = "importConnection",
    security(("bearer" = ["connections:write"])),
    request_body = shape::ImportRequest,
    responses(
        (status = 201, description = "The connection is `active`", body = Connection, headers(("Location" = String, description = "The connection"))),
        (status = 200, description = "The same token again", body = Connection),
        (status = 202, description = "Safe; becomes `active` when an older link of the login has been delinked", body = Connection),
        Problems<(ForClients, WithJson, Calling, code::ConnectionOfAnotherUser, code::UserBeingErased, code::TokenRejected)>,
    )
)]
pub async fn import(
    caller: Authorized<needs::ConnectionsWrite>,
    context: web::Data<Context>,
    body: Body<ImportRequest>,
) -> Result<HttpResponse, Problem> {
    let verify = body.0.verify.then(|| caller.trace.clone());
    let request = body.0.checked(caller.client.app, verify, KnownLogin::Supersede)?;
    let provider = request.provider;
    let importing = {
        let (context, actor) = (context.clone(), caller.actor.clone());
        async move { import::import(&context, &actor, &request).await }
    };
    let (id, is_new) = match detached(&context.tasks, importing).await?? {
        Imported::New(id) => (id, true),
        Imported::Repeated(id) | Imported::Known(id, _) => (id, false),
        Imported::Not(why) => return Err(problem_of(provider, why)),
    };
    let mut conn = context.pool.acquire().await?;
    let found = query::store::find(&mut conn, caller.client.app, id).await?;
    let connection = found.ok_or_else(Problem::not_found)?;
    let mut answer = match connection.status {
        Status::Pending => HttpResponse::Accepted(),
        _ if is_new => HttpResponse::Created(),
        _ => HttpResponse::Ok(),
    };
    Ok(answer.insert_header(location(id)).json(connection))
}
