//! `POST /v1/connections/import`: imports a token that the app already holds.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::connections::import::{Import, Imported};
use crate::connections::input::{
    Checked, client_user_id, location, login, login_of_another_user, optional_name, required,
    schema,
};
use crate::connections::model::{Connection, Failure, Status};
use crate::connections::{Context, import, query};
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{Calling, ForClients, Problems, WithJson};
use crate::providers::{AccessToken, Refusal, UserSecret};
use crate::users::ClientUserID;

/// A token that the app already holds.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportRequest {
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    #[schema(value_type = ClientUserID)]
    client_user_id: Option<String>,
    /// Dapi's name for the bank login.
    #[serde(rename = "connectionID")]
    #[schema(value_type = schema::DapiConnectionID)]
    dapi_connection_id: Option<String>,
    /// The permanent token.
    #[schema(value_type = schema::AccessToken)]
    access_token: Option<AccessToken>,
    /// Connect's user secret.
    #[schema(value_type = schema::UserSecret)]
    user_secret: Option<UserSecret>,
    /// Dapi's name for the user; empty counts as left out.
    #[serde(rename = "userID")]
    #[schema(max_length = 1024, example = "3e1d2b6a-9f10-4f0e-8a4b-7f1c2d5e9c57")]
    user_id: Option<String>,
    /// Dapi's name for the token; empty counts as left out.
    #[serde(rename = "tokenID")]
    #[schema(max_length = 1024, example = "9c57a2b6-c1d4-4a30-b7c9-5e8f1d2e3f40")]
    dapi_token_id: Option<String>,
    /// Ask Dapi first whether it takes the token and the user secret, by one call for the account's metadata.
    #[serde(default)]
    #[schema(default = false)]
    verify: bool,
}

/// Imports a token. The same token of the same user again gives the same connection.
///
/// A token that supersedes an active connection of the login without `verify` does so provisionally: the
/// older one is `invalidated` and unusable at once, but becomes `active` again if Dapi calls the newer token
/// dead before a call with it has succeeded, within an hour. With `verify` nothing changes unless Dapi takes
/// the token; a login that Dapi cannot use (`INVALID_CREDENTIALS`) is imported and needs `attention`;
/// `token_rejected` comes with Dapi's words as `failure`. What a call to Dapi may end with (429, 502, 504) comes with
/// `verify` alone.
#[utoipa::path(
    post, path = "/v1/connections/import", tag = "Connections", operation_id = "importConnection",
    security(("bearer" = ["connections:write"])),
    request_body = ImportRequest,
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
    let request = body.0;
    let user = required("clientUserID", request.client_user_id)?;
    client_user_id(&user)?;
    let request = Import {
        app: caller.client.app,
        client_user_id: user,
        dapi_connection_id: login(request.dapi_connection_id)?,
        access_token: AccessToken::checked("accessToken", request.access_token)?,
        user_secret: UserSecret::checked("userSecret", request.user_secret)?,
        dapi_user_id: optional_name("userID", request.user_id)?,
        dapi_token_id: optional_name("tokenID", request.dapi_token_id)?,
        verify: request.verify.then(|| caller.trace.clone()),
    };
    let importing = {
        let (context, actor) = (context.clone(), caller.actor.clone());
        async move { import::import(&context, &actor, &request).await }
    };
    let (id, is_new) = match detached(&context.tasks, importing).await?? {
        Imported::New(id) => (id, true),
        Imported::Repeated(id) => (id, false),
        Imported::UserBeingErased => return Err(Problem::user_being_erased()),
        Imported::LoginOfAnotherUser => return Err(login_of_another_user()),
        Imported::Refused(refusal) => return Err(refused(refusal)),
        Imported::Unanswered { timeout } => return Err(unanswered(timeout)),
        Imported::Busy(busy) => {
            let detail = "As many calls to Dapi are under way as may; nothing was imported.";
            let problem = Problem::new(ProblemCode::TooManyRequests, detail);
            return Err(problem.retry_after(busy.retry_after.as_secs().max(1)));
        }
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

fn refused(Refusal { kind, message }: Refusal) -> Problem {
    let detail = format!("Dapi answered {kind}: {message}. Nothing was imported.");
    let problem = Problem::new(ProblemCode::TokenRejected, detail);
    problem.with("failure", json!(Failure { kind, detail: message }))
}

fn unanswered(timeout: bool) -> Problem {
    let (code, detail) = if timeout {
        (ProblemCode::UpstreamTimeout, "Dapi did not answer in time; nothing was imported.")
    } else {
        (ProblemCode::UpstreamFailed, "Dapi gave no usable answer; nothing was imported.")
    };
    Problem::new(code, detail)
}
