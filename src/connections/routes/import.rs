//! `POST /v1/connections/import`: a token that the app already holds moves in.

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::{
    Checked, client_user_id, location, login, login_of_another_user, optional_name, required,
};
use crate::connections::import::{self, Import, Imported};
use crate::connections::model::{Connection, Status};
use crate::connections::{Context, store};
use crate::dapi::{AccessToken, UserSecret};
use crate::http::body::Body;
use crate::http::caller::{Authorized, needs};
use crate::http::detached;
use crate::http::problem::Problem;

/// A token that the app already holds.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportRequest {
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    client_user_id: Option<String>,
    /// Dapi's name for the bank login.
    #[serde(rename = "connectionID")]
    connection_id: Option<String>,
    /// The permanent token.
    #[schema(value_type = Option<String>)]
    access_token: Option<AccessToken>,
    /// Connect's user secret.
    #[schema(value_type = Option<String>)]
    user_secret: Option<UserSecret>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    user_id: Option<String>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    token_id: Option<String>,
}

/// Imports a token. The same token of the same user again gives the same connection.
#[utoipa::path(
    post, path = "/v1/connections/import", tag = "Connections",
    security(("bearer" = ["connections:write"])),
    request_body = ImportRequest,
    responses(
        (status = 201, description = "The connection is `active`", body = Connection, headers(("Location" = String, description = "The connection"))),
        (status = 200, description = "The same token again", body = Connection),
        (status = 202, description = "Safe; becomes `active` when an older link of the login has been delinked", body = Connection),
        (status = 400, description = "`invalid_request`"),
        (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`insufficient_scope`"),
        (status = 409, description = "`connection_of_another_user`"),
        (status = 413, description = "`body_too_large`"),
        (status = 415, description = "`unsupported_media_type`"),
        (status = 503, description = "`unavailable`"),
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
    let wish = Import {
        app: caller.client.app,
        client_user_id: user,
        connection_id: login(request.connection_id)?,
        access_token: AccessToken::checked("accessToken", request.access_token)?,
        user_secret: UserSecret::checked("userSecret", request.user_secret)?,
        dapi_user_id: optional_name("userID", request.user_id)?,
        token_id: optional_name("tokenID", request.token_id)?,
    };
    let importing = {
        let (context, actor) = (context.clone(), caller.actor.clone());
        async move { import::import(&context, &actor, &wish).await }
    };
    let (id, is_new) = match detached(&context.tasks, importing).await?? {
        Imported::New(id) => (id, true),
        Imported::Repeated(id) => (id, false),
        Imported::UserBeingErased => return Err(Problem::user_being_erased()),
        Imported::LoginOfAnotherUser => return Err(login_of_another_user()),
    };
    let mut conn = context.pool.acquire().await?;
    let found = store::find(&mut conn, caller.client.app, id).await?;
    let connection = found.ok_or_else(Problem::not_found)?;
    let mut answer = match connection.status {
        Status::Pending => HttpResponse::Accepted(),
        _ if is_new => HttpResponse::Created(),
        _ => HttpResponse::Ok(),
    };
    Ok(answer.insert_header(location(id)).json(connection))
}
