//! The answer about an erasure: its status, and its signed receipt.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::common::ids::{DataKeyId, ErasureId, UserId};
use crate::connections::erasure::{Erased, Erasure, Upstream};
use crate::oauth::Issuer;

/// The status of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ErasureStatus)]
pub enum State {
    /// None of the user's connections is usable; Dapi has not confirmed all revocations yet.
    Pending,
    /// Everything is destroyed.
    Erased,
}

/// What was destroyed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErasureCounts)]
pub struct Destroyed {
    /// The user's data key: no copy of a sealed value elsewhere, such as in a backup, can be unsealed without it.
    data_key: DataKeyId,
    /// Codes, tokens and user secrets that were stored when the erasure was requested.
    sealed_values: i64,
    /// Connections, with Dapi's names for login, user and token.
    connections: i64,
    /// Connect sessions.
    sessions: i64,
    /// The link between `clientUserID` and the random `usr_` id.
    mapping: bool,
}

/// An erasure, and once it has ended its signed receipt.
#[expect(clippy::struct_field_names, reason = "the name that the API has for it")]
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErasureReceipt)]
pub struct Receipt {
    /// The erasure's id.
    pub id: ErasureId,
    /// The status.
    pub status: State,
    /// When it was requested.
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
    /// When everything was destroyed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub erased_at: Option<OffsetDateTime>,
    /// How many connections Dapi has not confirmed yet.
    pub outstanding: i64,
    /// Whether Dapi confirmed; `null` while the erasure is pending.
    pub upstream: Option<Upstream>,
    /// How many tokens Dapi may still honour.
    pub unconfirmed: Option<i64>,
    /// What was destroyed.
    pub destroyed: Option<Destroyed>,
    /// The same as a JWT (RFC 7519), signed by one of the keys at `/.well-known/jwks.json`.
    #[schema(example = "eyJhbGciOiJFUzI1NiJ9.claims.c2lnbmF0dXJl")]
    pub receipt: Option<String>,
}

/// The claims of the JWT. Like the audit trail, they hold the user's random id and not the app's name for the user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    jti: ErasureId,
    sub: UserId,
    #[serde(with = "time::serde::rfc3339")]
    requested_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    erased_at: OffsetDateTime,
    destroyed: Destroyed,
    upstream: Upstream,
    unconfirmed: i64,
}

fn destroyed(erased: &Erased) -> Destroyed {
    Destroyed {
        data_key: erased.data_key,
        sealed_values: erased.sealed,
        connections: erased.connections,
        sessions: erased.sessions,
        mapping: true,
    }
}

impl Receipt {
    /// Builds the answer, with a signed receipt if the erasure has ended. Returns `None` if there is no key to sign with.
    #[must_use]
    pub fn of(issuer: &Issuer, erasure: &Erasure) -> Option<Self> {
        let Erasure { id, user, requested_at, outstanding, .. } = *erasure;
        let Some(erased) = &erasure.erased else {
            return Some(Self {
                id,
                status: State::Pending,
                requested_at,
                erased_at: None,
                outstanding,
                upstream: None,
                unconfirmed: None,
                destroyed: None,
                receipt: None,
            });
        };
        let claims = Claims {
            jti: id,
            sub: user,
            requested_at,
            erased_at: erased.at,
            destroyed: destroyed(erased),
            upstream: erased.upstream(),
            unconfirmed: erased.unconfirmed,
        };
        Some(Self {
            id,
            status: State::Erased,
            requested_at,
            erased_at: Some(erased.at),
            outstanding: 0,
            upstream: Some(claims.upstream),
            unconfirmed: Some(claims.unconfirmed),
            destroyed: Some(claims.destroyed.clone()),
            receipt: Some(issuer.sign_receipt(&claims)?),
        })
    }
}
