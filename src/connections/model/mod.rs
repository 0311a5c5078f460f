//! The states of a connection, and the rules by which one follows from another.
//!
//! Nothing here does I/O. An exchange's answer or a revocation comes in as a value, with the clock's verdicts and what
//! is known of the same bank login; a [`Transition`] comes out, which `transitions` applies under the login's lock.

mod progress;
mod superseded;
mod unknown_login;
mod view;

pub use progress::RevocationProgress;
pub use superseded::{
    PredecessorEvent, PredecessorTransition, Verification, predecessor_transition,
};
pub use unknown_login::{is_unknown_login, unknown_login};
pub use view::{Attention, Connection, Revocation};

use serde::Serialize;
use utoipa::ToSchema;

use crate::common::ids::ConnectionId;
use crate::common::named::named;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConnectionStatus)]
pub enum Status {
    /// Result received, token not yet usable.
    Pending,
    /// Token sealed and usable.
    Active,
    /// Dapi refused the code.
    Rejected,
    /// The window closed before an exchange succeeded.
    Expired,
    /// Dapi consumed the code and its answer was lost.
    Orphaned,
    /// Revocation acknowledged, not yet confirmed by Dapi.
    Revoking,
    /// Delinked, confirmed by Dapi.
    Delinked,
    /// Declared dead.
    Invalidated,
}

named!(Status {
    Pending => "pending",
    Active => "active",
    Rejected => "rejected",
    Expired => "expired",
    Orphaned => "orphaned",
    Revoking => "revoking",
    Delinked => "delinked",
    Invalidated => "invalidated",
}, parse);

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConnectionFailure)]
pub struct Failure {
    /// Dapi's `type`, or one of Strongroom's own: `answer_lost`, `code_expired`, `outcome_unknown`,
    /// `connection_of_another_user`.
    #[serde(rename = "type")]
    #[schema(example = "INVALID_CONNECTION")]
    pub kind: String,
    /// What happened.
    #[schema(example = "Dapi refused the access code.")]
    pub detail: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

impl Failure {
    /// The `type` if the login turned out to be another user's.
    pub const OF_ANOTHER_USER: &'static str = "connection_of_another_user";

    fn own(kind: &str, detail: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), detail: detail.into() }
    }

    fn of_another_user() -> Self {
        Self::own(Self::OF_ANOTHER_USER, "This bank login is connected for another user.")
    }

    fn answer_lost(what: &str) -> Self {
        Self::own(
            "answer_lost",
            format!("An exchange went out and its answer was lost. Then: {what}"),
        )
    }

    /// Returns the failure of a code whose window closed. Whether Dapi consumed the code is known only if no attempt
    /// went unanswered.
    #[must_use]
    pub fn window_closed(unanswered: bool) -> Self {
        if unanswered {
            let detail = "The window closed after an exchange that was never answered.";
            return Self::own("outcome_unknown", detail);
        }
        Self::own("code_expired", "The window closed before an exchange succeeded.")
    }
}

/// How a connection is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RevocationKind {
    /// The user unlinks.
    Delink,
    /// The token is declared dead.
    Invalidate,
}

named!(RevocationKind {
    Delink => "delink",
    Invalidate => "invalidate",
}, parse);

impl RevocationKind {
    /// Returns the terminal status of a revocation of this kind. `delinked` always means that Dapi confirmed; without
    /// that a revocation ends as `invalidated`, even if a delinking was requested.
    #[must_use]
    pub const fn ends(self, confirmed: bool) -> Status {
        match (self, confirmed) {
            (Self::Delink, true) => Status::Delinked,
            (Self::Delink, false) | (Self::Invalidate, _) => Status::Invalidated,
        }
    }
}

/// The secret that a connection holds in a status that is not terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A code that has not been exchanged.
    Code,
    /// A token: to be delinked, or to become active once an older link is delinked.
    Token,
}

/// A connection's status, reduced to what its transitions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for its exchange, or holds its token and waits for an older link's delinking.
    Pending(Held),
    Active,
    /// Revoked here, not yet confirmed by Dapi.
    Revoking(RevocationKind, Held),
    /// `orphaned`: the only terminal status that a late answer can undo.
    Orphaned,
    /// `delinked` or `invalidated`.
    Revoked,
    /// `rejected` or `expired`.
    Failed,
}

