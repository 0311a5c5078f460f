//! Errors in OAuth's own shape (RFC 6749 §5.2), not problem documents.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::database::Fault;
use crate::http::problem::{Problem, ProblemCode};

/// The codes of RFC 6749 §5.2, and `server_error` and `temporarily_unavailable` of §4.1.2.1, which
/// the token endpoint borrows for what is not the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthErrorCode {
    /// Something is missing, repeated or malformed.
    InvalidRequest,
    /// Unknown client, wrong secret, no credentials, or a way of authenticating that is not offered.
    InvalidClient,
    /// The token is another client's: §5.2 has no word for a token that is to be revoked, and this one
    /// is for a grant that was issued to another client.
    InvalidGrant,
    /// The scope is unknown, malformed or more than the client may have.
    InvalidScope,
    /// Another grant than `client_credentials`.
    UnsupportedGrantType,
    /// Our fault.
    ServerError,
    /// The database cannot be reached.
    TemporarilyUnavailable,
}

impl OAuthErrorCode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::InvalidScope
            | Self::UnsupportedGrantType => StatusCode::BAD_REQUEST,
        }
    }
}

/// One error.
#[derive(Debug)]
pub struct OAuthError {
    code: OAuthErrorCode,
    status: StatusCode,
    description: &'static str,
    retry_after: Option<u64>,
}

impl OAuthError {
    /// An error with a description of printable ASCII without quotes (§5.2).
    #[must_use]
    pub const fn new(code: OAuthErrorCode, description: &'static str) -> Self {
        Self { code, status: code.status(), description, retry_after: None }
    }

    /// One wrong secret too many: the same error under the status that says so (RFC 6585 §4), with the
    /// seconds to wait.
    #[must_use]
    pub const fn too_many_guesses(retry_after: u64) -> Self {
        let description = "Too many wrong secrets from here or for this client";
        let wrong = Self::new(OAuthErrorCode::InvalidClient, description);
        Self { status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(retry_after), ..wrong }
    }

    /// This replica cannot tell at the moment. `cause` goes to the log.
    #[must_use]
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, "unavailable");
        let unavailable =
            Self::new(OAuthErrorCode::TemporarilyUnavailable, "Try again in a moment");
        Self { retry_after: Some(1), ..unavailable }
    }

    /// What a wrong secret and an unknown client have in common: the whole answer.
    #[must_use]
    pub const fn invalid_client() -> Self {
        Self::new(OAuthErrorCode::InvalidClient, "Unknown client or wrong secret")
    }

    /// Something is missing, repeated or malformed.
    #[must_use]
    pub const fn invalid_request(description: &'static str) -> Self {
        Self::new(OAuthErrorCode::InvalidRequest, description)
    }

    /// How long to wait before the next attempt, in seconds, where that is told.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> OAuthErrorCode {
        self.code
    }
}

impl std::fmt::Display for OAuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.description)
    }
}

impl std::error::Error for OAuthError {}

impl ResponseError for OAuthError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
        if self.status == StatusCode::UNAUTHORIZED {
            answer
                .insert_header((WWW_AUTHENTICATE, "Basic realm=\"strongroom\", charset=\"UTF-8\""));
        }
        if let Some(seconds) = self.retry_after {
            answer.insert_header((RETRY_AFTER, seconds));
        }
        answer.json(json!({ "error": self.code.as_str(), "error_description": self.description }))
    }
}

/// A body that could not be read, or that there was no room for. The status is the problem's own, the shape
/// is OAuth's.
impl From<Problem> for OAuthError {
    fn from(problem: Problem) -> Self {
        let status = problem.status_code();
        let error = match problem.code() {
            ProblemCode::TooManyRequests | ProblemCode::Unavailable => {
                let description = "Too many requests are arriving";
                let busy = Self::new(OAuthErrorCode::TemporarilyUnavailable, description);
                Self { retry_after: Some(1), ..busy }
            }
            ProblemCode::Internal => {
                let description = "The log tells more under this request id";
                Self::new(OAuthErrorCode::ServerError, description)
            }
            _ => Self::invalid_request("The body is too large, broke off or took too long"),
        };
        Self { status, ..error }
    }
}

impl From<sqlx::Error> for OAuthError {
    fn from(error: sqlx::Error) -> Self {
        if Fault::of(&error).is_passing() {
            return Self::unavailable(error);
        }
        tracing::error!(cause = %error, "internal error");
        Self::new(OAuthErrorCode::ServerError, "The log tells more under this request id")
    }
}
