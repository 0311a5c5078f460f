//! What stands for a key at AWS KMS in a build that cannot have one.

use std::sync::Arc;

use super::{AwsSettings, InvalidAwsKms};
use crate::vault::engine::{Down, NewKey};
use crate::vault::keys::{MasterKeyId, WrappedKey};
use crate::vault::local::KeyBytes;

/// No key of AWS KMS: there is no value of this type.
#[derive(Debug)]
pub enum AwsKms {}

impl AwsKms {
    /// Refuses.
    pub(in crate::vault) fn new(_: Arc<AwsSettings>, _: &str) -> Result<Self, InvalidAwsKms> {
        Err(InvalidAwsKms::NotInThisBuild)
    }

    pub(in crate::vault) fn check_value(&self) -> [u8; 32] {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the same signature as in builds that have it")]
    pub(in crate::vault) async fn wrap(
        &self,
        _: &MasterKeyId,
        _: &[NewKey],
    ) -> Result<Vec<WrappedKey>, Down> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the same signature as in builds that have it")]
    pub(in crate::vault) async fn open(
        &self,
        _: &MasterKeyId,
        _: &[WrappedKey],
    ) -> Result<Vec<Option<KeyBytes>>, Down> {
        match *self {}
    }
}
