//! `POST /v1/connections/{id}/dapi/{path}` and `…/plaid/{path}`: a call without holding the token.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::common::ids::ConnectionId;
use crate::http::body::{Id, read_passed};
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{AnyObject, Calling, ForClients, Problems, WithBody};
use crate::providers::Provider;
use crate::relay::body::Fields;
use crate::relay::routes::{MAX_REQUEST, OnBehalf, answer};
use crate::relay::{Context, paths};

/// Calls Dapi on the connection's behalf: data, metadata, payment, ach, wire, batch and operation paths.
///
/// The token, `appSecret` and `userSecret` are put in, whatever was sent under those names; `operation/get`
/// gets its `appKey`. Everything else goes through as it came, `operationID` and `userInputs` included. The
/// answer is Dapi's as it is, whatever its status, with the header `Strongroom-Upstream: dapi`; without that
/// header it is Strongroom's own.
///
/// Dapi takes one call at a time with a token. Calls on one connection wait for each other in the order of
/// their arrival, whichever replica they came to. A call that has begun runs to its end though its caller
/// goes away. If too many wait for the token already, the answer is `too_many_requests`; if the user has to link the
/// login again first, `connection_needs_attention` with `attention`.
#[utoipa::path(
    post, path = "/v1/connections/{id}/dapi/{path}", tag = "Connections", operation_id = "callDapi",
    security(("bearer" = ["dapi:call"])),
    params(
        ("id" = ConnectionId, Path, description = "The connection"),
        ("path" = String, Path, description = "Dapi's path, such as `data/accounts/get`; holds slashes", example = "data/accounts/get"),
    ),
    request_body(content = AnyObject, description = "A JSON object as Dapi takes it, without the secrets"),
    responses(
        (status = 200, description = "Dapi's answer", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`dapi`"))),
        (status = "default", description = "Dapi's answer with any other status", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`dapi`"))),
        Problems<(ForClients, WithBody, Calling, code::NotFound, code::ConnectionNotActive, code::ConnectionNeedsAttention, code::UserSecretMissing)>,
    )
)]
pub async fn dapi(
    caller: Authorized<needs::DapiCall>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    call(Provider::Dapi, caller, &context, id.0, &req, payload).await
}

/// Calls Plaid on the connection's behalf: accounts, transactions, auth, identity, investments, liabilities, and
/// `link/token/create` for a login in trouble.
///
/// The access token is put in, and the app's credentials are sent; what was sent under the names `access_token`,
/// `client_id` and `secret` is left out. Everything else goes through as it came. The answer is Plaid's as it is,
/// whatever its status, with the header `Strongroom-Upstream: plaid`; without that header it is Strongroom's own.
///
/// `link/token/create` opens Link in update mode, and is allowed while the connection needs attention.
/// `user.client_user_id` and `webhook` are put in if they are left out. Calls on one connection run side by side. A call
/// that has begun runs to its end though its caller goes away.
#[utoipa::path(
    post, path = "/v1/connections/{id}/plaid/{path}", tag = "Connections", operation_id = "callPlaid",
    security(("bearer" = ["dapi:call"])),
    params(
        ("id" = ConnectionId, Path, description = "The connection"),
        ("path" = String, Path, description = "Plaid's path, such as `transactions/sync`; holds slashes", example = "accounts/get"),
    ),
    request_body(content = AnyObject, description = "A JSON object as Plaid takes it, without the secrets"),
    responses(
        (status = 200, description = "Plaid's answer", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`plaid`"))),
        (status = "default", description = "Plaid's answer with any other status", body = AnyObject, headers(("Strongroom-Upstream" = String, description = "`plaid`"))),
        Problems<(ForClients, WithBody, Calling, code::NotFound, code::ConnectionNotActive, code::ConnectionNeedsAttention, code::UserBeingErased)>,
    )
)]
pub async fn plaid(
    caller: Authorized<needs::DapiCall>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    call(Provider::Plaid, caller, &context, id.0, &req, payload).await
}

async fn call(
    provider: Provider,
    caller: Authorized<needs::DapiCall>,
    context: &Context,
    id: ConnectionId,
    req: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let path = req.match_info().get("path");
    let path = path.and_then(|path| paths::find(provider, path));
    let path = path.ok_or_else(|| {
        let detail = format!("There is no such path of {}'s for calling.", provider.name());
        Problem::new(ProblemCode::NotFound, detail)
    })?;
    let app = caller.client.app;
    let _permit = context.limit.take(app)?;
    let fields = Fields::read(&read_passed(req, payload, MAX_REQUEST).await?)?;
    let on_behalf = OnBehalf { actor: caller.actor, app, id, path, trace: caller.trace };
    answer(provider, on_behalf.relay(req, context, fields).await?)
}
