//! What is passed to a key engine outside this process, and what it says when it cannot be used.

use super::keys::KeyOwner;
use super::local::KeyBytes;
use crate::common::ids::DataKeyId;

/// A data key to wrap.
pub(super) struct NewKey {
    pub(super) id: DataKeyId,
    pub(super) owner: KeyOwner,
    pub(super) bytes: KeyBytes,
}

/// A call that brought no answer: the engine is away, sealed, overloaded, or refuses this service.
#[derive(Debug)]
pub(super) struct Down(pub(super) String);
