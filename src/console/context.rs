//! What every page works with.

use std::sync::Arc;

use super::provider::OpenIdProvider;
use crate::common::clock::Clock;
use crate::database::Pool;
use crate::operators::passkeys::RelyingParty;
use crate::vault::Vault;

/// What every page works with.
#[derive(Clone, Debug)]
pub struct Console {
    /// The console's origin, as browsers write it: scheme, host, port.
    pub origin: Arc<str>,
    /// The console, as passkeys know it.
    pub party: RelyingParty,
    /// The OpenID provider with which operators sign in, if there is one.
    pub provider: Option<OpenIdProvider>,
    /// The process's clock, by which a provider's tokens expire.
    pub clock: Clock,
    /// The console's own connections.
    pub pool: Pool,
    /// The vault, whose key hashes the secrets of sessions.
    pub vault: Vault,
}
