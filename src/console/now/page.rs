//! The page.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::model::{Count, Database, Lived, Now, Process};
use super::store::{COUNTED, REASONS_OF};
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, ago, at_most, countdown, empty, id, moment, moment_or, notice, number, pill,
};

/// Revocations that are listed.
const LISTED: usize = 10;

/// Returns the page: the live part, and around it what says whether it is current.
#[must_use]
pub fn show(place: &Place<'_>, now: &Now) -> Markup {
    page(
        place,
        &html! {
            p.live-state id="contact" role="status" data-live=(place.at("now/live")) {
                "As of this page’s load. Reload it to look again."
            }
            div id="live" { (live(place, now)) }
        },
    )
}

/// Returns the part of the page that is sent again when something changes.
#[must_use]
pub fn live(place: &Place<'_>, now: &Now) -> Markup {
    html! {
        (process(&now.process))
        @match &now.database {
            None => (unreachable()),
            Some(database) => {
                (numbers(place, database))
                (alive(place, database))
                (in_flight(place, database))
                (orders(place, database))
                div.columns {
                    (upstreams(place, database))
                    (webhooks(place, database))
                }
                div.columns {
                    (chain(place, database))
                    (keys(place, database))
                }
            }
        }
    }
}

fn process(process: &Process) -> Markup {
    html! {
        @if process.must_not_restart() {
            (notice(Notice::Danger, "Do not restart this replica", &html! {
                p {
                    (number(process.answers_waiting)) " answers of the bank link are in its memory, because the \
                    database did not take them. They are written as soon as it does, for up to fifteen minutes. A \
                    restart loses them: the tokens in them would live on at the bank."
                }
            }))
        }
        @else {
            p.soft { "This replica has no answer of the bank link in its memory. Others are not asked here: their metric is " code { "strongroom_exchange_answers_waiting" } "." }
        }
        @if process.answers_lost > 0 {
            (notice(Notice::Warning, "Answers were lost", &html! {
                p {
                    (process.answers_lost) " answers could not be written in time since this replica started. Look \
                    for what became " i { "orphaned" } "."
                }
            }))
        }
        @for (key, cause, seconds) in &process.key_outages {
            (notice(Notice::Danger, "A master key cannot be used", &html! {
                p { (id(key)) ", for " (seconds) " s: " (cause) }
            }))
        }
    }
}

/// Returns what stands in place of what the database would say.
#[must_use]
pub fn unreachable() -> Markup {
    notice(
        Notice::Danger,
        "The database does not answer",
        &html! {
            p {
                "This replica takes no new links meanwhile. Revocations that were acknowledged are in the \
                database and are not lost. What stands above comes from this process itself."
            }
        },
    )
}

fn numbers(place: &Place<'_>, database: &Database) -> Markup {
    let in_status = |status: &str| place.at(format_args!("connections?status={status}"));
    let figure = |name: &str, url: String, bad: bool, value: &Markup, note: &Markup| {
        html! {
            a href=(url) class={ "figure" @if bad { " figure-bad" } } {
                span.figure-name { (name) }
                span.figure-value { (value) }
                span.figure-note { (note) }
            }
        }
    };
    let oldest = |count: Count| {
        html! { @if let (Some(at), true) = (count.oldest, count.total > 0) { "oldest link " (ago(at, database.at)) } }
    };
    let since = database.unconfirmed.first().map(|lived| lived.since);
    html! {
        section.figures aria-label="Numbers" {
            (figure("Alive at the bank, revoked here", in_status("revoking"), database.revoking.total > 0,
                &number(database.revoking.total),
                &html! { @if let Some(at) = since { "oldest revoked " (ago(at, database.at)) } @else { "nothing outlives its revocation" } }))
            (figure("Codes in flight", in_status("pending"), false, &number(database.pending.total), &oldest(database.pending)))
            (figure("Orphaned", in_status("orphaned"), database.orphaned.total > 0,
                &number(database.orphaned.total), &oldest(database.orphaned)))
            (figure("Need their user", place.at("connections?attention=true"), false,
                &at_most(database.attention, COUNTED), &html! {}))
            (figure("Wait for a second person", place.at("approvals"), database.approvals > 0, &number(database.approvals), &html! {}))
            (figure("Active", in_status("active"), false, &number(database.active.total), &html! {}))
        }
    }
}

fn alive(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        section aria-labelledby="alive" {
            h2 id="alive" { "Alive at the bank though revoked here" }
            @if database.unconfirmed.is_empty() {
                (empty("Nothing. Every revocation is confirmed by the bank link, or ended."))
            } @else {
                h3 { "Why" }
                ul.reasons {
                    @for (why, count) in database.reasons() {
                        li { strong { (number(i64::try_from(count).unwrap_or(i64::MAX))) } " · " (why) }
                    }
                }
                @if database.revoking.total > REASONS_OF {
                    p.soft { "Of the " (number(REASONS_OF)) " that have waited longest." }
                }
                div.scroll tabindex="0" role="group" aria-label="The longest waiting" {
                    table {
                        thead { tr { th { "Connection" } th { "Revoked" } th { "Attempts" } th { "Next" } th { "Why it lives" } } }
                        tbody { @for lived in database.unconfirmed.iter().take(LISTED) { (lived_row(place, lived, database.at)) } }
                    }
                }
                p { a href=(place.at("connections?status=revoking")) { "All of them" } }
            }
        }
    }
}

