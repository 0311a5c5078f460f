//! How far a connection is that a bulk revocation revoked.

use crate::common::named::named;

/// How far a connection is that a bulk revocation revoked. The function `revocation_progress` of the migrations says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationProgress {
    /// Ended with the certainty that the provider holds nothing usable.
    Told,
    /// Ended without it.
    Failed,
    /// Being delinked, including what is retried.
    Telling,
    /// Held until the throttle releases it.
    Waiting,
}

named!(RevocationProgress {
    Told => "told",
    Failed => "failed",
    Telling => "telling",
    Waiting => "waiting",
});

impl RevocationProgress {
    /// What the provider has not confirmed.
    pub const UNCONFIRMED: [Self; 3] = [Self::Failed, Self::Telling, Self::Waiting];
    /// What lives at the provider, and is unusable here.
    pub const LIVE: [Self; 2] = [Self::Telling, Self::Waiting];
}
