//! The ways to end a connection, the page that says what follows before anything is done, and what is said afterwards.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use maud::{Markup, html};

use crate::connections::model::{Connection, RevocationKind, Status};
use crate::console::forms::{Invalid, reason_field, refused};
use crate::console::layout::{Place, page};
use crate::console::parts::{Notice, form_token, id, notice, pill, second_person};
use crate::console::refusal::Refusal;

/// A way to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if its user had unlinked it.
    Delink,
    /// It is declared dead.
    Invalidate,
    /// It is declared dead, and the bank link is not told: `revokeUpstream: false`.
    GiveUp,
}

impl Ending {
    const ALL: [Self; 3] = [Self::Delink, Self::Invalidate, Self::GiveUp];

    /// Returns its path below the connection's.
    const fn path(self) -> &'static str {
        match self {
            Self::Delink => "delink",
            Self::Invalidate => "invalidate",
            Self::GiveUp => "give-up",
        }
    }

    /// Returns the title of its page.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Delink => "Delink a connection",
            Self::Invalidate => "Invalidate a connection",
            Self::GiveUp => "Give up a connection",
        }
    }

    /// Returns how the connection is revoked at the bank link; `None` if that is not told.
    #[must_use]
    pub const fn told(self) -> Option<RevocationKind> {
        match self {
            Self::Delink => Some(RevocationKind::Delink),
            Self::Invalidate => Some(RevocationKind::Invalidate),
            Self::GiveUp => None,
        }
    }

    /// Whether it changes anything about a connection in this status. One that is being delinked can only be given up.
    #[must_use]
    pub const fn applies_to(self, status: Status) -> bool {
        match status {
            Status::Pending | Status::Active => true,
            Status::Revoking => matches!(self, Self::GiveUp),
            _ => false,
        }
    }
}

/// The last segment of a route's path says which.
impl FromRequest for Ending {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let last = req.path().rsplit('/').next();
        let found = Self::ALL.into_iter().find(|ending| Some(ending.path()) == last);
        ready(found.ok_or_else(Refusal::not_found))
    }
}

/// Returns the links to the pages that ask; nothing if the connection has ended.
pub fn actions(place: &Place<'_>, connection: &Connection) -> Markup {
    let link = |ending: Ending, class: &str, label: &str| {
        let path = place.at(format_args!("connections/{}/{}", connection.id, ending.path()));
        html! {
            @if ending.applies_to(connection.status) { a class=(class) href=(path) { (label) } }
        }
    };
    html! {
        @if Ending::GiveUp.applies_to(connection.status) {
            section aria-labelledby="actions" {
                h2 id="actions" { "End it" }
                div.actions {
                    (link(Ending::Delink, "button", "Delink…"))
                    (link(Ending::Invalidate, "button danger", "Invalidate…"))
                    (link(Ending::GiveUp, "button danger", "End it without telling the bank…"))
                }
            }
        }
    }
}

/// Returns the page that asks whether a connection is to be ended, and says what follows; with `waits` a second person has to
/// approve it.
#[must_use]
pub fn confirm(
    place: &Place<'_>,
    connection: &Connection,
    ending: Ending,
    waits: bool,
    reason: &str,
    invalid: Option<&Invalid>,
) -> Markup {
    let back = place.at(format_args!("connections/{}", connection.id));
    page(
        &place.refused(invalid.is_some()),
        &html! {
            @if let Some(invalid) = invalid { (refused("Nothing was done", invalid)) }
            p.lead { (pill(connection.status.as_str())) " " (id(connection.id)) " of " (connection.client_user_id) }
            @if ending.applies_to(connection.status) {
                (follows(connection.status, ending))
                @if waits { (second_person("everything stays as it is")) }
                (form(place, ending, &back, waits, &reason_field(reason, invalid)))
            } @else {
                p { @if connection.status == Status::Revoking { "It is revoked already, and the bank link is told of it." } @else { "It has ended already." } }
                p { a.button.quiet href=(back) { "Back to it" } }
            }
        },
    )
}