fn lived_row(place: &Place<'_>, lived: &Lived, now: OffsetDateTime) -> Markup {
    html! {
        tr {
            td { a href=(place.at(format_args!("connections/{}", lived.id))) { (id(lived.id)) } }
            td { (ago(lived.since, now)) }
            td.count { (number(lived.attempts)) }
            td {
                @if lived.under_way { "under way" }
                @else if let Some(at) = lived.due_at { (ago(at, now)) }
                @else { span.soft { "held" } }
            }
            td {
                (lived.why())
                @if let Some(order) = lived.order {
                    " " a href=(place.at(format_args!("incident/{order}"))) { "Incident" }
                }
            }
        }
    }
}

fn in_flight(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        section aria-labelledby="codes" {
            h2 id="codes" { "Codes in flight" }
            @if database.codes.is_empty() {
                (empty("None: every code that was handed in has its outcome."))
            } @else {
                div.scroll tabindex="0" role="group" aria-label="Codes in flight" {
                    table {
                        thead { tr { th { "Connection" } th { "Window" } th { "Attempts" } th { "Stands" } } }
                        tbody {
                            @for code in &database.codes {
                                tr {
                                    td { a href=(place.at(format_args!("connections/{}", code.id))) { (id(code.id)) } }
                                    td { (countdown(code.expires_at, database.at)) }
                                    td.count { (number(code.attempts)) }
                                    td {
                                        @if code.under_way { "a call is under way" }
                                        @else if let Some(at) = code.due_at { "next call " (ago(at, database.at)) }
                                        @if code.unanswered { " · " strong { "an attempt went unanswered" } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn orders(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        @if !database.orders.is_empty() {
            section aria-labelledby="incidents" {
                h2 id="incidents" { "Incidents under way" }
                ul.plain {
                    @for order in &database.orders {
                        li {
                            (pill(&order.state)) " "
                            a href=(place.at(format_args!("incident/{}", order.id))) { (order.reason) }
                            " · " (ago(order.created_at, database.at))
                            @if order.being_counted { " · in force, being counted" }
                        }
                    }
                }
            }
        }
    }
}

fn upstreams(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        section aria-labelledby="upstreams" {
            h2 id="upstreams" { "Upstreams in trouble" }
            @if database.upstreams.is_empty() { (empty("None.")) }
            ul.plain {
                @for upstream in &database.upstreams {
                    li {
                        a href=(place.at("upstreams")) { (upstream.name) } ": " (upstream.detail)
                        " " (number(upstream.failures)) " in a row, again " (ago(upstream.retry_at, database.at)) "; token until "
                        (moment_or(upstream.token_expires_at, "none is cached")) "."
                    }
                }
            }
        }
    }
}

fn webhooks(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        section aria-labelledby="webhooks" {
            h2 id="webhooks" { "Webhooks in trouble" }
            @if database.webhooks.is_empty() { (empty("None.")) }
            ul.plain {
                @for webhook in &database.webhooks {
                    li {
                        a href=(place.at(format_args!("webhooks/{}", webhook.id))) { (webhook.url) }
                        @if let Some(reason) = &webhook.disabled_reason { " is switched off (" (reason) ")" }
                        @if let Some(at) = webhook.failing_since { ", failing since " (ago(at, database.at)) }
                        @if let Some(error) = &webhook.last_error { ": " (error) }
                    }
                }
            }
        }
    }
}

fn chain(place: &Place<'_>, database: &Database) -> Markup {
    let chain = &database.chain;
    html! {
        section aria-labelledby="chain" {
            h2 id="chain" { "The trail’s chain" }
            p {
                (number(chain.seq)) " links"
                @if let Some(at) = chain.linked_at { ", the last " (ago(at, database.at)) }
                "; " (at_most(chain.waiting, COUNTED)) " rows of all apps wait for theirs. "
                a href=(place.at("audit#verify")) { "Verify it in this browser, or take a checkpoint" }
            }
        }
    }
}

fn keys(place: &Place<'_>, database: &Database) -> Markup {
    html! {
        section aria-labelledby="keys" {
            h2 id="keys" { "Keys that are due" }
            @match database.keys.may_be() {
                None => (empty("None: all keys together have not sealed a hundredth of what one key may.")),
                Some(most) => p {
                    "About " (number(most)) " values are sealed or keys wrapped, so that one of the keys may be due for \
                    rotation: " code { "strongroom keys status" } " counts them by key."
                },
            }
            @if let Some(at) = database.keys.rotating_since() {
                p { "A rotation of data keys is not finished; a step of it waits since " (moment(at)) ". " code { "strongroom keys rotate-data" } " goes on." }
            }
            p { a href=(place.at("keys")) { "The keys" } }
        }
    }
}
