//! Apps: Dapi applications, the tenant boundary.
//!
//! May import: audit, common, config, database, providers, vault.

mod store;

pub use store::{App, add, credentials, ensure_default, find, list};

use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::providers::AppCredentials;
use crate::vault::{AadContext, KeyOwner, Sealed, Vault, VaultError, WrappedKey};

/// The app that the environment describes (`DAPI_APP_KEY`, `DAPI_APP_SECRET`).
pub const DEFAULT: &str = "default";

/// Returns whether `text` can name an app: lower-case letters, digits and hyphens, at most 63.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 63 && text.chars().all(inside) && !text.is_empty() && !text.starts_with('-')
}

/// Why an app could not be added or its secret not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another app has the name; the unique constraint of `apps` decides.
    #[error("there is an app named `{0}` already")]
    NameTaken(String),
    /// The vault or the database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<sqlx::Error> for AppError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// An app's Dapi credentials as a query returns them: still sealed, with the wrapped key that opens them.
#[derive(Clone, Debug)]
pub struct SealedCredentials {
    /// The app whose context (AAD) the secret was sealed for.
    pub app: AppId,
    /// Dapi's application key, which is not a secret.
    pub app_key: String,
    /// Dapi's application secret, sealed under the app's data key.
    pub app_secret: Sealed<SecretText>,
    /// The app's data key, wrapped by a master key.
    pub key: WrappedKey,
}

impl SealedCredentials {
    /// Unwraps the key and opens the secret.
    pub fn open(self, vault: &Vault) -> Result<AppCredentials, VaultError> {
        let app_secret = self.app_secret.open(&vault.unwrap(&self.key)?, &secret_aad(self.app))?;
        Ok(AppCredentials { app_key: self.app_key, app_secret })
    }
}

fn secret_aad(app: AppId) -> AadContext {
    AadContext { table: "apps", column: "app_secret", app: Some(app), user: None, row: app.uuid() }
}

fn seal_secret(
    vault: &Vault,
    app: AppId,
    key: &WrappedKey,
    secret: &SecretText,
) -> Result<Sealed<SecretText>, VaultError> {
    Sealed::seal(secret, &vault.unwrap(key)?, &secret_aad(app))
}

fn new_key(vault: &Vault, app: AppId) -> Result<WrappedKey, VaultError> {
    vault.new_key(KeyOwner::App(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_letters_digits_and_hyphens() {
        for name in ["default", "a", "0-shop", &"a".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "A", "a b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
