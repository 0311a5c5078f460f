//! The login of an exchange whose answer broke off behind the token. The token is kept all the same, under a login of its
//! own, until its provider names the true one.

use crate::common::ids::ConnectionId;

/// How the login of an exchange begins that did not name its item.
const UNKNOWN_LOGIN: &str = "unknown:";

/// Returns what stands for the login of a connection until its provider names it: no other connection has it.
#[must_use]
pub fn unknown_login(id: ConnectionId) -> String {
    format!("{UNKNOWN_LOGIN}{}", id.uuid())
}

/// Returns whether this only stands for a login.
#[must_use]
pub fn is_unknown_login(login_id: &str) -> bool {
    login_id.starts_with(UNKNOWN_LOGIN)
}
