//! The frame of every page: head, navigation, content.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use time::OffsetDateTime;

use super::assets::{Asset, ICON, PAGE_SCRIPT, PASSKEYS_SCRIPT, SIGN_IN_SCRIPT, STYLE};
use super::of_app::OfApp;
use super::parts::{form_token, moment, sign_in};
use super::signed_in::SignedIn;
use crate::common::ids::AppId;
use crate::operators::Role;

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
        let scripts: &[&Asset] =
            if self.signs_in { &[&SIGN_IN_SCRIPT, &PASSKEYS_SCRIPT] } else { &[] };
        let app = self.app.map(|app| (app, None));
        answer(status, document(self.title, self.signed_in, app, scripts, &self.content))
    }
}

/// Returns a page as an answer.
#[must_use]
pub fn answer(status: StatusCode, page: Markup) -> HttpResponse {
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(page.0)
}

/// The hidden field that every form of a session needs.
#[must_use]
pub fn token_field(signed_in: &SignedIn) -> Markup {
    form_token(&signed_in.form_token)
}

/// A screen of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// What is true at this moment.
    Now,
    /// The search, and the life of one.
    Connections,
    /// Many revocations at once.
    Incident,
    /// What waits for a second person.
    Approvals,
    /// Who may do what.
    Clients,
    /// What hangs on which key.
    Keys,
    /// The trail.
    Audit,
    /// Where events are sent.
    Webhooks,
    /// Other APIs whose tokens are kept here.
    Upstreams,
}

impl Screen {
    const ALL: [(Self, &'static str, &'static str); 9] = [
        (Self::Now, "now", "Now"),
        (Self::Connections, "connections", "Connections"),
        (Self::Incident, "incident", "Incident"),
        (Self::Approvals, "approvals", "Approvals"),
        (Self::Audit, "audit", "Audit"),
        (Self::Clients, "clients", "Clients"),
        (Self::Keys, "keys", "Keys"),
        (Self::Webhooks, "webhooks", "Webhooks"),
        (Self::Upstreams, "upstreams", "Upstreams"),
    ];

    /// Returns the path of the screen that is called this, below its app's.
    #[must_use]
    pub fn path_of(name: &str) -> Option<&'static str> {
        Self::ALL.iter().find(|(_, path, _)| *path == name).map(|(_, path, _)| *path)
    }
}

/// Who looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    role: Role,
    /// What ties their forms to their session.
    pub token: &'a str,
}

impl Viewer<'_> {
    /// Whether they may revoke, pause and resolve.
    #[must_use]
    pub fn may_operate(self) -> bool {
        self.role >= Role::Operator
    }

    /// Whether they may manage clients, keys, upstreams and webhooks.
    #[must_use]
    pub fn may_administer(self) -> bool {
        self.role >= Role::Admin
    }
}

/// Where a page of an app is, and who looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    signed_in: &'a SignedIn,
    app: &'a OfApp,
    screen: Screen,
    title: &'a str,
    /// Whether the form on it could not be used.
    refused: bool,
    scripts: &'a [&'static Asset],
    /// Who looks at it.
    pub viewer: Viewer<'a>,
}

impl<'a> Place<'a> {
    /// Returns the place of a page with this title on a screen.
    #[must_use]
    pub fn new(signed_in: &'a SignedIn, app: &'a OfApp, screen: Screen, title: &'a str) -> Self {
        let viewer = Viewer { role: signed_in.session.role, token: &signed_in.form_token };
        Self { signed_in, app, screen, title, refused: false, scripts: &[], viewer }
    }

    /// Returns the same with scripts besides the one of every page.
    #[must_use]
    pub fn with(self, scripts: &'a [&'static Asset]) -> Self {
        Self { scripts, ..self }
    }

    /// Returns the same of a form that could not be used, if it could not: the browser's tab and a screen reader say so first.
    #[must_use]
    pub fn refused(self, refused: bool) -> Self {
        Self { refused, ..self }
    }

    /// Returns the path of a page of this app.
    #[must_use]
    pub fn at(&self, rest: impl std::fmt::Display) -> String {
        format!("/apps/{}/{rest}", self.app.id)
    }

    /// Returns the app's id.
    #[must_use]
    pub const fn app_id(&self) -> AppId {
        self.app.id
    }
}

/// Returns a page of an app.
#[must_use]
pub fn page(place: &Place<'_>, main: &Markup) -> Markup {
    let error = if place.refused { "Error: " } else { "" };
    let title = format!("{error}{} · {}", place.title, place.app.name);
    let content = html! { h1 { (place.title) } (main) };
    let app = Some((place.app, Some(place.screen)));
    document(&title, Some(place.signed_in), app, place.scripts, &content)
}

/// Returns a page of the deployment, which belongs to no app.
#[must_use]
pub fn plain(title: &str, signed_in: &SignedIn, main: &Markup) -> Markup {
    document(title, Some(signed_in), None, &[], &html! { h1 { (title) } (main) })
}

fn document(
    title: &str,
    signed_in: Option<&SignedIn>,
    app: Option<(&OfApp, Option<Screen>)>,
    scripts: &[&Asset],
    main: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Strongroom" }
                link rel="icon" href=(ICON.path()) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.path());
                script type="module" src=(PAGE_SCRIPT.path()) {}
                @for script in scripts { script type="module" src=(script.path()) {} }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (header(signed_in, app))
                main id="main" tabindex="-1" { (main) }
            }
        }
    }
}

fn header(signed_in: Option<&SignedIn>, app: Option<(&OfApp, Option<Screen>)>) -> Markup {
    html! {
        header.top {
            div.bar {
                a.brand href="/" { "Strongroom" }
                @if let Some((app, _)) = app { a.app href={ "/apps/" (app.id) "/now" } { (app.name) } }
                @if let Some(signed_in) = signed_in { (who(signed_in)) }
            }
            @if let Some((app, screen)) = app {
                nav.screens aria-label="Screens" {
                    @for (each, path, title) in Screen::ALL {
                        a href={ "/apps/" (app.id) "/" (path) }
                            aria-current=[(screen == Some(each)).then_some("page")] { (title) }
                    }
                }
            }
            @if let Some(signed_in) = signed_in {
                @if let Some(at) = signed_in.session.ends_soon { (ends_soon(at, signed_in)) }
            }
        }
    }
}

/// Says that the session ends within the hour, however much its operator does.
fn ends_soon(at: OffsetDateTime, signed_in: &SignedIn) -> Markup {
    html! {
        p.ends-soon {
            "This session ends at " (moment(at)) ". "
            a href=(sign_in(&signed_in.page)) { "Sign in again" } " to begin another."
        }
    }
}

fn who(signed_in: &SignedIn) -> Markup {
    html! {
        div.who {
            a href="/operators" { "Operators" }
            a href="/passkeys" { "Passkeys" }
            span { (signed_in.session.name) ", " (signed_in.session.role.as_str()) }
            form method="post" action="/sign-out" {
                (token_field(signed_in))
                button.quiet type="submit" { "Sign out" }
            }
        }
    }
}
