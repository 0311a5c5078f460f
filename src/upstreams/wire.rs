//! The token request and its response (RFC 6749 §4.4.2, §4.4.3, §5.2).
//!
//! Of a response's body only the token and the error code are ever passed on: the rest is the
//! upstream's text, which might repeat the secret.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Map, Value};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::model::{Auth, Failure, Settings};
use super::{ClientSecret, UpstreamToken};
use crate::common::lenient_json::{self, Object};

/// The maximum length of a token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The lifetime of a token if the upstream states none or an impossible one (`expires_in` is only
/// recommended, RFC 6749 §5.1).
pub(super) const ASSUMED_LIFETIME: Duration = Duration::from_mins(5);
/// The longest that a token is cached, whatever the upstream states: a number that is wrong by a
/// factor of a thousand must not keep a dead token for years.
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_hours(24);

/// The outcome of a token request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A token and its lifetime, counted from the request.
    Token(UpstreamToken, Duration),
    /// No token.
    Failed(TokenError),
}

/// Why a token request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenError {
    pub(super) kind: Failure,
    /// The upstream's error code (RFC 6749 §5.2).
    pub(super) oauth_error: Option<String>,
    /// Strongroom's own text; never the upstream's.
    pub(super) detail: String,
    /// The upstream's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

impl TokenError {
    pub(super) fn new(kind: Failure, detail: impl Into<String>) -> Self {
        Self { kind, oauth_error: None, detail: detail.into(), retry_after: None }
    }
}

/// Adds credentials and parameters to a token request.
pub(super) fn complete(
    request: RequestBuilder,
    settings: &Settings,
    secret: &ClientSecret,
) -> RequestBuilder {
    let request = request.header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "identity");
    let mut parameters = vec![("grant_type", "client_credentials")];
    if settings.auth != Auth::Basic {
        parameters.push(("client_id", &settings.client_id));
        parameters.push(("client_secret", secret.expose()));
    }
    parameters.extend(settings.scope.as_deref().map(|scope| ("scope", scope)));
    let extra = settings.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    parameters.extend(extra);
    match settings.auth {
        Auth::Json => {
            let object: Map<_, _> =
                parameters.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
            request.json(&object)
        }
        Auth::Form => form(request, &parameters),
        Auth::Basic => {
            let header = basic(&settings.client_id, secret);
            form(request, &parameters).header(AUTHORIZATION, header)
        }
    }
}

fn form(request: RequestBuilder, parameters: &[(&str, &str)]) -> RequestBuilder {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}

/// Builds HTTP Basic with both halves form-encoded (RFC 6749 §2.3.1, RFC 7617).
fn basic(id: &str, secret: &ClientSecret) -> HeaderValue {
    let encode = |text: &str| -> Zeroizing<String> {
        Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret.expose())));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    // Base64 is always a valid header value.
    let mut value =
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// The fields that are read; others may hold anything.
const FIELDS: [&str; 4] = ["access_token", "token_type", "expires_in", "error"];

/// Reads a token response. `secret` is what was sent, so that it is never repeated.
pub(super) fn read(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
    secret: &ClientSecret,
) -> Answer {
    let code = status.as_u16();
    let text = lenient_json::text(body);
    let parsed = Object::read(&text, &FIELDS).filter(Object::is_closed);
    let oauth_error = parsed.as_ref().and_then(|answer| error_code(answer, secret));
    let temporary = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let refused = status.is_client_error() && !temporary.contains(&status);
    let failure = |kind, what: &str| {
        let oauth_error = oauth_error.clone().filter(|_| kind == Failure::Refused);
        let detail = format!("{what} (HTTP {code})");
        Answer::Failed(TokenError { kind, oauth_error, detail, retry_after })
    };
    if refused || (status.is_success() && oauth_error.is_some()) {
        return failure(Failure::Refused, "the token endpoint refused");
    }
    if status.is_redirection() {
        return failure(Failure::Unusable, "a redirect, which is not followed");
    }
    if !status.is_success() {
        return failure(Failure::Unusable, "no token");
    }
    let Some(answer) = parsed else {
        return failure(Failure::Unusable, "an answer that is not the JSON of a token");
    };
    let token = answer.exact("access_token").map(UpstreamToken::new);
    let Some(token) = token.filter(is_token) else {
        return failure(Failure::Unusable, "an answer without a usable access_token");
    };
    if !is_bearer(answer.raw("token_type")) {
        return failure(Failure::Unusable, "a token_type other than Bearer");
    }
    Answer::Token(token, lifetime(answer.words("expires_in").as_deref()))
}

/// Returns the error code (RFC 6749 §5.2), narrowed to what codes look like, and never the secret.
fn error_code(answer: &Object<'_>, secret: &ClientSecret) -> Option<String> {
    let code = answer.exact("error")?;
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let sound = code.len() <= 64
        && code.starts_with(|c: char| c.is_ascii_lowercase())
        && code.chars().all(inside)
        && (secret.expose().len() < 4 || !code.contains(secret.expose()));
    sound.then_some(code)
}

