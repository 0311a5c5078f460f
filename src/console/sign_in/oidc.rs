//! Signing in by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0 §3.1, RFC 7636).
//!
//! The browser holds one random text in a cookie. `state`, `nonce` and the code verifier follow from it, so that a
//! callback counts only in the browser that was sent away.

use actix_web::http::StatusCode;
use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Destination, welcome};
use crate::config::RoleOfClaim;
use crate::console::answer::Refusal;
use crate::console::context::Console;
use crate::console::provider::{OpenIdProvider, ProviderError};
use crate::console::signed_in::{actor, cookie_named, secret};
use crate::http::problem::Problem;
use crate::oauth::id_token::{self, Expected};
use crate::operators::passkeys::{PasskeyError, Purpose, begin as begin_challenge, consume};
use crate::operators::{
    self, FRESH_MINUTES, How, OperatorError, OperatorName, Provided, Role, SessionSecret,
};
use crate::vault;

const COOKIE_NAME: &str = "__Host-strongroom-oidc";
const PREFIX: &str = "oidc_";
/// How long ago the provider may have verified who it is, in seconds: as long as a sign-in is fresh.
const MAX_AGE: i64 = FRESH_MINUTES as i64 * 60;
const CALLBACK: &str = "/sign-in/oidc/callback";

/// Returns the path that leads to the provider, and from there to `to`.
pub(super) fn path(to: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    format!("/sign-in/oidc?{}", query.append_pair("to", to).finish())
}

/// Returns a text that follows from the browser's.
fn derived(console: &Console, what: &str, browser: &str) -> String {
    let hash = console.vault.secret_hashes().hash(&[
        b"operator oidc",
        what.as_bytes(),
        browser.as_bytes(),
    ]);
    URL_SAFE_NO_PAD.encode(hash.as_bytes())
}

fn provider_of(console: &Console) -> Result<&OpenIdProvider, Refusal> {
    console.provider.as_ref().ok_or_else(Refusal::not_found)
}

fn unavailable(error: &ProviderError) -> Refusal {
    tracing::warn!(cause = %error, "the OpenID provider's answer is of no use");
    let detail = "The OpenID provider gave no useful answer; the log says more. Try again, or ask for a one-time link.";
    Refusal::new(StatusCode::BAD_GATEWAY, "The sign-in did not work", detail)
}

fn refused(detail: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "The sign-in is refused", detail)
}

/// `GET /sign-in/oidc`: sends the browser to the provider.
pub async fn begin(
    console: web::Data<Console>,
    destination: web::Query<Destination>,
) -> Result<HttpResponse, actix_web::Error> {
    let provider = provider_of(&console)?;
    let discovered = provider.discover().await.map_err(|error| unavailable(&error))?;
    let browser = vault::random_token(PREFIX).map_err(Problem::from)?;
    let browser = browser.expose();
    let mut conn = console.pool.acquire().await.map_err(Problem::from)?;
    let purpose = Purpose::Oidc(browser.to_owned());
    let state =
        begin_challenge(&mut conn, &console.vault, &purpose).await.map_err(Problem::from)?;
    let verifier = derived(&console, "verifier", browser);
    let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
    let mut url = url::Url::parse(&discovered.authorization_endpoint)
        .map_err(|_| unavailable(&ProviderError::Url("authorization_endpoint")))?;
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.config.client_id)
        .append_pair("redirect_uri", &redirect_uri(&console))
        .append_pair("scope", "openid profile email")
        .append_pair("state", &state.0)
        .append_pair("nonce", &derived(&console, "nonce", browser))
        .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge.as_ref()))
        .append_pair("code_challenge_method", "S256")
        // A session begins with a proof of who it is, not with one of this morning; `id_token` checks the time.
        .append_pair("prompt", "login")
        .append_pair("max_age", &MAX_AGE.to_string());
    let to = URL_SAFE_NO_PAD.encode(destination.path());
    let cookie = format!(
        "{COOKIE_NAME}={browser}.{to}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=300"
    );
    Ok(HttpResponse::SeeOther()
        .insert_header((SET_COOKIE, cookie))
        .insert_header((LOCATION, url.as_str()))
        .finish())
}

fn redirect_uri(console: &Console) -> String {
    format!("{}{CALLBACK}", console.origin)
}

