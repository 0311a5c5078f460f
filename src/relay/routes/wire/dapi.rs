//! `POST /dapi/v2/{path}` and `POST /dapi`: Dapi's own wire.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use utoipa::openapi::RefOr;

use super::{Credentials, Exchanged, LONGEST_SECRET, Services, WireRequest};
use crate::common::actor::Actor;
use crate::common::scope::Scope;
use crate::common::secret::SecretText;
use crate::common::text;
use crate::common::trace::TraceContext;
use crate::connections::exchange::{ClaimedAccounts, Refusal, Submission};
use crate::connections::model::{Connection, Failure, RevocationKind, Status};
use crate::connections::proxy_token::{Holder, ProxyToken};
use crate::http::caller::bearer;
use crate::providers::{AccessCode, Provider};
use crate::relay::body::Fields;
use crate::relay::paths::{OPERATION_STATUS, RelayPath};
use crate::relay::routes::{OnBehalf, answer, lease_problem, relay_problem};
use crate::relay::tokenless;
use crate::relay::wire::dapi::{Action, DapiError};
use crate::users::check_client_user_id;

/// The longest `connectionID`, in bytes.
const LONGEST_LOGIN: usize = 1024;

/// An answer in Dapi's shape. Calls add what they ask for.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the answer in the OpenAPI document")]
#[schema(as = DapiAnswer)]
pub struct AnswerShape {
    /// Whether it worked.
    #[schema(example = true)]
    success: Option<bool>,
    /// `done`, `failed`, `user_input_required` or `initialized`.
    #[schema(example = "done")]
    status: Option<String>,
    /// The kind of error, if there was one.
    r#type: Option<String>,
    /// A description of the error.
    msg: Option<String>,
    /// Of an exchange: a proxy token in place of Dapi's, which only Strongroom can use.
    #[schema(rename = "accessToken")]
    access_token: Option<String>,
}

/// A request as Dapi's SDKs send it: these fields, and those of the call.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
#[schema(as = DapiRequest, rename_all = "camelCase")]
pub struct RequestShape {
    /// A client's id and its secret, joined by a dot.
    #[schema(example = "payroll7Qm2Xv9.n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    app_secret: String,
    /// At `/dapi`: Dapi's path.
    #[schema(example = "data/accounts/get")]
    action: Option<String>,
    /// Of an exchange: the single-use code.
    #[schema(max_length = 16384)]
    access_code: Option<String>,
    /// Of an exchange: Dapi's name for the bank login.
    #[schema(rename = "connectionID", max_length = 1024)]
    dapi_connection_id: Option<String>,
    /// Connect's user secret.
    #[schema(max_length = 16384)]
    user_secret: Option<String>,
}

/// Errors in Dapi's shape.
pub struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let each = [
            ("400", "PARAMETER_ERROR", "A field or the body is wrong, or the code was refused"),
            (
                "401",
                "INVALID_APP_SECRET",
                "The client, the token or the user's login is refused; after `INVALID_CREDENTIALS` and `ACCOUNT_LOCKED` without a call, until the user links the login again",
            ),
            ("403", "INSUFFICIENT_SCOPE", "The client lacks a scope"),
            ("404", "NOT_FOUND", "There is no such path for calling"),
            ("408", "REQUEST_TIMEOUT", "The body did not arrive in time"),
            ("413", "BODY_TOO_LARGE", "The body is too large"),
            ("422", "PARAMETER_MISSING", "A field is missing"),
            ("429", "TOO_MANY_REQUESTS", "Too many requests or wrong secrets; with `Retry-After`"),
            ("500", "INTERNAL", "A defect of the service"),
            ("502", "UPSTREAM_FAILED", "Dapi gave no usable answer"),
            (
                "503",
                "EXCHANGE_PENDING",
                "Dapi has not answered yet, or the service cannot work; with `Retry-After`",
            ),
            ("504", "UPSTREAM_TIMEOUT", "Dapi did not answer in time"),
        ];
        super::refusals(
            "DapiAnswer",
            each,
            |kind, what| json!({ "success": false, "status": "failed", "type": kind, "msg": what }),
        )
    }
}

