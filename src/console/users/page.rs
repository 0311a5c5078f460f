//! The page.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::model::{Goes, Person, Session, Shown};
use super::store::COUNTED;
use crate::connections::erasure::{Erasure, Receipt};
use crate::console::connections::page::table;
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, ago, at_most, countdown, empty, form_token, id, moment, moment_or, notice, number, row,
    second_person,
};

/// Returns the page. `receipt` is that of the erasure, if it is complete.
#[must_use]
pub fn show(place: &Place<'_>, shown: &Shown, receipt: Option<&Receipt>) -> Markup {
    page(
        place,
        &html! {
            p.soft { "That you looked at this page is in the trail." }
            @if let Some(erasure) = &shown.erasure { (erasure_state(shown, erasure, receipt)) }
            @match &shown.person {
                None => {},
                Some(person) => (known(place, shown, person)),
            }
        },
    )
}

fn known(place: &Place<'_>, shown: &Shown, person: &Person) -> Markup {
    html! {
        dl.properties {
            (row("Name", &html! { (person.user.client_user_id) }))
            (row("User", &id(shown.id)))
            (row("Known since", &moment(person.user.created_at)))
        }
        section aria-labelledby="links" {
            h2 id="links" { "Links" }
            @if person.links.is_empty() { (empty("None.")) } @else { (table(place, &person.links)) }
        }
        section aria-labelledby="sessions" {
            h2 id="sessions" { "Connect sessions" }
            @if person.sessions.is_empty() { (empty("None is alive.")) } @else {
                (sessions(&person.sessions, shown.at))
                @if place.viewer.may_operate() { (end_sessions(place, shown)) }
            }
        }
        @if shown.erasure.is_none() {
            section aria-labelledby="erasure" {
                h2 id="erasure" { "Erasure" }
                (preview(&person.goes))
                @if place.viewer.may_operate() {
                    p { a.button.danger href=(place.at(format_args!("users/{}/erase", shown.id))) { "Erase this person…" } }
                }
            }
        }
    }
}

fn sessions(sessions: &[Session], now: OffsetDateTime) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Connect sessions" {
            table {
                thead { tr { th { "Session" } th { "Made by" } th { "Made" } th { "Ends" } } }
                tbody {
                    @for session in sessions {
                        tr {
                            td { (id(session.id)) }
                            td { (session.created_by) }
                            td { (ago(session.created_at, now)) }
                            td { (countdown(session.expires_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

fn end_sessions(place: &Place<'_>, shown: &Shown) -> Markup {
    html! {
        form method="post" action=(place.at(format_args!("users/{}/end-sessions", shown.id))) {
            (form_token(place.viewer.token))
            button type="submit" { "End them all" }
            p.help { "A browser that holds one hands in nothing any more. Links stay as they are." }
        }
    }
}

/// Returns what an erasure destroys, and what stays.
pub fn preview(goes: &Goes) -> Markup {
    html! {
        div.columns {
            div {
                h3 { "What goes" }
                ul {
                    li { (number(goes.connections)) " connections; of " (number(goes.alive)) " of them something may live at the bank link, which is told first" }
                    li { (number(goes.sessions)) " connect sessions" }
                    li { "the data key, and with it every sealed value, in backups as well" @if let Some(key) = goes.data_key { " " (id(key)) } }
                    li { "the row that says which name belongs to the random id" }
                }
            }
            div {
                h3 { "What stays" }
                ul {
                    li { (at_most(goes.trail, COUNTED)) " rows of the trail, which have the random id alone" }
                    li { "the counts of the receipt; and for thirty days a keyed hash of the name, so that a repeated request finds its receipt" }
                }
            }
        }
    }
}

/// Returns the page that asks whether a person is to be erased; with `waits` a second person has to approve it.
#[must_use]
pub fn confirm(place: &Place<'_>, shown: &Shown, person: &Person, waits: bool) -> Markup {
    page(
        place,
        &html! {
            p.lead { (person.user.client_user_id) " · " (id(shown.id)) }
            section aria-labelledby="follows" {
                h2 id="follows" { "What follows" }
                (preview(&person.goes))
            }
            @if waits { (second_person("everything stays as it is")) }
            (notice(Notice::Danger, "This cannot be undone", &html! {
                p { "From this moment nothing of this person is usable. Once the bank link has confirmed, the key is destroyed." }
            }))
            form.decide method="post" action=(place.at(format_args!("users/{}/erase", shown.id))) {
                (form_token(place.viewer.token))
                div.actions {
                    button.danger type="submit" { @if waits { "Ask to erase this person" } @else { "Erase this person" } }
                    a.button.quiet href=(place.at(format_args!("users/{}", shown.id))) { "Leave them" }
                }
            }
        },
    )
}

fn erasure_state(shown: &Shown, erasure: &Erasure, receipt: Option<&Receipt>) -> Markup {
    html! {
        section aria-labelledby="erased" {
            h2 id="erased" { @if erasure.erased.is_some() { "Erased" } @else { "Being erased" } }
            dl.properties {
                (row("User", &id(shown.id)))
                (row("Erasure", &id(erasure.id)))
                (row("Asked for", &moment(erasure.requested_at)))
                (row("Complete", &moment_or(erasure.erased.as_ref().map(|erased| erased.at), "not yet")))
                @if erasure.erased.is_none() {
                    (row("Outstanding", &html! { (number(erasure.outstanding)) " connections live at the bank link" }))
                    @if let Some(error) = &erasure.last_error { (row("Last answer", &html! { (error) })) }
                }
                @if let Some(erased) = &erasure.erased {
                    (row("Destroyed", &html! {
                        (number(erased.connections)) " connections, " (number(erased.sealed)) " sealed values, "
                        (number(erased.sessions)) " sessions, data key " (id(erased.data_key))
                    }))
                    (row("Unconfirmed", &html! { (number(erased.unconfirmed)) " connections ended without the bank link’s confirmation" }))
                }
            }
            @if let Some(jws) = receipt.and_then(|receipt| receipt.receipt.as_deref()) { (signed(shown, jws)) }
        }
    }
}

fn signed(shown: &Shown, jws: &str) -> Markup {
    html! {
        div.verify data-receipt data-user=(shown.id) data-keys="/jwks.json" {
            h3 { "Receipt" }
            div.field {
                label for="receipt" { "A JSON Web Signature. To check one that you were given, put it here instead" }
                textarea.jws id="receipt" rows="6" spellcheck="false" { (jws) }
            }
            p { button type="button" data-verify hidden { "Verify it in this browser" } }
            p role="status" data-result { "The keys are at /.well-known/jwks.json." }
        }
    }
}
