//! One order: how far it is, pause and resume, and the page that asks whether to cancel it.

use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use crate::connections::bulk_revocation::{BulkRevocation, BulkRevocationStatus, ERRORS_COUNTED};
use crate::connections::model::RevocationProgress;
use crate::console::connections::Far;
use crate::console::forms::{Invalid, reason_field, refused};
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, form_token, id, moment, moment_or, notice, number, pill, row, second_person, span,
};

/// Returns the page, which updates itself as Now does.
#[must_use]
pub fn show(place: &Place<'_>, order: &BulkRevocation, now: OffsetDateTime) -> Markup {
    page(
        place,
        &html! {
            p.live-state id="contact" role="status" data-live=(place.at(format_args!("incident/{}/live", order.id))) {
                "As of this page’s load. Reload it to look again."
            }
            div id="live" { (live(place, order, now)) }
            p.soft { "The address of this page can be pasted into the incident’s chat: whoever may sign in gets here." }
            (properties(order))
        },
    )
}

/// Returns what stands in place of the numbers if there is no such order any more.
#[must_use]
pub fn gone() -> Markup {
    let words = "Its retention is over, or its app is gone.";
    notice(Notice::Warning, "There is no such incident any more", &html! { p { (words) } })
}

/// Returns what stands in place of the numbers if they could not be read. Not that the database is down:
/// nobody is to fail over a database for one reading that took too long.
#[must_use]
pub fn not_read() -> Markup {
    notice(
        Notice::Warning,
        "The numbers could not be read in time",
        &html! {
            p {
                "What was revoked stays revoked, and the work goes on. They are read again by themselves. Whether the \
                database answers at all is said on Now."
            }
        },
    )
}

/// Returns the part of the page that is sent again when something changes.
#[must_use]
pub fn live(place: &Place<'_>, order: &BulkRevocation, now: OffsetDateTime) -> Markup {
    let left = order.telling + order.waiting;
    html! {
        p.lead { (pill(state(order))) " " (order.reason) }
        @match order.matched {
            None => p { "In force: nothing that it matches is usable. They are being counted." },
            Some(matched) => (progress(order, matched)),
        }
        (figures(place, order))
        @if order.status == BulkRevocationStatus::Running && left > 0 {
            p { (number(order.per_second)) " a second; about " (lasts(remaining(order, now))) " are left, if the bank link answers." }
        }
        @if order.status == BulkRevocationStatus::Paused && left > 0 {
            (notice(Notice::Warning, "Paused", &html! {
                p { (number(left)) " tokens live at the bank link and are unusable here. Nothing is sent until it is resumed." }
            }))
        }
        @if order.status == BulkRevocationStatus::Cancelled && order.failed > 0 {
            (notice(Notice::Warning, "Cancelled", &html! {
                p { (number(order.failed)) " ended without the bank link’s confirmation. What was held of them here is destroyed: their tokens may live on at the bank, and nobody can end them from here." }
                p { a href=(listed(place, order, Far::At(RevocationProgress::Failed))) { "Which they are" } }
            }))
        }
        @if !order.errors.is_empty() {
            h2 { "What the bank link answers instead of confirming" }
            ul.reasons { @for error in &order.errors { li { strong { (number(error.count)) } " · " (error.error) } } }
            p.soft { "Of the " (number(ERRORS_COUNTED)) " oldest that are not confirmed." }
        }
        @if place.viewer.may_operate() { (actions(place, order)) }
    }
}

fn figures(place: &Place<'_>, order: &BulkRevocation) -> Markup {
    let figure = |name: &str, count: i64, far: Far, note: &str| {
        html! {
            a.figure href=(listed(place, order, far)) {
                span.figure-name { (name) }
                span.figure-value { (number(count)) }
                span.figure-note { (note) }
            }
        }
    };
    let at = |progress: RevocationProgress| Far::At(progress);
    html! {
        section.figures aria-label="Progress" {
            (figure("Told", order.told, at(RevocationProgress::Told), "certain that nothing usable is left"))
            (figure("Failed", order.failed, at(RevocationProgress::Failed), "ended without that certainty"))
            (figure("Being told", order.telling, at(RevocationProgress::Telling), "with those that are tried again"))
            (figure("Waiting", order.waiting, at(RevocationProgress::Waiting), "held until the rate allows them"))
            (figure("Live at the bank", order.telling + order.waiting, Far::Live, "unusable here"))
        }
    }
}

/// Returns the address of the list of its connections that are this far.
#[must_use]
pub fn listed(place: &Place<'_>, order: &BulkRevocation, far: Far) -> String {
    place.at(format_args!("connections?incident={}&progress={}", order.id, far.name()))
}

fn progress(order: &BulkRevocation, matched: i64) -> Markup {
    let ended = order.told + order.failed;
    html! {
        label for="progress" { (number(ended)) " of " (number(matched)) " have ended" }
        progress id="progress" max=(matched.max(1)) value=(ended.min(matched.max(1))) {}
    }
}

/// Returns its status, as a pill has it.
#[must_use]
pub const fn state(order: &BulkRevocation) -> &'static str {
    match order.status {
        BulkRevocationStatus::Running => "running",
        BulkRevocationStatus::Paused => "paused",
        BulkRevocationStatus::Cancelled => "cancelled",
        BulkRevocationStatus::Done => "done",
    }
}

