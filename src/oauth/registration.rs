//! What an administrator registers about a client: its keys, its workload, and whether its tokens are bound to keys.
//! Checks and changes, without I/O.

use serde_json::Value;

use super::jws::KeySet;
use super::model::MAX_CLAIM;
pub use super::model::{
    JwkSetShape, JwksURI, Registration, Workload, WorkloadAudience, WorkloadIssuer, WorkloadSubject,
};
use crate::common::text;
use crate::outbound::{OutboundUrl, Reach};

/// The maximum size of a registered JWK set, in bytes.
const MAX_KEY_SET: usize = 32 * 1024;

/// A field that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct InvalidRegistration {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

fn invalid(field: &'static str, what: impl std::fmt::Display) -> InvalidRegistration {
    InvalidRegistration { field, what: what.to_string() }
}

/// What changes about a registration. What is left out stays; `Some(None)` removes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Public keys.
    pub jwks: Option<Option<Value>>,
    /// Where they are published.
    pub jwks_uri: Option<Option<String>>,
    /// The workload whose tokens the client presents.
    pub workload: Option<Option<Workload>>,
    /// Whether its tokens are bound to a key.
    pub dpop_bound: Option<bool>,
}

impl Change {
    /// Returns whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a registration with this change. Keys take the place of a URL of keys, and the other way round, unless
    /// the change speaks of both.
    #[must_use]
    pub fn applied_to(&self, before: Registration) -> Registration {
        let replaced = |by: bool, speaks: bool| by && !speaks;
        let jwks_given = matches!(self.jwks, Some(Some(_)));
        let uri_given = matches!(self.jwks_uri, Some(Some(_)));
        let kept_jwks = before.jwks.filter(|_| !replaced(uri_given, self.jwks.is_some()));
        let kept_uri = before.jwks_uri.filter(|_| !replaced(jwks_given, self.jwks_uri.is_some()));
        Registration {
            jwks: self.jwks.clone().unwrap_or(kept_jwks),
            jwks_uri: self.jwks_uri.clone().unwrap_or(kept_uri),
            workload: self.workload.clone().unwrap_or(before.workload),
            dpop_bound: self.dpop_bound.unwrap_or(before.dpop_bound),
        }
    }
}

/// Checks a registration. URLs that this service calls lead to public addresses over https, unless `reach` says
/// otherwise.
///
/// # Errors
/// Fails with the first field that is invalid.
pub fn check(registration: &Registration, reach: Reach) -> Result<(), InvalidRegistration> {
    let Registration { jwks, jwks_uri, workload, dpop_bound: _ } = registration;
    if jwks.is_some() && jwks_uri.is_some() {
        return Err(invalid("jwksURI", "cannot be given together with jwks"));
    }
    if let Some(jwks) = jwks {
        if jwks.to_string().len() > MAX_KEY_SET {
            return Err(invalid("jwks", format!("must not exceed {MAX_KEY_SET} bytes")));
        }
        KeySet::registered(jwks).map_err(|what| invalid("jwks", what))?;
    }
    if let Some(uri) = jwks_uri {
        OutboundUrl::parse(uri, reach).map_err(|what| invalid("jwksURI", what))?;
    }
    let Some(workload) = workload else { return Ok(()) };
    // Without keys the issuer is asked for them; with keys its URL is a name and nothing else.
    let is_called = jwks.is_none() && jwks_uri.is_none();
    check_workload(workload, if is_called { reach } else { Reach::Anywhere })
}

/// Checks a workload. An empty value is refused, so that it cannot be taken for any value.
fn check_workload(workload: &Workload, reach: Reach) -> Result<(), InvalidRegistration> {
    for (field, claim) in [
        ("workload.issuer", &workload.issuer),
        ("workload.audience", &workload.audience),
        ("workload.subject", &workload.subject),
    ] {
        text::check_secret(claim, MAX_CLAIM).map_err(|what| invalid(field, what))?;
    }
    OutboundUrl::parse_base(&workload.issuer, reach)
        .map_err(|what| invalid("workload.issuer", what))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(issuer: &str, audience: &str, subject: &str) -> Workload {
        let text = str::to_owned;
        Workload { issuer: text(issuer), audience: text(audience), subject: text(subject) }
    }

    fn field(registration: &Registration) -> Option<&'static str> {
        check(registration, Reach::Public).err().map(|invalid| invalid.field)
    }

    fn ed25519() -> Value {
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] })
    }

    #[test]
    fn an_empty_claim_of_a_workload_is_refused() {
        let issuer = "https://issuer.example.com";
        for (given, at) in [
            (workload("", "a", "s"), "workload.issuer"),
            (workload(issuer, "", "s"), "workload.audience"),
            (workload(issuer, " ", "s"), "workload.audience"),
            (workload(issuer, "a", ""), "workload.subject"),
            (workload(issuer, "a", "s\n"), "workload.subject"),
            (workload("issuer", "a", "s"), "workload.issuer"),
            (workload("http://issuer.example.com", "a", "s"), "workload.issuer"),
            (workload("https://127.0.0.1", "a", "s"), "workload.issuer"),
            (workload("https://issuer.example.com?x", "a", "s"), "workload.issuer"),
        ] {
            let registration = Registration { workload: Some(given), ..Registration::default() };
            assert_eq!(field(&registration), Some(at), "{registration:?}");
        }
        let workload = Some(workload(issuer, "a", "s"));
        assert_eq!(field(&Registration { workload, ..Registration::default() }), None);
    }

    #[test]
    fn an_issuer_that_is_never_called_may_be_anywhere() {
        let workload = Some(workload("https://10.0.0.1", "a", "s"));
        let called = Registration { workload, ..Registration::default() };
        assert_eq!(field(&called), Some("workload.issuer"));
        assert_eq!(field(&Registration { jwks: Some(ed25519()), ..called }), None);
    }

    #[test]
    fn keys_come_in_one_way() {
        let both = Registration {
            jwks: Some(ed25519()),
            jwks_uri: Some("https://a.example.com/".to_owned()),
            ..Registration::default()
        };
        assert_eq!(field(&both), Some("jwksURI"));
        let http =
            Registration { jwks: None, jwks_uri: Some("http://a.example.com/".to_owned()), ..both };
        assert_eq!(field(&http), Some("jwksURI"));
        let none = Registration { jwks: Some(json!({ "keys": [] })), ..Registration::default() };
        assert_eq!(field(&none), Some("jwks"));
    }

    #[test]
    fn new_keys_take_the_place_of_a_url_and_the_other_way_round() {
        let uri = || Some("https://a.example.com/".to_owned());
        let at = Registration { jwks_uri: uri(), dpop_bound: true, ..Registration::default() };
        let keys = Change { jwks: Some(Some(ed25519())), ..Change::default() };
        let inline = keys.applied_to(at.clone());
        assert_eq!(
            (inline.jwks.is_some(), &inline.jwks_uri, inline.dpop_bound),
            (true, &None, true)
        );
        let back = Change { jwks_uri: Some(uri()), ..Change::default() };
        assert_eq!(back.applied_to(inline.clone()), at);
        let none = Change { jwks: Some(None), ..Change::default() };
        assert!(!none.applied_to(inline).authenticates());
    }
}
