//! JSON bodies and queries, parsed strictly: limited in size and time. A problem says where the
//! error is and never repeats a value, which might be a misplaced secret.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::connection;
use super::problem::{Problem, ProblemCode};
use crate::common::strict_json::{self, Objects};

/// The maximum size of a body on Strongroom's own endpoints, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// The time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON body of type `T`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let media_type = check_media_type(req);
        let payload = web::Payload::from_request(req, payload);
        let receiving = connection::receiving(req);
        Box::pin(async move {
            media_type?;
            let payload = payload.await.map_err(|_| unreadable())?;
            let body = read(payload).await?;
            drop(receiving);
            parse_json(&body).map(Self)
        })
    }
}

/// An optional JSON body of type `T`.
#[derive(Debug)]
pub struct OptionalBody<T>(pub Option<T>);

impl<T: DeserializeOwned> FromRequest for OptionalBody<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let media_type = check_media_type(req);
        let payload = web::Payload::from_request(req, payload);
        let receiving = connection::receiving(req);
        Box::pin(async move {
            let bytes = read(payload.await.map_err(|_| unreadable())?).await?;
            drop(receiving);
            if bytes.is_empty() {
                return Ok(Self(None));
            }
            media_type?;
            parse_json(&bytes).map(|body| Self(Some(body)))
        })
    }
}

/// Reads a body, up to [`MAX_BODY`].
async fn read(payload: web::Payload) -> Result<Bytes, Problem> {
    read_up_to(payload, MAX_BODY).await
}

/// Reads a body that is passed on to another API, up to `max` bytes.
pub async fn read_passed(
    req: &HttpRequest,
    payload: web::Payload,
    max: usize,
) -> Result<Bytes, Problem> {
    let _receiving = connection::receiving(req);
    read_up_to(payload, max).await
}

async fn read_up_to(payload: web::Payload, max: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, collect(payload, max)).await;
    read.unwrap_or_else(|_| Err(too_slow(BODY_TIMEOUT)))
}

/// Collects a body. As a rule it comes in one piece, which is not copied: a buffer for the largest would cost more than
/// reading what is in it.
async fn collect(mut payload: web::Payload, max: usize) -> Result<Bytes, Problem> {
    let mut body = Bytes::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_| unreadable())?;
        if body.len() + piece.len() > max {
            return Err(too_large(max));
        }
        body = if body.is_empty() { piece } else { joined(body, &piece) };
    }
    Ok(body)
}

/// Appends a piece to a body, whose buffer is used again.
fn joined(body: Bytes, piece: &[u8]) -> Bytes {
    let mut whole = BytesMut::from(body);
    whole.extend_from_slice(piece);
    whole.freeze()
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(ProblemCode::BodyTooLarge, format!("The limit is {max} bytes."))
}

pub(super) fn too_slow(limit: Duration) -> Problem {
    let detail = format!("The limit is {} seconds.", limit.as_secs());
    Problem::new(ProblemCode::RequestTimeout, detail)
}

pub(super) fn unreadable() -> Problem {
    Problem::new(ProblemCode::InvalidRequest, "The body broke off or its framing is wrong.")
}

fn check_media_type(req: &HttpRequest) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    let encoding = req.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse("Send the body without a Content-Encoding.");
    }
    let text = req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if text.is_some_and(is_json) {
        return Ok(());
    }
    refuse("Send JSON with `Content-Type: application/json`.")
}

/// Returns whether the type is `application/json` or has the suffix `+json` (RFC 6839 §3.1),
/// ignoring parameters.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Parses `T` from a JSON object. Every struct in `T` has to be an object in the text, at any
/// depth; serde would accept an array as well.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid_field("body", "must be a JSON object"));
    }
    // Where an error is takes a note of every field: only if there is one.
    strict_json::from_slice(bytes).or_else(|_| parse_with_paths(bytes))
}

fn parse_with_paths<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() { wrong_field(&path, &inner.to_string()) } else { not_json(&inner) }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(parsed)
}

fn not_json(error: &serde_json::Error) -> Problem {
    let detail = format!("The body is not JSON: line {}, column {}.", error.line(), error.column());
    Problem::new(ProblemCode::InvalidRequest, detail)
}

