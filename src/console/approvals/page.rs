//! The list, and a request with its dry run.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::effect::Effect;
use crate::approvals::{Approval, ApprovalStatus, Kind};
use crate::common::paging::Page;
use crate::config::FourEyes;
use crate::connections::bulk_revocation::{
    BulkRevocation, RequestedCancellation, RequestedRevocation,
};
use crate::console::forms::{Invalid, reason_field, refused};
use crate::console::incident::Preview;
use crate::console::incident::page::{sample, which};
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, ago, countdown, empty, form_token, id, moment, more, notice, number, pill, row,
};

/// A request as it is shown.
pub struct Shown {
    /// When it was read, by the database's clock.
    pub at: OffsetDateTime,
    pub approval: Approval,
    /// What it would do now, while it waits.
    pub effect: Option<Effect>,
    /// Whether the reader asked for it.
    pub is_own: bool,
    /// Whether the reader's role suffices to decide it.
    pub may_decide: bool,
}

impl Shown {
    fn waits(&self) -> bool {
        self.approval.status == ApprovalStatus::Pending
    }
}

/// Returns what a request asks for, in a few words.
const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::BulkRevocation => "Revoke many connections",
        Kind::Cancellation => "Give up what an incident has not delinked",
        Kind::Invalidation => "End a connection without delinking it",
        Kind::Erasure => "Erase a person",
        Kind::Operator => "Add an operator",
        Kind::Role => "Give an operator a higher role",
    }
}

/// Returns the list.
#[must_use]
pub fn list(
    place: &Place<'_>,
    found: &Page<Approval>,
    four_eyes: FourEyes,
    now: OffsetDateTime,
) -> Markup {
    let next = found.next.map(|cursor| place.at(format_args!("approvals?cursor={cursor}")));
    page(
        place,
        &html! {
            @if four_eyes.is_on() {
                p.soft { "What cannot be undone waits here for a second person, for an hour. Nothing of it is in force before." }
            } @else {
                p.soft { "Four eyes are off: nothing waits for a second person. " code { "STRONGROOM_FOUR_EYES" } " turns them on." }
            }
            @if found.items.is_empty() { (empty("Nothing waits, and nothing did in the last ninety days.")) }
            @else { (table(place, &found.items, now)) }
            (more(next))
        },
    )
}

fn table(place: &Place<'_>, found: &[Approval], now: OffsetDateTime) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Requests" {
            table {
                thead { tr { th { "Request" } th { "Status" } th { "Asked for by" } th { "Asked" } th { "Ends" } } }
                tbody {
                    @for it in found {
                        tr {
                            th scope="row" { a href=(place.at(format_args!("approvals/{}", it.id))) { (title(it.kind)) } }
                            td { (pill(it.status.as_str())) }
                            td { (it.requested_by) }
                            td { (ago(it.created_at, now)) }
                            td { @if it.status == ApprovalStatus::Pending { (countdown(it.expires_at, now)) } }
                        }
                    }
                }
            }
        }
    }
}

/// A rejection that was not taken: what was typed as its reason, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Rejection<'a> {
    pub reason: &'a str,
    pub invalid: &'a Invalid,
}

/// Returns the page of a request.
#[must_use]
pub fn show(place: &Place<'_>, shown: &Shown, rejection: Option<Rejection<'_>>) -> Markup {
    page(
        &place.refused(rejection.is_some()),
        &html! {
            @if let Some(Rejection { invalid, .. }) = rejection { (refused("Nothing was decided", invalid)) }
            (head(place, shown))
            (dry_run(place, shown))
            @if shown.waits() { (actions(place, shown, rejection)) }
        },
    )
}

