//! Problems (RFC 9457): one table of codes, one way to respond with them.
//!
//! A problem says what the caller can do about it. The internal cause goes to the log under the
//! same request id, never into the response.

use std::borrow::Cow;
use std::fmt::{Display, Formatter};

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value};

use crate::common::algorithm::ACCEPTED;

/// After how many seconds a request for an app that is being moved is worth repeating.
const APP_MOVES: u64 = 10;

/// A code, or several of them.
pub trait Codes {
    /// Adds the codes to a list.
    fn add_to(codes: &mut Vec<ProblemCode>);
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $code:literal $status:ident $title:literal;)*) => {
        /// The kind of problem; clients decide by its [`as_str`](ProblemCode::as_str).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ProblemCode {
            $($(#[$doc])* $variant,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status of the code.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The title, the same for every occurrence (RFC 9457 §3.1.3).
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }

        /// The codes as types, for the responses of an operation in the `OpenAPI` document (`Problems`).
        pub mod code {
            $(
                #[doc = concat!("Responds with `", $code, "`.")]
                #[derive(Debug)]
                pub struct $variant;

                impl super::Codes for $variant {
                    fn add_to(codes: &mut Vec<super::ProblemCode>) {
                        codes.push(super::ProblemCode::$variant);
                    }
                }
            )*
        }
    };
}

codes! {
    /// Not what the endpoint takes.
    InvalidRequest "invalid_request" BAD_REQUEST "The request is not what this endpoint takes";
    /// No credentials, or not good ones.
    Unauthorized "unauthorized" UNAUTHORIZED "A valid access token is needed";
    /// The token lacks the scope.
    InsufficientScope "insufficient_scope" FORBIDDEN "The access token lacks a scope";
    /// The result is for another user than the session's.
    UserMismatch "user_mismatch" FORBIDDEN "The connect session belongs to another user";
    /// Unknown, or another app's.
    NotFound "not_found" NOT_FOUND "There is no such thing here";
    /// The path exists, the method does not.
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "This path does not take this method";
    /// The body did not arrive in time.
    RequestTimeout "request_timeout" REQUEST_TIMEOUT "The request's body did not arrive in time";
    /// Another user handed in the code before.
    CodeAlreadyReceived "code_already_received" CONFLICT "Another user has handed in this access code";
    /// The login belongs to another user.
    ConnectionOfAnotherUser "connection_of_another_user" CONFLICT "This bank login is connected for another user";
    /// Dapi consumed the code and its answer was lost.
    CodeOrphaned "code_orphaned" CONFLICT "The exchange's answer was lost; the user has to connect again";
    /// Another upstream of the app has the name.
    UpstreamExists "upstream_exists" CONFLICT "There is an upstream of this name already";
    /// The client has two live secrets.
    TwoSecrets "two_secrets" CONFLICT "The client has two live secrets already";
    /// Nothing is sent to the webhook.
    WebhookDisabled "webhook_disabled" CONFLICT "The webhook is disabled";
    /// The user is being erased.
    UserBeingErased "user_being_erased" CONFLICT "This user is being erased";
    /// The key's first request is in progress.
    RequestInProgress "request_in_progress" CONFLICT "The request that uses this Idempotency-Key is under way";
    /// What waited for a second person was decided, withdrawn or is too old.
    ApprovalEnded "approval_ended" CONFLICT "The request does not wait any more";
    /// The bulk revocation has ended.
    OrderEnded "order_ended" CONFLICT "The order is at its end";
    /// There is no usable token.
    ConnectionNotActive "connection_not_active" CONFLICT "The connection is not active";
    /// The user has to link the login again before anything is called.
    ConnectionNeedsAttention "connection_needs_attention" CONFLICT "The connection needs its user";
    /// Dapi's own wire made the connection, and the user secret has not come yet.
    UserSecretMissing "user_secret_missing" CONFLICT "The connection's user secret is not known yet";
    /// The window for the exchange is closed.
    CodeExpired "code_expired" GONE "The access code's window is closed; the user has to connect again";
    /// The app is at another deployment.
    AppMoved "app_moved" GONE "The app has moved to another deployment";
    /// Events behind the cursor were deleted.
    CursorExpired "cursor_expired" GONE "Events behind this cursor are gone";
    /// The body exceeds the limit.
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The request's body is too large";
    /// Not JSON.
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "This endpoint takes JSON";
    /// The key was used for something else.
    IdempotencyKeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY "The Idempotency-Key was used for another request";
    /// Connect did not succeed.
    ConnectFailed "connect_failed" UNPROCESSABLE_ENTITY "Connect did not succeed";
    /// The provider refused the code.
    CodeRejected "code_rejected" UNPROCESSABLE_ENTITY "The bank link refused the code";
    /// The provider refused the token.
    TokenRejected "token_rejected" UNPROCESSABLE_ENTITY "The bank link refused the token";
    /// The caller has to wait.
    TooManyRequests "too_many_requests" TOO_MANY_REQUESTS "Too many requests";
    /// A defect of this service.
    Internal "internal" INTERNAL_SERVER_ERROR "Something went wrong inside";
    /// Another API's answer could not be used.
    UpstreamFailed "upstream_failed" BAD_GATEWAY "The API behind gave no usable answer";
    /// The database cannot be reached.
    Unavailable "unavailable" SERVICE_UNAVAILABLE "The service cannot work at the moment";
    /// A master key that is elsewhere cannot be used.
    KeysUnavailable "keys_unavailable" SERVICE_UNAVAILABLE "A key that this needs cannot be used at the moment";
    /// The app is on its way to another deployment.
    AppMoving "app_moving" SERVICE_UNAVAILABLE "The app is being moved to another deployment";
    /// Another API did not answer in time.
    UpstreamTimeout "upstream_timeout" GATEWAY_TIMEOUT "The API behind did not answer in time";
}

