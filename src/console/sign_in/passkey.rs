//! Signing in by a passkey.

use actix_web::http::StatusCode;
use actix_web::http::header::SET_COOKIE;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::Destination;
use crate::audit::record_everywhere;
use crate::console::answer::Refusal;
use crate::console::context::Console;
use crate::console::signed_in::{actor, cookie, cookie_named, secret};
use crate::http::problem::Problem;
use crate::operators::passkeys::{
    self, Assertion, CHALLENGE_MINUTES, PasskeyError, Purpose, Refused,
};
use crate::operators::{self, How, SessionSecret};
use crate::vault::{self, VaultError};

/// Binds a challenge to the browser that asked for it.
const COOKIE_NAME: &str = "__Host-strongroom-passkey";
const PREFIX: &str = "opk_";

fn binding(req: &HttpRequest) -> Option<String> {
    cookie_named(req, COOKIE_NAME).filter(|value| vault::is_token(PREFIX, value))
}

/// `POST /sign-in/passkey/begin`: what `navigator.credentials.get` is given.
pub async fn begin(console: web::Data<Console>) -> Result<HttpResponse, Problem> {
    let binding = vault::random_token(PREFIX)?;
    let purpose = Purpose::SignIn(binding.expose().to_owned());
    let mut conn = console.pool.acquire().await?;
    let challenge = passkeys::begin(&mut conn, &console.vault, &purpose).await?;
    let cookie = format!(
        "{COOKIE_NAME}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
        binding.expose(),
        CHALLENGE_MINUTES * 60
    );
    Ok(HttpResponse::Ok().insert_header((SET_COOKIE, cookie)).json(json!({
        "challenge": challenge.0, "rpId": console.party.id, "userVerification": "required",
    })))
}

/// An assertion, and where the sign-in leads.
#[derive(Deserialize)]
pub struct SignInByPasskey {
    #[serde(flatten)]
    assertion: Assertion,
    #[serde(flatten)]
    destination: Destination,
}

/// `POST /sign-in/passkey`.
pub async fn finish(
    req: HttpRequest,
    console: web::Data<Console>,
    body: web::Json<SignInByPasskey>,
) -> Result<HttpResponse, actix_web::Error> {
    let refused = |why: &Refused| {
        Refusal::new(StatusCode::FORBIDDEN, "The passkey does not sign in", why.to_string())
    };
    let purpose = binding(&req).map(Purpose::SignIn).ok_or_else(|| refused(&Refused::Challenge))?;
    match sign_in(&req, &console, &purpose, &body.assertion).await {
        Ok(begun) => Ok(HttpResponse::Ok()
            .insert_header((SET_COOKIE, cookie(&begun)))
            .json(json!({ "to": body.destination.path() }))),
        Err(Failed::Passkey(PasskeyError::Refused(why))) => Err(refused(&why).into()),
        Err(Failed::Passkey(PasskeyError::Database(error))) => Err(Problem::from(error).into()),
        Err(Failed::Vault(error)) => Err(Problem::from(error).into()),
    }
}

enum Failed {
    Passkey(PasskeyError),
    Vault(VaultError),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Passkey(error.into())
    }
}

async fn sign_in(
    req: &HttpRequest,
    console: &Console,
    purpose: &Purpose,
    assertion: &Assertion,
) -> Result<SessionSecret, Failed> {
    let (vault, party) = (&console.vault, &console.party);
    let mut tx = console.pool.begin().await?;
    let verified = passkeys::verify(&mut tx, vault, party, purpose, assertion).await;
    if let Err(PasskeyError::Refused(Refused::Counter(name))) = &verified {
        let actor = actor(req, name.as_str());
        record_everywhere(&mut tx, &actor, "operator.passkey_refused", name.as_str()).await?;
        tx.commit().await?;
        return Err(Failed::Passkey(Refused::Counter(name.clone()).into()));
    }
    let operator = verified.map_err(Failed::Passkey)?;
    let (before, actor) = (secret(req), actor(req, operator.name.as_str()));
    let how = How::Passkey;
    let begun = operators::begin(&mut tx, vault, &operator, how, before.as_ref(), &actor).await;
    let begun = begun.map_err(Failed::Vault)?;
    tx.commit().await?;
    Ok(begun)
}
