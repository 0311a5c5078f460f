//! The page.

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::console::layout::{Place, page};
use crate::console::parts::{ago, empty, number, pill, row};
use crate::upstreams::model::Upstream;

/// Returns the page. `now` is the database's time.
#[must_use]
pub fn list(place: &Place<'_>, upstreams: &[Upstream], now: OffsetDateTime) -> Markup {
    page(
        place,
        &html! {
            @if upstreams.is_empty() { (empty("None: strongroom upstreams add describes another API whose tokens are to be kept here.")) }
            @for upstream in upstreams { (one(upstream, now)) }
        },
    )
}

fn one(upstream: &Upstream, now: OffsetDateTime) -> Markup {
    let usable = upstream.token.as_ref().is_some_and(|token| token.expires_at > now);
    let state = match (&upstream.failure, usable) {
        (Some(_), false) => "failed",
        (Some(_), true) => "failing",
        (None, true) => "enabled",
        (None, false) => "idle",
    };
    html! {
        section.card {
            h2 { (upstream.name) " " (pill(state)) }
            dl.properties {
                (row("Tokens from", &html! { (upstream.token_url) }))
                (row("As", &html! { (upstream.client_id) }))
                @if let Some(url) = &upstream.base_url { (row("Calls go to", &html! { (url) })) }
                @match &upstream.token {
                    None => (row("Token", &html! { "none was fetched yet" })),
                    Some(token) => (row("Token", &html! {
                        "fetched " (ago(token.fetched_at, now)) ", fetched anew " (ago(token.refresh_at, now)) ", ends " (ago(token.expires_at, now))
                    })),
                }
                @if let Some(failure) = &upstream.failure {
                    (row("Fails", &html! {
                        (failure.detail) " " (number(failure.attempts)) " in a row"
                        @if let Some(code) = &failure.oauth_error { ", " code { (code) } }
                        "; again " (ago(failure.retry_at, now))
                    }))
                }
            }
        }
    }
}