impl utoipa::PartialSchema for ProblemCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let codes = Self::ALL.iter().map(|code| code.as_str());
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(codes))
            .examples([Self::NotFound.as_str()])
            .build()
            .into()
    }
}

impl utoipa::ToSchema for ProblemCode {}

impl ProblemCode {
    /// Returns the code for a status that the framework chose.
    fn of_status(status: StatusCode) -> Self {
        let same = |code: &&Self| code.status() == status;
        match Self::ALL.iter().find(same) {
            Some(code) => *code,
            None if status.is_server_error() => Self::Internal,
            None => Self::InvalidRequest,
        }
    }
}

/// One occurrence of a problem. Boxed, because it is the rare half of many results.
#[derive(Debug)]
pub struct Problem(Box<Occurrence>);

#[derive(Debug)]
struct Occurrence {
    code: ProblemCode,
    status: StatusCode,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Returns a problem of this kind; `detail` says what is wrong this time and what to do.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let (detail, status) = (detail.into(), code.status());
        let (members, headers) = (Map::new(), Vec::new());
        Self(Box::new(Occurrence { code, status, detail, members, headers }))
    }

    /// Returns a problem with a field that is missing or invalid.
    #[must_use]
    pub fn invalid_field(field: &str, what: impl Display) -> Self {
        Self::new(ProblemCode::InvalidRequest, format!("{field}: {what}"))
            .with("field", Value::from(field))
    }

    /// Returns the problem of an unknown id; one of another app gets the same.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "Nothing of this id is here.")
    }

    /// Returns the problem of a request for a user whose erasure is in progress.
    #[must_use]
    pub fn user_being_erased() -> Self {
        let detail = "Once the erasure is through, the name is free for a new user.";
        Self::new(ProblemCode::UserBeingErased, detail)
    }

    /// Returns the problem of a defect of this service. `cause` goes to the log.
    #[must_use]
    pub fn internal(cause: impl Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(ProblemCode::Internal, "The log has details under this request id.")
    }

    /// Returns the problem of a dependency that cannot be reached. `cause` goes to the log.
    #[must_use]
    pub fn unavailable(cause: impl Display) -> Self {
        tracing::warn!(%cause, "unavailable");
        Self::new(ProblemCode::Unavailable, "Try again in a moment; repeating the request is safe.")
            .retry_after(1)
    }

    /// Returns the problem of a master key that cannot be used now; `retry_after` in seconds. `cause` goes to the log.
    #[must_use]
    pub fn keys_unavailable(cause: impl Display, retry_after: u64) -> Self {
        tracing::warn!(%cause, "a key is unavailable");
        let detail = "Try again in a moment; repeating the request is safe.";
        Self::new(ProblemCode::KeysUnavailable, detail).retry_after(retry_after)
    }

    /// Returns the problem of a request for an app that is being moved: nothing of it was done.
    #[must_use]
    pub fn app_moving() -> Self {
        let detail =
            "Nothing was done. Repeat the request; after the move, at the app's new address.";
        Self::new(ProblemCode::AppMoving, detail).retry_after(APP_MOVES)
    }

    /// Returns the problem of a request for an app that has moved: nothing of it was done.
    #[must_use]
    pub fn app_moved() -> Self {
        let detail = "Nothing was done. Send the request, and those for access tokens, to the app's new address.";
        Self::new(ProblemCode::AppMoved, detail)
    }

    /// Returns the problem of missing credentials: challenges without an error (RFC 6750 §3.1, RFC 9449 §7.1).
    #[must_use]
    pub fn no_credentials() -> Self {
        let detail = "Send `Authorization: Bearer` with an access token from /oauth2/token.";
        let dpop = format!("DPoP realm=\"strongroom\", algs=\"{}\"", ACCEPTED.join(" "));
        Self::new(ProblemCode::Unauthorized, detail)
            .challenge("Bearer realm=\"strongroom\"")
            .challenge(&dpop)
    }

    /// Returns the problem of an access token or a proof that is not what DPoP asks for (RFC 9449 §7.1): `error` is
    /// `invalid_token` or `invalid_dpop_proof`.
    #[must_use]
    pub fn invalid_dpop(error: &'static str, why: &'static str) -> Self {
        Self::new(ProblemCode::Unauthorized, why).challenge(&format!(
            "DPoP realm=\"strongroom\", algs=\"{}\", error=\"{error}\", error_description=\"{why}\"",
            ACCEPTED.join(" ")
        ))
    }

    /// Returns the problem of invalid credentials (RFC 6750 §3.1 `invalid_token`).
    #[must_use]
    pub fn invalid_token(why: &'static str) -> Self {
        Self::new(ProblemCode::Unauthorized, why).challenge(&format!(
            "Bearer realm=\"strongroom\", error=\"invalid_token\", error_description=\"{why}\""
        ))
    }

    /// Returns the problem of a malformed `Authorization` header (RFC 6750 §3.1 `invalid_request`).
    #[must_use]
    pub fn malformed_credentials() -> Self {
        let why = "The Authorization header is malformed or repeated";
        Self::new(ProblemCode::InvalidRequest, why).challenge(&format!(
            "Bearer realm=\"strongroom\", error=\"invalid_request\", error_description=\"{why}\""
        ))
    }

    /// Returns the problem of valid credentials without the scope (RFC 6750 §3.1
    /// `insufficient_scope`).
    #[must_use]
    pub fn insufficient_scope(needed: impl Display) -> Self {
        Self::new(ProblemCode::InsufficientScope, format!("This needs the scope {needed}."))
            .with("scope", Value::from(needed.to_string()))
            .challenge(&format!(
                "Bearer realm=\"strongroom\", error=\"insufficient_scope\", scope=\"{needed}\""
            ))
    }

    /// The kind of problem.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// What is wrong this time.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns an extension member of the body (RFC 9457 §3.2).
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }

    /// Adds an extension member to the body (RFC 9457 §3.2).
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.members.insert(name.to_owned(), value);
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn challenge(self, text: &str) -> Self {
        match HeaderValue::from_str(text) {
            Ok(value) => self.header(WWW_AUTHENTICATE, value),
            Err(_) => self,
        }
    }

    /// Returns the problem for a response that the framework made.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("The request was refused.");
        let mut problem = Self::new(ProblemCode::of_status(status), reason);
        problem.0.status = status;
        problem
    }

    /// The body (RFC 9457 §3.1).
    pub(super) fn body(&self, request_id: Option<String>) -> Value {
        let mut body = Map::new();
        let code = self.0.code.as_str();
        body.insert("type".to_owned(), format!("/problems/{code}").into());
        body.insert("title".to_owned(), self.0.code.title().into());
        body.insert("status".to_owned(), self.0.status.as_u16().into());
        body.insert("detail".to_owned(), self.0.detail.as_ref().into());
        body.insert("code".to_owned(), code.into());
        body.insert("requestID".to_owned(), request_id.into());
        body.extend(self.0.members.clone());
        Value::Object(body)
    }

    /// The headers of the response.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.detail)
    }
}

impl std::error::Error for Problem {}

/// The answer without its body: the outermost layer writes it, because it knows the request's id.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.0.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own() {
        let mut codes: Vec<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ProblemCode::ALL.len());
    }

    #[test]
    fn an_internal_cause_stays_inside() {
        let problem = Problem::internal("canary");
        assert!(!problem.body(None).to_string().contains("canary"));
        assert_eq!(problem.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_status_of_the_frameworks_own_gets_the_code_that_fits() {
        for (status, code) in [
            (404, "not_found"),
            (405, "method_not_allowed"),
            (431, "invalid_request"),
            (501, "internal"),
        ] {
            let body = Problem::of_status(StatusCode::from_u16(status).unwrap()).body(None);
            assert_eq!(
                (body["status"].as_u64(), body["code"].as_str()),
                (Some(status.into()), Some(code))
            );
        }
    }
}
