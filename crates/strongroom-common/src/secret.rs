//! Secret text: cannot be printed, serialised or compared by accident, and is wiped when dropped.

use zeroize::Zeroizing;

/// Text that stays out of logs, answers and error messages.
///
/// There is no `Display` and no `Serialize`; `Debug` shows a placeholder. [`expose`](Self::expose)
/// is the only way to its content, so that a search for that word finds every use.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes ownership of the text without copying it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the lengths alone.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.expose().as_bytes(), other.expose().as_bytes()).into()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> serde::Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_when_printed() {
        assert_eq!(format!("{:?}", SecretText::new("canary".to_owned())), "(secret)");
    }

    #[test]
    fn secrets_compare_by_content() {
        let secret = SecretText::new("canary".to_owned());
        assert!(secret.same_as(&SecretText::new("canary".to_owned())));
        assert!(!secret.same_as(&SecretText::new("canarx".to_owned())));
    }
}