/// The other connections of the same bank login (the same app and `connectionID`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about other rows")]
pub struct BankLogin {
    /// Another user's connection is active or revoking.
    pub of_another_user: bool,
    pub active_of_another_user: bool,
    /// Another connection of the same user is revoking. Its delinking goes first: at Dapi it could cut a new link.
    pub revoking: bool,
    /// The same user's active connection that was created earlier.
    pub older_active: Option<ConnectionId>,
    /// The same user's active connection that was created later.
    pub newer_active: Option<ConnectionId>,
    /// The same user has a connection that was created later and did not fail.
    pub newer: bool,
}

impl BankLogin {
    /// Returns whether another connection of the login is usable, so that delinking this one at Dapi could cut that
    /// one.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.active().is_some() || self.active_of_another_user
    }

    fn active(&self) -> Option<ConnectionId> {
        self.newer_active.or(self.older_active)
    }
}

/// The circumstances of an exchange attempt.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one attempt")]
pub struct Attempt {
    /// No later lease was taken since.
    pub current: bool,
    /// An earlier attempt went out and may have consumed the code.
    pub unanswered_before: bool,
    pub window_open: bool,
    /// An unanswered attempt may be followed by another (`DAPI_EXCHANGE_PROBE`).
    pub probe: bool,
}

/// The answer to an exchange attempt, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Token,
    /// Dapi refused the code, conclusively.
    Refused(Failure),
    /// Inconclusive; Dapi may have consumed the code.
    Unanswered(String),
    /// Inconclusive; Dapi did not process the code.
    NotProcessed(String),
}

/// What happens to a connection next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It takes the token and becomes active; an older active connection of the login is superseded.
    Activate {
        supersedes: Option<ConnectionId>,
    },
    /// It stores the token and waits for an older link's delinking.
    Hold,
    /// It ends `invalidated`, superseded by another connection of the login.
    GiveWay {
        to: ConnectionId,
    },
    /// It ends without a token.
    Fail(Status, Failure),
    /// The attempt is retried.
    TryAgain {
        /// This or an earlier attempt may have consumed the code.
        unanswered: bool,
        /// Why the attempt was inconclusive.
        what: String,
    },
    /// It stores the token in order to delink it.
    Delink,
    /// Its revocation ends.
    EndRevocation {
        /// Whether it is certain that Dapi holds nothing usable.
        confirmed: bool,
        /// What the last attempt left open.
        what: Option<String>,
    },
    /// Nothing changes and the token is dropped. It stays live at Dapi, so this is counted.
    DropToken,
    Nothing,
}

/// Decides what follows from the answer to an exchange.
#[must_use]
pub fn after_exchange(
    state: State,
    attempt: Attempt,
    login: BankLogin,
    answer: Answer,
) -> Transition {
    match answer {
        // A token counts under any lease: the code that made it is consumed.
        Answer::Token => after_token(state, login),
        _ if !attempt.current => Transition::Nothing,
        Answer::Refused(failure) => after_refusal(state, attempt, failure),
        Answer::Unanswered(what) => after_silence(state, attempt, true, what),
        Answer::NotProcessed(what) => after_silence(state, attempt, false, what),
    }
}

fn after_token(state: State, login: BankLogin) -> Transition {
    match state {
        State::Pending(Held::Code) => on_token_for_pending(login),
        // Delinking at Dapi could cut the login's active connection, so it gives way instead.
        State::Revoking(_, Held::Code) => match login.active() {
            Some(to) => Transition::GiveWay { to },
            None if login.of_another_user => Transition::EndRevocation {
                confirmed: false,
                what: Some("the login is connected for another user".to_owned()),
            },
            None => Transition::Delink,
        },
        State::Orphaned if !login.newer && !login.of_another_user && !login.revoking => {
            Transition::Activate { supersedes: login.older_active }
        }
        State::Orphaned
        | State::Pending(Held::Token)
        | State::Revoking(_, Held::Token)
        | State::Active
        | State::Revoked
        | State::Failed => Transition::DropToken,
    }
}

/// Decides what follows once a pending connection has its token, whether it has just arrived or was held.
#[must_use]
pub fn on_token_for_pending(login: BankLogin) -> Transition {
    if login.of_another_user {
        return Transition::Fail(Status::Rejected, Failure::of_another_user());
    }
    match login.newer_active {
        Some(to) => Transition::GiveWay { to },
        None if login.revoking => Transition::Hold,
        None => Transition::Activate { supersedes: login.older_active },
    }
}

