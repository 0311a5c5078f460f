//! Signs statements by which this service can be held to its word. The key is another room's.

use std::sync::Arc;

use serde_json::Value;

type Sign = dyn Fn(&str, &Value) -> Option<String> + Send + Sync;

/// Makes JWS in the compact form (RFC 7515 §7.1) that verify with the service's published key set.
#[derive(Clone)]
pub struct Signer {
    issuer: Arc<str>,
    sign: Arc<Sign>,
}

impl Signer {
    /// A signer for the service of this name, by whoever has the key.
    pub fn new(
        issuer: &str,
        sign: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { issuer: issuer.into(), sign: Arc::new(sign) }
    }

    /// The name of the service, the `iss` of what it signs.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs claims under a `typ` of their own, so that no statement passes for another or for an
    /// access token (RFC 8725 §3.11); `None` where no key signs.
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
