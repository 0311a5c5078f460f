//! The life of one connection.

use std::collections::HashMap;

use maud::{Markup, html};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::ending;
use super::model::{Life, Standing, Told};
use crate::audit::{AuditEvent, Linked};
use crate::connections::model::{Connection, Status};
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, ago, countdown, empty, id, moment, moment_or, notice, number, pill, row, short_span,
};

/// Returns the page; `said` is what became of the form that led here.
#[must_use]
pub fn show(place: &Place<'_>, life: &Life, said: Option<&Markup>) -> Markup {
    let connection = &life.found.found.connection;
    page(
        place,
        &html! {
            @if let Some(said) = said { (said) }
            p.lead {
                (pill(connection.status.as_str())) " " (id(connection.id)) " of "
                a href=(place.at(format_args!("users/{}", life.found.found.user))) { (connection.client_user_id) }
            }
            (meaning(connection.status))
            (properties(place, life))
            (at_work(&life.standing, life.at))
            @if place.viewer.may_operate() { (ending::actions(place, connection)) }
            (timeline(life))
        },
    )
}

fn meaning(status: Status) -> Markup {
    let text = match status {
        Status::Pending => {
            "The code was received; no outcome is recorded. It has at most its window."
        }
        Status::Active => "The token is sealed here and usable.",
        Status::Rejected => {
            "The code was refused. Nothing is held, and nothing lives at the bank link."
        }
        Status::Expired => {
            "The code’s window closed before an exchange succeeded. Nothing is held."
        }
        Status::Orphaned => {
            "The bank link consumed the code and its answer was lost: a token may live there that nobody holds. If the answer comes late, it is used. Otherwise only the user can end it, at their bank."
        }
        Status::Revoking => {
            "Unusable here since it was revoked. The token still lives at the bank link until it confirms."
        }
        Status::Delinked => {
            "It was revoked, and the bank link confirmed that it holds nothing usable."
        }
        Status::Invalidated => {
            "The token is dead, superseded, or was given up without a confirmation."
        }
    };
    html! { p.soft { (text) } }
}

fn properties(place: &Place<'_>, life: &Life) -> Markup {
    let found = &life.found.found;
    let connection = &found.connection;
    html! {
        dl.properties {
            (row("Bank link", &html! { (connection.provider.name()) }))
            @if let Some(institution) = &connection.institution {
                (row("Bank", &html! { (institution.name.as_deref().unwrap_or(&institution.id)) }))
            }
            @if let Some(login) = &connection.login_id { (row("Bank login", &id(login))) }
            (row("User", &id(found.user)))
            (row("Received", &moment(connection.created_at)))
            @if let Some(at) = connection.code_expires_at {
                @if connection.status == Status::Pending { (row("Window", &countdown(at, life.at))) }
            }
            (row("Active since", &moment_or(connection.activated_at, "never")))
            (row("Last used", &moment_or(connection.last_used_at, "never")))
            @if let Some(client) = &found.created_by {
                (row("Client", &html! { a href=(place.at(format_args!("clients/{client}"))) { (client) } }))
            }
            (row("Exchange attempts", &html! { (number(found.exchange_attempts)) }))
            @if let Some(failure) = &connection.failure { (row("Failure", &html! { (failure.kind) }) ) }
            @if let Some(attention) = &connection.attention {
                (row("Needs its user", &html! { (attention.kind) ", since " (moment(attention.since)) }))
            }
            @if let Some(order) = found.bulk_revocation {
                (row("Incident", &html! { a href=(place.at(format_args!("incident/{order}"))) { (id(order)) } }))
            }
            @if let Some(next) = connection.replaced_by {
                (row("Replaced by", &html! { a href=(place.at(format_args!("connections/{next}"))) { (id(next)) } }))
            }
            @if let Some(of) = connection.duplicate_of {
                (row("Duplicate of", &html! { a href=(place.at(format_args!("connections/{of}"))) { (id(of)) } }))
            }
            (revocation(connection))
        }
    }
}

fn revocation(connection: &Connection) -> Markup {
    html! {
        @if let Some(revocation) = &connection.revocation {
            (row("Revoked", &html! {
                (moment(revocation.requested_at)) " (" (revocation.kind.as_str()) ")"
                @if let Some(reason) = &revocation.reason { ": " (reason) }
            }))
            (row("Confirmed", &moment_or(revocation.confirmed_at, "not by the bank link")))
            (row("Delinkings sent", &html! { (number(revocation.attempts)) }))
            @if let Some(error) = &revocation.last_error { (row("Last answer", &html! { (error) })) }
        }
    }
}

/// What is under way at this moment.
fn at_work(standing: &Standing, now: OffsetDateTime) -> Markup {
    let leased = standing.leased_until.filter(|until| *until > now);
    let idle = leased.is_none() && standing.due_at.is_none() && standing.in_call_until.is_none();
    html! {
        section aria-labelledby="work" {
            h2 id="work" { "At this moment" }
            ul.plain {
                @if let Some(until) = leased {
                    li { "A call for it is under way, under lease " (number(standing.lease_epoch)) ", which lives until " (moment(until)) "." }
                } @else if let Some(due) = standing.due_at {
                    li { "Its next call is due " (ago(due, now)) "; " (number(standing.lease_epoch)) " leases so far." }
                }
                @if standing.unanswered { li { "An attempt went unanswered: its code may be used up." } }
                @if let Some(at) = standing.released_at { li { "Its incident let it through " (ago(at, now)) "." } }
                @if let Some(until) = standing.in_call_until {
                    li { "A caller uses its token, until " (moment(until)) " at most; " (number(standing.queued)) " wait." }
                }
                @if idle { li.soft { "Nothing is under way." } }
            }
        }
    }
}

