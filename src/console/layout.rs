//! The frame of every page: head, navigation, content.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::assets::{PASSKEYS_SCRIPT, SIGN_IN_SCRIPT, STYLE};
use super::of_app::OfApp;
use super::signed_in::SignedIn;

/// A page.
#[derive(Debug)]
pub struct Page<'a> {
    /// What the browser's tab shows.
    pub title: &'a str,
    /// The operator, if one is signed in.
    pub signed_in: Option<&'a SignedIn>,
    /// The app whose page it is.
    pub app: Option<&'a OfApp>,
    /// What stands in `main`.
    pub content: Markup,
    /// Whether the page needs the scripts of the sign-in.
    pub signs_in: bool,
}

impl<'a> Page<'a> {
    /// Returns an empty page for an operator.
    #[must_use]
    pub fn of(signed_in: Option<&'a SignedIn>) -> Self {
        Self { title: "", signed_in, app: None, content: Markup::default(), signs_in: false }
    }

    /// Returns the page with the status 200.
    #[must_use]
    pub fn answer(self) -> HttpResponse {
        self.with_status(StatusCode::OK)
    }

    /// Returns the page with this status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> HttpResponse {
        let body = self.render().into_string();
        HttpResponse::build(status).content_type("text/html; charset=utf-8").body(body)
    }

    fn render(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) " · Strongroom" }
                    link rel="stylesheet" href=(STYLE.path());
                    @if self.signs_in {
                        script type="module" src=(SIGN_IN_SCRIPT.path()) {}
                        script type="module" src=(PASSKEYS_SCRIPT.path()) {}
                    }
                }
                body {
                    header { (self.navigation()) }
                    main { (self.content) }
                }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            nav {
                a href="/" { "Strongroom" }
                @if let Some(app) = self.app {
                    a href={ "/apps/" (app.id) "/now" } { (app.name) }
                }
                @if let Some(signed_in) = self.signed_in {
                    a href="/passkeys" { "Passkeys" }
                    span { (signed_in.session.name) ", " (signed_in.session.role.as_str()) }
                    form method="post" action="/sign-out" {
                        (token_field(signed_in))
                        button { "Sign out" }
                    }
                }
            }
        }
    }
}

/// The hidden field that every form of a session needs.
#[must_use]
pub fn token_field(signed_in: &SignedIn) -> Markup {
    html! { input type="hidden" name="token" value=(signed_in.form_token); }
}
