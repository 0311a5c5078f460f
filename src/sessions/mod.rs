//! Connect sessions: a short-lived token that lets one browser submit one user's results and read the
//! connections that it created, and nothing else.
//!
//! May import: audit, common, database, http, users, vault.

pub mod routes;
mod store;

pub use store::find;

use crate::common::secret::SecretText;
use crate::vault::{HashKey, KeyedHash, VaultError};

/// The prefix of a session token, which distinguishes it from an access token.
pub const TOKEN_PREFIX: &str = "cs_";
/// The lifetime of a session in minutes: that of an access code.
const MINUTES: i32 = 30;

/// Creates a session token: the prefix and 256 random bits in base64url.
fn new_token() -> Result<SecretText, VaultError> {
    use base64::Engine as _;
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| VaultError::NoRandomness)?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice());
    Ok(SecretText::new(format!("{TOKEN_PREFIX}{text}")))
}

/// Returns whether a token can be a session's. Others are refused without a query.
#[must_use]
pub fn is_token(token: &str) -> bool {
    use base64::Engine as _;
    let text = token.strip_prefix(TOKEN_PREFIX);
    let mut bytes = zeroize::Zeroizing::new([0_u8; 33]);
    let decoded = text.map(|text| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice())
    });
    matches!(decoded, Some(Ok(32)))
}

fn token_hash(key: &HashKey, token: &str) -> KeyedHash {
    key.hash(&[b"connect session", token.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_form() {
        let token = new_token().unwrap();
        assert!(is_token(token.expose()));
        let text = token.expose().trim_start_matches(TOKEN_PREFIX);
        let wrong = [
            text.to_owned(),
            TOKEN_PREFIX.to_owned(),
            format!("cs_{text}A"),
            format!("cs_{}", &text[1..]),
            format!("cs_{}=", &text[1..]),
            format!("cs_{}+", &text[1..]),
            format!("cs_{}", "é".repeat(21)),
            format!("cs_{}", "A".repeat(100_000)),
        ];
        for wrong in wrong {
            assert!(!is_token(&wrong));
        }
    }
}
