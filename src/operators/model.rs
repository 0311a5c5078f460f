//! Names and roles.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::common::ids::OperatorId;
use crate::common::named::named;

/// The most characters of a name.
const MAX_NAME: usize = 63;

/// An operator's name, as the trail has it: lower-case letters, digits and `.`, `_`, `@`, `-`, of which the first is a
/// letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct OperatorName(String);

/// The error of a text that cannot name an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an operator's name is at most 63 lower-case letters, digits and `.`, `_`, `@`, `-`, and begins with a letter or a digit"
)]
pub struct InvalidName;

impl OperatorName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for OperatorName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let sound = text.len() <= MAX_NAME
            && text.starts_with(plain)
            && text.chars().all(|c| plain(c) || "._@-".contains(c));
        sound.then(|| Self(text.to_owned())).ok_or(InvalidName)
    }
}

impl TryFrom<String> for OperatorName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl std::fmt::Display for OperatorName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator may do. Each role may do all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads, and never a secret.
    Auditor,
    /// Revokes, pauses, resolves.
    Operator,
    /// Manages clients, keys, upstreams, webhooks and operators.
    Admin,
}

named!(Role { Auditor => "auditor", Operator => "operator", Admin => "admin" }, parse);

/// An operator.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// The id.
    pub id: OperatorId,
    /// The unique name.
    pub name: OperatorName,
    /// What they may do.
    pub role: Role,
    /// The user of the operating system for whom the command line needs no `--as`.
    pub os_user: Option<String>,
    /// When they were added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when they may do nothing.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling_and_fits_one_line_of_the_trail() {
        for name in ["ana", "a.b-c_d", "ana@example.com", "7", &"a".repeat(63)] {
            assert_eq!(name.parse::<OperatorName>().unwrap().as_str(), name);
        }
        for name in ["", "Ana", "-ana", ".a", "ana b", "ana\n", "ána", &"a".repeat(64)] {
            assert_eq!(name.parse::<OperatorName>(), Err(InvalidName), "{name:?}");
        }
    }

    #[test]
    fn a_role_includes_those_before_it() {
        assert!(Role::Auditor < Role::Operator && Role::Operator < Role::Admin);
    }
}
