//! Client credentials of a request, from HTTP Basic, a form or JSON: a secret or an assertion.
//!
//! Basic and the form are RFC 6749 §2.3.1; JSON is what several client-credentials APIs accept and
//! some client libraries send. An assertion is RFC 7521 §4.2. A request may use exactly one method.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, web};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use url::form_urlencoded;

use super::directory::{Client, Presented};
use super::error::{OAuthError, OAuthErrorCode};
use super::proofs::{self, Proofs};
use super::tokens::Issuer;
use crate::common::actor::Actor;
use crate::common::secret::SecretText;
use crate::database::Pool;
use crate::http::body_pool::{self, BodyPool};
use crate::http::problem::Problem;
use crate::http::{body, caller};
use crate::vault::Vault;

/// Standard base64, with or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::with_decode_padding_mode(
        GeneralPurposeConfig::new(),
        DecodePaddingMode::Indifferent,
    ),
);

/// The parameters of a request to an OAuth endpoint. A missing or empty one is `None`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) grant_type: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) token: Option<SecretText>,
    client_id: Option<String>,
    client_secret: Option<SecretText>,
    client_assertion_type: Option<String>,
    client_assertion: Option<SecretText>,
}

/// The one type of assertion (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The credentials of a request.
enum Credentials {
    Secret(Presented),
    Assertion(proofs::Presented),
}

/// An authenticated client, with the parameters of its request.
pub(super) struct Authenticated {
    pub(super) client: Arc<Client>,
    pub(super) parameters: Parameters,
    pub(super) actor: Actor,
}

pub(super) struct OAuthState<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) proofs: &'a Proofs,
    pub(super) pool: &'a Pool,
    pub(super) vault: &'a Vault,
}

