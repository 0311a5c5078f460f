//! Calls to AWS KMS (<https://docs.aws.amazon.com/kms/latest/APIReference/>): data keys are encrypted and decrypted
//! there, one a call, because KMS has no batch.
//!
//! A data key is bound to its row twice: by the encryption context, which KMS takes as AAD and which is on CloudTrail's
//! record, and inside the plaintext, because an endpoint that imitates KMS need not check the context.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use futures_util::future::try_join_all;
use reqwest::Url;
use tokio::sync::OnceCell;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::arn::KeyArn;
use super::{AwsSettings, InvalidAwsKms, failure};
use crate::common::ids::DataKeyId;
use crate::common::spans;
use crate::vault::bound::{HASH_BYTES, check_value, key_of_plaintext, plaintext, row_hash};
use crate::vault::engine::{Down, NewKey};
use crate::vault::keys::{KeyOwner, MasterKeyId, WrappedKey};
use crate::vault::local::KeyBytes;

/// The first byte of a key that AWS KMS wrapped: KMS's ciphertext follows.
const WRAPPED_AWS_KMS: u8 = 3;
/// The member of the encryption context with the hash of the row's AAD, in hexadecimal.
const ROW: &str = "strongroom:row";
/// The member of the encryption context with the purpose of the data key, for conditions of a key policy.
const PURPOSE: &str = "strongroom:purpose";

/// One key of AWS KMS.
#[derive(Debug)]
pub struct AwsKms {
    arn: KeyArn,
    settings: Arc<AwsSettings>,
    /// Where the calls go, for their spans.
    place: Option<Box<Url>>,
    /// Made by the first call: the settings of a profile are in a file.
    client: OnceCell<Client>,
}

impl AwsKms {
    /// Parses the ARN of a key.
    pub(in crate::vault) fn new(
        settings: Arc<AwsSettings>,
        arn: &str,
    ) -> Result<Self, InvalidAwsKms> {
        let arn = KeyArn::parse(arn)?;
        if !settings.has_protected_endpoint() {
            return Err(InvalidAwsKms::Endpoint);
        }
        let regional = || Url::parse(&format!("https://{}", arn.host())).ok();
        let set = settings.endpoint.as_ref().and_then(|endpoint| Url::parse(endpoint).ok());
        let place = set.or_else(regional).map(Box::new);
        Ok(Self { arn, settings, place, client: OnceCell::new() })
    }

    /// Hashes the key's ARN. The endpoint is not part of it.
    pub(in crate::vault) fn check_value(&self) -> [u8; 32] {
        check_value("awskms", &self.arn.place())
    }

    /// Wraps keys, in their order, all at once.
    pub(in crate::vault) async fn wrap(
        &self,
        master: &MasterKeyId,
        keys: &[NewKey],
    ) -> Result<Vec<WrappedKey>, Down> {
        try_join_all(keys.iter().map(|new| self.wrap_one(master, new))).await
    }

    /// Opens keys, in their order, all at once; `None` for one that does not open, or not for its row.
    pub(in crate::vault) async fn open(
        &self,
        master: &MasterKeyId,
        keys: &[WrappedKey],
    ) -> Result<Vec<Option<KeyBytes>>, Down> {
        try_join_all(keys.iter().map(|key| self.open_one(master, key))).await
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.settings.client(self.arn.region())).await
    }

    /// Makes one call in a span of its own.
    async fn spanned<T, E>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(span) = self.place.as_ref().map(|place| spans::of_call(name, place)) else {
            return call.await;
        };
        let answer = call.instrument(span.clone()).await;
        if answer.is_err() {
            spans::record_error(&span, "_OTHER");
        }
        answer
    }

    async fn wrap_one(&self, master: &MasterKeyId, new: &NewKey) -> Result<WrappedKey, Down> {
        let NewKey { id, owner, bytes } = new;
        let plain = plaintext(*id, *owner, master, bytes);
        let [row, purpose] = context(*id, *owner, master);
        let call = self.client().await.encrypt().key_id(self.arn.as_str());
        let call = call.encryption_context(ROW, row).encryption_context(PURPOSE, purpose);
        let sent = call.plaintext(Blob::new(plain.as_slice())).send();
        let answer = self.spanned("awskms encrypt", sent).await;
        let answer = answer.map_err(|error| failure::down(&error))?;
        let ciphertext =
            answer.ciphertext_blob.ok_or_else(|| Down("no ciphertext".to_owned()))?.into_inner();
        let mut wrapped = vec![WRAPPED_AWS_KMS];
        wrapped.extend_from_slice(&ciphertext);
        Ok(WrappedKey {
            id: *id,
            owner: *owner,
            master_key_id: master.clone(),
            wrapped,
            other: None,
        })
    }

    async fn open_one(
        &self,
        master: &MasterKeyId,
        key: &WrappedKey,
    ) -> Result<Option<KeyBytes>, Down> {
        let Some((&WRAPPED_AWS_KMS, ciphertext)) = key.wrapped.split_first() else {
            return Ok(None);
        };
        let [row, purpose] = context(key.id, key.owner, master);
        // With the key's name, KMS opens no ciphertext of another key that the same credentials may use.
        let call = self.client().await.decrypt().key_id(self.arn.as_str());
        let call = call.encryption_context(ROW, row).encryption_context(PURPOSE, purpose);
        let sent = call.ciphertext_blob(Blob::new(ciphertext)).send();
        match self.spanned("awskms decrypt", sent).await {
            Ok(answer) => {
                let plain = answer.plaintext.map(|plain| Zeroizing::new(plain.into_inner()));
                Ok(plain.and_then(|plain| key_of_plaintext(&plain, key, master)))
            }
            Err(error) if failure::is_about_ciphertext(&error) => {
                let cause = failure::down(&error).0;
                tracing::error!(data_key = %key.id, %cause, "AWS KMS does not open a data key");
                Ok(None)
            }
            Err(error) => Err(failure::down(&error)),
        }
    }
}

/// Returns the encryption context of a data key. CloudTrail records it in the clear: it has the hash of random ids and
/// nothing of a person.
fn context(id: DataKeyId, owner: KeyOwner, master: &MasterKeyId) -> [String; 2] {
    let mut row = String::with_capacity(2 * HASH_BYTES);
    for byte in row_hash(id, owner, master) {
        // Writing to a string never fails.
        let _ = write!(row, "{byte:02x}");
    }
    [row, owner.purpose().to_owned()]
}