/// Returns whether an `Authorization` header can carry the token (RFC 6750 §2.1, read liberally:
/// visible ASCII).
fn is_token(token: &UpstreamToken) -> bool {
    let text = token.expose();
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns whether the type is Bearer: `token_type` is required and case-insensitive (RFC 6749
/// §5.1), but some servers omit it.
fn is_bearer(token_type: Option<&str>) -> bool {
    token_type.is_none_or(|raw| raw == "null" || raw.eq_ignore_ascii_case("\"bearer\""))
}

/// Parses a number of seconds, also as text or with a fraction; an impossible one counts as
/// missing.
fn lifetime(expires_in: Option<&str>) -> Duration {
    let seconds: Option<f64> = expires_in.and_then(|text| text.trim().parse().ok());
    let stated = seconds
        .filter(|seconds| *seconds >= 1.0)
        .map(|seconds| Duration::try_from_secs_f64(seconds.floor()).unwrap_or(LONGEST_LIFETIME));
    stated.unwrap_or(ASSUMED_LIFETIME).min(LONGEST_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(status: u16, body: &str) -> Answer {
        let secret = ClientSecret::new("canary_secret".to_owned());
        read(StatusCode::from_u16(status).unwrap(), None, body.as_bytes(), &secret)
    }

    fn lifetime_of(body: &str) -> u64 {
        match read_text(200, body) {
            Answer::Token(_, lifetime) => lifetime.as_secs(),
            Answer::Failed(failure) => panic!("{body}: {failure:?}"),
        }
    }

    fn failure(status: u16, body: &str) -> TokenError {
        match read_text(status, body) {
            Answer::Failed(failure) => failure,
            Answer::Token(..) => panic!("{body} is a token"),
        }
    }

    #[test]
    fn a_lifetime_is_taken_as_it_is_meant() {
        let with = |expires: &str| {
            lifetime_of(&format!(
                r#"{{"access_token":"t","token_type":"bearer","expires_in":{expires}}}"#
            ))
        };
        assert_eq!(with("3600"), 3600);
        assert_eq!(with("\"3600\""), 3600);
        assert_eq!(with("299.9"), 299);
        for wrong in ["0", "-1", "\"soon\"", "null", "[]", "true", "0.5"] {
            assert_eq!(with(wrong), 300, "{wrong}");
        }
        for huge in ["31536000000", "1e300"] {
            assert_eq!(with(huge), 86_400, "{huge}");
        }
        assert_eq!(lifetime_of(r#"{"access_token":"t"}"#), 300);
    }

    #[test]
    fn no_field_that_does_not_matter_costs_a_token() {
        let secret = ClientSecret::new("canary_secret".to_owned());
        for body in [
            b"\xef\xbb\xbf{\"access_token\":\"t\",\"expires_in\":60}".as_slice(),
            b"{\"access_token\":\"t\",\"x\":\"\xff\",\"x\":1,\"expires_in\":\"60\"}\n\0",
            b"{\"expires_in\":60,\"access_token\":\"t\",\"error\":null,\"token_type\":\"BEARER\"}",
        ] {
            let answer = read(StatusCode::OK, None, body, &secret);
            let Answer::Token(token, lifetime) = answer else { panic!("{answer:?}") };
            assert_eq!((token.expose(), lifetime.as_secs()), ("t", 60));
        }
    }

    #[test]
    fn a_refusal_tells_its_code_and_nothing_else() {
        let body = r#"{"error":"invalid_client","error_description":"canary_secret is wrong"}"#;
        for status in [400, 401, 403, 200] {
            let failure = failure(status, body);
            assert_eq!(failure.kind, Failure::Refused);
            assert_eq!(failure.oauth_error.as_deref(), Some("invalid_client"));
            assert!(!failure.detail.contains("canary"));
        }
        for code in ["Invalid Client", "", "canary_secret", "a-b", "1a", &"a".repeat(65)] {
            let failure = failure(401, &format!(r#"{{"error":"{code}"}}"#));
            assert_eq!((failure.kind, failure.oauth_error), (Failure::Refused, None), "{code}");
        }
        assert_eq!(failure(404, "<html>").kind, Failure::Refused);
    }

    #[test]
    fn what_is_no_token_is_unusable() {
        for (status, body) in [
            (200, "<html>"),
            (200, "{}"),
            (200, "[]"),
            (200, r#"["t"]"#),
            (200, r#"{"access_token":""}"#),
            (200, r#"{"access_token":"t","#),
            (200, r#"{"access_token":"a b"}"#),
            (200, r#"{"access_token":"a\r\nx: y"}"#),
            (200, r#"{"access_token":7}"#),
            (200, r#"{"access_token":"t","token_type":"mac"}"#),
            (302, r#"{"access_token":"t"}"#),
            (429, r#"{"error":"slow_down"}"#),
            (500, r#"{"access_token":"t"}"#),
        ] {
            let failure = failure(status, body);
            assert_eq!((failure.kind, failure.oauth_error), (Failure::Unusable, None), "{body}");
        }
    }

    #[test]
    fn both_halves_of_basic_are_form_encoded() {
        let header = basic("a:b", &ClientSecret::new("c d+%".to_owned()));
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"a%3Ab:c+d%2B%25");
        assert!(header.is_sensitive());
    }
}