/// Dapi's own wire, for its SDKs: the same paths, the same shapes.
///
/// `appSecret` is `client_id.client_secret` of a client with the scopes `connections:write` and `dapi:call`.
/// `auth/ExchangeToken` answers with a proxy token in place of the access token; the user is named by the header
/// `X-Client-User-ID`, else `dapi:` and the `connectionID`. `users/DelinkUser` revokes the connection here,
/// and the delinking is repeated until Dapi confirms. Errors have Dapi's shape too.
#[utoipa::path(
    post, path = "/dapi/v2/{path}", tag = "Dapi's wire", operation_id = "callDapiWire",
    security((), ("proxy_token" = [])),
    params(
        ("path" = String, Path, description = "Dapi's path, such as `auth/ExchangeToken`; holds slashes", example = "data/accounts/get"),
        ("X-Client-User-ID" = Option<String>, Header, description = "The app's own name for the user, with an exchange"),
    ),
    request_body(content = RequestShape, description = "As Dapi's SDKs send it"),
    responses(
        (status = 200, description = "Dapi's answer, or Strongroom's in its shape", body = AnswerShape),
        (status = "default", description = "Dapi's answer with any other status", body = AnswerShape),
        Refusals,
    )
)]
pub async fn by_path(req: HttpRequest, payload: web::Payload) -> Result<HttpResponse, DapiError> {
    let request = DapiRequest::receive(&req, payload).await?;
    let action = req.match_info().get("path").and_then(Action::named);
    request.perform(&req, action.ok_or_else(DapiError::not_found)?).await
}

/// The pass-through that SDKs inside apps use: the same by the body's `action`.
#[utoipa::path(
    post, path = "/dapi", tag = "Dapi's wire", operation_id = "callDapiWireByAction",
    security((), ("proxy_token" = [])),
    params(("X-Client-User-ID" = Option<String>, Header, description = "The app's own name for the user, with an exchange")),
    request_body(content = RequestShape, description = "As Dapi's SDKs send it, with `action` naming the path"),
    responses(
        (status = 200, description = "As at `/dapi/v2/{path}`", body = AnswerShape),
        (status = "default", description = "Dapi's answer with any other status", body = AnswerShape),
        Refusals,
    )
)]
pub async fn by_action(req: HttpRequest, payload: web::Payload) -> Result<HttpResponse, DapiError> {
    let request = DapiRequest::receive(&req, payload).await?;
    let action = request.0.fields.text("action");
    let action = action.ok_or_else(|| DapiError::missing("action"))?;
    request.perform(&req, Action::named(&action).ok_or_else(DapiError::not_found)?).await
}

/// Reads a client's id and secret from `appSecret`, `client_id.client_secret`.
fn credentials(fields: &Fields) -> Result<Credentials, DapiError> {
    let app_secret = fields.text("appSecret").map(SecretText::new);
    let app_secret = app_secret.ok_or_else(DapiError::app_secret)?;
    let halves = app_secret.expose().split_once('.');
    let (id, secret) = halves.ok_or_else(DapiError::app_secret)?;
    Ok((id.to_owned(), SecretText::new(secret.to_owned())))
}

/// A request on Dapi's wire.
struct DapiRequest(WireRequest);

impl DapiRequest {
    async fn receive(req: &HttpRequest, payload: web::Payload) -> Result<Self, DapiError> {
        Services::of(req)?.receive(req, payload, credentials).await.map(Self)
    }

    async fn perform(self, req: &HttpRequest, action: Action) -> Result<HttpResponse, DapiError> {
        let scope = if matches!(action, Action::Exchange) {
            Scope::ConnectionsWrite
        } else {
            Scope::DapiCall
        };
        let (actor, trace) = self.0.actor(req, scope);
        match action {
            Action::Exchange => self.exchange_token(req, actor, trace).await,
            Action::Delink => self.delink(req, &actor).await,
            Action::Call(path) if path.path == OPERATION_STATUS && bearer(req)?.is_none() => {
                let WireRequest { context, app, fields, .. } = self.0;
                let provider = Provider::Dapi;
                let fields = fields.passed(provider, false);
                let outcome = tokenless::call(&context, actor, app, path, fields, trace).await;
                let outcome = outcome.map_err(|error| lease_problem(provider, error))?;
                let answered = outcome.map_err(|error| relay_problem(provider, error))?;
                Ok(answer(provider, answered)?)
            }
            Action::Call(path) => self.call(req, path, actor, trace).await,
        }
    }

    /// Finds the connection of the request's bearer token, and stores the user secret that the request brought.
    async fn bearer(&self, req: &HttpRequest, actor: &Actor) -> Result<Holder, DapiError> {
        let proxy_token = bearer(req)?.ok_or_else(DapiError::unknown_token)?;
        let holder = self.0.holder(Provider::Dapi, proxy_token).await?;
        let holder = holder.ok_or_else(DapiError::unknown_token)?;
        if let Some(user_secret) = self.0.fields.user_secret() {
            text::check_secret(user_secret.expose(), LONGEST_SECRET)
                .map_err(|what| DapiError::parameter(format!("userSecret {what}")))?;
            holder.bring(&self.0.context.connections, actor, &user_secret).await?;
        }
        Ok(holder)
    }

    async fn call(
        self,
        req: &HttpRequest,
        path: &'static RelayPath,
        actor: Actor,
        trace: TraceContext,
    ) -> Result<HttpResponse, DapiError> {
        let holder = self.bearer(req, &actor).await?;
        if holder.status != Status::Active {
            return Err(DapiError::revoked(holder.revocation == Some(RevocationKind::Delink)));
        }
        let WireRequest { context, app, fields, .. } = self.0;
        let on_behalf = OnBehalf { actor, app, id: holder.id, path, trace };
        let answered = on_behalf.relay(req, &context, fields).await?;
        Ok(answer(path.provider, answered)?)
    }

