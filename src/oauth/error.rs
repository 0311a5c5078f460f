//! Errors in OAuth's own format (RFC 6749 §5.2), not problem documents.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::common::named::named;
use crate::database::Fault;
use crate::http::problem::{Problem, ProblemCode};

/// The codes of RFC 6749 §5.2, and `server_error` and `temporarily_unavailable` of §4.1.2.1, which
/// the token endpoint uses for failures of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthErrorCode {
    /// A parameter is missing, repeated or malformed.
    InvalidRequest,
    /// Unknown client, wrong secret, no credentials, or an authentication method that is not
    /// supported.
    InvalidClient,
    /// The token belongs to another client. §5.2 has no code for a token to be revoked; this is the
    /// one for a grant that was issued to another client.
    InvalidGrant,
    /// The scope is unknown, malformed or exceeds what the client may have.
    InvalidScope,
    /// The DPoP proof is missing or does not hold (RFC 9449 §5).
    InvalidDpopProof,
    /// A grant other than `client_credentials`.
    UnsupportedGrantType,
    /// A defect of this service.
    ServerError,
    /// The database cannot be reached.
    TemporarilyUnavailable,
}

named!(OAuthErrorCode {
    InvalidRequest => "invalid_request",
    InvalidClient => "invalid_client",
    InvalidGrant => "invalid_grant",
    InvalidScope => "invalid_scope",
    InvalidDpopProof => "invalid_dpop_proof",
    UnsupportedGrantType => "unsupported_grant_type",
    ServerError => "server_error",
    TemporarilyUnavailable => "temporarily_unavailable",
});

impl OAuthErrorCode {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::InvalidScope
            | Self::InvalidDpopProof
            | Self::UnsupportedGrantType => StatusCode::BAD_REQUEST,
        }
    }
}

/// One occurrence, with its status and `Retry-After`.
#[derive(Debug)]
pub struct OAuthError {
    code: OAuthErrorCode,
    status: StatusCode,
    description: &'static str,
    retry_after: Option<u64>,
}

impl OAuthError {
    /// Returns an error with a description of printable ASCII without quotes (§5.2).
    #[must_use]
    pub const fn new(code: OAuthErrorCode, description: &'static str) -> Self {
        Self { code, status: code.status(), description, retry_after: None }
    }

    /// Returns `invalid_client` with status 429 (RFC 6585 §4) and the seconds to wait, for a caller
    /// over the limit of failed logins.
    #[must_use]
    pub const fn too_many_failed_logins(retry_after: u64) -> Self {
        let description = "Too many wrong credentials from here or for this client";
        let wrong = Self::new(OAuthErrorCode::InvalidClient, description);
        Self { status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(retry_after), ..wrong }
    }

    /// Returns a temporary failure of this replica. `cause` goes to the log.
    #[must_use]
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, "unavailable");
        let unavailable =
            Self::new(OAuthErrorCode::TemporarilyUnavailable, "Try again in a moment");
        Self { retry_after: Some(1), ..unavailable }
    }

    /// Returns the error that a wrong secret and an unknown client share: nothing may tell them
    /// apart.
    #[must_use]
    pub const fn invalid_client() -> Self {
        Self::new(OAuthErrorCode::InvalidClient, "Unknown client or wrong secret")
    }

    /// Returns the error that an unknown client and an assertion without a valid signature share.
    #[must_use]
    pub const fn invalid_assertion() -> Self {
        let description = "Unknown client, or its assertion is not signed by its key";
        Self::new(OAuthErrorCode::InvalidClient, description)
    }

    /// Returns an error about the DPoP proof of a token request.
    #[must_use]
    pub const fn invalid_dpop_proof(description: &'static str) -> Self {
        Self::new(OAuthErrorCode::InvalidDpopProof, description)
    }

    /// Returns an error about a parameter that is missing, repeated or malformed.
    #[must_use]
    pub const fn invalid_request(description: &'static str) -> Self {
        Self::new(OAuthErrorCode::InvalidRequest, description)
    }

    /// How long to wait before the next attempt, in seconds, if the error says so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// The error's code.
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

/// Converts a body that could not be read or had no slot in the pool: the problem's status in
/// OAuth's format.
impl From<Problem> for OAuthError {
    fn from(problem: Problem) -> Self {
        let status = problem.status_code();
        let error = match problem.code() {
            ProblemCode::TooManyRequests
            | ProblemCode::Unavailable
            | ProblemCode::KeysUnavailable => {
                let description = "Too many requests are arriving";
                let busy = Self::new(OAuthErrorCode::TemporarilyUnavailable, description);
                Self { retry_after: Some(1), ..busy }
            }
            ProblemCode::Internal => {
                let description = "The log has details under this request id";
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
        Self::new(OAuthErrorCode::ServerError, "The log has details under this request id")
    }
}
