//! The form, the dry run, and the list of orders.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::Preview;
use super::model::Asked;
use crate::common::paging::Page;
use crate::connections::bulk_revocation::{
    BulkRevocation, DEFAULT_PER_SECOND, MAX_PER_SECOND, RevocationFilter,
};
use crate::connections::model::RevocationProgress;
use crate::console::connections::Far;
use crate::console::forms::{Invalid, Marks, reason_field, refused};
use crate::console::incident::order;
use crate::console::layout::{Place, page};
use crate::console::parts::{empty, form_token, id, moment, more, number, pill, row};

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
        &place.refused(invalid.is_some()),
        &html! {
            @if let Some(invalid) = invalid { (refused("Nothing was revoked", invalid)) }
            (form(place, asked, invalid))
        },
    )
}

fn form(place: &Place<'_>, asked: &Asked, invalid: Option<&Invalid>) -> Markup {
    let marks = |field: &str| Marks::of(invalid, field, None);
    let (kind, all) = (marks("kind"), marks("all"));
    html! {
        form.incident method="post" action=(place.at("incident/preview")) {
            (form_token(place.viewer.token))
            p.lead { "Which connections are to be revoked? The next page says how many they are and revokes nothing." }
            fieldset {
                legend { "How" }
                label { input id="kind" type="radio" name="kind" value="invalidate" checked[asked.kind != "delink"] aria-describedby=[&kind.described_by]; " Invalidate: the tokens are dead, as after a leak" }
                label { input type="radio" name="kind" value="delink" checked[asked.kind == "delink"]; " Delink: the users unlink, as when a feature ends" }
                (kind.error)
            }
            fieldset {
                legend { "Which: those for which everything holds that is given" }
                div.grid {
                    (lines("users", "Users, one in a line", &asked.users, &marks("users")))
                    (lines("connections", "Connections or bank logins, one in a line", &asked.connections, &marks("connections")))
                    (line("client", "Handed in by client", "text", &asked.client, &marks("client")))
                    (line("after", "Received at or after (UTC)", "datetime-local", &asked.after, &marks("after")))
                    (line("before", "Received before (UTC)", "datetime-local", &asked.before, &marks("before")))
                }
                div.field.check {
                    input id="all" type="checkbox" name="all" value="true" checked[asked.all == "true"] aria-invalid=[all.invalid] aria-describedby=[&all.described_by];
                    label for="all" { "every connection of this app; stands alone" }
                }
                (all.error)
            }
            (rate(&asked.rate, &Marks::of(invalid, "rate", Some("rate-help"))))
            button type="submit" { "Count them" }
        }
    }
}

fn lines(name: &str, label: &str, value: &str, marks: &Marks) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            textarea id=(name) name=(name) rows="3" spellcheck="false" aria-invalid=[marks.invalid] aria-describedby=[&marks.described_by] { (value) }
            (marks.error)
        }
    }
}

fn line(name: &str, label: &str, kind: &str, value: &str, marks: &Marks) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            input id=(name) name=(name) type=(kind) value=(value) autocomplete="off" aria-invalid=[marks.invalid] aria-describedby=[&marks.described_by];
            (marks.error)
        }
    }
}

fn rate(value: &str, marks: &Marks) -> Markup {
    html! {
        div.field {
            label for="rate" { "Delinkings a second, at most" }
            input id="rate" name="rate" type="number" min="1" max=(MAX_PER_SECOND) inputmode="numeric"
                placeholder=(DEFAULT_PER_SECOND) value=(value) aria-invalid=[marks.invalid] aria-describedby=[&marks.described_by];
            (marks.error)
            p.help id="rate-help" { "All of them are unusable here at once; this is how fast the bank link is told." }
        }
    }
}

/// Returns the dry run, with the form that carries it out, or with `waits` asks a second person to.
#[must_use]
pub fn preview(
    place: &Place<'_>,
    asked: &Asked,
    matching: &RevocationFilter,
    found: &Preview,
    seconds: i64,
    waits: bool,
    invalid: Option<&Invalid>,
) -> Markup {
    page(
        &place.refused(invalid.is_some()),
        &html! {
            @if let Some(invalid) = invalid { (refused("Nothing was revoked", invalid)) }
            section aria-labelledby="dry" {
                h2 id="dry" { "Dry run: nothing was revoked" }
                p.lead { strong { (number(found.matched)) } " connections would be revoked now." }
                dl.properties { (which(matching)) }
                @if found.matched > 0 {
                    p.soft { "At this rate the bank link is told of all of them within " (order::lasts(seconds)) ", if it answers." }
                    (sample(place, found))
                }
            }
            @if found.matched == 0 {
                p { a.button href=(place.at("incident")) { "Choose others" } }
            } @else {
                (decide(place, asked, found.matched, waits, invalid))
            }
        },
    )
}

/// Returns in words which connections are meant, as rows of a list of properties.
#[must_use]
pub fn which(matching: &RevocationFilter) -> Markup {
    let names = |label: &str, names: Option<&Vec<String>>| {
        html! { @if let Some(names) = names { (row(label, &html! { (names.join(", ")) })) } }
    };
    let time = |label: &str, at: Option<OffsetDateTime>| {
        html! { @if let Some(at) = at { (row(label, &moment(at))) } }
    };
    html! {
        @if matching.all { (row("Which", &html! { "every connection of this app" })) }
        (names("Users", matching.client_user_ids.as_ref()))
        (names("Connections", matching.connection_ids.as_ref()))
        @if let Some(client) = &matching.client_id { (row("Handed in by", &html! { (client) })) }
        (time("Received at or after", matching.created_after))
        (time("Received before", matching.created_before))
    }
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

fn decide(
    place: &Place<'_>,
    asked: &Asked,
    matched: i64,
    waits: bool,
    invalid: Option<&Invalid>,
) -> Markup {
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
                (reason_field(&asked.reason, invalid))
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