    /// Revokes the connection, which takes effect at once, and waits a little for Dapi to confirm. Answers with success
    /// either way: the delinking is retried in the background.
    async fn delink(self, req: &HttpRequest, actor: &Actor) -> Result<HttpResponse, DapiError> {
        let holder = self.bearer(req, actor).await?;
        if !matches!(holder.status, Status::Active | Status::Revoking) {
            return Err(DapiError::revoked(holder.revocation == Some(RevocationKind::Delink)));
        }
        if self.0.revoke(actor, holder.id).await? {
            Ok(HttpResponse::Ok().json(json!({ "success": true, "status": "done" })))
        } else {
            Err(DapiError::unknown_token())
        }
    }

    async fn exchange_token(
        self,
        req: &HttpRequest,
        actor: Actor,
        trace: TraceContext,
    ) -> Result<HttpResponse, DapiError> {
        let submission = self.submission(req)?;
        match self.0.exchange(&actor, trace, submission).await? {
            Exchanged::Active(connection, proxy_token) => Ok(exchanged(&connection, &proxy_token)),
            Exchanged::NotActive(connection) => Err(not_exchanged(&connection)),
            Exchanged::Revoked => Err(DapiError::revoked(true)),
            Exchanged::Refused(refusal) => Err(refused(refusal)),
        }
    }

    fn submission(&self, req: &HttpRequest) -> Result<Submission, DapiError> {
        let required = |field: &str, longest| {
            let value = self.0.fields.text(field).ok_or_else(|| DapiError::missing(field))?;
            let valid = text::check_secret(&value, longest);
            valid.map_err(|what| DapiError::parameter(format!("{field} {what}")))?;
            Ok::<_, DapiError>(value)
        };
        let code = AccessCode::new(required("accessCode", LONGEST_SECRET)?);
        let login_id = required("connectionID", LONGEST_LOGIN)?;
        let named = WireRequest::named_user(req)?;
        let client_user_id = named.unwrap_or_else(|| format!("dapi:{login_id}"));
        check_client_user_id(&client_user_id)
            .map_err(|what| DapiError::parameter(format!("X-Client-User-ID {what}")))?;
        Ok(Submission {
            app: self.0.app,
            session: None,
            client_user_id,
            code,
            user_secret: None,
            provider: Provider::Dapi,
            login_id: Some(login_id),
            claimed: ClaimedAccounts::default(),
            dapi_user_id: None,
            dapi_token_id: None,
        })
    }
}

fn exchanged(connection: &Connection, proxy_token: &ProxyToken) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "success": true,
        "status": "done",
        "accessToken": proxy_token.expose(),
        "tokenID": connection.dapi_token_id,
        "userID": connection.dapi_user_id,
    }))
}

fn refused(refusal: Refusal) -> DapiError {
    let (kind, msg) = match refusal {
        Refusal::CodeOfAnotherUser => {
            ("CODE_ALREADY_RECEIVED", "another user has handed in this access code")
        }
        Refusal::LoginOfAnotherUser => {
            ("CONNECTION_OF_ANOTHER_USER", "this bank login is connected for another user")
        }
        Refusal::UserBeingErased => {
            ("USER_BEING_ERASED", "the user is being erased; send it again once that is done")
        }
        Refusal::OfAnotherProvider(_) => ("PARAMETER_ERROR", "this app is not one of Dapi's"),
        // No session comes by this way.
        Refusal::Expired | Refusal::SessionExhausted => {
            ("ACCESS_CODE_EXPIRED", "the access code's window is closed")
        }
    };
    DapiError::new(StatusCode::BAD_REQUEST, kind, msg)
}

fn not_exchanged(connection: &Connection) -> DapiError {
    let failure = connection.failure.as_ref();
    let described = failure.map(ToString::to_string).unwrap_or_default();
    let bad = |kind: String, msg| DapiError::new(StatusCode::BAD_REQUEST, kind, msg);
    match (connection.status, failure) {
        (Status::Pending, _) => {
            let msg =
                "Dapi has given no conclusive answer yet; the code is safe here, send it again";
            DapiError::new(StatusCode::SERVICE_UNAVAILABLE, "EXCHANGE_PENDING", msg).retry_after(2)
        }
        (Status::Rejected, Some(Failure { kind, detail })) => {
            bad(kind.to_ascii_uppercase(), detail.clone())
        }
        (Status::Expired, _) => bad("ACCESS_CODE_EXPIRED".to_owned(), described),
        (Status::Orphaned, _) => bad("CODE_ORPHANED".to_owned(), described),
        (status, _) => DapiError::revoked(status == Status::Delinked),
    }
}
