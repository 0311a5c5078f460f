//! Signature algorithms of tokens.

/// The algorithms that Strongroom signs with (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, which RFC 9068 §2.1 requires every server to support.
    Rs256,
    /// Ed25519.
    EdDsa,
}

super::named::named!(Algorithm { Es256 => "ES256", Rs256 => "RS256", EdDsa => "EdDSA" }, parse);