/// Converts a serde message. It shows the offending value before what was expected; only the latter
/// is passed on.
fn wrong_field(path: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    let field = if path == "." { "body" } else { path };
    if let Some((_, expected)) = message.rsplit_once("expected ") {
        let expected = if expected.starts_with("struct ") { "a JSON object" } else { expected };
        return Problem::invalid_field(field, format_args!("must be {expected}"));
    }
    let named = |prefix| message.strip_prefix(prefix).map(|name| name.trim_matches('`').to_owned());
    let inside = |name: String| if path == "." { name } else { format!("{path}.{name}") };
    if let Some(name) = named("missing field ") {
        return Problem::invalid_field(&inside(name), "is missing");
    }
    if let Some(name) = named("duplicate field ") {
        return Problem::invalid_field(&inside(name), "is given twice");
    }
    Problem::invalid_field(field, "is not what this endpoint takes")
}

/// The query of a URL as type `T`.
#[derive(Debug)]
pub struct UrlQuery<T>(pub T);

impl<T: DeserializeOwned> FromRequest for UrlQuery<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = web::Query::<T>::from_query(req.query_string());
        std::future::ready(parsed.map(|query| Self(query.into_inner())).map_err(|error| {
            let actix_web::error::QueryPayloadError::Deserialize(error) = error else {
                return Problem::new(ProblemCode::InvalidRequest, "The query cannot be read.");
            };
            wrong_field(".", &error.to_string())
        }))
    }
}

/// An id in the path. An impossible one is answered as an unknown one.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: std::str::FromStr> FromRequest for Id<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = req.match_info().get("id").and_then(|text| text.parse().ok());
        std::future::ready(id.map(Self).ok_or_else(Problem::not_found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Example {
        flag: bool,
        name: String,
        inner: Option<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        count: u8,
    }

    fn detail(json: &str) -> String {
        parse_json::<Example>(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_body_is_told_by_field_and_expectation() {
        assert_eq!(detail(r#"{"flag": true}"#), "invalid_request: name: is missing");
        assert_eq!(
            detail(r#"{"flag": "canary", "name": ""}"#),
            "invalid_request: flag: must be a boolean"
        );
        assert_eq!(
            detail(r#"{"flag": true, "name": "", "inner": {}}"#),
            "invalid_request: inner.count: is missing"
        );
        assert_eq!(
            detail(r#"{"flag": true, "name": "", "inner": {"count": 256}}"#),
            "invalid_request: inner.count: must be u8"
        );
        assert_eq!(
            detail(r#"{"flag": true, "flag": true, "name": ""}"#),
            "invalid_request: flag: is given twice"
        );
        assert_eq!(
            detail(r#"{"flag": true, "name": "", "inner": 7}"#),
            "invalid_request: inner: must be a JSON object"
        );
        for inner in ["[]", "[1]"] {
            assert_eq!(
                detail(&format!(r#"{{"flag": true, "name": "", "inner": {inner}}}"#)),
                "invalid_request: inner: must be a JSON object"
            );
        }
        assert_eq!(detail("[true, \"\"]"), "invalid_request: body: must be a JSON object");
    }

    #[test]
    fn a_value_in_the_wrong_place_is_never_repeated() {
        for json in [
            r#"{"flag": "canary expected canary", "name": ""}"#,
            r#"{"flag": true, "name": ["canary"]}"#,
            r#"{"flag": {"canary": 1}, "name": ""}"#,
            r#""canary""#,
            "canary",
        ] {
            let message = detail(json);
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        for json in ["", "{", "{\"flag\": true,, }", "{}x", "nul"] {
            assert!(detail(json).starts_with("invalid_request: "), "{json}");
        }
        assert!(parse_json::<Example>(b"{\"flag\": true, \"name\": \"\xff\"}").is_err());
        let deep = format!("{{\"flag\": {}", "[".repeat(100_000));
        assert!(parse_json::<serde_json::Value>(deep.as_bytes()).is_err());
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"]
        {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["", "text/json", "application/jsonx", "application/x-www-form-urlencoded"] {
            assert!(!is_json(no), "{no}");
        }
    }
}
