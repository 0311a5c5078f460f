//! `POST /v1/connections/{id}/dapi/{path}`: a call without holding the token.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::common::ids::ConnectionId;
use crate::connections::token_lease::CallRequest;
use crate::http::body::{Id, read_passed};
use crate::http::caller::{Authorized, needs};
use crate::http::problem::{Problem, ProblemCode, code};
use crate::http::responses::{AnyObject, Calling, ForClients, Problems, WithBody};
use crate::providers::Provider;
use crate::relay::body::Fields;
use crate::relay::call::Request;
use crate::relay::routes::{MAX_REQUEST, relay};
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
pub async fn call(
    caller: Authorized<needs::DapiCall>,
    context: web::Data<Context>,
    id: Id<ConnectionId>,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let path = req.match_info().get("path");
    let path = path.and_then(|path| paths::find(Provider::Dapi, path));
    let path = path.ok_or_else(|| {
        Problem::new(ProblemCode::NotFound, "There is no such path of Dapi's for calling.")
    })?;
    let _permit = context.limit.take(caller.client.app)?;
    let fields = Fields::read(&read_passed(&req, payload, MAX_REQUEST).await?)?;
    let request = CallRequest {
        actor: caller.actor,
        app: caller.client.app,
        id: id.0,
        provider: path.provider,
        path: path.path,
        despite_attention: path.repairs,
        limit: context.limit(path),
    };
    let fields = fields.passed(path.with_app_key);
    relay(&req, &context, Request { call: request, path, fields, trace: caller.trace }).await
}
