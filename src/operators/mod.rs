//! Operators: people of the deployment, with a name and a role, and their sessions in the console.
//!
//! An operator is of no app; what they do to an app is in that app's trail, and what changes operators is in the trail
//! of each app. Sessions are server-side: the cookie holds 256 random bits, the database their keyed hash.
//!
//! May import: approvals, audit, common, config, database, vault.

mod asked;
mod links;
mod model;
pub mod passkeys;
mod provided;
mod sessions;
mod store;

pub use asked::{RequestedOperator, RequestedRole, ask_to_add, ask_to_change_role};
pub use links::{
    LINK_MINUTES, LinkToken, Redeemed, create as create_link, redeem as redeem_link,
    url as link_url,
};
pub use model::{InvalidName, Operator, OperatorName, Role};
pub use provided::{Provided, ensure};
pub use sessions::{
    FRESH_MINUTES, How, IDLE_MINUTES, ListedSession, SESSION_HOURS, SessionSecret, SignedIn, begin,
    delete_old as delete_old_sessions, end as end_session, find as find_session, find_ended,
    list as list_sessions, recent as recent_sessions,
};
pub use store::{add, by_os_user, change_role, disable, find, list};

use crate::approvals::AskError;
use crate::vault::VaultError;

/// Why something about operators could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Another operator has the name or the user of the operating system.
    #[error("there is an operator of this name or of this user of the operating system already")]
    Taken,
    /// There is no such operator.
    #[error("there is no operator named `{0}`; `strongroom operators list` shows them")]
    Unknown(OperatorName),
    /// The operator is disabled.
    #[error("the operator `{0}` is disabled")]
    Disabled(OperatorName),
    /// What needs a second person could not be recorded.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The vault's error, which is that of the random numbers.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database's error.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
