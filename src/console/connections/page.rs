//! The search.

use maud::{Markup, html};
use uuid::Uuid;

use super::model::{Age, Far, Query};
use crate::common::paging::Page;
use crate::connections::model::Status;
use crate::connections::query::search::Found;
use crate::console::fields::MAX_TEXT;
use crate::console::layout::{Place, page};
use crate::console::parts::{self, empty, id, moment, moment_or, more, pill};

/// Returns the page.
#[must_use]
pub fn show(place: &Place<'_>, query: &Query, found: &Page<Found>) -> Markup {
    let next = found
        .next
        .map(|cursor| place.at(format_args!("connections?{}", query.page(&cursor.to_string()))));
    page(
        place,
        &html! {
            @if query.incident().is_some() { (form_of_incident(place, query)) } @else { (form(place, query)) }
            @if found.items.is_empty() { (nothing(query, next.is_some())) } @else { (table(place, &found.items)) }
            (more(next))
        },
    )
}

fn nothing(query: &Query, goes_on: bool) -> Markup {
    match (goes_on, query.narrows()) {
        (true, _) => empty("None among the connections that were read so far. “Older” reads on."),
        (false, true) => html! {
            (empty("No connection matches."))
            // Bank logins are UUIDs as well, so that a request's id alone does not lead there.
            @if let Some(id) = query.text.trim().parse::<Uuid>().ok() {
                p { "If it is the id of a request: " a href={ "/requests/" (id) } { "what that request did" } "." }
            }
        },
        (false, false) => empty(
            "There is no connection yet. The first one appears when a backend hands in a result of Connect.",
        ),
    }
}

fn form(place: &Place<'_>, query: &Query) -> Markup {
    let field = |name: &str, label: &str, value: &str, hint: &str| {
        html! {
            div.field {
                label for=(name) { (label) }
                input id=(name) name=(name) value=(value) placeholder=(hint) maxlength=(MAX_TEXT)
                    autocomplete="off" spellcheck="false";
            }
        }
    };
    html! {
        form.filter method="get" action=(place.at("connections")) role="search" {
            (field("text", "Any id", &query.text, "conn_…, usr_…, ord_…, a bank login, part of a name"))
            (field("user", "User", &query.user, "the app’s own name, in full"))
            div.field {
                label for="status" { "Status" }
                select id="status" name="status" {
                    option value="" { "any" }
                    @for status in Status::ALL {
                        option value=(status.as_str()) selected[query.status() == Some(status)] { (status.as_str()) }
                    }
                }
            }
            div.field {
                label for="age" { "Age" }
                select id="age" name="age" {
                    option value="" { "any" }
                    @for age in Age::ALL {
                        option value=(age.name()) selected[query.age() == Some(age)] { (age.words()) }
                    }
                }
            }
            (field("client", "Client", &query.client, "the client that handed it in"))
            div.field.check {
                input id="attention" type="checkbox" name="attention" value="true" checked[query.attention == "true"];
                label for="attention" { "needs its user" }
            }
            div.field { button type="submit" { "Search" } }
        }
    }
}

fn form_of_incident(place: &Place<'_>, query: &Query) -> Markup {
    html! {
        @if let Some(Ok(id)) = query.incident() {
            p { "Of the incident " a href=(place.at(format_args!("incident/{id}"))) { (parts::id(id)) } "." }
        }
        form.filter method="get" action=(place.at("connections")) role="search" {
            div.field {
                label for="incident" { "Incident" }
                input id="incident" name="incident" value=(query.incident) placeholder="ord_…" maxlength=(MAX_TEXT)
                    autocomplete="off" spellcheck="false";
            }
            div.field {
                label for="progress" { "How far" }
                select id="progress" name="progress" {
                    @for far in Far::ALL {
                        option value=(far.name()) selected[query.far() == far] { (far.words()) }
                    }
                }
            }
            div.field { button type="submit" { "Search" } }
        }
        p { a href=(place.at("connections")) { "Search all connections" } }
    }
}

/// Returns connections as a table.
#[must_use]
pub fn table(place: &Place<'_>, found: &[Found]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Connections" {
            table {
                thead { tr { th { "Connection" } th { "Status" } th { "User" } th { "Received" } th { "Last used" } th { "Client" } } }
                tbody {
                    @for Found { connection, user, created_by, .. } in found {
                        tr {
                            td { a href=(place.at(format_args!("connections/{}", connection.id))) { (id(connection.id)) } }
                            td {
                                (pill(connection.status.as_str()))
                                @if let Some(attention) = &connection.attention { " " span.soft { (attention.kind) } }
                            }
                            td { a href=(place.at(format_args!("users/{user}"))) { (connection.client_user_id) } }
                            td { (moment(connection.created_at)) }
                            td { (moment_or(connection.last_used_at, "never")) }
                            td { @if let Some(client) = created_by { (client) } }
                        }
                    }
                }
            }
        }
    }
}
