//! The page.

use std::collections::HashMap;

use maud::{Markup, html};
use uuid::Uuid;

use super::Trail;
use super::query::Query;
use crate::audit::{AuditEvent, COUNTED_WAITING, Linked};
use crate::common::ids::AuditEventId;
use crate::console::connections::timeline::{Calls, happened, who};
use crate::console::layout::{Place, page, plain};
use crate::console::parts::{at_most, empty, id, moment, moment_or, more, number, row};
use crate::console::signed_in::SignedIn;

/// Returns the page.
#[must_use]
pub fn show(place: &Place<'_>, query: &Query, trail: &Trail, checkpoint: Option<&str>) -> Markup {
    let next = trail.events.next;
    let next =
        next.map(|cursor| place.at(format_args!("audit?{}", query.page(&cursor.to_string()))));
    page(
        place,
        &html! {
            (form(place, query))
            @if trail.events.items.is_empty() { (empty("No row matches.")) } @else { (rows(place, &trail.events.items)) }
            (more(next))
            (chain(place, trail, checkpoint))
        },
    )
}

fn form(place: &Place<'_>, query: &Query) -> Markup {
    let field = |name: &str, label: &str, kind: &str, value: &str| {
        html! {
            div.field {
                label for=(name) { (label) }
                input id=(name) name=(name) type=(kind) value=(value) autocomplete="off" spellcheck="false";
            }
        }
    };
    html! {
        form.filter method="get" action=(place.at("audit")) role="search" {
            (field("action", "Action", "text", &query.action))
            (field("user", "User", "text", &query.user))
            (field("connection", "Connection", "text", &query.connection))
            (field("client", "Client", "text", &query.client))
            div.field {
                label for="actor" { "By" }
                select id="actor" name="actor" {
                    option value="" { "anybody" }
                    @for actor in ["client", "session", "operator", "service"] {
                        option value=(actor) selected[query.actor == actor] { (actor) }
                    }
                }
            }
            (field("after", "From (UTC)", "datetime-local", &query.after))
            (field("before", "Before (UTC)", "datetime-local", &query.before))
            div.field { button type="submit" { "Search" } }
            div.field { button.quiet type="submit" formaction=(place.at("audit/export")) { "Export as JSON lines" } }
        }
    }
}

fn rows(place: &Place<'_>, events: &[AuditEvent]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Rows of the trail" {
            table {
                thead { tr { th { "When" } th { "What" } th { "By" } th { "On" } th { "Why" } th { "Link" } } }
                tbody {
                    @for event in events {
                        tr {
                            td { (moment(event.at)) }
                            td { strong { (event.action) } " " span.soft { (event.outcome) } }
                            td { (who(event)) }
                            td {
                                @if let Some(connection) = event.connection {
                                    a href=(place.at(format_args!("connections/{connection}"))) { (id(connection)) } " "
                                }
                                @if let Some(user) = event.user { a href=(place.at(format_args!("users/{user}"))) { (id(user)) } }
                            }
                            td {
                                @if let Some(reason) = &event.reason { (reason) " " }
                                @if let Some(request) = event.request_id { a.soft href={ "/requests/" (request) } { "request" } }
                            }
                            td.count { @match event.seq { Some(seq) => (number(seq)), None => span.soft { "waits" } } }
                        }
                    }
                }
            }
        }
    }
}

fn chain(place: &Place<'_>, trail: &Trail, checkpoint: Option<&str>) -> Markup {
    let standing = &trail.standing;
    html! {
        section.verify id="verify" aria-labelledby="chain" data-chain=(place.at("audit/links")) data-app=(place.app_id())
            data-keys="/jwks.json" {
            h2 id="chain" { "The chain" }
            dl.properties {
                (row("Links", &number(standing.seq)))
                (row("The last", &html! { (moment_or(standing.linked_at, "none yet")) " " (id(&standing.hash)) }))
                (row("Without a link", &html! { (at_most(standing.waiting, COUNTED_WAITING)) " rows of all apps wait for theirs" }))
            }
            @if let Some(checkpoint) = checkpoint {
                h3 { "Checkpoint of this moment" }
                p.soft { "Keep it where whoever can write to the database cannot." }
                textarea.jws readonly rows="4" aria-label="Checkpoint of this moment" { (checkpoint) }
            }
            h3 { "Verify it in this browser" }
            p { "The browser reads every link and computes it again with its own SHA-256. A checkpoint that you kept shows whether the chain was cut off or rewritten as a whole." }
            div.field {
                label for="kept" { "A checkpoint that you kept (optional)" }
                textarea.jws id="kept" rows="4" data-kept spellcheck="false" {}
            }
            p { button type="button" data-verify hidden { "Verify every link" } }
            p role="status" data-result { "Without script: strongroom audit verify does the same." }
            progress data-progress value="0" max=(standing.seq.max(1)) hidden aria-label="Links verified" {}
        }
    }
}

/// What one request did in one app.
#[derive(Debug)]
pub struct OfApp<'a> {
    /// The app's name.
    pub name: &'a str,
    /// The rows, oldest first.
    pub events: Vec<AuditEvent>,
    /// Whether each continues the chain.
    pub links: HashMap<AuditEventId, Linked>,
}

/// Returns the page of a request, to which a problem's `requestID` leads.
#[must_use]
pub fn request(signed_in: &SignedIn, request: Uuid, found: &[OfApp<'_>]) -> Markup {
    plain(
        "Request",
        signed_in,
        &html! {
            p.lead { (id(request)) }
            @if let Some(at) = crate::audit::time_of(request) { p { "It arrived " (moment(at)) "." } }
            @if found.is_empty() {
                (empty("The trail has nothing of it: it changed nothing and read no secret, or it is not of this deployment. The log has its line under request_id."))
            }
            @for app in found {
                section {
                    h2 { (app.name) }
                    @let calls = Calls::of(&app.events);
                    ol.timeline { @for event in &app.events { (happened(event, app.links.get(&event.id).copied(), &calls)) } }
                }
            }
        },
    )
}
