//! The variables about Strongroom as an authorization server.

use std::time::Duration;

use super::Reader;
use crate::base::algorithm::Algorithm;

/// How tokens are signed and how much a client may read.
#[derive(Debug, Clone)]
pub struct OauthConfig {
    /// How new signing keys sign.
    pub signing_algorithm: Algorithm,
    /// For how long a key signs; `None` where only the command line rotates.
    pub signing_key_lifetime: Option<Duration>,
    /// How many tokens a client may read in the clear within a minute, where nothing else is said of it.
    pub reveals_per_minute: u32,
}

impl OauthConfig {
    /// Reads the variables about OAuth.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        const DAY: u32 = 24 * 3600;
        let lifetime = reader.seconds("STRONGROOM_SIGNING_KEY_LIFETIME", 90 * DAY, 0..=3650 * DAY);
        if !lifetime.is_zero() && lifetime < Duration::from_hours(1) {
            reader.mistake(
                "STRONGROOM_SIGNING_KEY_LIFETIME",
                "must be 0, for never, or at least 3600 seconds",
            );
        }
        Self {
            signing_algorithm: reader.or(
                "STRONGROOM_SIGNING_ALGORITHM",
                Algorithm::Es256,
                |text| Algorithm::parse(text).ok_or("must be ES256, RS256 or EdDSA"),
            ),
            signing_key_lifetime: Some(lifetime).filter(|lifetime| !lifetime.is_zero()),
            reveals_per_minute: reader.number("STRONGROOM_REVEALS_PER_MINUTE", 6000, 1..=1_000_000),
        }
    }
}
