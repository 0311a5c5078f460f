//! `POST /v1/plaid/link-token`: begins a link without a secret of Plaid's.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::http::body::read_passed;
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, code};
use crate::http::responses::{AnyObject, Calling, ForClients, Problems, WithBody};
use crate::providers::Provider;
use crate::relay::body::Fields;
use crate::relay::routes::{MAX_REQUEST, answer, begin_link};
use crate::relay::{Context, link};
use crate::users::check_client_user_id;

/// The field with the app's own name for the user.
const CLIENT_USER_ID: &str = "clientUserID";

/// Creates a link token, with which a frontend opens Link.
///
/// The body is as Plaid's `/link/token/create` takes it, without the credentials, and `clientUserID` besides: the app's
/// own name for the user, which is put in as `user.client_user_id` if that is left out; without it
/// `user.client_user_id` is the name. `webhook` is put in if it is left out. The answer is Plaid's as it is, whatever its
/// status, with the header `Strongroom-Upstream: plaid`. For a login in trouble use
/// `POST /v1/connections/{id}/plaid/link/token/create`.
#[utoipa::path(
    post, path = "/v1/plaid/link-token", tag = "Connections", operation_id = "createPlaidLinkToken",
    security(("bearer" = ["dapi:call"])),
    request_body(content = AnyObject, description = "A JSON object as Plaid takes it, without the secrets, and `clientUserID`"),
    responses(
        (status = 200, description = "Plaid's answer: `link_token`, `expiration`, `request_id`", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`plaid`"))),
        (status = "default", description = "Plaid's answer with any other status", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`plaid`"))),
        Problems<(ForClients, WithBody, Calling, code::NotFound, code::UserBeingErased)>,
    )
)]
pub async fn create(
    caller: Authorized<needs::DapiCall>,
    context: web::Data<Context>,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let app = caller.client.app;
    let _permit = context.limit.take(app)?;
    let mut fields = Fields::read(&read_passed(&req, payload, MAX_REQUEST).await?)?;
    let user = user(&fields)?;
    fields.remove(CLIENT_USER_ID);
    let answered = begin_link(&context, caller.actor, app, &user, fields, caller.trace).await?;
    answer(Provider::Plaid, answered)
}

/// Returns the app's own name for the user.
fn user(fields: &Fields) -> Result<String, Problem> {
    let named = match fields.value(CLIENT_USER_ID) {
        Some(_) => {
            let text = fields.text(CLIENT_USER_ID);
            Some(text.ok_or_else(|| Problem::invalid_field(CLIENT_USER_ID, "must be a string"))?)
        }
        None => link::client_user_id(fields)?,
    };
    let missing = "is missing, and so is user.client_user_id";
    let named = named.ok_or_else(|| Problem::invalid_field(CLIENT_USER_ID, missing))?;
    check_client_user_id(&named).map_err(|what| Problem::invalid_field(CLIENT_USER_ID, what))?;
    Ok(named)
}
