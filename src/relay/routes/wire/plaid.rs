//! `POST /plaid/{path}`: Plaid's own wire.

use std::collections::BTreeMap;

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use serde_json::json;
use tracing_actix_web::RequestId;
use utoipa::openapi::RefOr;

use super::{Credentials, Exchanged, LONGEST_SECRET, Services, WireRequest};
use crate::common::actor::Actor;
use crate::common::scope::Scope;
use crate::common::secret::SecretText;
use crate::common::text;
use crate::common::trace::TraceContext;
use crate::connections::exchange::{self, ClaimedAccounts, Refusal, Submission};
use crate::connections::link_tokens::{self, LinkToken};
use crate::connections::model::{Connection, Failure, Status};
use crate::connections::proxy_token::Holder;
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::{AccessCode, Provider};
use crate::relay::body::Fields;
use crate::relay::link::{self, Owner};
use crate::relay::paths::{self, LINK_TOKEN_CREATE, RelayPath};
use crate::relay::routes::{OnBehalf, answer, begin_link};
use crate::relay::wire::plaid::{Action, PlaidError};
use crate::users::check_client_user_id;

/// An answer in Plaid's shape. Calls add what they ask for.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the answer in the OpenAPI document")]
#[schema(as = PlaidAnswer)]
pub struct AnswerShape {
    /// The id of the request: Plaid's own if the answer is Plaid's.
    #[schema(example = "HNTDNrA8F1shFEW")]
    request_id: Option<String>,
    /// The class of an error.
    error_type: Option<String>,
    /// The kind of error, if there was one.
    error_code: Option<String>,
    /// A description of the error.
    error_message: Option<String>,
    /// What the user may be shown, if there is anything.
    display_message: Option<String>,
    /// What to do about the error, if Plaid says so.
    suggested_action: Option<String>,
    /// Of an exchange: a proxy token in place of Plaid's, which only Strongroom can use.
    access_token: Option<String>,
    /// Of an exchange: Plaid's name for the bank login.
    item_id: Option<String>,
}

/// A request as Plaid's SDKs send it: these fields, and those of the call.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
#[schema(as = PlaidRequest)]
pub struct RequestShape {
    /// A client's id, unless the header has it.
    #[schema(example = "payroll7Qm2Xv9")]
    client_id: Option<String>,
    /// A client's secret, unless the header has it.
    #[schema(example = "n3Vd8sK1pZ6tY0wQ4rB7mX2cJ5hG9fLa")]
    secret: Option<String>,
    /// A proxy token, from `item/public_token/exchange`.
    access_token: Option<String>,
    /// Of an exchange: the single-use token that Link brings.
    #[schema(max_length = 16384)]
    public_token: Option<String>,
    /// Of an exchange: the link token that led to it, which names the user; no field of Plaid's.
    link_token: Option<String>,
}

/// Errors in Plaid's shape.
pub struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let each = [
            (
                "400",
                "INVALID_ACCESS_TOKEN",
                "The client, a field, the public token, the proxy token or the user's login is refused; after `ITEM_LOGIN_REQUIRED` without a call, until the user repairs the login",
            ),
            ("404", "NOT_FOUND", "There is no such path for calling"),
            ("408", "INVALID_BODY", "The body did not arrive in time"),
            ("409", "USER_BEING_ERASED", "The user is being erased"),
            ("413", "INVALID_BODY", "The body is too large"),
            (
                "429",
                "RATE_LIMIT_EXCEEDED",
                "Too many requests or wrong secrets; with `Retry-After`",
            ),
            ("500", "INTERNAL_SERVER_ERROR", "A defect of the service"),
            ("502", "INTERNAL_SERVER_ERROR", "Plaid gave no usable answer"),
            (
                "503",
                "INTERNAL_SERVER_ERROR",
                "The exchange has not ended, or the service cannot work; with `Retry-After`",
            ),
            ("504", "INTERNAL_SERVER_ERROR", "Plaid did not answer in time"),
        ];
        super::refusals("PlaidAnswer", each, |code, what| {
            json!({
                "error_type": "INVALID_INPUT", "error_code": code, "error_message": what,
                "display_message": null, "request_id": "0199f3a2-7c1e-7d3b-9a54-3f2b8c0d6e71",
                "suggested_action": null,
            })
        })
    }
}