/// Returns how many seconds the rest takes: by the rate at which connections ended so far, or by the order's own if none has.
fn remaining(order: &BulkRevocation, now: OffsetDateTime) -> i64 {
    let left = order.telling + order.waiting;
    let (ended, passed) =
        (order.told + order.failed, (now - order.created_at).whole_seconds().max(1));
    let by_rate = left / i64::from(order.per_second).max(1);
    if ended == 0 { by_rate } else { by_rate.max(left.saturating_mul(passed) / ended) }
}

/// Returns a number of seconds as a length of time.
#[must_use]
pub fn lasts(seconds: i64) -> String {
    span(Duration::seconds(seconds.max(1)))
}

fn actions(place: &Place<'_>, order: &BulkRevocation) -> Markup {
    let button = |what: &str, label: &str| {
        html! {
            form method="post" action=(place.at(format_args!("incident/{}/{what}", order.id))) {
                (form_token(place.viewer.token))
                button type="submit" { (label) }
            }
        }
    };
    html! {
        @if order.status.may_be_cancelled() {
            div.actions {
                @if order.status == BulkRevocationStatus::Paused { (button("resume", "Resume")) }
                @else { (button("pause", "Pause")) }
                a.button.danger href=(place.at(format_args!("incident/{}/cancel", order.id))) { "Give up the rest…" }
            }
        }
    }
}

/// Returns the page that asks whether what has no confirmation is to be given up, and says what that leaves at the bank; with
/// `waits` a second person has to approve it.
#[must_use]
pub fn confirm_cancel(
    place: &Place<'_>,
    order: &BulkRevocation,
    waits: bool,
    reason: &str,
    invalid: Option<&Invalid>,
) -> Markup {
    let back = place.at(format_args!("incident/{}", order.id));
    page(
        &place.refused(invalid.is_some()),
        &html! {
            @if let Some(invalid) = invalid { (refused("Nothing was given up", invalid)) }
            p.lead { (pill(state(order))) " " (order.reason) }
            @if order.status.may_be_cancelled() {
                (left_by_cancelling(order))
                @if waits { (second_person("the incident goes on")) }
                form.decide method="post" action={ (back) "/cancel" } {
                    (form_token(place.viewer.token))
                    (reason_field(reason, invalid))
                    div.actions {
                        button.danger type="submit" { @if waits { "Ask to give up the rest" } @else { "Give up the rest" } }
                        a.button.quiet href=(back) { "Go on with it" }
                    }
                }
            } @else {
                p { "It has ended: there is nothing left to give up." }
                p { a.button.quiet href=(back) { "Back to it" } }
            }
        },
    )
}

fn left_by_cancelling(order: &BulkRevocation) -> Markup {
    html! {
        section aria-labelledby="follows" {
            h2 id="follows" { "What follows" }
            p.lead { strong { (number(order.telling + order.waiting)) } " tokens live at the bank link at this moment, and would be given up." }
            ul {
                @if order.matched.is_none() { li { "Not all that it matches is counted yet: it may be more." } }
                li { strong { "The bank link is not told of them any more." } " What is held here is destroyed at once, so that nobody can end these tokens from here. They may live on at the bank; the bank link can end their logins there, and so can the users." }
                li { "Nothing becomes usable again: also those users have to link their banks again." }
                li { (number(order.told)) " are confirmed, and stay so." }
                li { "They are recorded as invalidated without a confirmation, which is counted as such and raises an alert. This cannot be undone." }
            }
            (notice(Notice::Warning, "To stop for now, pause", &html! {
                p { "Pausing keeps the tokens sealed, so that they can be delinked later." }
            }))
        }
    }
}

fn properties(order: &BulkRevocation) -> Markup {
    html! {
        dl.properties {
            (row("Incident", &id(order.id)))
            (row("How", &html! { (order.kind.as_str()) }))
            (row("Which", &html! { code.id { (order.filter) } }))
            (row("Begun", &moment(order.created_at)))
            (row("By", &html! { (order.created_by.as_deref().unwrap_or("operator")) }))
            (row("Ended", &moment_or(order.finished_at, "not yet")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::common::ids::BulkRevocationId;
    use crate::connections::model::RevocationKind;

    #[test]
    fn the_rest_is_estimated_by_what_was_reached_and_never_faster_than_the_rate() {
        let began = datetime!(2026-11-27 12:00 UTC);
        let mut order = BulkRevocation {
            id: BulkRevocationId::new(),
            status: BulkRevocationStatus::Running,
            kind: RevocationKind::Invalidate,
            reason: "leak".to_owned(),
            filter: json!({ "all": true }),
            per_second: 10,
            created_by: None,
            created_at: began,
            finished_at: None,
            matched: Some(1000),
            told: 0,
            failed: 0,
            telling: 0,
            waiting: 1000,
            errors: Vec::new(),
        };
        assert_eq!(remaining(&order, began), 100);
        (order.told, order.waiting) = (100, 900);
        assert_eq!(remaining(&order, began + Duration::seconds(50)), 450);
        assert_eq!(remaining(&order, began + Duration::seconds(5)), 90);
    }
}
