//! Calls to URLs that callers configure: through this service they must not reach what only this
//! service can reach (server-side request forgery).
//!
//! Such a URL is https, names no credentials and no fragment, and leads to public addresses alone.
//! Addresses are checked when the connection is made: a check of the name beforehand would hold for
//! that moment only. The operator's `STRONGROOM_ALLOW_PRIVATE_ADDRESSES` turns the check off.
//! Redirects are never followed.
//!
//! May import: common.

mod address;
mod client;
mod url;

pub use address::is_public;
pub use client::{Client, NoAnswer, Unreadable, read_bounded, retry_after};
pub use url::{InvalidUrl, MAX_URL, OutboundUrl};

/// Which addresses outbound calls may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses alone, over TLS.
    Public,
    /// Every address, without TLS as well.
    Anywhere,
}

impl Reach {
    /// Returns [`Anywhere`](Self::Anywhere) if the operator allows private addresses.
    #[must_use]
    pub const fn allowing_private_addresses(allowed: bool) -> Self {
        if allowed { Self::Anywhere } else { Self::Public }
    }

    /// Returns whether a connection to `address` may be made.
    #[must_use]
    pub fn allows(self, address: std::net::IpAddr) -> bool {
        self == Self::Anywhere || is_public(address)
    }
}
