//! Passkeys: `WebAuthn` credentials of operators ([ADR 29](../../../docs/adr/0029-passkeys-without-cbor.md)).

mod challenge;
mod model;
mod store;

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

pub use challenge::{CHALLENGE_MINUTES, Challenge, Purpose, begin, consume};
pub use model::{Refused, RelyingParty};
pub use store::{Passkey, has_any, list, remove};

use self::model::{AuthenticatorData, Ceremony, ClientData, PublicKey};
use super::{Operator, OperatorError, OperatorName};
use crate::audit::record_everywhere;
use crate::common::actor::Actor;
use crate::common::ids::OperatorId;
use crate::database::Conn;
use crate::vault::Vault;

/// The most passkeys of one operator.
pub const MAX_PASSKEYS: i64 = 20;
/// The most characters of a label.
pub const MAX_LABEL: usize = 100;

/// Why a passkey was not enrolled or did not sign in.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    /// What the browser sent does not verify.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The database's error.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A browser's answer to `navigator.credentials.create`. Binary members are in base64url without padding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    label: String,
    client_data: String,
    authenticator_data: String,
}

/// A browser's answer to `navigator.credentials.get`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assertion {
    id: String,
    client_data: String,
    authenticator_data: String,
    signature: String,
    user_handle: Option<String>,
}

/// Enrols a passkey for the operator whose session `purpose` names (Web Authentication Level 3, §7.1).
///
/// # Errors
/// [`Refused`] and the database's.
pub async fn enrol(
    conn: &mut Conn,
    vault: &Vault,
    party: &RelyingParty,
    purpose: &Purpose,
    (operator, name): (OperatorId, &OperatorName),
    actor: &Actor,
    enrolment: &Enrolment,
) -> Result<(), PasskeyError> {
    let label = enrolment.label.trim();
    if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control)
    {
        return Err(Refused::Label.into());
    }
    let client = model::decode(&enrolment.client_data)?;
    let client = ClientData::parse(&client, Ceremony::Create, party)?;
    let bytes = model::decode(&enrolment.authenticator_data)?;
    let data = AuthenticatorData::parse(&bytes, party)?;
    let credential = data.credential.ok_or(Refused::AuthenticatorData)?;
    let mut tx = conn.begin().await?;
    challenge::consume(&mut tx, vault, purpose, &client.challenge).await?;
    if store::count(&mut tx, operator).await? >= MAX_PASSKEYS {
        return Err(Refused::TooMany.into());
    }
    if !store::insert(&mut tx, operator, label, &credential, data.sign_count).await? {
        return Err(Refused::Known.into());
    }
    let detail = format!("{name}: {label}");
    record_everywhere(&mut tx, actor, "operator.passkey_added", &detail).await?;
    tx.commit().await?;
    Ok(())
}

/// Verifies an assertion (Web Authentication Level 3, §7.2), in the transaction that `conn` is in; returns the operator
/// whose passkey it is.
///
/// # Errors
/// [`Refused`] and the database's. After [`Refused::Counter`] the transaction is to be committed: the challenge is used.
pub async fn verify(
    conn: &mut Conn,
    vault: &Vault,
    party: &RelyingParty,
    purpose: &Purpose,
    assertion: &Assertion,
) -> Result<Operator, PasskeyError> {
    let client_bytes = model::decode(&assertion.client_data)?;
    let client = ClientData::parse(&client_bytes, Ceremony::Get, party)?;
    let data_bytes = model::decode(&assertion.authenticator_data)?;
    let data = AuthenticatorData::parse(&data_bytes, party)?;
    let id = model::decode(&assertion.id)?;
    let known = store::find(conn, &id).await?.ok_or(Refused::Unknown)?;
    let key = PublicKey::new(known.algorithm, known.public_key).ok_or(Refused::Signature)?;
    let signature = model::decode(&assertion.signature)?;
    if !key.verify(&data_bytes, &client_bytes, &signature) {
        return Err(Refused::Signature.into());
    }
    if let Some(handle) = &assertion.user_handle {
        let handle = model::decode(handle)?;
        if !bool::from(handle.ct_eq(known.operator.uuid().as_bytes())) {
            return Err(Refused::Unknown.into());
        }
    }
    // Only now: who cannot sign leaves no row behind.
    challenge::consume(conn, vault, purpose, &client.challenge).await?;
    let operator = super::store::enabled(conn, known.operator).await?.ok_or(Refused::Unknown)?;
    if !store::advance(conn, &id, data.sign_count).await? {
        return Err(Refused::Counter(operator.name).into());
    }
    Ok(operator)
}

/// Removes a passkey of an operator, with its row in the trail; returns whether there was one.
///
/// # Errors
/// The database's.
pub async fn remove_recorded(
    conn: &mut Conn,
    (operator, name): (OperatorId, &OperatorName),
    actor: &Actor,
    id: &[u8],
) -> Result<bool, OperatorError> {
    let mut tx = conn.begin().await?;
    let Some(label) = remove(&mut tx, operator, id).await? else { return Ok(false) };
    let detail = format!("{name}: {label}");
    record_everywhere(&mut tx, actor, "operator.passkey_removed", &detail).await?;
    tx.commit().await?;
    Ok(true)
}
