//! The list, and the page of one webhook.

use maud::{Markup, html};

use super::Shown;
use crate::console::layout::{Place, page};
use crate::console::parts::{
    Notice, empty, form_token, id, moment, moment_or, more, notice, number, pill, row,
};
use crate::events::endpoints::{DeliveryStatus, DisabledReason, Webhook, WebhookDelivery};

/// What became of a form that was sent from here.
#[derive(Clone, Debug)]
pub enum Done {
    /// A test event is on its way.
    Tested,
    /// So many events are sent again.
    Replayed(i64),
    /// Nothing was done, and why.
    Refused(String),
}

/// Returns the list.
#[must_use]
pub fn list(place: &Place<'_>, webhooks: &[Webhook]) -> Markup {
    page(
        place,
        &html! {
            @if webhooks.is_empty() { (empty("No webhook is registered; backends can read events by themselves.")) } @else {
                div.scroll tabindex="0" role="group" aria-label="Webhooks" {
                    table {
                        thead { tr { th { "Webhook" } th { "State" } th { "Events" } th { "Failing since" } th { "Last failure" } } }
                        tbody {
                            @for webhook in webhooks {
                                tr {
                                    td { a href=(place.at(format_args!("webhooks/{}", webhook.id))) { (webhook.url) } @if let Some(text) = &webhook.description { " " span.soft { (text) } } }
                                    td { (pill(state(webhook))) }
                                    td { (kinds(webhook)) }
                                    td { (moment_or(webhook.failing_since, "")) }
                                    td { @if let Some(error) = &webhook.last_error { (error) } }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

const fn state(webhook: &Webhook) -> &'static str {
    match webhook.disabled_reason {
        Some(DisabledReason::Requested) => "disabled",
        Some(DisabledReason::Gone) => "gone",
        Some(DisabledReason::Failing) => "failed",
        None if webhook.failing_since.is_some() => "failing",
        None => "enabled",
    }
}

fn kinds(webhook: &Webhook) -> Markup {
    html! { @match &webhook.events { None => "all", Some(kinds) => (kinds.join(", ")) } }
}

/// Returns the page of one webhook.
#[must_use]
pub fn show(place: &Place<'_>, shown: &Shown, done: Option<&Done>) -> Markup {
    let webhook = &shown.webhook;
    let next =
        shown.next.map(|before| place.at(format_args!("webhooks/{}?before={before}", webhook.id)));
    page(
        place,
        &html! {
            @if let Some(done) = done { (said(done)) }
            p.lead { (pill(state(webhook))) " " (webhook.url) }
            dl.properties {
                (row("Webhook", &id(webhook.id)))
                (row("Events", &kinds(webhook)))
                (row("Signed by", &html! { (webhook.signature.as_str()) }))
                (row("Secrets", &html! { @for secret in &webhook.secrets { div { (id(secret.id)) " made " (moment(secret.created_at)) ", ends " (moment_or(secret.expires_at, "never")) } } }))
                (row("Failing since", &moment_or(webhook.failing_since, "it does not")))
                @if let Some(error) = &webhook.last_error { (row("Last failure", &html! { (error) })) }
            }
            @if place.viewer.may_administer() && webhook.disabled_at.is_none() { (actions(place, webhook)) }
            section aria-labelledby="deliveries" {
                h2 id="deliveries" { "Deliveries" }
                @if shown.deliveries.is_empty() { (empty("None yet.")) } @else { (deliveries(&shown.deliveries)) }
                (more(next))
            }
        },
    )
}

fn said(done: &Done) -> Markup {
    match done {
        Done::Tested => notice(
            Notice::Good,
            "A test event is on its way",
            &html! { p { "Its delivery appears below." } },
        ),
        Done::Replayed(count) => notice(
            Notice::Good,
            "Sent again",
            &html! { p { (number(*count)) " events are on their way." } },
        ),
        Done::Refused(why) => notice(Notice::Danger, "Nothing was sent", &html! { p { (why) } }),
    }
}

fn actions(place: &Place<'_>, webhook: &Webhook) -> Markup {
    html! {
        section aria-labelledby="again" {
            h2 id="again" { "Send again" }
            form.filter method="post" action=(place.at(format_args!("webhooks/{}/replay", webhook.id))) {
                (form_token(place.viewer.token))
                div.field { label for="from" { "From (UTC)" } input id="from" name="from" type="datetime-local" required; }
                div.field { label for="to" { "To (UTC)" } input id="to" name="to" type="datetime-local" required; }
                div.field { button type="submit" { "Send the events of this time again" } }
            }
            form method="post" action=(place.at(format_args!("webhooks/{}/test", webhook.id))) {
                (form_token(place.viewer.token))
                button.quiet type="submit" { "Send a test event" }
            }
        }
    }
}

fn deliveries(deliveries: &[WebhookDelivery]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Deliveries" {
            table {
                thead { tr { th { "Event" } th { "State" } th { "Queued" } th { "Attempts" } th { "Last attempt" } th { "Answer" } th { "Next" } } }
                tbody {
                    @for delivery in deliveries {
                        tr {
                            td { (delivery.kind) " " (id(delivery.event_id)) }
                            td { (pill(delivery_state(delivery.status))) }
                            td { (moment(delivery.created_at)) }
                            td.count { (number(delivery.attempts)) }
                            td { (moment_or(delivery.attempted_at, "none")) }
                            td { @match (&delivery.error, delivery.answer) { (Some(error), _) => (error), (None, Some(status)) => { "HTTP " (status) }, (None, None) => "" } }
                            td { (moment_or(delivery.next_attempt_at, "")) }
                        }
                    }
                }
            }
        }
    }
}

const fn delivery_state(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Pending => "pending",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Failed => "failed",
    }
}