/// What the provider sends back with the browser (RFC 6749 §4.1.2, RFC 9207).
#[derive(Deserialize)]
pub struct Callback {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

/// `GET /sign-in/oidc/callback`.
pub async fn callback(
    req: HttpRequest,
    console: web::Data<Console>,
    query: web::Query<Callback>,
) -> Result<HttpResponse, actix_web::Error> {
    let provider = provider_of(&console)?;
    let cookie = cookie_named(&req, COOKIE_NAME).unwrap_or_default();
    let (browser, to) = cookie.split_once('.').unwrap_or_default();
    let too_late = || {
        refused(
            "The sign-in was begun in another browser, or more than five minutes ago. Begin again.",
        )
    };
    if !vault::is_token(PREFIX, browser) {
        return Err(too_late().into());
    }
    if query.iss.as_ref().is_some_and(|iss| *iss != provider.config.issuer) {
        return Err(refused("The answer is another provider's.").into());
    }
    let state = query.state.as_deref().ok_or_else(too_late)?;
    let purpose = Purpose::Oidc(browser.to_owned());
    check_state(&console, &purpose, state).await?;
    if query.error.is_some() {
        return Err(refused("The provider did not sign you in.").into());
    }
    let code = query.code.as_deref().ok_or_else(too_late)?;
    let claims = claims(&console, provider, browser, code).await?;
    let begun = sign_in(&req, &console, provider, (&purpose, state), &claims).await?;
    let to = URL_SAFE_NO_PAD.decode(to).ok().and_then(|to| String::from_utf8(to).ok());
    let mut answer = welcome(&begun, Destination { to }.path());
    let gone = format!("{COOKIE_NAME}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    if let Ok(gone) = gone.parse() {
        answer.headers_mut().append(SET_COOKIE, gone);
    }
    Ok(answer)
}

/// Checks before anything is asked of the provider that the callback is this browser's, and recent. In a transaction that
/// is rolled back: the state is used up when the session begins.
async fn check_state(
    console: &Console,
    purpose: &Purpose,
    state: &str,
) -> Result<(), actix_web::Error> {
    let mut tx = console.pool.begin().await.map_err(Problem::from)?;
    consume_state(&mut tx, console, purpose, state).await
}

async fn consume_state(
    conn: &mut crate::database::Conn,
    console: &Console,
    purpose: &Purpose,
    state: &str,
) -> Result<(), actix_web::Error> {
    let bytes = URL_SAFE_NO_PAD.decode(state).unwrap_or_default();
    match consume(conn, &console.vault, purpose, &bytes).await {
        Ok(()) => Ok(()),
        Err(PasskeyError::Refused(_)) => Err(refused(
            "The sign-in was begun in another browser, was finished before, or is older than five minutes. Begin again.",
        )
        .into()),
        Err(PasskeyError::Database(error)) => Err(Problem::from(error).into()),
    }
}

/// Exchanges the code, and verifies the ID token.
async fn claims(
    console: &Console,
    provider: &OpenIdProvider,
    browser: &str,
    code: &str,
) -> Result<(String, Map<String, Value>), actix_web::Error> {
    let discovered = provider.discover().await.map_err(|error| unavailable(&error))?;
    let verifier = derived(console, "verifier", browser);
    let uri = redirect_uri(console);
    let token = provider.exchange(&discovered, code, &uri, &verifier).await;
    let token = token.map_err(|error| unavailable(&error))?;
    let keys = provider.keys(&discovered).await.map_err(|error| unavailable(&error))?;
    let nonce = derived(console, "nonce", browser);
    let expected = Expected {
        issuer: &provider.config.issuer,
        client_id: &provider.config.client_id,
        nonce: &nonce,
        now: console.clock.unix_seconds(),
        max_age: MAX_AGE,
    };
    let outcome = id_token::verify(&keys, token.expose(), &expected);
    outcome.map_err(|why| {
        tracing::warn!(cause = %why, "an ID token is refused");
        refused(format!("The provider's ID token is refused: {why}.")).into()
    })
}

/// Returns the highest role that a claim gives.
fn role(rules: &[RoleOfClaim], claims: &Map<String, Value>) -> Option<Role> {
    let has = |rule: &RoleOfClaim| match claims.get(&rule.claim) {
        Some(Value::String(value)) => *value == rule.value,
        Some(Value::Array(values)) => values.iter().any(|it| it.as_str() == Some(&rule.value)),
        _ => false,
    };
    rules.iter().filter(|rule| has(rule)).filter_map(|rule| Role::parse(&rule.role)).max()
}

/// Returns the name that a new operator gets: the provider's name for them, if it can be one here.
fn name(claims: &Map<String, Value>) -> Option<OperatorName> {
    let candidates = ["preferred_username", "email"].into_iter().filter_map(|it| claims.get(it));
    let mut names = candidates.filter_map(Value::as_str).map(str::to_lowercase);
    names.find_map(|name| name.parse().ok())
}

async fn sign_in(
    req: &HttpRequest,
    console: &Console,
    provider: &OpenIdProvider,
    (purpose, state): (&Purpose, &str),
    (subject, claims): &(String, Map<String, Value>),
) -> Result<SessionSecret, actix_web::Error> {
    let role = role(&provider.config.roles, claims);
    let role = role.ok_or_else(|| {
        refused("The provider gives you none of the roles that STRONGROOM_OIDC_ROLES names.")
    })?;
    let mut tx = console.pool.begin().await.map_err(Problem::from)?;
    consume_state(&mut tx, console, purpose, state).await?;
    let issuer = provider.config.issuer.as_str();
    let person = Provided { issuer, subject, name: name(claims), role };
    let ensured = operators::ensure(&mut tx, &person, |name| actor(req, name.as_str())).await;
    let operator = ensured.map_err(not_ensured)?;
    let operator = operator.ok_or_else(|| refused("You are disabled here."))?;
    let (before, actor) = (secret(req), actor(req, operator.name.as_str()));
    let vault = &console.vault;
    let begun = operators::begin(&mut tx, vault, &operator, How::Oidc, before.as_ref(), &actor);
    let begun = begun.await.map_err(Problem::from)?;
    tx.commit().await.map_err(Problem::from)?;
    Ok(begun)
}

fn not_ensured(error: OperatorError) -> actix_web::Error {
    match error {
        OperatorError::Taken => refused(
            "You are new here, and your name is another operator's or cannot be an operator's name.",
        )
        .into(),
        OperatorError::Database(error) => Problem::from(error).into(),
        error => Problem::internal(error).into(),
    }
}
