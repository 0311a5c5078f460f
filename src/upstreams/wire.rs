//! The token request and what its answer says (RFC 6749 §4.4.2, §4.4.3, §5.2).
//!
//! Nothing of an answer's body is ever passed on but the token and the error code: the rest is somebody
//! else's text, which might repeat the secret.

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
use crate::base::lenient_json::{self, Object};

/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a token is taken to live where the upstream does not say, or says what cannot be
/// (`expires_in` is only recommended, RFC 6749 §5.1).
pub(super) const ASSUMED_LIFETIME: Duration = Duration::from_mins(5);
/// The longest that a token is kept, whatever the upstream says: a number that is wrong by a factor of
/// a thousand must not keep a dead token for years.
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_hours(24);

/// What a token request brought.
#[derive(Debug)]
pub(super) enum Answer {
    /// A token and how long it lives from when it was asked for.
    Token(UpstreamToken, Duration),
    /// None.
    Failed(TokenError),
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenError {
    pub(super) kind: Failure,
    /// The upstream's OAuth error code.
    pub(super) oauth_error: Option<String>,
    /// In our words.
    pub(super) detail: String,
    /// How long the upstream asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl TokenError {
    pub(super) fn new(kind: Failure, detail: impl Into<String>) -> Self {
        Self { kind, oauth_error: None, detail: detail.into(), retry_after: None }
    }
}

/// Completes a token request with credentials and parameters.
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

/// RFC 6749 §2.3.1: both halves form-encoded, then RFC 7617 Basic.
fn basic(id: &str, secret: &ClientSecret) -> HeaderValue {
    let encode = |text: &str| -> Zeroizing<String> {
        Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret.expose())));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    // Base64 is always a header's value.
    let mut value =
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// The fields that count.
const FIELDS: [&str; 4] = ["access_token", "token_type", "expires_in", "error"];

/// What an answer says. `secret` is what was sent.
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
    let not_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let says_no = status.is_client_error() && !not_now.contains(&status);
    let trouble = |kind, what: &str| {
        let oauth_error = oauth_error.clone().filter(|_| kind == Failure::Refused);
        let detail = format!("{what} (HTTP {code})");
        Answer::Failed(TokenError { kind, oauth_error, detail, retry_after })
    };
    if says_no || (status.is_success() && oauth_error.is_some()) {
        return trouble(Failure::Refused, "the token endpoint refused");
    }
    if status.is_redirection() {
        return trouble(Failure::Unusable, "a redirect, which is not followed");
    }
    if !status.is_success() {
        return trouble(Failure::Unusable, "no token");
    }
    let Some(answer) = parsed else {
        return trouble(Failure::Unusable, "an answer that is not the JSON of a token");
    };
    let token = answer.exact("access_token").map(UpstreamToken::new);
    let Some(token) = token.filter(is_token) else {
        return trouble(Failure::Unusable, "an answer without a usable access_token");
    };
    if !is_bearer(answer.raw("token_type")) {
        return trouble(Failure::Unusable, "a token_type other than Bearer");
    }
    Answer::Token(token, lifetime(answer.words("expires_in").as_deref()))
}

/// RFC 6749 §5.2, narrowed to what codes look like, and never what was sent.
fn error_code(answer: &Object<'_>, secret: &ClientSecret) -> Option<String> {
    let code = answer.exact("error")?;
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let sound = code.len() <= 64
        && code.starts_with(|c: char| c.is_ascii_lowercase())
        && code.chars().all(inside)
        && (secret.expose().len() < 4 || !code.contains(secret.expose()));
    sound.then_some(code)
}

/// What an `Authorization` header can carry (RFC 6750 §2.1, read liberally: visible ASCII).
fn is_token(token: &UpstreamToken) -> bool {
    let text = token.expose();
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `token_type` is required and case-insensitive (RFC 6749 §5.1); where it is missing, Bearer is meant.
fn is_bearer(token_type: Option<&str>) -> bool {
    token_type.is_none_or(|raw| raw == "null" || raw.eq_ignore_ascii_case("\"bearer\""))
}

/// A number of seconds, also as text or with a fraction; what cannot be one counts as missing.
fn lifetime(expires_in: Option<&str>) -> Duration {
    let seconds: Option<f64> = expires_in.and_then(|text| text.trim().parse().ok());
    let told = seconds
        .filter(|seconds| *seconds >= 1.0)
        .map(|seconds| Duration::try_from_secs_f64(seconds.floor()).unwrap_or(LONGEST_LIFETIME));
    told.unwrap_or(ASSUMED_LIFETIME).min(LONGEST_LIFETIME)
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
            Answer::Failed(trouble) => panic!("{body}: {trouble:?}"),
        }
    }

    fn trouble(status: u16, body: &str) -> TokenError {
        match read_text(status, body) {
            Answer::Failed(trouble) => trouble,
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
            let trouble = trouble(status, body);
            assert_eq!(trouble.kind, Failure::Refused);
            assert_eq!(trouble.oauth_error.as_deref(), Some("invalid_client"));
            assert!(!trouble.detail.contains("canary"));
        }
        for code in ["Invalid Client", "", "canary_secret", "a-b", "1a", &"a".repeat(65)] {
            let trouble = trouble(401, &format!(r#"{{"error":"{code}"}}"#));
            assert_eq!((trouble.kind, trouble.oauth_error), (Failure::Refused, None), "{code}");
        }
        assert_eq!(trouble(404, "<html>").kind, Failure::Refused);
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
            let trouble = trouble(status, body);
            assert_eq!((trouble.kind, trouble.oauth_error), (Failure::Unusable, None), "{body}");
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
