//! `/sign-in`: how a session begins and ends.

pub mod oidc;
pub mod passkey;

use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use maud::html;
use serde::Deserialize;

use super::answer::Refusal;
use super::context::Console;
use super::layout::{Page, token_field};
use super::signed_in::{SignedIn, actor, cookie, no_cookie, secret};
use crate::common::secret::SecretText;
use crate::http::problem::Problem;
use crate::operators::{self, How, Redeemed, SessionSecret, passkeys};
use crate::vault::VaultError;

/// Where the sign-in leads.
#[derive(Debug, Default, Deserialize)]
pub struct Destination {
    #[serde(default)]
    to: Option<String>,
}

impl Destination {
    /// Returns a path of the console. Anything else, such as `//elsewhere.example`, becomes the start.
    fn path(&self) -> &str {
        let is_path = |to: &&str| {
            let inside = to.starts_with('/') && !to.starts_with("//");
            inside && to.chars().all(|c| c.is_ascii_graphic() && c != '\\')
        };
        self.to.as_deref().filter(is_path).unwrap_or("/")
    }
}

/// `GET /sign-in`. A one-time link leads here, with its code after the `#`.
pub async fn page(
    req: HttpRequest,
    console: web::Data<Console>,
    destination: web::Query<Destination>,
) -> HttpResponse {
    let signed_in = req.extensions().get::<SignedIn>().cloned();
    let content = html! {
        h1 { "Sign in" }
        @if let Some(signed_in) = &signed_in {
            p { "You are signed in as " strong { (signed_in.session.name) } ". What cannot be undone asks you to prove it again." }
        }
        @if console.provider.is_some() {
            // A link: `form-action` would stop a form that leads to another origin.
            p { a href=(oidc::path(destination.path())) { "Sign in with your organisation" } }
        }
        form.sign-in data-passkey data-to=(destination.path()) hidden {
            button { "Sign in with a passkey" }
            p role="status" data-status {}
        }
        form.sign-in method="post" action="/sign-in/link" data-link {
            @if let Some(signed_in) = &signed_in { (token_field(signed_in)) }
            input type="hidden" name="to" value=(destination.path());
            label for="code" { "One-time code" }
            input id="code" name="code" type="password" autocomplete="off" spellcheck="false" required;
            p.quiet { "The command " code { "strongroom operators link NAME" } " prints it. It is good for five minutes and once." }
            button { "Sign in" }
        }
    };
    let page = Page { title: "Sign in", content, signs_in: true, ..Page::of(signed_in.as_ref()) };
    page.answer()
}

/// The form of a one-time code.
#[derive(Deserialize)]
pub struct LinkForm {
    code: SecretText,
    #[serde(flatten)]
    destination: Destination,
}

/// `POST /sign-in/link`.
pub async fn by_link(
    req: HttpRequest,
    console: web::Data<Console>,
    form: web::Form<LinkForm>,
) -> Result<HttpResponse, actix_web::Error> {
    let begun = begin_by_link(&req, &console, form.code.expose()).await.map_err(Problem::from)?;
    let (secret, has_passkey) = begun.ok_or_else(|| {
        let detail = "It was used, or is older than five minutes, or a newer one was made. \
                      `strongroom operators link NAME` makes another.";
        Refusal::new(actix_web::http::StatusCode::FORBIDDEN, "This code is not good", detail)
    })?;
    let to = match form.destination.path() {
        "/" if !has_passkey => "/passkeys",
        to => to,
    };
    Ok(welcome(&secret, to))
}

/// Returns the session that begins, and whether its operator has a passkey; `None` if the code is no good.
async fn begin_by_link(
    req: &HttpRequest,
    console: &Console,
    code: &str,
) -> Result<Option<(SessionSecret, bool)>, VaultError> {
    let mut tx = console.pool.begin().await?;
    let redeemed = operators::redeem_link(&mut tx, &console.vault, code.trim()).await?;
    let Some(Redeemed(operator)) = redeemed else { return Ok(None) };
    let (before, actor) = (secret(req), actor(req, operator.name.as_str()));
    let vault = &console.vault;
    let begun =
        operators::begin(&mut tx, vault, &operator, How::Link, before.as_ref(), &actor).await?;
    let has_passkey = passkeys::has_any(&mut tx, operator.id).await?;
    tx.commit().await?;
    Ok(Some((begun, has_passkey)))
}

/// Returns the answer that begins a session in the browser.
fn welcome(secret: &SessionSecret, to: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((SET_COOKIE, cookie(secret)))
        .insert_header((LOCATION, to))
        .finish()
}

/// `POST /sign-out`.
pub async fn sign_out(
    signed_in: SignedIn,
    console: web::Data<Console>,
) -> Result<HttpResponse, Problem> {
    let mut conn = console.pool.acquire().await?;
    operators::end_session(&mut conn, &signed_in.actor, signed_in.session.session).await?;
    Ok(HttpResponse::SeeOther()
        .insert_header((SET_COOKIE, no_cookie()))
        .insert_header((LOCATION, "/sign-in"))
        .finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_a_path_of_the_console_and_nowhere_else() {
        let path = |to: &str| Destination { to: Some(to.to_owned()) }.path().to_owned();
        assert_eq!(path("/apps/x/now?a=b"), "/apps/x/now?a=b");
        for elsewhere in
            ["", "x", "//x.example", "/\\x.example", "https://x.example", "/a\r\nb", "javascript:1"]
        {
            assert_eq!(path(elsewhere), "/", "{elsewhere}");
        }
    }
}