/// Returns the page with the button that approves.
#[must_use]
pub fn confirm(place: &Place<'_>, shown: &Shown) -> Markup {
    let path = place.at(format_args!("approvals/{}", shown.approval.id));
    page(
        place,
        &html! {
            (head(place, shown))
            (dry_run(place, shown))
            @if shown.waits() && shown.may_decide && !shown.is_own {
                (notice(Notice::Danger, "This cannot be undone", &html! {
                    p { "Approving carries it out in the same step, as it stands here. What matches by then is affected, also if that is more than the number above." }
                }))
                form.decide method="post" action={ (path) "/approve" } {
                    (form_token(place.viewer.token))
                    div.actions {
                        button.danger type="submit" { "Approve and carry out" }
                        a.button.quiet href=(path) { "Not now" }
                    }
                }
            } @else if shown.waits() {
                (actions(place, shown, None))
            } @else {
                p { "It does not wait any more." }
            }
        },
    )
}

fn head(place: &Place<'_>, shown: &Shown) -> Markup {
    let it = &shown.approval;
    html! {
        p.lead { (pill(it.status.as_str())) " " (title(it.kind)) }
        dl.properties {
            (row("Request", &id(it.id)))
            (row("Asked for by", &html! { (it.requested_by) @if shown.is_own { " (you)" } }))
            (row("Asked", &moment(it.created_at)))
            @if shown.waits() { (row("Ends", &countdown(it.expires_at, shown.at))) }
            @if let Some(matched) = it.matched { (row("Affected then", &html! { (number(matched)) " connections" })) }
            @if let (Some(by), Some(at)) = (&it.decided_by, it.decided_at) {
                (row("Decided", &html! { (it.status.as_str()) " by " (by) ", " (moment(at)) }))
            }
            @if let Some(reason) = &it.decision_reason { (row("Why", &html! { (reason) })) }
            @if shown.effect.is_none() {
                (row("What", &html! { code.id { (it.request) } }))
                @if let Some((path, what)) = about(it) { (row("About", &html! { a href=(place.at(path)) { (what) } })) }
                @else if matches!(it.kind, Kind::Operator | Kind::Role) { (row("About", &html! { a href="/operators" { "The operators" } })) }
            }
        }
    }
}

/// Returns the page of what a request is about, below its app's, and what that is.
fn about(it: &Approval) -> Option<(String, String)> {
    let named = |field: &str| it.request.get(field)?.as_str().map(str::to_owned);
    Some(match it.kind {
        Kind::BulkRevocation if it.status == ApprovalStatus::Approved => {
            ("incident".to_owned(), "The incidents of this app".to_owned())
        }
        Kind::Cancellation => named("id").map(|id| (format!("incident/{id}"), id))?,
        Kind::Invalidation => named("id").map(|id| (format!("connections/{id}"), id))?,
        Kind::Erasure => named("user").map(|id| (format!("users/{id}"), id))?,
        Kind::BulkRevocation | Kind::Operator | Kind::Role => return None,
    })
}

fn dry_run(place: &Place<'_>, shown: &Shown) -> Markup {
    let Some(effect) = &shown.effect else {
        return html! { @if shown.waits() { (not_counted(shown)) } };
    };
    html! {
        section aria-labelledby="dry" {
            h2 id="dry" { "What it would do now" }
            @match effect {
                Effect::Revocation(asked, preview) => (revocation(place, shown, asked, preview)),
                Effect::Cancellation(asked, found) => (cancellation(place, asked, found.as_deref())),
                Effect::Invalidation(asked, found) => {
                    dl.properties {
                        (row("Connection", &html! { a href=(place.at(format_args!("connections/{}", asked.id))) { (id(asked.id)) } }))
                        (row("Status", &if let Some(it) = found { pill(it.status.as_str()) } else { html! { "gone" } }))
                        (row("Reason", &html! { (asked.reason) }))
                    }
                    p { "Its secrets are destroyed and the bank link is not told: a token may live on there, and nobody can end it any more." }
                },
                Effect::Erasure(user, found) => (erasure(&id(user), &place.at(format_args!("users/{user}")), found.as_ref())),
                Effect::Operator(asked) => {
                    p { strong { (asked.name) } " becomes an operator with the role " strong { (asked.role.as_str()) } "."
                        @if let Some(user) = &asked.os_user { " Commands of the user " code { (user) } " are theirs." } }
                },
                Effect::Role(asked, present) => {
                    p { strong { (asked.name) } " becomes " strong { (asked.role.as_str()) } ". "
                        @match present {
                            Some(it) => { "Now: " (it.role.as_str()) @if it.disabled_at.is_some() { ", disabled" } "." },
                            None => "There is no such operator any more.",
                        } }
                },
            }
        }
    }
}

