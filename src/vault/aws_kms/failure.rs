//! What a failed call to AWS KMS means, in words that name neither an account nor a person.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;

use crate::vault::engine::{Down, innermost, tame};

/// Returns whether KMS answered that it never made this ciphertext, not for this context or not by this key: trying again is
/// no use.
pub(super) fn is_about_ciphertext(error: &SdkError<DecryptError>) -> bool {
    let error = error.as_service_error();
    error.is_some_and(|error| {
        error.is_invalid_ciphertext_exception() || error.is_incorrect_key_exception()
    })
}

/// Describes a call that brought no answer. What KMS says about a refusal names accounts and roles, so that only the log
/// has it.
pub(super) fn down<E>(error: &SdkError<E>) -> Down
where
    E: ProvideErrorMetadata + Error + 'static,
{
    Down(match error {
        SdkError::ServiceError(refusal) => {
            let status = refusal.raw().status().as_u16();
            let code = refusal.err().code().map(tame);
            let said = tame(refusal.err().message().unwrap_or_default());
            tracing::warn!(status, code, said, "AWS KMS refused a call");
            code.unwrap_or_else(|| format!("HTTP {status}"))
        }
        SdkError::ResponseError(answer) => {
            format!("HTTP {}, and no answer of KMS's", answer.raw().status().as_u16())
        }
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            "no connection in time".to_owned()
        }
        other => tame(&innermost(other).to_string()),
    })
}
