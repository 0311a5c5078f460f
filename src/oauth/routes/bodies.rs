//! The bodies of requests to `/v1/admin/clients`.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::common::external_scopes::ExternalScopes;
use crate::common::scope::Scopes;
use crate::http::problem::Problem;
use crate::oauth::clients::{self, InvalidTerms, Terms};
use crate::oauth::registration::{
    Change, InvalidRegistration, JwkSetShape, JwksURI, Registration, Workload,
};
use crate::oauth::routes::names::{Names, OtherScopeNames, ScopeNames};

/// A client to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateClient {
    /// What people call it.
    #[schema(value_type = clients::ClientName)]
    pub(super) name: String,
    /// The most that its tokens may allow of Strongroom's own scopes.
    #[schema(value_type = ScopeNames)]
    scopes: Names,
    /// Scopes of other APIs that its tokens may carry; Strongroom honours none of them.
    #[serde(default, rename = "otherScopes")]
    #[schema(value_type = OtherScopeNames)]
    external_scopes: Names,
    /// Scopes that its token requests have to name.
    #[serde(default)]
    #[schema(value_type = OtherScopeNames)]
    required_scopes: Names,
    /// How long its tokens live, in seconds.
    #[schema(minimum = 60, maximum = 86400, default = 3600)]
    pub(super) token_lifetime: Option<u32>,
    /// Tokens that it may read in the clear within a minute; the service's setting if left out.
    #[schema(minimum = 1, maximum = 1_000_000, example = 600)]
    reveals_per_minute: Option<u32>,
    /// Public keys that it proves itself with (RFC 7523), in place of a secret; with `workload`, its issuer's.
    #[schema(value_type = Option<JwkSetShape>)]
    jwks: Option<Value>,
    /// Where these keys are published, in place of `jwks`.
    #[serde(rename = "jwksURI")]
    #[schema(value_type = Option<JwksURI>)]
    jwks_uri: Option<String>,
    /// The workload whose tokens it presents in place of a secret.
    workload: Option<Workload>,
    /// Whether each of its tokens is bound to a key (RFC 9449).
    #[serde(default)]
    #[schema(default = false)]
    dpop_bound: bool,
}

/// What changes about a client. What is left out stays; `null` removes `jwks`, `jwksURI` and `workload`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(min_properties = 1)]
#[expect(clippy::option_option, reason = "tells `null` from what is left out")]
pub struct ChangeClient {
    /// Whether it is refused, together with its tokens.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub(super) disabled: Option<bool>,
    /// Public keys that it proves itself with; with `workload`, its issuer's. They take the place of `jwksURI`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<JwkSetShape>)]
    jwks: Option<Option<Value>>,
    /// Where these keys are published. It takes the place of `jwks`.
    #[serde(default, rename = "jwksURI", deserialize_with = "given")]
    #[schema(value_type = Option<JwksURI>)]
    jwks_uri: Option<Option<String>>,
    /// The workload whose tokens it presents.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Workload>)]
    workload: Option<Option<Workload>>,
    /// Whether each of its tokens is bound to a key.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    dpop_bound: Option<bool>,
}

/// Tells a field that is `null` from one that is left out.
#[expect(clippy::option_option, reason = "that is what it tells apart")]
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(value).map(Some)
}

/// Refuses `null`, which beside fields that it removes could be taken for a value.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// How a secret follows another.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddSecret {
    /// How long the secrets that it has live on, in seconds; 0 ends them at once.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86400)]
    pub(super) old_secrets_end_in: Option<u32>,
}

impl CreateClient {
    pub(super) fn scopes(&self) -> Result<Scopes, Problem> {
        let scopes = self.scopes.each().map(str::parse).collect::<Result<_, _>>();
        scopes.map_err(|unknown| Problem::invalid_field("scopes", unknown))
    }

    pub(super) fn terms(&self) -> Result<Terms, Problem> {
        let external_scopes = ExternalScopes::new(self.external_scopes.each())
            .map_err(|what| Problem::invalid_field("otherScopes", what))?;
        let required_scopes = self.required_scopes.each().map(str::to_owned).collect();
        let registration = Registration {
            jwks: self.jwks.clone(),
            jwks_uri: self.jwks_uri.clone(),
            workload: self.workload.clone(),
            dpop_bound: self.dpop_bound,
        };
        let reveals_per_minute = self.reveals_per_minute;
        Ok(Terms { external_scopes, required_scopes, reveals_per_minute, registration })
    }
}

impl ChangeClient {
    pub(super) fn registration(self) -> Change {
        let Self { jwks, jwks_uri, workload, dpop_bound, disabled: _ } = self;
        Change { jwks, jwks_uri, workload, dpop_bound }
    }
}

impl From<InvalidRegistration> for Problem {
    fn from(invalid: InvalidRegistration) -> Self {
        Self::invalid_field(invalid.field, invalid.what)
    }
}

impl From<InvalidTerms> for Problem {
    fn from(what: InvalidTerms) -> Self {
        let field = match what {
            InvalidTerms::Name(why) => return Self::invalid_field("name", why),
            InvalidTerms::NoScope => "scopes",
            InvalidTerms::Lifetime => "tokenLifetime",
            InvalidTerms::RequiredIsMissing(_) => "requiredScopes",
            InvalidTerms::Reveals => "revealsPerMinute",
        };
        Self::invalid_field(field, what)
    }
}
