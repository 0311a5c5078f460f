//! Plaid's wire format: which action a path names, and errors as `{error_type, error_code, error_message,
//! display_message, request_id, suggested_action}` (<https://plaid.com/docs/errors/>).

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError as _};
use serde_json::json;

use crate::connections::ConnectionError;
use crate::http::problem::{Problem, ProblemCode};
use crate::oauth::OAuthError;
use crate::providers::Provider;
use crate::relay::paths::{self, LINK_TOKEN_CREATE, RelayPath};

/// What a request on Plaid's own wire asks for.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) enum Action {
    /// Begins a link, with a (proxy) token in update mode.
    CreateLinkToken,
    /// Exchanges a public token for a (proxy) token.
    Exchange,
    /// Removes the item: revokes its connection.
    Remove,
    /// Calls an allowed path.
    Call(&'static RelayPath),
}

impl Action {
    /// Parses a path, ignoring case.
    pub(in crate::relay) fn named(path: &str) -> Option<Self> {
        let path = path.trim_matches('/');
        let is = |name: &str| path.eq_ignore_ascii_case(name);
        if is(LINK_TOKEN_CREATE) {
            return Some(Self::CreateLinkToken);
        }
        if is("item/public_token/exchange") {
            return Some(Self::Exchange);
        }
        if is("item/remove") {
            return Some(Self::Remove);
        }
        paths::find(Provider::Plaid, path).map(Self::Call)
    }
}

/// An error in Plaid's format. If Plaid has a code for a case, it is used.
#[derive(Debug)]
pub(in crate::relay) struct PlaidError {
    status: StatusCode,
    error_type: &'static str,
    code: Cow<'static, str>,
    message: String,
    retry_after: Option<u64>,
}

impl PlaidError {
    /// An error with Plaid's usual status, 400.
    pub(in crate::relay) fn new(
        error_type: &'static str,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { status: StatusCode::BAD_REQUEST, error_type, code, message, retry_after: None }
    }

    /// Something that Plaid would call its own fault: the same request may succeed later.
    fn again(status: StatusCode, message: impl Into<String>, retry_after: Option<u64>) -> Self {
        let error = Self::new("API_ERROR", "INTERNAL_SERVER_ERROR", message);
        Self { status, retry_after, ..error }
    }

    /// The exchange has not ended.
    pub(in crate::relay) fn pending() -> Self {
        let message = "Plaid has given no conclusive answer yet; the public token is safe here, send it again";
        Self::again(StatusCode::SERVICE_UNAVAILABLE, message, Some(2))
    }

    /// Plaid could not say whose public token it is.
    pub(in crate::relay) fn owner_unanswered() -> Self {
        let message = "Plaid did not say for whom the link was begun; send it again, or X-Client-User-ID with it";
        Self::again(StatusCode::SERVICE_UNAVAILABLE, message, Some(2))
    }

    /// A required field is missing.
    pub(in crate::relay) fn missing(field: &str) -> Self {
        let message = format!("the following required fields are missing: {field}");
        Self::new("INVALID_REQUEST", "MISSING_FIELDS", message)
    }

    /// A field has an invalid value.
    pub(in crate::relay) fn field(message: impl Into<String>) -> Self {
        Self::new("INVALID_REQUEST", "INVALID_FIELD", message)
    }

    /// The path does not exist or is not allowed.
    pub(in crate::relay) fn not_found() -> Self {
        let error = Self::new("INVALID_REQUEST", "NOT_FOUND", "there is no such path for calling");
        Self { status: StatusCode::NOT_FOUND, ..error }
    }

    /// The credentials are not those of an OAuth client.
    pub(in crate::relay) fn api_keys() -> Self {
        let message = "client_id and secret have to be those of a client of Strongroom's";
        Self::new("INVALID_INPUT", "INVALID_API_KEYS", message)
    }

    /// The client's app is not registered with Plaid.
    pub(in crate::relay) fn other_provider() -> Self {
        let message = "this client belongs to an app that is not registered with Plaid";
        Self::new("INVALID_INPUT", "INVALID_API_KEYS", message)
    }

    /// The public token is not usable.
    pub(in crate::relay) fn public_token(message: impl Into<String>) -> Self {
        Self::new("INVALID_INPUT", "INVALID_PUBLIC_TOKEN", message)
    }

    /// The proxy token belongs to no connection.
    pub(in crate::relay) fn unknown_token() -> Self {
        let message = "could not find matching access token";
        Self::new("INVALID_INPUT", "INVALID_ACCESS_TOKEN", message)
    }

    /// The proxy token belongs to a connection that was revoked.
    pub(in crate::relay) fn revoked() -> Self {
        let message = "the connection was revoked";
        Self::new("ITEM_ERROR", "ITEM_NOT_FOUND", message)
    }

