//! Master keys at AWS KMS, for builds with the feature `aws-kms`. A build without it refuses them by name when it starts.

#[cfg(not(feature = "aws-kms"))]
mod absent;
#[cfg(feature = "aws-kms")]
mod arn;
#[cfg(feature = "aws-kms")]
mod client;
#[cfg(feature = "aws-kms")]
mod engine;
#[cfg(feature = "aws-kms")]
mod failure;
mod settings;

#[cfg(not(feature = "aws-kms"))]
pub use absent::AwsKms;
#[cfg(feature = "aws-kms")]
pub use arn::InvalidKeyArn;
#[cfg(feature = "aws-kms")]
pub use engine::AwsKms;
pub use settings::{AwsSettings, StaticCredentials};

/// What is wrong with a key at AWS KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAwsKms {
    /// The binary was built without the feature `aws-kms`.
    #[cfg(not(feature = "aws-kms"))]
    #[error("this build of strongroom has no AWS KMS; build it with the feature aws-kms")]
    NotInThisBuild,
    /// The ARN.
    #[cfg(feature = "aws-kms")]
    #[error(transparent)]
    Arn(#[from] InvalidKeyArn),
    /// The endpoint.
    #[cfg(feature = "aws-kms")]
    #[error(
        "AWS_ENDPOINT_URL_KMS, or AWS_ENDPOINT_URL, must be https://host:port, or http:// on loopback"
    )]
    Endpoint,
}