fn follows(status: Status, ending: Ending) -> Markup {
    html! {
        section aria-labelledby="follows" {
            h2 id="follows" { "What follows" }
            ul {
                @if status == Status::Revoking {
                    li { "It has been unusable here since it was revoked, and stays so." }
                } @else {
                    li { "From this moment no backend reads the token and no call uses it. This cannot be undone: the user has to link the bank again." }
                }
                @match ending {
                    Ending::Delink => {
                        (told_until_confirmed())
                        li { "It is recorded as unlinked, as if its user had asked for it." }
                    },
                    Ending::Invalidate => {
                        (told_until_confirmed())
                        li { "It is recorded as dead, with your reason: for a stolen device, a leak, a token that nobody should have." }
                    },
                    Ending::GiveUp => {
                        li { strong { "The bank link is not told." } " What is held here is destroyed at once, so that nobody can end the token from here any more. It may live on at the bank; the bank link can end its login there, and so can the user." }
                        li { "It is recorded as invalidated without a confirmation, which is counted as such and raises an alert." }
                    },
                }
                li { "The app’s backends get an event." }
            }
            @if ending == Ending::GiveUp {
                (notice(Notice::Warning, "Only for what can never be confirmed", &html! {
                    p {
                        @if status == Status::Revoking { "As long as the bank link may still confirm, leave it: it is told again and again." }
                        @else { "Invalidate it instead if the bank link can be told: that goes on until it confirms." }
                    }
                }))
            }
        }
    }
}

fn told_until_confirmed() -> Markup {
    html! {
        li { "The bank link is told, and told again until it confirms. Until then the connection is " i { "revoking" } " and stands on Now." }
    }
}

fn form(place: &Place<'_>, ending: Ending, back: &str, waits: bool, reason: &Markup) -> Markup {
    let button = match (ending, waits) {
        (Ending::Delink, _) => "Delink it",
        (Ending::Invalidate, _) => "Invalidate it",
        (Ending::GiveUp, false) => "End it without telling the bank",
        (Ending::GiveUp, true) => "Ask to end it without telling the bank",
    };
    html! {
        form.decide method="post" action={ (back) "/" (ending.path()) } {
            (form_token(place.viewer.token))
            (reason)
            div.actions {
                button.danger type="submit" { (button) }
                a.button.quiet href=(back) { "Leave it" }
            }
        }
    }
}

/// Says that there was nothing left to do.
#[must_use]
pub fn nothing_done(connection: &Connection) -> Markup {
    let words = if connection.status == Status::Revoking {
        "It was revoked before, and the bank link is told of it; nothing was done."
    } else {
        "It had ended before; nothing was done."
    };
    notice(Notice::Info, "Nothing was done", &html! { p { (words) } })
}

/// Says what became of a connection that was ended from here.
#[must_use]
pub fn done(connection: &Connection) -> Markup {
    let confirmed =
        connection.revocation.as_ref().map(|revocation| revocation.confirmed_at.is_some());
    match (connection.status, confirmed) {
        (Status::Revoking, _) => notice(
            Notice::Info,
            "Revoked here",
            &html! { p { "Nothing uses the token any more. The bank link has not confirmed yet; it is told again until it does." } },
        ),
        (_, Some(true)) => {
            notice(Notice::Good, "Ended", &html! { p { "Nothing of it lives at the bank link." } })
        }
        (_, Some(false)) => notice(
            Notice::Warning,
            "Ended without a confirmation",
            &html! { p { "What was held here is destroyed. The bank link has not confirmed: a token may live on there, and nobody can end it from here." } },
        ),
        (_, None) => Markup::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_delinked_can_only_be_given_up_and_what_has_ended_not_even_that() {
        let ways = |status: Status| Ending::ALL.map(|ending| ending.applies_to(status));
        for status in Status::ALL {
            let expected = match status {
                Status::Pending | Status::Active => [true, true, true],
                Status::Revoking => [false, false, true],
                _ => [false, false, false],
            };
            assert_eq!(ways(status), expected, "{status:?}");
        }
    }
}
