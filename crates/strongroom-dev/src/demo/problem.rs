//! The demo's errors as problem+json (RFC 9457).
//!
//! May import: actix.

use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

/// Why the demo cannot do what the page asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The `Host` is not the demo's.
    #[error("this demo answers to its own name only")]
    ForeignHost,
    /// The `Origin` is not the demo's.
    #[error("this demo takes orders from its own page only")]
    ForeignOrigin,
    /// The page's request is invalid.
    #[error("{0}")]
    BadRequest(String),
    /// The resource does not exist.
    #[error("there is no such connection")]
    NotFound,
    /// Strongroom refused. Its problem is passed on unchanged.
    #[error("Strongroom answered {status}")]
    Refused { status: StatusCode, body: bytes::Bytes },
    /// A server did not answer, or not as expected.
    #[error("{who} does not answer: {what}")]
    Unreachable { who: &'static str, what: String },
    /// PostgreSQL failed.
    #[error("PostgreSQL does not answer: {0}")]
    Database(#[from] sqlx::Error),
}

impl ResponseError for Failed {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Refused { status, .. } => *status,
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let body = match self {
            Self::Refused { body, .. } => body.clone(),
            _ => json!({
                "type": "about:blank",
                "title": status.canonical_reason(),
                "status": status.as_u16(),
                "detail": self.to_string(),
            })
            .to_string()
            .into(),
        };
        HttpResponse::build(status)
            .content_type("application/problem+json")
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(body)
    }
}