/// A moment of the timeline: a row of the trail, or an event that was told.
enum Entry<'a> {
    Row(&'a AuditEvent),
    Told(&'a Told),
}

impl Entry<'_> {
    const fn at(&self) -> OffsetDateTime {
        match self {
            Self::Row(event) => event.at,
            Self::Told(told) => told.at,
        }
    }
}

fn timeline(life: &Life) -> Markup {
    let rows = life.found.history.iter().map(Entry::Row);
    let mut entries: Vec<_> = rows.chain(life.events.iter().map(Entry::Told)).collect();
    entries.sort_by_key(Entry::at);
    let broken = life.links.values().filter(|linked| **linked == Linked::Broken).count();
    html! {
        section aria-labelledby="timeline" {
            h2 id="timeline" { "Its life" }
            @if broken > 0 {
                (notice(Notice::Danger, "The trail was changed", &html! {
                    p { (broken) " of these rows do not continue the chain: a row, its link or the one before was edited. Verify the whole chain, and compare it with a checkpoint that was kept elsewhere." }
                }))
            }
            @if entries.is_empty() { (empty("The trail has nothing about it.")) }
            @let calls = Calls::of(&life.found.history);
            ol.timeline {
                @for entry in &entries {
                    @match entry {
                        Entry::Row(event) => (happened(event, life.links.get(&event.id).copied(), &calls)),
                        Entry::Told(told) => (was_told(told)),
                    }
                }
            }
        }
    }
}

/// When the calls among some rows of the trail began, by their action and request: a call has a row before it and one after.
pub struct Calls<'a>(HashMap<(&'a str, Uuid), OffsetDateTime>);

impl<'a> Calls<'a> {
    /// Returns those of these rows.
    #[must_use]
    pub fn of(rows: &'a [AuditEvent]) -> Self {
        let begun = rows.iter().filter(|row| row.outcome == BEGUN);
        Self(
            begun
                .filter_map(|row| Some(((row.action.as_str(), row.request_id?), row.at)))
                .collect(),
        )
    }

    /// Returns how long a call took whose end this row is.
    fn took(&self, end: &AuditEvent) -> Option<Duration> {
        let began = self.0.get(&(end.action.as_str(), end.request_id?))?;
        (end.outcome != BEGUN).then(|| end.at - *began)
    }
}

/// The outcome of a call's first row.
const BEGUN: &str = "begun";

/// Returns a row of the trail as an entry of a timeline.
#[must_use]
pub fn happened(event: &AuditEvent, linked: Option<Linked>, calls: &Calls<'_>) -> Markup {
    html! {
        li class={ "entry entry-" (kind(&event.action)) } {
            div.entry-when { (moment(event.at)) }
            div.entry-what {
                strong { (event.action) } " " span.soft { (event.outcome) @if let Some(took) = calls.took(event) { " after " (short_span(took)) } }
                " by " (who(event))
                @if let Some(reason) = &event.reason { p.reason { (reason) } }
                @if let Some(request) = event.request_id { p.soft { "request " a href={ "/requests/" (request) } { (id(request)) } } }
            }
            div.entry-link { (link_state(event, linked)) }
        }
    }
}

/// Returns who acted.
#[must_use]
pub fn who(event: &AuditEvent) -> Markup {
    html! {
        @match (&event.client_id, event.session_id) {
            (Some(client), _) => { "client " (client) },
            (None, Some(session)) => { "session " (id(session)) },
            (None, None) => (event.actor),
        }
        @if let Some(ip) = &event.ip { span.soft { " from " (ip) } }
    }
}

fn link_state(event: &AuditEvent, linked: Option<Linked>) -> Markup {
    let seq = event.seq.unwrap_or_default();
    match linked {
        Some(Linked::Holds) => {
            html! { span.linked title="The link follows from this row and the one before" { "link " (seq) " holds" } }
        }
        Some(Linked::Broken) => html! { span.broken { "link " (seq) " is broken" } },
        Some(Linked::Waits) => html! { span.soft { "not linked yet" } },
        None => html! {},
    }
}

/// Returns the colour of an action: readings, ends, calls, and the rest.
fn kind(action: &str) -> &'static str {
    match action {
        "token.revealed" | "token.released" => "reading",
        "dapi.call" | "plaid.call" => "call",
        "connection.activated" | "connection.restored" | "connection.attention_cleared" => "good",
        "connection.rejected"
        | "connection.orphaned"
        | "connection.expired"
        | "token.lost"
        | "connection.attention_set" => "bad",
        "connection.delink"
        | "connection.invalidate"
        | "connection.delinked"
        | "connection.invalidated" => "end",
        _ => "plain",
    }
}

fn was_told(told: &Told) -> Markup {
    html! {
        li.entry.entry-event {
            div.entry-when { (moment(told.at)) }
            div.entry-what {
                strong { (told.kind) } span.soft { " event " (told.position) @if let Some(number) = told.sequence { ", its " (number) ". of this connection" } }
                p.soft {
                    "told to the app’s backends"
                    @if told.delivered > 0 { "; " (number(told.delivered)) " webhooks took it" }
                    @if told.outstanding > 0 { "; " (number(told.outstanding)) " have not yet" }
                }
            }
            div.entry-link {}
        }
    }
}
