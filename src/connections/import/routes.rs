//! `POST /v1/connections/import`: imports a token that the app already holds.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::connections::import::{Import, Imported};
use crate::connections::input::{
    Checked, client_user_id, location, login, login_of_another_user, optional_name, required,
};
use crate::connections::model::{Connection, Failure, Status};
use crate::connections::{Context, import, query, shape};
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{Calling, ForClients, Problems, WithJson};
use crate::providers::{AccessToken, Provider, Refusal, UserSecret};

/// A token that the app already holds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportRequest {
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    client_user_id: Option<String>,
    /// Dapi: its name for the bank login.
    #[serde(rename = "connectionID")]
    login_id: Option<String>,
    /// Plaid: its name for the bank login.
    #[serde(rename = "itemID")]
    item_id: Option<String>,
    /// The permanent token.
    access_token: Option<AccessToken>,
    /// Dapi: Connect's user secret.
    user_secret: Option<UserSecret>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    user_id: Option<String>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    dapi_token_id: Option<String>,
    /// Ask the provider first whether it takes the token, by one call.
    #[serde(default)]
    verify: bool,
}

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
    let request = body.0;
    let user = required("clientUserID", request.client_user_id)?;
    client_user_id(&user)?;
    let (provider, login_id, user_secret) = if request.item_id.is_some() {
        (Provider::Plaid, login("itemID", request.item_id)?, None)
    } else {
        let login_id = request.login_id.ok_or_else(|| {
            Problem::invalid_field(
                "connectionID",
                "is missing; a token of Plaid's comes with `itemID`",
            )
        })?;
        let login_id = login("connectionID", Some(login_id))?;
        let user_secret = UserSecret::checked("userSecret", request.user_secret)?;
        (Provider::Dapi, login_id, Some(user_secret))
    };
    let request = Import {
        app: caller.client.app,
        client_user_id: user,
        provider,
        login_id,
        access_token: AccessToken::checked("accessToken", request.access_token)?,
        user_secret,
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
        Imported::OfAnotherProvider(provider) => return Err(import_of_another_provider(provider)),
        Imported::UserBeingErased => return Err(Problem::user_being_erased()),
        Imported::LoginOfAnotherUser => return Err(login_of_another_user()),
        Imported::Refused(refusal) => return Err(refused(provider, refusal)),
        Imported::Unanswered { timeout } => return Err(unanswered(provider, timeout)),
        Imported::Busy(busy) => return Err(too_many_calls(provider, busy.retry_after)),
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

fn import_of_another_provider(provider: Provider) -> Problem {
    let field = match provider {
        Provider::Dapi => "connectionID",
        Provider::Plaid => "itemID",
    };
    Problem::invalid_field(field, format_args!("is what a token of {} comes with", provider.name()))
}

fn too_many_calls(provider: Provider, retry_after: Duration) -> Problem {
    let detail =
        format!("As many calls to {} are under way as may; nothing was imported.", provider.name());
    let problem = Problem::new(ProblemCode::TooManyRequests, detail);
    problem.retry_after(retry_after.as_secs().max(1))
}

fn refused(provider: Provider, Refusal { kind, message }: Refusal) -> Problem {
    let detail = format!("{} answered {kind}: {message}. Nothing was imported.", provider.name());
    let problem = Problem::new(ProblemCode::TokenRejected, detail);
    problem.with("failure", json!(Failure { kind, detail: message }))
}

fn unanswered(provider: Provider, timeout: bool) -> Problem {
    let (code, what) = if timeout {
        (ProblemCode::UpstreamTimeout, "did not answer in time")
    } else {
        (ProblemCode::UpstreamFailed, "gave no usable answer")
    };
    Problem::new(code, format!("{} {what}; nothing was imported.", provider.name()))
}