/// Plaid's own wire, for its SDKs: the same paths, the same shapes.
///
/// `PLAID-CLIENT-ID` and `PLAID-SECRET` (or `client_id` and `secret` in the body) are id and secret of a client with the
/// scopes `connections:write` and `dapi:call`. `item/public_token/exchange` answers with a proxy token in place of the
/// access token; the user is named by the header `X-Client-User-ID`, else it is the one for whom the link token was
/// created here (named by `link_token` in the request, else asked for at Plaid). `item/remove` revokes the connection
/// here, and the removal is repeated until Plaid confirms. Errors have Plaid's shape too.
#[utoipa::path(
    post, path = "/plaid/{path}", tag = "Plaid's wire", operation_id = "callPlaidWire",
    security(()),
    params(
        ("path" = String, Path, description = "Plaid's path, such as `item/public_token/exchange`; holds slashes", example = "accounts/get"),
        ("PLAID-CLIENT-ID" = Option<String>, Header, description = "A client's id"),
        ("PLAID-SECRET" = Option<String>, Header, description = "A client's secret"),
        ("X-Client-User-ID" = Option<String>, Header, description = "The app's own name for the user, with a link token or an exchange"),
    ),
    request_body(content = RequestShape, description = "As Plaid's SDKs send it"),
    responses(
        (status = 200, description = "Plaid's answer, or Strongroom's in its shape", body = AnswerShape),
        (status = "default", description = "Plaid's answer with any other status", body = AnswerShape),
        Refusals,
    )
)]
pub async fn by_path(req: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answered = match PlaidRequest::receive(&req, payload).await {
        Ok(request) => request.perform(&req).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| error.respond(&request_id(&req)))
}

fn request_id(req: &HttpRequest) -> String {
    req.extensions().get::<RequestId>().map(ToString::to_string).unwrap_or_default()
}

/// Reads a client's id and secret from Plaid's headers, else from the body.
fn credentials(req: &HttpRequest, fields: &Fields) -> Result<Credentials, PlaidError> {
    let given = |header: &str, field: &str| {
        let value = req.headers().get(header);
        value.map_or_else(|| fields.text(field), |value| value.to_str().ok().map(str::to_owned))
    };
    let id = given("plaid-client-id", "client_id");
    let secret = given("plaid-secret", "secret").map(SecretText::new);
    id.zip(secret).ok_or_else(PlaidError::api_keys)
}

/// A request on Plaid's wire.
struct PlaidRequest(WireRequest);

impl PlaidRequest {
    async fn receive(req: &HttpRequest, payload: web::Payload) -> Result<Self, PlaidError> {
        let found = |fields: &Fields| credentials(req, fields);
        Services::of(req)?.receive(req, payload, found).await.map(Self)
    }

    async fn perform(self, req: &HttpRequest) -> Result<HttpResponse, PlaidError> {
        let action = req.match_info().get("path").and_then(Action::named);
        let action = action.ok_or_else(PlaidError::not_found)?;
        let scope = match action {
            Action::Exchange => Scope::ConnectionsWrite,
            _ => Scope::DapiCall,
        };
        let (actor, trace) = self.0.actor(req, scope);
        match action {
            Action::CreateLinkToken => self.create_link_token(req, actor, trace).await,
            Action::Exchange => self.exchange_token(req, actor, trace).await,
            Action::Remove => self.remove(req, &actor).await,
            Action::Call(path) => self.call(req, path, actor, trace).await,
        }
    }

    /// Finds the connection of the request's proxy token.
    async fn holder(&self) -> Result<Holder, PlaidError> {
        let fields = &self.0.fields;
        fields.value("access_token").ok_or_else(|| PlaidError::missing("access_token"))?;
        let proxy_token = fields.text("access_token").map(SecretText::new);
        let wrong = || PlaidError::field("access_token must be a string");
        let proxy_token = proxy_token.ok_or_else(wrong)?;
        let holder = self.0.holder(Provider::Plaid, proxy_token.expose()).await?;
        holder.ok_or_else(PlaidError::unknown_token)
    }

    async fn call(
        self,
        req: &HttpRequest,
        path: &'static RelayPath,
        actor: Actor,
        trace: TraceContext,
    ) -> Result<HttpResponse, PlaidError> {
        let holder = self.holder().await?;
        if holder.status != Status::Active {
            return Err(PlaidError::revoked());
        }
        let WireRequest { context, app, fields, .. } = self.0;
        let on_behalf = OnBehalf { actor, app, id: holder.id, path, trace };
        let answered = on_behalf.relay(req, &context, fields).await;
        let answered = answered.map_err(|problem| match problem.code() {
            // Erased meanwhile.
            ProblemCode::NotFound => PlaidError::unknown_token(),
            _ => problem.into(),
        })?;
        Ok(answer(path.provider, answered)?)
    }

    /// Begins a link for the user whom the header or `user.client_user_id` names; with a proxy token in update mode.
    async fn create_link_token(
        self,
        req: &HttpRequest,
        actor: Actor,
        trace: TraceContext,
    ) -> Result<HttpResponse, PlaidError> {
        if self.0.fields.value("access_token").is_some() {
            let path = paths::find(Provider::Plaid, LINK_TOKEN_CREATE);
            let path = path.ok_or_else(PlaidError::not_found)?;
            return self.call(req, path, actor, trace).await;
        }
        let named = match WireRequest::named_user(req)? {
            Some(named) => Some(named),
            None => link::client_user_id(&self.0.fields)?,
        };
        let named = named.ok_or_else(|| PlaidError::missing("client_user_id of user"))?;
        check_client_user_id(&named)
            .map_err(|what| PlaidError::field(format!("the name of the user {what}")))?;
        let WireRequest { context, app, fields, .. } = self.0;
        let answered = begin_link(&context, actor, app, &named, fields, trace).await;
        let answered = answered.map_err(|problem| match problem.code() {
            ProblemCode::NotFound => PlaidError::other_provider(),
            _ => problem.into(),
        })?;
        Ok(answer(Provider::Plaid, answered)?)
    }

