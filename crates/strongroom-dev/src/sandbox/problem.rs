//! Requests and errors of the control APIs.
//!
//! They read JSON whatever the `Content-Type`, so that `curl -d` works as it is, and report errors as problem+json
//! (RFC 9457).
//!
//! May import: actix.

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::de::DeserializeOwned;
use serde_json::json;

pub(super) type Handled = Result<HttpResponse, Problem>;

/// An error as problem+json (RFC 9457).
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into() }
    }

    /// Creates the problem of an invalid request.
    pub(super) fn refused(error: &impl std::fmt::Display) -> Self {
        Self::bad_request(error.to_string())
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into() }
    }
}

impl actix_web::ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        HttpResponse::build(self.status)
            .insert_header((CONTENT_TYPE, "application/problem+json"))
            .body(body.to_string())
    }
}

/// Parses a body; an empty one counts as `{}`.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let mut json = serde_json::Deserializer::from_slice(body);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        match place.as_str() {
            "." => Problem::refused(error.inner()),
            _ => Problem::bad_request(format!("`{place}`: {}", error.inner())),
        }
    })?;
    json.end().map_err(|error| Problem::refused(&error))?;
    Ok(value)
}

pub(super) fn ok(value: impl serde::Serialize) -> HttpResponse {
    HttpResponse::Ok().json(value)
}

/// Parses the query of a request.
pub(super) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    let read = web::Query::<T>::from_query(request.query_string());
    let read = read.map_err(|error| Problem::refused(&error))?;
    Ok(read.into_inner())
}
