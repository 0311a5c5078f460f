//! Signs statements that others can verify with the published keys. The key belongs to `oauth`, which passes the
//! signing function in, so that this module need not import it.

use std::sync::Arc;

use serde_json::Value;

type Sign = dyn Fn(&str, &Value) -> Option<String> + Send + Sync;

/// Creates JWS in the compact form (RFC 7515 §7.1) that verify with the service's published key set.
#[derive(Clone)]
pub struct Signer {
    issuer: Arc<str>,
    sign: Arc<Sign>,
}

impl Signer {
    /// Creates a signer from the issuer's name and a function that holds the key.
    pub fn new(
        issuer: &str,
        sign: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { issuer: issuer.into(), sign: Arc::new(sign) }
    }

    /// Returns the service's name, the `iss` of what it signs.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs claims under a `typ` of their own, so that no statement is accepted as another or as an access token
    /// (RFC 8725 §3.11); returns `None` if no key signs.
    #[must_use]
    pub fn sign(&self, typ: &str, claims: &Value) -> Option<String> {
        (self.sign)(typ, claims)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.issuer)
    }
}