impl OAuthState<'_> {
    /// Reads a request and authenticates its client. The secret is checked before the limit on
    /// failed logins, so that no flood of wrong ones locks out the right one.
    pub(super) async fn receive(
        &self,
        req: &HttpRequest,
        payload: web::Payload,
    ) -> Result<Authenticated, OAuthError> {
        let (parameters, credentials, body) = read(req, payload).await?;
        let directory = self.issuer.directory();
        let found = match &credentials {
            Credentials::Secret(presented) => {
                let found = directory.authenticate(self.pool, self.vault, presented).await;
                drop(body);
                found
            }
            Credentials::Assertion(presented) => {
                // Keys may have to be fetched: a server that hangs must not hold the slots of others.
                drop(body);
                let (proofs, path) = (self.proofs, req.path());
                proofs.client_by_assertion(directory, self.pool, self.vault, presented, path).await
            }
        };
        match found {
            Ok(client) => {
                let actor = caller::by_secret(req, Arc::clone(&client.id));
                Ok(Authenticated { client, parameters, actor })
            }
            Err(error) if error.code() == OAuthErrorCode::InvalidClient => {
                let claimed = credentials.claimed_client();
                Err(self.issuer.failed_login(&claimed, caller::address(req), error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Authenticates a client by its secret, outside of the OAuth endpoints, under the same limit on failed logins.
pub async fn client_by_secret(
    issuer: &Issuer,
    pool: &Pool,
    vault: &Vault,
    id: &str,
    secret: SecretText,
    from: Option<IpAddr>,
) -> Result<caller::Client, OAuthError> {
    let presented = Presented { id: id.to_owned(), secret };
    match issuer.directory().authenticate(pool, vault, &presented).await {
        Ok(client) => Ok(caller::Client {
            app: client.app,
            id: Arc::clone(&client.id),
            scopes: client.scopes,
            reveals_per_minute: client.reveals_per_minute,
        }),
        Err(error) if error.code() == OAuthErrorCode::InvalidClient => {
            Err(issuer.failed_login(id, from, error))
        }
        Err(error) => Err(error),
    }
}

impl Credentials {
    /// The client that they claim to be of, for the count of failed logins.
    fn claimed_client(&self) -> Cow<'_, str> {
        match self {
            Self::Secret(presented) => Cow::Borrowed(&presented.id),
            Self::Assertion(presented) => Cow::Owned(presented.claimed()),
        }
    }
}

/// Reads the parameters and the one set of credentials of a request. The returned body keeps its
/// slot in the pool of unauthenticated bodies until it is dropped.
async fn read(
    req: &HttpRequest,
    payload: web::Payload,
) -> Result<(Parameters, Credentials, body_pool::Body), OAuthError> {
    let has_credentials = |(name, _): (std::borrow::Cow<'_, str>, _)| {
        matches!(name.as_ref(), "client_secret" | "client_assertion")
    };
    if form_urlencoded::parse(req.query_string().as_bytes()).any(has_credentials) {
        return Err(OAuthError::invalid_request("Credentials must not be in the URI"));
    }
    let encoding = req.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(OAuthError::invalid_request("Send the body without a Content-Encoding"));
    }
    let body_pool = req.app_data::<web::Data<BodyPool>>();
    let body_pool = body_pool.ok_or_else(|| Problem::internal("no body_pool"))?;
    let body = body_pool.read(req, caller::address(req), payload, body::MAX_BODY).await?;
    let media_type = req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut parameters = parse_body(media_type, &body)?;
    let credentials = credentials(req, &mut parameters)?;
    Ok((parameters, credentials, body))
}

fn parse_body(media_type: Option<&str>, body: &[u8]) -> Result<Parameters, OAuthError> {
    let parameters = match media_type {
        Some(media_type) if body::is_json(media_type) => body::parse_json(body).map_err(|_| {
            OAuthError::invalid_request("The body is not a JSON object of strings, each given once")
        })?,
        Some(media_type) if is_form(media_type) => parse_form(body)?,
        _ if body.is_empty() => Parameters::default(),
        _ => {
            return Err(OAuthError::invalid_request(
                "Send a form or JSON, and say which by Content-Type",
            ));
        }
    };
    Ok(parameters.without_empty())
}

fn is_form(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Parses a form (RFC 6749 §3.2): a repeated parameter is an error, an unknown one is ignored.
fn parse_form(body: &[u8]) -> Result<Parameters, OAuthError> {
    let mut parameters = Parameters::default();
    for (name, value) in form_urlencoded::parse(body) {
        let value = value.into_owned();
        let repeated = match name.as_ref() {
            "grant_type" => parameters.grant_type.replace(value).is_some(),
            "scope" => parameters.scope.replace(value).is_some(),
            "token" => parameters.token.replace(SecretText::new(value)).is_some(),
            "client_id" => parameters.client_id.replace(value).is_some(),
            "client_secret" => parameters.client_secret.replace(SecretText::new(value)).is_some(),
            "client_assertion_type" => parameters.client_assertion_type.replace(value).is_some(),
            "client_assertion" => {
                parameters.client_assertion.replace(SecretText::new(value)).is_some()
            }
            _ => false,
        };
        if repeated {
            return Err(OAuthError::invalid_request("A parameter is given twice"));
        }
    }
    Ok(parameters)
}

impl Parameters {
    /// Treats a parameter without a value as omitted (RFC 6749 §3.2).
    fn without_empty(self) -> Self {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let secret = |text: Option<SecretText>| text.filter(|text| !text.expose().is_empty());
        Self {
            grant_type: some(self.grant_type),
            scope: some(self.scope),
            client_id: some(self.client_id),
            token: secret(self.token),
            client_secret: secret(self.client_secret),
            client_assertion_type: some(self.client_assertion_type),
            client_assertion: secret(self.client_assertion),
        }
    }
}

/// Takes the one set of credentials (RFC 6749 §2.3: a client must not use more than one method).
fn credentials(req: &HttpRequest, parameters: &mut Parameters) -> Result<Credentials, OAuthError> {
    let kind = parameters.client_assertion_type.take();
    let Some(assertion) = parameters.client_assertion.take() else {
        if kind.is_some() {
            return Err(OAuthError::invalid_request("client_assertion is missing"));
        }
        return presented(req, parameters).map(Credentials::Secret);
    };
    if parameters.client_secret.is_some() || req.headers().contains_key(AUTHORIZATION) {
        return Err(OAuthError::invalid_request("Two ways of authenticating in one request"));
    }
    match kind.as_deref() {
        Some(JWT_BEARER) => {
            let client_id = parameters.client_id.take();
            Ok(Credentials::Assertion(proofs::Presented { client_id, assertion }))
        }
        Some(_) => {
            let description = "The only client_assertion_type is that of JWT bearer tokens";
            Err(OAuthError::new(OAuthErrorCode::InvalidClient, description))
        }
        None => Err(OAuthError::invalid_request("client_assertion_type is missing")),
    }
}

/// Takes an id and a secret.
fn presented(req: &HttpRequest, parameters: &mut Parameters) -> Result<Presented, OAuthError> {
    let mut headers = req.headers().get_all(AUTHORIZATION);
    let header = headers.next();
    if headers.next().is_some() {
        return Err(OAuthError::invalid_request("Authorization is given twice"));
    }
    let (id, secret) = (parameters.client_id.take(), parameters.client_secret.take());
    let Some(header) = header else {
        return match (id, secret) {
            (Some(id), Some(secret)) => Ok(Presented { id, secret }),
            _ => Err(OAuthError::invalid_client()),
        };
    };
    let basic = basic(header).ok_or_else(OAuthError::invalid_client)?;
    if secret.is_some() {
        return Err(OAuthError::invalid_request("Two ways of authenticating in one request"));
    }
    if id.is_some_and(|id| id != basic.id) {
        return Err(OAuthError::invalid_request("client_id differs from the one in Authorization"));
    }
    Ok(basic)
}

/// Parses HTTP Basic (RFC 7617) with both halves form-encoded (RFC 6749 §2.3.1). Clients disagree
/// on the encoding, which is why ids and secrets are letters and digits: they decode to themselves.
fn basic(header: &HeaderValue) -> Option<Presented> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim()).ok().map(zeroize::Zeroizing::new)?;
    let text = std::str::from_utf8(&decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some(Presented { id: form_decoded(id)?, secret: SecretText::new(form_decoded(secret)?) })
}

fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use base64::engine::general_purpose;

    use super::*;

    fn with_basic(credentials: &str) -> HttpRequest {
        let value = format!("Basic {}", general_purpose::STANDARD.encode(credentials));
        TestRequest::post().insert_header((AUTHORIZATION, value)).to_http_request()
    }

    fn read_form(req: &HttpRequest, form: &str) -> Result<(String, String), String> {
        let parsed = parse_body(Some("application/x-www-form-urlencoded"), form.as_bytes());
        let mut parameters = parsed.map_err(|error| error.to_string())?;
        let presented = presented(req, &mut parameters).map_err(|error| error.to_string())?;
        Ok((presented.id, presented.secret.expose().to_owned()))
    }

    fn pair(id: &str, secret: &str) -> (String, String) {
        (id.to_owned(), secret.to_owned())
    }

    #[test]
    fn basic_halves_are_form_decoded() {
        assert_eq!(read_form(&with_basic("ab:c1"), "").unwrap(), pair("ab", "c1"));
        assert_eq!(read_form(&with_basic("%61b:%63%31"), "").unwrap(), pair("ab", "c1"));
        assert_eq!(read_form(&with_basic("a+b:c:d"), "").unwrap(), pair("a b", "c:d"));
    }

    #[test]
    fn the_form_carries_credentials_too() {
        let bare = TestRequest::post().to_http_request();
        let form = "client_id=ab&client_secret=c1&grant_type=client_credentials&unknown=1";
        assert_eq!(read_form(&bare, form).unwrap(), pair("ab", "c1"));
    }

    #[test]
    fn two_methods_in_one_request_are_refused() {
        let error = read_form(&with_basic("ab:c1"), "client_id=ab&client_secret=c1").unwrap_err();
        assert!(error.starts_with("invalid_request"), "{error}");
        let error = read_form(&with_basic("ab:c1"), "client_id=other").unwrap_err();
        assert!(error.starts_with("invalid_request"), "{error}");
        assert!(read_form(&with_basic("ab:c1"), "client_id=ab").is_ok());
    }

    #[test]
    fn an_assertion_is_the_only_credential_of_its_request() {
        let bare = TestRequest::post().to_http_request();
        let read = |req: &HttpRequest, form: &str| {
            let parsed = parse_body(Some("application/x-www-form-urlencoded"), form.as_bytes());
            match credentials(req, &mut parsed.unwrap()) {
                Ok(Credentials::Assertion(presented)) => Ok(presented.client_id),
                Ok(Credentials::Secret(_)) => panic!("a secret"),
                Err(error) => Err(error.to_string()),
            }
        };
        let form = format!("client_assertion=a&client_assertion_type={JWT_BEARER}");
        assert_eq!(read(&bare, &form), Ok(None));
        assert_eq!(read(&bare, &format!("{form}&client_id=ab")), Ok(Some("ab".to_owned())));
        for (req, form, code) in [
            (&bare, format!("{form}&client_id=ab&client_secret=c1"), "invalid_request"),
            (&bare, format!("{form}&client_secret=c1"), "invalid_request"),
            (&with_basic("ab:c1"), form.clone(), "invalid_request"),
            (&bare, "client_assertion=a".to_owned(), "invalid_request"),
            (&bare, format!("client_assertion_type={JWT_BEARER}"), "invalid_request"),
            (&bare, "client_assertion=a&client_assertion_type=x".to_owned(), "invalid_client"),
        ] {
            let error = read(req, &form).unwrap_err();
            assert!(error.starts_with(code), "{form}: {error}");
        }
    }

    #[test]
    fn a_parameter_given_twice_is_refused_and_an_empty_one_counts_as_left_out() {
        let bare = TestRequest::post().to_http_request();
        let error = read_form(&bare, "client_id=ab&client_id=ab&client_secret=c1").unwrap_err();
        assert!(error.starts_with("invalid_request"), "{error}");
        let error = read_form(&bare, "client_id=ab&client_secret=").unwrap_err();
        assert!(error.starts_with("invalid_client"), "{error}");
        assert!(read_form(&with_basic("ab:c1"), "client_id=&client_secret=").is_ok());
        let twice = br#"{"client_id":"a","client_id":"a"}"#;
        assert!(parse_body(Some("application/json"), twice).is_err());
    }

    #[test]
    fn a_header_that_is_no_basic_authenticates_nobody() {
        for value in ["Basic", "Basic !", "Basic YWI", "Bearer x", "Digest x", "Basic /w=="] {
            let req = TestRequest::post().insert_header((AUTHORIZATION, value)).to_http_request();
            let error = read_form(&req, "client_id=ab&client_secret=c1").unwrap_err();
            assert!(error.starts_with("invalid_client"), "{value}: {error}");
        }
    }
}
