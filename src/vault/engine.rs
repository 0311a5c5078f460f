//! What is passed to a key engine outside this process, and what it says when it cannot be used.

use std::error::Error;

use reqwest::Url;

use super::keys::KeyOwner;
use super::local::KeyBytes;
use crate::common::ids::DataKeyId;
use crate::common::text;

/// The largest part of an error of another system that is kept, in bytes.
const MAX_CAUSE: usize = 200;

/// A data key to wrap.
pub(super) struct NewKey {
    pub(super) id: DataKeyId,
    pub(super) owner: KeyOwner,
    pub(super) bytes: KeyBytes,
}

/// A call that brought no answer: the engine is away, sealed, overloaded, or refuses this service.
#[derive(Debug)]
pub(super) struct Down(pub(super) String);

/// Shortens an error of another system.
pub(super) fn tame(what: &str) -> String {
    text::tame(what.trim(), MAX_CAUSE).replace(['\n', '\r'], " ")
}

/// Returns the first cause of an error. It names no URL, unlike the error around it.
pub(super) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Returns whether data keys may be sent there: by TLS, or on loopback, because they would cross the network in the clear.
pub(super) fn is_protected(url: &Url) -> bool {
    let on_loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && on_loopback)
}
