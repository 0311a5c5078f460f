//! The list with the scope matrix, and the page of one client.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::{Listed, Shown, thief};
use crate::common::scope::Scope;
use crate::console::layout::{Place, page};
use crate::console::parts::{empty, form_token, id, moment, moment_or, number, pill, row};
use crate::oauth::secrets::SecretInfo;

/// Returns the list.
#[must_use]
pub fn list(place: &Place<'_>, clients: &[Listed]) -> Markup {
    page(
        place,
        &html! {
            @if clients.is_empty() {
                (empty("There is no client yet: strongroom clients create makes one."))
            } @else {
                div.scroll tabindex="0" role="group" aria-label="Who may do what" {
                    table.matrix {
                        thead {
                            tr {
                                th { "Client" } th { "State" }
                                @for scope in Scope::ALL { th.scope { span { (scope.as_str()) } } }
                                th { "Secrets" } th { "Last used" }
                            }
                        }
                        tbody { @for listed in clients { (line(place, listed)) } }
                    }
                }
                dl.properties { @for scope in Scope::ALL { (row(scope.as_str(), &html! { (scope.describe()) })) } }
            }
        },
    )
}

fn line(place: &Place<'_>, listed: &Listed) -> Markup {
    let client = &listed.client;
    html! {
        tr {
            th scope="row" { a href=(place.at(format_args!("clients/{}", client.id))) { (client.name) } " " (id(&client.id)) }
            td { (pill(state(client.disabled_at))) }
            @for scope in Scope::ALL {
                td.has {
                    @if client.scopes.contains(scope) { span aria-label={ "may " (scope.describe()) } role="img" { "●" } }
                    @else { span.soft aria-label="no" role="img" { "·" } }
                }
            }
            td.count { (listed.secrets.len()) }
            td { (moment_or(client.last_used_at, "never")) }
        }
    }
}

const fn state(disabled: Option<OffsetDateTime>) -> &'static str {
    if disabled.is_some() { "disabled" } else { "enabled" }
}

/// Returns the page of one client.
#[must_use]
pub fn show(place: &Place<'_>, shown: &Shown) -> Markup {
    let client = &shown.client;
    page(
        place,
        &html! {
            p.lead { (pill(state(client.disabled_at))) " " (client.name) " " (id(&client.id)) }
            dl.properties {
                (row("Scopes", &html! { @for scope in Scope::ALL { @if client.scopes.contains(scope) { code { (scope.as_str()) } " " } } }))
                (row("Made", &moment(client.created_at)))
                (row("Last used", &moment_or(client.last_used_at, "never")))
                (row("Its tokens live", &html! { (number(i64::from(client.token_lifetime))) " s" }))
                (row("Reveal budget", &html! { (shown.revealed) " of " (shown.budget) " taken within this minute" }))
                (row("Proves itself by", &proves(shown)))
                @if client.bootstrap { (row("Described by", &html! { "the environment; it is changed there" })) }
            }
            (secrets(place, shown))
            (steps(shown))
            section aria-labelledby="thief" {
                h2 id="thief" { "What a thief of this client’s credentials could do" }
                ul { @for line in thief::could(client, shown.budget) { li { (line) } } }
            }
            @if place.viewer.may_administer() && !client.bootstrap { (switch(place, shown)) }
        },
    )
}

fn proves(shown: &Shown) -> Markup {
    let client = &shown.client;
    html! {
        @if !shown.secrets.is_empty() { "a secret " }
        @if client.workload.is_some() { "a workload’s tokens " }
        @else if client.jwks.is_some() || client.jwks_uri.is_some() { "keys of its own " }
        @if client.dpop_bound { "· its tokens are bound to a key" }
    }
}

fn secrets(place: &Place<'_>, shown: &Shown) -> Markup {
    html! {
        section aria-labelledby="secrets" {
            h2 id="secrets" { "Live secrets" }
            @if shown.secrets.is_empty() { (empty("None.")) } @else {
                div.scroll tabindex="0" role="group" aria-label="Live secrets" {
                    table {
                        thead { tr { th { "Secret" } th { "Made" } th { "Last used" } th { "Ends" } @if place.viewer.may_administer() { th { "End it" } } } }
                        tbody { @for secret in &shown.secrets { (secret_row(place, shown, secret)) } }
                    }
                }
            }
        }
    }
}

fn secret_row(place: &Place<'_>, shown: &Shown, secret: &SecretInfo) -> Markup {
    let end = place.at(format_args!("clients/{}/secrets/{}/end", shown.client.id, secret.id));
    html! {
        tr {
            td { (id(secret.id)) }
            td { (moment(secret.created_at)) }
            td { (moment_or(secret.last_used_at, "never")) }
            td { (moment_or(secret.expires_at, "stays")) }
            @if place.viewer.may_administer() {
                td {
                    // The last one is kept: without it the client could not come in.
                    @if shown.secrets.len() > 1 && !shown.client.bootstrap {
                        form method="post" action=(end) {
                            (form_token(place.viewer.token))
                            button.quiet type="submit" aria-label={ "End it now: " (secret.id) } { "End it now" }
                        }
                    }
                }
            }
        }
    }
}

/// Says how a secret is replaced, and how far it is.
fn steps(shown: &Shown) -> Markup {
    let two = shown.secrets.len() > 1;
    let (old, new) = (shown.secrets.first(), shown.secrets.last());
    let new_used = two && new.is_some_and(|secret| secret.last_used_at.is_some());
    let old_idle = new_used
        && old.zip(new).is_some_and(|(old, new)| {
            old.last_used_at.is_none() || old.last_used_at < new.last_used_at
        });
    let step = |done: bool, current: bool, text: &Markup| {
        html! { li class=(if done { "done" } else if current { "current" } else { "later" }) aria-current=[current.then_some("step")] { (text) } }
    };
    html! {
        section aria-labelledby="rotation" {
            h2 id="rotation" { "Replace its secret, step by step" }
            ol.steps {
                (step(two, !two, &html! {
                    "Make a second secret where it is to be used, so that no screen shows it: "
                    code { "strongroom clients rotate-secret " (shown.client.id) } "."
                }))
                (step(new_used, two && !new_used, &html! { "Give it to the client, and restart it. The new secret’s “last used” shows when it has arrived." }))
                (step(old_idle, new_used && !old_idle, &html! { "Wait until the old one is not used any more: no process still has it." }))
                (step(false, old_idle, &html! { "End the old one. It ends by itself at the time above." }))
            }
        }
    }
}

fn switch(place: &Place<'_>, shown: &Shown) -> Markup {
    let (what, label) = match shown.client.disabled_at {
        None => ("disable", "Disable it now"),
        Some(_) => ("enable", "Enable it again"),
    };
    html! {
        form.actions method="post" action=(place.at(format_args!("clients/{}/{what}", shown.client.id))) {
            (form_token(place.viewer.token))
            button type="submit" class=(if what == "disable" { "danger" } else { "" }) { (label) }
        }
    }
}
