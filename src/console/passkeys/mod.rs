//! `/passkeys`: an operator's own passkeys.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Refusal, see_other};
use super::context::Console;
use super::layout::{Page, token_field};
use super::parts::moment;
use super::signed_in::SignedIn;
use crate::http::problem::Problem;
use crate::operators::OperatorError;
use crate::operators::passkeys::{self, Enrolment, Passkey, PasskeyError, Purpose};

/// `GET /passkeys`.
pub async fn page(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    let operator = signed_in.session.operator;
    let passkeys = passkeys::list(&mut console.pool.acquire().await?, operator).await?;
    let content = html! {
        h1 { "Your passkeys" }
        @if passkeys.is_empty() {
            p { "You have none yet. With one you sign in without a link from the command line." }
        } @else {
            ul { @for passkey in &passkeys { (item(passkey, &signed_in)) } }
        }
        form.sign-in data-enrol hidden {
            (token_field(&signed_in))
            label for="label" { "Name of the new passkey" }
            input id="label" name="label" maxlength=(passkeys::MAX_LABEL) required placeholder="Laptop";
            button { "Add a passkey" }
            p role="status" data-status {}
        }
        noscript { p { "Passkeys need JavaScript." } }
        p { a href="/" { "To the start" } }
    };
    let page = Page { title: "Passkeys", content, signs_in: true, ..Page::of(Some(&signed_in)) };
    Ok(page.answer())
}

fn item(passkey: &Passkey, signed_in: &SignedIn) -> Markup {
    html! {
        li {
            strong { (passkey.label) }
            " added " (moment(passkey.created_at))
            @if let Some(at) = passkey.last_used_at { ", last used " (moment(at)) }
            form method="post" action="/passkeys/remove" {
                (token_field(signed_in))
                input type="hidden" name="id" value=(URL_SAFE_NO_PAD.encode(&passkey.id));
                button aria-label={ "Remove " (passkey.label) } { "Remove" }
            }
        }
    }
}

/// `POST /passkeys/begin`: what `navigator.credentials.create` is given.
pub async fn begin(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    let session = &signed_in.session;
    let mut conn = console.pool.acquire().await?;
    let purpose = Purpose::Enrol(session.session);
    let challenge = passkeys::begin(&mut conn, &console.vault, &purpose).await?;
    let known = passkeys::list(&mut conn, session.operator).await?;
    let known = known
        .iter()
        .map(|it| json!({ "type": "public-key", "id": URL_SAFE_NO_PAD.encode(&it.id) }));
    Ok(HttpResponse::Ok().json(json!({
        "challenge": challenge.0,
        "rp": { "id": console.party.id, "name": "Strongroom" },
        "user": {
            "id": URL_SAFE_NO_PAD.encode(session.operator.uuid().as_bytes()),
            "name": session.name,
            "displayName": session.name,
        },
        "pubKeyCredParams": [
            { "type": "public-key", "alg": -7 },
            { "type": "public-key", "alg": -8 },
        ],
        "attestation": "none",
        "authenticatorSelection": { "residentKey": "required", "userVerification": "required" },
        "excludeCredentials": known.collect::<Vec<_>>(),
    })))
}

/// `POST /passkeys/finish`.
pub async fn finish(
    signed_in: SignedIn,
    console: web::Data<Console>,
    enrolment: web::Json<Enrolment>,
) -> Result<HttpResponse, actix_web::Error> {
    let (session, vault, party) = (&signed_in.session, &console.vault, &console.party);
    let purpose = Purpose::Enrol(session.session);
    let mut conn = console.pool.acquire().await.map_err(Problem::from)?;
    let (who, actor) = ((session.operator, &session.name), &signed_in.actor);
    let enrolled = passkeys::enrol(&mut conn, vault, party, &purpose, who, actor, &enrolment).await;
    match enrolled {
        Ok(()) => Ok(HttpResponse::NoContent().finish()),
        Err(PasskeyError::Refused(why)) => {
            let title = "The passkey was not added";
            Err(Refusal::new(StatusCode::BAD_REQUEST, title, why.to_string()).into())
        }
        Err(PasskeyError::Database(error)) => Err(Problem::from(error).into()),
    }
}

/// The form that removes a passkey.
#[derive(Deserialize)]
pub struct Remove {
    id: String,
}

/// `POST /passkeys/remove`.
pub async fn remove(
    signed_in: SignedIn,
    console: web::Data<Console>,
    form: web::Form<Remove>,
) -> Result<HttpResponse, actix_web::Error> {
    let id = URL_SAFE_NO_PAD.decode(&form.id).map_err(|_| Refusal::not_found())?;
    let mut conn = console.pool.acquire().await.map_err(Problem::from)?;
    let who = (signed_in.session.operator, &signed_in.session.name);
    match passkeys::remove_recorded(&mut conn, who, &signed_in.actor, &id).await {
        Ok(true) => Ok(see_other("/passkeys")),
        Ok(false) => Err(Refusal::not_found().into()),
        Err(OperatorError::Database(error)) => Err(Problem::from(error).into()),
        Err(error) => Err(Problem::internal(error).into()),
    }
}
