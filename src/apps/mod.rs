//! Apps: applications registered with a bank link, the tenant boundary.
//!
//! May import: audit, common, config, database, providers, vault.

mod store;

pub use store::{
    App, NewApp, Settings, add, change, credentials, ensure, find, list, name, provider_of,
};

use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgRecordDecoder;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres};

use crate::common::ids::AppId;
use crate::common::secret::SecretText;
use crate::providers::{AppCredentials, Provider};
use crate::vault::{AadContext, DataKey, KeyOwner, Sealed, Vault, VaultError, WrappedKey};

/// The app that the command line means unless it is told another.
pub const DEFAULT: &str = name_of(Provider::Dapi);

/// Returns the name of the app that the environment describes: `default` (`DAPI_APP_KEY`, `DAPI_APP_SECRET`) or `plaid`
/// (`PLAID_CLIENT_ID`, `PLAID_SECRET`).
#[must_use]
pub const fn name_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Dapi => "default",
        Provider::Plaid => "plaid",
    }
}

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
    /// The app that the environment describes is there, but of another bank link.
    #[error("the app `{name}` is registered with {}; add one of another name", .provider.name())]
    OfAnotherProvider {
        /// The app's name.
        name: &'static str,
        /// What it is registered with.
        provider: Provider,
    },
    /// Plaid's `client_id` was changed while there are tokens of the old one.
    #[error(
        "PLAID_CLIENT_ID is another than before, and the app `plaid` holds tokens of the one before; \
         add an app of another name for the new one"
    )]
    TokensOfAnotherClient,
    /// The vault or the database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<sqlx::Error> for AppError {
    fn from(error: sqlx::Error) -> Self {
        Self::Vault(VaultError::Database(error))
    }
}

/// An app's credentials as the SQL function `credentials_of` returns them: still sealed, with the wrapped key that opens
/// them.
#[derive(Clone, Debug)]
pub struct SealedCredentials {
    /// The app whose context (AAD) the secret was sealed for.
    pub app: AppId,
    /// The bank link that the credentials are of.
    pub provider: Provider,
    /// Dapi's application key, Plaid's `client_id`; not a secret.
    pub app_key: String,
    /// Dapi's application secret, Plaid's `secret`, sealed under the app's data key.
    pub app_secret: Sealed<SecretText>,
    /// The app's data key, wrapped by a master key.
    pub key: WrappedKey,
}

impl sqlx::Type<Postgres> for SealedCredentials {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("sealed_credentials")
    }
}

impl<'r> Decode<'r, Postgres> for SealedCredentials {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let mut fields = PgRecordDecoder::new(value)?;
        let app = fields.try_decode()?;
        let provider: String = fields.try_decode()?;
        Ok(Self {
            app,
            provider: Provider::parse(&provider).ok_or("an unknown provider")?,
            app_key: fields.try_decode()?,
            app_secret: fields.try_decode()?,
            key: fields.try_decode()?,
        })
    }
}

impl SealedCredentials {
    /// Unwraps the key and opens the secret.
    pub async fn open(self, vault: &Vault) -> Result<AppCredentials, VaultError> {
        let key = vault.unwrap(&self.key).await?;
        self.open_with(&key)
    }

    /// Opens the secret with the app's data key.
    pub fn open_with(self, key: &DataKey) -> Result<AppCredentials, VaultError> {
        let app_secret = self.app_secret.open(key, &secret_aad(self.app))?;
        let Self { provider, app_key, .. } = self;
        Ok(AppCredentials { provider, app_key, app_secret })
    }
}

fn secret_aad(app: AppId) -> AadContext {
    AadContext { table: "apps", column: "app_secret", app: Some(app), user: None, row: app.uuid() }
}

async fn seal_secret(
    vault: &Vault,
    app: AppId,
    key: &WrappedKey,
    secret: &SecretText,
) -> Result<Sealed<SecretText>, VaultError> {
    Sealed::seal(secret, &*vault.unwrap(key).await?, &secret_aad(app))
}

async fn new_key(vault: &Vault, app: AppId) -> Result<WrappedKey, VaultError> {
    vault.new_key(KeyOwner::App(app)).await
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
