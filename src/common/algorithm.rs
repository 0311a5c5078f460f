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

/// The algorithms that others may sign with, in client assertions and DPoP proofs: signatures alone, never a MAC and
/// never `none` (RFC 8725 §3.1, RFC 9449 §4.3). `Ed25519` is the name of RFC 9864 for what RFC 8037 calls `EdDSA`.
pub const ACCEPTED: [&str; 10] =
    ["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
