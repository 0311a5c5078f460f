//! The form, the dry run, and the list of orders.

use maud::{Markup, html};

use super::Preview;
use super::model::{Asked, Invalid};
use crate::common::paging::Page;
use crate::connections::bulk_revocation::{BulkRevocation, DEFAULT_PER_SECOND, MAX_PER_SECOND};
use crate::connections::model::RevocationProgress;
use crate::console::connections::Far;
use crate::console::connections::ending::reason_field;
use crate::console::incident::order;
use crate::console::layout::{Place, page};
use crate::console::parts::{Notice, empty, form_token, id, moment, more, notice, number, pill};

/// Returns the list of the orders there were, with the way to the form.
#[must_use]
pub fn show(place: &Place<'_>, orders: &Page<BulkRevocation>) -> Markup {
    let next = orders.next.map(|cursor| place.at(format_args!("incident?cursor={cursor}")));
    page(
        place,
        &html! {
            @if place.viewer.may_operate() {
                p { a.button.danger href=(place.at("incident/new")) { "Begin an incident…" } }
                p.soft { "First it is counted and a sample shown; nothing is revoked before you give a reason." }
            } @else {
                p.soft { "An operator begins an incident here; this session may look." }
            }
            section aria-labelledby="orders" {
                h2 id="orders" { "Incidents there were" }
                @if orders.items.is_empty() { (empty("None.")) } @else { (list(place, &orders.items)) }
                (more(next))
            }
        },
    )
}

/// Returns the page with the form.
#[must_use]
pub fn form_page(place: &Place<'_>, asked: &Asked, invalid: Option<&Invalid>) -> Markup {
    page(
        place,
        &html! {
            @if let Some(invalid) = invalid {
                (notice(Notice::Danger, "Nothing was revoked", &html! {
                    p { a href={ "#" (invalid.field) } { (invalid.field) } ": " (invalid.what) }
                }))
            }
            (form(place, asked, invalid.map(|invalid| invalid.field)))
        },
    )
}

fn form(place: &Place<'_>, asked: &Asked, wrong: Option<&'static str>) -> Markup {
    let marked = |field: &str| (wrong == Some(field)).then_some("true");
    html! {
        form.incident method="post" action=(place.at("incident/preview")) {
            (form_token(place.viewer.token))
            p.lead { "Which connections are to be revoked? The next page says how many they are and revokes nothing." }
            fieldset {
                legend { "How" }
                label { input type="radio" name="kind" value="invalidate" checked[asked.kind != "delink"]; " Invalidate: the tokens are dead, as after a leak" }
                label { input type="radio" name="kind" value="delink" checked[asked.kind == "delink"]; " Delink: the users unlink, as when a feature ends" }
            }
            fieldset {
                legend { "Which: those for which everything holds that is given" }
                div.grid {
                    div.field {
                        label for="users" { "Users, one in a line" }
                        textarea id="users" name="users" rows="3" spellcheck="false" aria-invalid=[marked("users")] { (asked.users) }
                    }
                    div.field {
                        label for="connections" { "Connections or bank logins, one in a line" }
                        textarea id="connections" name="connections" rows="3" spellcheck="false" aria-invalid=[marked("connections")] { (asked.connections) }
                    }
                    (line("client", "Handed in by client", "text", &asked.client, marked("client")))
                    (line("after", "Received at or after (UTC)", "datetime-local", &asked.after, marked("after")))
                    (line("before", "Received before (UTC)", "datetime-local", &asked.before, marked("before")))
                }
                div.field.check {
                    input id="all" type="checkbox" name="all" value="true" checked[asked.all == "true"] aria-invalid=[marked("all")];
                    label for="all" { "every connection of this app; stands alone" }
                }
            }
            (rate(&asked.rate, marked("rate")))
            button type="submit" { "Count them" }
        }
    }
}

fn line(name: &str, label: &str, kind: &str, value: &str, invalid: Option<&str>) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            input id=(name) name=(name) type=(kind) value=(value) autocomplete="off" aria-invalid=[invalid];
        }
    }
}

