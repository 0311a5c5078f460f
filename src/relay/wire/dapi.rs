//! Dapi's wire format, for SDKs that call Strongroom instead of Dapi: which action a path or an `action` field names,
//! and errors as `{success, status, type, msg}`.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::connections::ConnectionError;
use crate::http::problem::{Problem, ProblemCode};
use crate::oauth::OAuthError;
use crate::providers::Provider;
use crate::relay::paths;
use crate::relay::paths::RelayPath;

/// What a request on Dapi's own wire asks for.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) enum Action {
    /// Exchanges an access code for a (proxy) token.
    Exchange,
    /// Delinks the user's connection.
    Delink,
    /// Calls an allowed path.
    Call(&'static RelayPath),
}

impl Action {
    /// Parses a path under `/v2` or the value of `action`, ignoring case. Delinking has two paths, because Dapi's SDKs
    /// disagree.
    pub(in crate::relay) fn named(path: &str) -> Option<Self> {
        let path = path.trim_matches('/');
        let is = |name: &str| path.eq_ignore_ascii_case(name);
        if is("auth/ExchangeToken") {
            return Some(Self::Exchange);
        }
        if is("users/DelinkUser") || is("data/DelinkUser") {
            return Some(Self::Delink);
        }
        paths::find(Provider::Dapi, path).map(Self::Call)
    }
}

/// An error in Dapi's format. `type` is an open set to Dapi's clients: if Dapi has a `type` for a case, it is used.
#[derive(Debug)]
pub struct DapiError {
    status: StatusCode,
    kind: Cow<'static, str>,
    msg: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl DapiError {
    pub(in crate::relay) fn new(
        status: StatusCode,
        kind: impl Into<Cow<'static, str>>,
        msg: impl Into<String>,
    ) -> Self {
        Self { status, kind: kind.into(), msg: msg.into(), headers: Vec::new() }
    }

    /// A required field is missing.
    pub(in crate::relay) fn missing(field: &str) -> Self {
        let msg = format!("{field} is missing");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "PARAMETER_MISSING", msg)
    }

    /// A field has an invalid value.
    pub(in crate::relay) fn parameter(msg: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PARAMETER_ERROR", msg)
    }

    /// The path or the action does not exist or is not allowed.
    pub(in crate::relay) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path for calling")
    }

    /// `appSecret` is not the id and the secret of an OAuth client.
    pub(in crate::relay) fn app_secret() -> Self {
        let msg = "appSecret has to be a client's id and its secret, joined by a dot";
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_APP_SECRET", msg)
    }

    /// The proxy token belongs to no connection.
    pub(in crate::relay) fn unknown_token() -> Self {
        let msg = "the access token is not known";
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_CONNECTION", msg)
    }

    /// The proxy token belongs to a connection that was revoked.
    pub(in crate::relay) fn revoked(delinked: bool) -> Self {
        let (kind, msg) = if delinked {
            ("USER_DELINKED", "the user has unlinked this bank")
        } else {
            ("INVALID_CONNECTION", "the connection was invalidated")
        };
        Self::new(StatusCode::UNAUTHORIZED, kind, msg)
    }

    /// Adds `Retry-After`, in seconds.
    pub(in crate::relay) fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }
}

impl std::fmt::Display for DapiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.msg)
    }
}

impl std::error::Error for DapiError {}

impl ResponseError for DapiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        answer.insert_header((CACHE_CONTROL, "no-store"));
        for (name, value) in &self.headers {
            answer.insert_header((name.clone(), value.clone()));
        }
        answer.json(json!({
            "success": false, "status": "failed", "type": self.kind, "msg": self.msg,
        }))
    }
}

/// Converts a problem: to Dapi's `type` if Dapi has one for it, otherwise to the problem code in upper case.
impl From<Problem> for DapiError {
    fn from(problem: Problem) -> Self {
        let detail = problem.detail().to_owned();
        match problem.code() {
            ProblemCode::InvalidRequest => return Self::parameter(detail),
            ProblemCode::ConnectionNotActive => return Self::revoked(true),
            ProblemCode::ConnectionNeedsAttention => {
                let kind =
                    problem.member("attention").and_then(|attention| attention["type"].as_str());
                let kind = kind.unwrap_or(problem.code().as_str()).to_owned();
                return Self::new(StatusCode::UNAUTHORIZED, kind, detail);
            }
            ProblemCode::UserSecretMissing => return Self::missing("userSecret"),
            _ => {}
        }
        let kind = problem.code().as_str().to_ascii_uppercase();
        let retry = problem.headers().iter().filter(|(name, _)| name == RETRY_AFTER);
        let headers = retry.cloned().collect();
        Self { headers, ..Self::new(problem.status_code(), kind, detail) }
    }
}

impl From<ConnectionError> for DapiError {
    fn from(error: ConnectionError) -> Self {
        Problem::from(error).into()
    }
}

impl From<OAuthError> for DapiError {
    fn from(error: OAuthError) -> Self {
        match (error.status_code(), error.retry_after()) {
            (StatusCode::TOO_MANY_REQUESTS, seconds) => {
                let msg = "too many wrong secrets";
                let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "INVALID_APP_SECRET", msg);
                refused.retry_after(seconds.unwrap_or(1))
            }
            (status, _) if status.is_server_error() => {
                let kind = error.code().as_str().to_ascii_uppercase();
                Self::new(status, kind, "the service cannot work at the moment").retry_after(1)
            }
            _ => Self::app_secret(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_parsed_ignoring_case() {
        assert!(matches!(Action::named("AUTH/exchangetoken"), Some(Action::Exchange)));
        assert!(matches!(Action::named("/users/delinkUser/"), Some(Action::Delink)));
        assert!(matches!(Action::named("data/DelinkUser"), Some(Action::Delink)));
        assert!(matches!(Action::named("data/cards/GET"), Some(Action::Call(_))));
        assert!(Action::named("auth").is_none() && Action::named("").is_none());
    }
}
