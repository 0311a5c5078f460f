//! Where AWS KMS is, and as whom it is called.

use crate::common::secret::SecretText;

/// An access key, as `AWS_ACCESS_KEY_ID` and its siblings have it.
#[derive(Debug)]
pub struct StaticCredentials {
    /// The access key's id, which is no secret.
    pub id: String,
    /// The access key.
    pub secret: SecretText,
    /// The token of a session; only temporary keys have one.
    pub session: Option<SecretText>,
}

/// Which AWS KMS, and as whom.
#[derive(Debug, Default)]
pub struct AwsSettings {
    /// Another endpoint than the region's.
    pub endpoint: Option<String>,
    /// The access key of the environment. Without, AWS's chain of credentials goes on: a profile, a web identity, a container,
    /// an instance.
    pub credentials: Option<StaticCredentials>,
}
