//! Random tokens that callers hold and of which only a keyed hash is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::VaultError;
use super::associated_data::random;
use crate::common::secret::SecretText;

/// Random bits of a token, in bytes.
const BYTES: usize = 32;

/// Generates a token: `prefix`, by which a leaked one is recognized, and 256 random bits in base64url without padding
/// (RFC 4648 §5).
///
/// # Errors
/// [`VaultError::NoRandomness`].
pub fn random_token(prefix: &str) -> Result<SecretText, VaultError> {
    let bytes: Zeroizing<[u8; BYTES]> = Zeroizing::new(random()?);
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Ok(SecretText::new(format!("{prefix}{}", *text)))
}

/// Returns whether a text has the form of a [`random_token`] with this prefix.
#[must_use]
pub fn is_token(prefix: &str, token: &str) -> bool {
    let mut bytes = Zeroizing::new([0_u8; BYTES + 1]);
    let text = token.strip_prefix(prefix);
    let decoded = text.map(|text| URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()));
    matches!(decoded, Some(Ok(BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_form() {
        let token = random_token("cs_").unwrap();
        assert!(is_token("cs_", token.expose()));
        assert!(!is_token("strongroom_", token.expose()));
        let text = token.expose().strip_prefix("cs_").unwrap();
        let wrong = [
            text.to_owned(),
            "cs_".to_owned(),
            format!("cs_{text}A"),
            format!("cs_{}", &text[1..]),
            format!("cs_{}=", &text[1..]),
            format!("cs_{}+", &text[1..]),
            format!("cs_{}", "é".repeat(21)),
            format!("cs_{}", "A".repeat(100_000)),
        ];
        for wrong in wrong {
            assert!(!is_token("cs_", &wrong));
        }
    }
}