    /// Creates the answer.
    pub(in crate::relay) fn respond(self, request_id: &str) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status);
        answer.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after {
            answer.insert_header((RETRY_AFTER, seconds));
        }
        answer.json(json!({
            "error_type": self.error_type,
            "error_code": self.code,
            "error_message": self.message,
            "display_message": null,
            "request_id": request_id,
            "suggested_action": null,
        }))
    }
}

/// Converts a problem: to Plaid's code if Plaid has one for it, otherwise to the problem code in upper case.
impl From<Problem> for PlaidError {
    fn from(problem: Problem) -> Self {
        let detail = problem.detail().to_owned();
        let retry = problem.headers().iter().find(|(name, _)| name == RETRY_AFTER);
        let retry = retry.and_then(|(_, value)| value.to_str().ok()?.parse().ok());
        let status = problem.code().status();
        match problem.code() {
            ProblemCode::InvalidRequest if problem.member("field").is_some() => Self::field(detail),
            ProblemCode::InvalidRequest
            | ProblemCode::RequestTimeout
            | ProblemCode::BodyTooLarge => {
                Self { status, ..Self::new("INVALID_REQUEST", "INVALID_BODY", detail) }
            }
            ProblemCode::NotFound => Self::not_found(),
            ProblemCode::InsufficientScope => {
                Self::new("INVALID_INPUT", "UNAUTHORIZED_ROUTE_ACCESS", detail)
            }
            ProblemCode::ConnectionNotActive => Self::revoked(),
            ProblemCode::ConnectionNeedsAttention => {
                let kind =
                    problem.member("attention").and_then(|attention| attention["type"].as_str());
                let kind = kind.unwrap_or("ITEM_LOGIN_REQUIRED").to_owned();
                Self::new("ITEM_ERROR", kind, detail)
            }
            ProblemCode::TooManyRequests => Self::too_many(detail, retry),
            _ if status.is_server_error() => Self::again(status, detail, retry),
            code => {
                let code = code.as_str().to_ascii_uppercase();
                Self { status, ..Self::new("INVALID_REQUEST", code, detail) }
            }
        }
    }
}

impl PlaidError {
    fn too_many(message: impl Into<String>, retry_after: Option<u64>) -> Self {
        // Plaid's codes of this type vary; clients go by the type.
        let error = Self::new("RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED", message);
        Self { status: StatusCode::TOO_MANY_REQUESTS, retry_after, ..error }
    }
}

impl From<ConnectionError> for PlaidError {
    fn from(error: ConnectionError) -> Self {
        Problem::from(error).into()
    }
}

impl From<OAuthError> for PlaidError {
    fn from(error: OAuthError) -> Self {
        match (error.status_code(), error.retry_after()) {
            (StatusCode::TOO_MANY_REQUESTS, seconds) => {
                Self::too_many("too many wrong secrets", Some(seconds.unwrap_or(1)))
            }
            (status, _) if status.is_server_error() => {
                Self::again(status, "the service cannot work at the moment", Some(1))
            }
            _ => Self::api_keys(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_parsed_ignoring_case() {
        assert!(matches!(Action::named("/Link/token/CREATE/"), Some(Action::CreateLinkToken)));
        assert!(matches!(Action::named("item/public_token/exchange"), Some(Action::Exchange)));
        assert!(matches!(Action::named("item/remove"), Some(Action::Remove)));
        assert!(matches!(Action::named("Transactions/Sync"), Some(Action::Call(_))));
        for path in ["", "item", "link/token/get", "item/access_token/invalidate"] {
            assert!(Action::named(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_problem_has_plaids_code_if_plaid_has_one() {
        let converted = |code| {
            let error = PlaidError::from(Problem::new(code, "x"));
            (error.status.as_u16(), error.error_type, error.code.into_owned())
        };
        for (code, status, error_type, error_code) in [
            (ProblemCode::InvalidRequest, 400, "INVALID_REQUEST", "INVALID_BODY"),
            (ProblemCode::BodyTooLarge, 413, "INVALID_REQUEST", "INVALID_BODY"),
            (ProblemCode::ConnectionNotActive, 400, "ITEM_ERROR", "ITEM_NOT_FOUND"),
            (ProblemCode::ConnectionNeedsAttention, 400, "ITEM_ERROR", "ITEM_LOGIN_REQUIRED"),
            (ProblemCode::TooManyRequests, 429, "RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED"),
            (ProblemCode::UpstreamTimeout, 504, "API_ERROR", "INTERNAL_SERVER_ERROR"),
            (ProblemCode::Unavailable, 503, "API_ERROR", "INTERNAL_SERVER_ERROR"),
            (ProblemCode::UserBeingErased, 409, "INVALID_REQUEST", "USER_BEING_ERASED"),
        ] {
            assert_eq!(converted(code), (status, error_type, error_code.to_owned()));
        }
    }
}
