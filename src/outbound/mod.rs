//! Calls to URLs that came in by API: whoever may configure one must not reach, through this service,
//! what only this service can reach.
//!
//! Such a URL is https, names no credentials and no fragment, and leads to public addresses alone.
//! That is checked when the connection is made, on the addresses that it is made to: a check of the
//! name beforehand would hold for the moment of the check and no longer. The operator's own
//! `STRONGROOM_ALLOW_PRIVATE_ADDRESSES` turns it off. Redirects are never followed.
//!
//! Knows: base.

mod address;
mod client;
mod url;

pub use address::is_public;
pub use client::{Client, NoAnswer, Unreadable, read_bounded, retry_after};
pub use url::{InvalidUrl, OutboundUrl};

/// How far outbound calls may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses alone, over TLS.
    Public,
    /// Everything that this machine reaches, and without TLS too.
    Anywhere,
}

impl Reach {
    /// [`Anywhere`](Self::Anywhere) where the operator allows private addresses.
    #[must_use]
    pub const fn allowing_private_addresses(allowed: bool) -> Self {
        if allowed { Self::Anywhere } else { Self::Public }
    }

    /// Whether a connection to `address` may be made.
    #[must_use]
    pub fn allows(self, address: std::net::IpAddr) -> bool {
        self == Self::Anywhere || is_public(address)
    }
}