/// Decides what becomes of an active connection whose provider names another login than the one that it was imported or
/// exchanged under. `login` is the named one; nothing of it may be called for, because all of its tokens are of one item.
///
/// `is_copy`: it was imported, and the older connection of the login holds the same token.
#[must_use]
pub fn on_login_named(login: BankLogin, is_copy: bool) -> Transition {
    if login.of_another_user || login.revoking {
        let why = if login.revoking { "is being revoked" } else { "is connected for another user" };
        let what = Some(format!("the token is of another login, which {why}"));
        return Transition::EndRevocation { confirmed: false, what };
    }
    match (login.newer_active, login.older_active) {
        (Some(to), _) => Transition::GiveWay { to },
        (None, Some(to)) if is_copy => Transition::GiveWay { to },
        (None, supersedes) => Transition::Activate { supersedes },
    }
}

/// Decides how a revocation ends without Dapi's confirmation: because another connection of the login is in use, or
/// because it is given up.
#[must_use]
pub fn on_unconfirmed_end(login: BankLogin, given_up: bool) -> Transition {
    match login.active() {
        Some(to) if !given_up => Transition::GiveWay { to },
        _ => Transition::EndRevocation { confirmed: false, what: None },
    }
}

fn after_refusal(state: State, attempt: Attempt, failure: Failure) -> Transition {
    match state {
        State::Pending(Held::Code) if attempt.unanswered_before => {
            let what = format!("{}: {}", failure.kind, failure.detail);
            Transition::Fail(Status::Orphaned, Failure::answer_lost(&what))
        }
        State::Pending(Held::Code) => Transition::Fail(Status::Rejected, failure),
        State::Revoking(_, Held::Code) => Transition::EndRevocation {
            confirmed: !attempt.unanswered_before,
            what: Some(format!("{}: {}", failure.kind, failure.detail)),
        },
        _ => Transition::Nothing,
    }
}

fn after_silence(state: State, attempt: Attempt, consumed: bool, what: String) -> Transition {
    let unanswered = consumed || attempt.unanswered_before;
    let go_on = attempt.window_open && (attempt.probe || !consumed);
    match state {
        State::Pending(Held::Code) | State::Revoking(_, Held::Code) if go_on => {
            Transition::TryAgain { unanswered, what }
        }
        State::Pending(Held::Code) if !attempt.window_open => {
            Transition::Fail(Status::Expired, Failure::window_closed(unanswered))
        }
        State::Pending(Held::Code) => {
            Transition::Fail(Status::Orphaned, Failure::answer_lost(&what))
        }
        State::Revoking(_, Held::Code) => {
            Transition::EndRevocation { confirmed: !unanswered, what: Some(what) }
        }
        _ => Transition::Nothing,
    }
}

/// What a revocation means for a connection in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationTransition {
    /// It becomes `revoking`: unusable from now on, and delinked at Dapi.
    Begin,
    /// It ends at once.
    End {
        /// Whether it is certain that Dapi holds nothing usable.
        confirmed: bool,
    },
    /// It is being revoked or was revoked, and stays as it is.
    Already,
    /// There is nothing to revoke.
    NotActive,
}

/// Decides what follows from a request to revoke. `ever_leased` says whether the code can have been sent to Dapi,
/// `tell_dapi` whether the token is to be delinked there.
#[must_use]
pub fn on_revocation(
    state: State,
    ever_leased: bool,
    revoke_upstream: bool,
) -> RevocationTransition {
    match state {
        State::Pending(Held::Code) if !ever_leased => RevocationTransition::End { confirmed: true },
        State::Pending(_) | State::Active if revoke_upstream => RevocationTransition::Begin,
        State::Pending(_) | State::Active => RevocationTransition::End { confirmed: false },
        // Lets an operator end a revocation that Dapi can never confirm.
        State::Revoking(..) if !revoke_upstream => RevocationTransition::End { confirmed: false },
        State::Revoking(..) | State::Revoked => RevocationTransition::Already,
        State::Orphaned | State::Failed => RevocationTransition::NotActive,
    }
}

#[cfg(test)]
mod tests;