/// Says that there is no dry run. The request is shown as it was asked for, and can be decided all the same.
fn not_counted(shown: &Shown) -> Markup {
    notice(
        Notice::Warning,
        "What it would do now could not be counted in time",
        &html! {
            p {
                "The request above is whole, and approving carries it out. "
                @if let Some(matched) = shown.approval.matched {
                    "It affected " (number(matched)) " connections when it was asked for. "
                }
                "Load this page again for another try."
            }
        },
    )
}

fn revocation(
    place: &Place<'_>,
    shown: &Shown,
    asked: &RequestedRevocation,
    preview: &Preview,
) -> Markup {
    html! {
        p.lead { strong { (number(preview.matched)) } " connections would be revoked now." }
        @if shown.approval.matched.is_some_and(|then| preview.matched > then) {
            (notice(Notice::Warning, "More than when it was asked for", &html! {
                p { "It was asked for when it matched " (number(shown.approval.matched.unwrap_or_default())) "." }
            }))
        }
        dl.properties {
            (row("How", &html! { (asked.kind().map_or("unknown", crate::connections::model::RevocationKind::as_str)) }))
            (row("Reason", &html! { (asked.reason) }))
            (which(&asked.filter))
            (row("Delinkings a second", &html! { (number(asked.per_second)) }))
        }
        @if preview.matched > 0 { (sample(place, preview)) }
    }
}

fn cancellation(
    place: &Place<'_>,
    asked: &RequestedCancellation,
    found: Option<&BulkRevocation>,
) -> Markup {
    html! {
        dl.properties { (row("Reason", &html! { (asked.reason.as_deref().unwrap_or("none was given")) })) }
        @match found {
            None => p { "The incident is gone." },
            Some(it) => {
                p.lead { strong { (number(it.telling + it.waiting)) } " tokens would be given up: they may live on at the bank link, and nobody can end them any more." }
                p { "Of the incident " a href=(place.at(format_args!("incident/{}", it.id))) { (it.reason) } "." }
            },
        }
    }
}

fn erasure(
    user: &Markup,
    path: &str,
    found: Option<&(String, crate::console::users::Goes)>,
) -> Markup {
    html! {
        @match found {
            None => p { "The user " (user) " is gone already." },
            Some((name, goes)) => {
                p.lead { a href=(path) { (name) } " · " (user) }
                (crate::console::users::page::preview(goes))
                p.soft { "That you looked at this is in the trail, as opening the person’s page is." }
            },
        }
    }
}

fn actions(place: &Place<'_>, shown: &Shown, rejection: Option<Rejection<'_>>) -> Markup {
    let path = place.at(format_args!("approvals/{}", shown.approval.id));
    html! {
        @if !place.viewer.may_operate() {
            p.soft { "This session may look." }
        } @else {
            @if shown.is_own {
                p { "You asked for it: somebody else has to approve." }
                form method="post" action={ (path) "/withdraw" } {
                    (form_token(place.viewer.token))
                    button type="submit" { "Withdraw it" }
                }
            } @else if shown.may_decide {
                p { a.button.danger href={ (path) "/approve" } { "Approve…" } }
            } @else {
                p { "An admin decides who the operators are." }
            }
            @if shown.may_decide {
                form.decide method="post" action={ (path) "/reject" } {
                    (form_token(place.viewer.token))
                    (reason_field(rejection.map_or("", |it| it.reason), rejection.map(|it| it.invalid)))
                    button type="submit" { "Reject it" }
                }
            }
        }
    }
}