    /// Revokes the connection, which takes effect at once, and waits a little for Plaid to confirm. Answers with success
    /// either way: the removal is retried in the background.
    async fn remove(self, req: &HttpRequest, actor: &Actor) -> Result<HttpResponse, PlaidError> {
        let holder = self.holder().await?;
        if !matches!(holder.status, Status::Active | Status::Revoking) {
            return Err(PlaidError::revoked());
        }
        if self.0.revoke(actor, holder.id).await? {
            Ok(HttpResponse::Ok().json(json!({ "request_id": request_id(req) })))
        } else {
            Err(PlaidError::revoked())
        }
    }

    async fn exchange_token(
        self,
        req: &HttpRequest,
        actor: Actor,
        trace: TraceContext,
    ) -> Result<HttpResponse, PlaidError> {
        let submission = self.submission(req, &actor, &trace).await?;
        match self.0.exchange(&actor, trace, submission).await? {
            Exchanged::Active(connection, proxy_token) => Ok(HttpResponse::Ok().json(json!({
                "access_token": proxy_token.expose(),
                "item_id": connection.login_id,
                "request_id": request_id(req),
            }))),
            Exchanged::NotActive(connection) => Err(not_exchanged(&connection)),
            Exchanged::Revoked => Err(PlaidError::revoked()),
            Exchanged::Refused(refusal) => Err(refused(refusal)),
        }
    }

    async fn submission(
        &self,
        req: &HttpRequest,
        actor: &Actor,
        trace: &TraceContext,
    ) -> Result<Submission, PlaidError> {
        let fields = &self.0.fields;
        fields.value("public_token").ok_or_else(|| PlaidError::missing("public_token"))?;
        let code = fields.text("public_token").map(AccessCode::new);
        let code = code.ok_or_else(|| PlaidError::field("public_token must be a string"))?;
        text::check_secret(code.expose(), LONGEST_SECRET)
            .map_err(|what| PlaidError::public_token(format!("public_token {what}")))?;
        let client_user_id = match WireRequest::named_user(req)? {
            Some(named) => named,
            None => self.owner(actor, &code, trace).await?,
        };
        check_client_user_id(&client_user_id)
            .map_err(|what| PlaidError::field(format!("X-Client-User-ID {what}")))?;
        Ok(Submission {
            app: self.0.app,
            session: None,
            client_user_id,
            code,
            user_secret: None,
            provider: Provider::Plaid,
            login_id: None,
            claimed: ClaimedAccounts::default(),
            dapi_user_id: None,
            dapi_token_id: None,
        })
    }

    /// Returns for whom a code was made: the user of the link token that the request names, of the same code before, or
    /// of the link token that led to it by Plaid's word.
    async fn owner(
        &self,
        actor: &Actor,
        code: &AccessCode,
        trace: &TraceContext,
    ) -> Result<String, PlaidError> {
        let WireRequest { context, app, fields, .. } = &self.0;
        let connections = &context.connections;
        if let Some(link_token) = fields.text("link_token").map(LinkToken::new)
            && let Some(user) = link_tokens::user_of(connections, *app, &link_token).await?
        {
            return Ok(user);
        }
        if let Some(user) = exchange::user_of_code(connections, *app, code).await? {
            return Ok(user);
        }
        match link::owner_of(context, actor, *app, code, trace).await? {
            Owner::Known(user) => Ok(user),
            Owner::Unanswered => Err(PlaidError::owner_unanswered()),
            Owner::Unknown => Err(PlaidError::public_token(
                "could not find matching public token: none of the link tokens that were created here led to it; \
                 name the user by the header X-Client-User-ID",
            )),
        }
    }
}

fn refused(refusal: Refusal) -> PlaidError {
    match refusal {
        Refusal::CodeOfAnotherUser => {
            PlaidError::public_token("another user has handed in this public token")
        }
        Refusal::LoginOfAnotherUser => PlaidError::new(
            "INVALID_INPUT",
            "CONNECTION_OF_ANOTHER_USER",
            "this bank login is connected for another user",
        ),
        Refusal::UserBeingErased => Problem::user_being_erased().into(),
        Refusal::OfAnotherProvider(_) => PlaidError::other_provider(),
        // No session comes by this way.
        Refusal::Expired | Refusal::SessionExhausted => {
            PlaidError::public_token("the public token is expired")
        }
    }
}

fn not_exchanged(connection: &Connection) -> PlaidError {
    let failure = connection.failure.as_ref();
    let described = failure.map(ToString::to_string).unwrap_or_default();
    match (connection.status, failure) {
        (Status::Pending, _) => PlaidError::pending(),
        (Status::Rejected, Some(Failure { kind, detail })) => {
            PlaidError::new("INVALID_INPUT", kind.to_ascii_uppercase(), detail.clone())
        }
        (Status::Rejected | Status::Expired | Status::Orphaned, _) => {
            PlaidError::public_token(described)
        }
        _ => PlaidError::revoked(),
    }
}
