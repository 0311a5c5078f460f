//! The view of a connection that callers get. Its docs are the API's documentation.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::common::ids::ConnectionId;
use crate::connections::model::{Failure, RevocationKind, Status};
use crate::providers::Provider;
use crate::providers::plaid::{Account, Institution};

/// Why a connection needs its user: Dapi refused a call in a way by which going on could lock their bank
/// account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Attention {
    /// Dapi's `type`.
    #[serde(rename = "type")]
    #[schema(example = "INVALID_CREDENTIALS")]
    pub kind: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// How a revocation stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// What was asked for.
    pub kind: RevocationKind,
    /// The reason that was given, if any.
    #[schema(example = "user asked")]
    pub reason: Option<String>,
    /// When it was acknowledged; since then the token is unusable here.
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
    /// When Dapi confirmed that there is nothing left to use.
    #[serde(with = "time::serde::rfc3339::option")]
    pub confirmed_at: Option<OffsetDateTime>,
    /// How many delinkings Dapi was sent.
    #[schema(minimum = 0, example = 1)]
    pub attempts: i32,
    /// Why the last attempt was not confirmed.
    pub last_error: Option<String>,
    /// When the next delinking is sent.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_attempt_at: Option<OffsetDateTime>,
}

/// A connection as callers see it: never a secret in it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Where it stands.
    #[schema(example = "active")]
    pub status: Status,
    /// The app's own name for the user.
    #[serde(rename = "clientUserID")]
    #[schema(example = "user-42")]
    pub client_user_id: String,
    /// The bank link that it was made with.
    pub provider: Provider,
    /// The provider's name for the bank login: Dapi's `connectionID`, Plaid's `item_id`, which is `null` until the
    /// exchange.
    #[serde(rename = "connectionID")]
    #[schema(example = "a2b6c1d4-5e8f-4a30-b7c9-1d2e3f405162")]
    pub login_id: Option<String>,
    /// Dapi's name for the user.
    #[serde(rename = "userID")]
    #[schema(example = "3e1d2b6a-9f10-4f0e-8a4b-7f1c2d5e9c57")]
    pub dapi_user_id: Option<String>,
    /// Dapi's name for the token.
    #[serde(rename = "tokenID")]
    #[schema(example = "9c57a2b6-c1d4-4a30-b7c9-5e8f1d2e3f40")]
    pub dapi_token_id: Option<String>,
    /// When the result was received.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the code's window closes; `null` for an imported token.
    #[serde(with = "time::serde::rfc3339::option")]
    pub code_expires_at: Option<OffsetDateTime>,
    /// When the token was sealed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub activated_at: Option<OffsetDateTime>,
    /// Why the exchange failed, if it did.
    pub failure: Option<Failure>,
    /// How its revocation stands, if there is one.
    pub revocation: Option<Revocation>,
    /// The connection that superseded it.
    pub replaced_by: Option<ConnectionId>,
    /// Why no call is made until the user links the login again, if so.
    pub attention: Option<Attention>,
    /// The bank. As the link's metadata has it until the provider confirms it.
    pub institution: Option<Institution>,
    /// The accounts that the user chose. As the link's metadata has them until the provider confirms them.
    pub accounts: Option<Vec<Account>>,
    /// An older connection of the same user to the same accounts.
    pub duplicate_of: Option<ConnectionId>,
    /// When its token was last used, by a call or by being revealed; up to a minute behind.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}