fn rate(value: &str, invalid: Option<&str>) -> Markup {
    html! {
        div.field {
            label for="rate" { "Delinkings a second, at most" }
            input id="rate" name="rate" type="number" min="1" max=(MAX_PER_SECOND) inputmode="numeric"
                placeholder=(DEFAULT_PER_SECOND) value=(value) aria-invalid=[invalid] aria-describedby="rate-help";
            p.help id="rate-help" { "All of them are unusable here at once; this is how fast the bank link is told." }
        }
    }
}

/// Returns the dry run, with the form that carries it out, or with `waits` asks a second person to.
#[must_use]
pub fn preview(
    place: &Place<'_>,
    asked: &Asked,
    found: &Preview,
    seconds: i64,
    waits: bool,
) -> Markup {
    page(
        place,
        &html! {
            section aria-labelledby="dry" {
                h2 id="dry" { "Dry run: nothing was revoked" }
                p.lead { strong { (number(found.matched)) } " connections would be revoked now." }
                @if found.matched > 0 {
                    p.soft { "At this rate the bank link is told of all of them within " (order::lasts(seconds)) ", if it answers." }
                    (sample(place, found))
                }
            }
            @if found.matched == 0 {
                p { a.button href=(place.at("incident")) { "Choose others" } }
            } @else {
                (decide(place, asked, found.matched, waits))
            }
        },
    )
}

/// Returns the newest of what would be revoked.
pub fn sample(place: &Place<'_>, found: &Preview) -> Markup {
    html! {
        h3 { "The newest of them" }
        div.scroll tabindex="0" role="group" aria-label="The newest of them" {
            table {
                thead { tr { th { "Connection" } th { "Status" } th { "User" } th { "Received" } } }
                tbody {
                    @for connection in &found.sample {
                        tr {
                            td { a href=(place.at(format_args!("connections/{}", connection.id))) { (id(connection.id)) } }
                            td { (pill(connection.status.as_str())) }
                            td { (connection.client_user_id) }
                            td { (moment(connection.created_at)) }
                        }
                    }
                }
            }
        }
    }
}

fn decide(place: &Place<'_>, asked: &Asked, matched: i64, waits: bool) -> Markup {
    let hidden = [
        ("kind", &asked.kind),
        ("users", &asked.users),
        ("connections", &asked.connections),
        ("client", &asked.client),
        ("after", &asked.after),
        ("before", &asked.before),
        ("all", &asked.all),
        ("rate", &asked.rate),
        ("key", &asked.key),
    ];
    html! {
        section aria-labelledby="follows" {
            h2 id="follows" { "What follows" }
            @if waits {
                p { strong { "A second person has to approve this." } " Until then all of them stay usable. Send them the address of the next page; it ends after an hour." }
            }
            ul {
                li {
                    @if waits { "Once it is approved, none of them is usable any more" }
                    @else { "None of them is usable any more when the next page appears" }
                    ", nor any that matches and arrived before. This cannot be undone: these users have to link their banks again."
                }
                li { "The bank link is told in the background. Pausing stops that; it makes nothing usable again." }
            }
            form.decide method="post" action=(place.at("incident")) {
                (form_token(place.viewer.token))
                @for (name, value) in hidden { input type="hidden" name=(name) value=(value); }
                (reason_field())
                div.actions {
                    button.danger type="submit" { @if waits { "Ask to revoke " } @else { "Revoke " } (number(matched)) " connections" }
                    a.button.quiet href=(place.at("incident")) { "Leave them" }
                }
            }
        }
    }
}

fn list(place: &Place<'_>, orders: &[BulkRevocation]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Incidents" {
            table {
                thead { tr { th { "Incident" } th { "Status" } th { "Begun" } th { "By" } th { "Matched" } th { "Told" } th { "Failed" } } }
                tbody {
                    @for it in orders {
                        tr {
                            td { a href=(place.at(format_args!("incident/{}", it.id))) { (it.reason) } }
                            td { (pill(order::state(it))) }
                            td { (moment(it.created_at)) }
                            td { (it.created_by.as_deref().unwrap_or("operator")) }
                            td.count { @match it.matched { Some(matched) => (number(matched)), None => "…" } }
                            td.count { a href=(order::listed(place, it, Far::At(RevocationProgress::Told))) { (number(it.told)) } }
                            td.count { a href=(order::listed(place, it, Far::At(RevocationProgress::Failed))) { (number(it.failed)) } }
                        }
                    }
                }
            }
        }
    }
}
