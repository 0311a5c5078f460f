//! External scopes: scopes of other APIs, which Strongroom's tokens may carry and which mean nothing to it.

use std::sync::Arc;

use super::scope::Scope;

/// The longest name, in bytes.
const MAX_BYTES: usize = 128;
/// The most external scopes of one client.
const MAX_SCOPES: usize = 32;

/// Returns whether the text has the syntax of one scope: printable ASCII without space, `"` and `\`
/// (RFC 6749 §3.3).
#[must_use]
pub fn is_scope_token(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !text.is_empty() && text.bytes().all(allowed)
}

/// Why a name cannot be an external scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExternalScope {
    /// The name is empty, too long, or has characters that no scope has.
    #[error("a scope is 1 to 128 printable ASCII characters without space, quote and backslash")]
    Malformed,
    /// The name is one of Strongroom's own scopes.
    #[error("`{0}` is a scope of Strongroom's own")]
    Own(Scope),
    /// There are too many names.
    #[error("a client may have at most 32 scopes of other APIs")]
    TooMany,
}

/// A set of external scopes, in the order given.
///
/// Kept apart from [`Scopes`](super::scope::Scopes), so that an old external scope never gains a meaning when
/// a later release introduces a scope of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalScopes(Vec<Arc<str>>);

impl ExternalScopes {
    /// Checks the names and collects them into a set.
    ///
    /// # Errors
    /// Fails if a name cannot be an external scope, or if there are more than 32.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidExternalScope> {
        let mut set = Self::default();
        for name in names {
            if !is_scope_token(name) || name.len() > MAX_BYTES {
                return Err(InvalidExternalScope::Malformed);
            }
            if let Ok(own) = name.parse::<Scope>() {
                return Err(InvalidExternalScope::Own(own));
            }
            set.insert(name);
        }
        if set.0.len() > MAX_SCOPES { Err(InvalidExternalScope::TooMany) } else { Ok(set) }
    }

    /// Collects names from the database or from a token of ours, which were checked before.
    #[must_use]
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        for name in names {
            set.insert(name);
        }
        set
    }

    fn insert(&mut self, name: &str) {
        if !self.contains(name) {
            self.0.push(name.into());
        }
    }

    /// Returns whether the set contains this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|held| **held == *name)
    }

    /// Returns whether every name of this set is in `other`.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|name| other.contains(name))
    }

    /// Returns the names that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|name| other.contains(name)).cloned().collect())
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Returns the names as the database stores them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.iter().map(str::to_owned).collect()
    }
}

impl serde::Serialize for ExternalScopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_vocabulary_is_taken_as_it_is() {
        let set =
            ExternalScopes::new(["conversation:access2api", "https://x/y", "a", "a"]).unwrap();
        assert_eq!(set.names(), ["conversation:access2api", "https://x/y", "a"]);
    }

    #[test]
    fn characters_that_no_scope_has_are_refused() {
        for name in ["", "a b", "a\"b", "a\\b", "ä", "a\nb", "\u{7f}"] {
            assert_eq!(
                ExternalScopes::new([name]),
                Err(InvalidExternalScope::Malformed),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_name_of_strongrooms_own_does_not_come_in_as_an_external_one() {
        assert_eq!(ExternalScopes::new(["admin"]), Err(InvalidExternalScope::Own(Scope::Admin)));
    }
}
