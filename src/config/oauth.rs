//! The settings of the authorization server.

use std::time::Duration;

use super::Reader;
use crate::common::algorithm::Algorithm;

/// How tokens are signed and how many secrets a client may reveal.
#[derive(Debug, Clone)]
pub struct OauthConfig {
    /// The algorithm of new signing keys.
    pub signing_algorithm: Algorithm,
    /// How long a key signs; `None` if only the command line rotates keys.
    pub signing_key_lifetime: Option<Duration>,
    /// How many tokens a client may reveal per minute unless its own limit says otherwise.
    pub reveals_per_minute: u32,
}

impl OauthConfig {
    /// Reads the settings about OAuth.
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
