//! What a browser and an authenticator say, taken apart and verified. No I/O.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::operators::OperatorName;

/// Why an answer does not verify, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A member is not base64url, or not of its form.
    #[error("the browser's answer has another form than expected")]
    Form,
    /// It answers another kind of question.
    #[error("the answer is to another kind of question")]
    Type,
    /// It was made on another page.
    #[error("the answer was made on another page")]
    Origin,
    /// The challenge is unknown, expired, used, or of another session.
    #[error("the question was answered before, or is older than five minutes; begin again")]
    Challenge,
    /// It is for another relying party, or nobody was verified.
    #[error("the authenticator did not verify its user, or means another site")]
    AuthenticatorData,
    /// The key is of an algorithm other than `ES256` and `EdDSA`.
    #[error("the authenticator's key is neither ES256 nor EdDSA")]
    Algorithm,
    /// The passkey is enrolled already.
    #[error("this passkey is enrolled already")]
    Known,
    /// The operator has too many.
    #[error("there are twenty passkeys; remove one first")]
    TooMany,
    /// The label is empty, too long, or has control characters.
    #[error("a passkey's name is 1 to 100 characters")]
    Label,
    /// No such passkey, or its operator is disabled.
    #[error("this passkey is not enrolled here")]
    Unknown,
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Signature,
    /// The counter did not grow: the authenticator may have been copied.
    #[error("the passkey's counter did not grow; it may have been copied, and is not accepted")]
    Counter(OperatorName),
}

/// Decodes base64url without padding.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Form)
}

/// The console, as authenticators know it.
#[derive(Clone, Debug)]
pub struct RelyingParty {
    /// The origin of its pages.
    pub origin: String,
    /// The RP ID: the origin's host.
    pub id: String,
}

impl RelyingParty {
    /// Returns the relying party of an origin.
    #[must_use]
    pub fn of_origin(origin: &str) -> Self {
        let url = url::Url::parse(origin).ok();
        let id = url.as_ref().and_then(url::Url::host_str).unwrap_or_default();
        Self { origin: origin.to_owned(), id: id.to_owned() }
    }
}

/// Which of the two questions was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ceremony {
    Create,
    Get,
}

/// What the browser says about the question (§5.8.1).
#[derive(Debug)]
pub(super) struct ClientData {
    pub(super) challenge: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

impl ClientData {
    pub(super) fn parse(
        bytes: &[u8],
        ceremony: Ceremony,
        party: &RelyingParty,
    ) -> Result<Self, Refused> {
        let raw: RawClientData = serde_json::from_slice(bytes).map_err(|_| Refused::Form)?;
        let kind = match ceremony {
            Ceremony::Create => "webauthn.create",
            Ceremony::Get => "webauthn.get",
        };
        if raw.r#type != kind {
            return Err(Refused::Type);
        }
        if raw.origin != party.origin || raw.cross_origin || raw.top_origin.is_some() {
            return Err(Refused::Origin);
        }
        Ok(Self { challenge: decode(&raw.challenge)? })
    }
}

/// A credential that an authenticator made.
#[derive(Debug)]
pub(super) struct Credential {
    pub(super) id: Vec<u8>,
    pub(super) key: PublicKey,
}

/// What the authenticator says (§6.1).
#[derive(Debug)]
pub(super) struct AuthenticatorData {
    pub(super) sign_count: u32,
    /// Only after `create`.
    pub(super) credential: Option<Credential>,
}

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;
const HAS_CREDENTIAL: u8 = 0x40;
const HAS_EXTENSIONS: u8 = 0x80;

impl AuthenticatorData {
    /// Takes it apart, and checks the RP ID's hash, the user's presence and verification, and the backup flags.
    pub(super) fn parse(bytes: &[u8], party: &RelyingParty) -> Result<Self, Refused> {
        let (hash, rest) = bytes.split_at_checked(32).ok_or(Refused::Form)?;
        let ([flags], rest) = rest.split_first_chunk().ok_or(Refused::Form)?;
        let (count, rest) = rest.split_first_chunk().ok_or(Refused::Form)?;
        let expected = digest::digest(&digest::SHA256, party.id.as_bytes());
        let is_set = |flag: u8| flags & flag != 0;
        let verified = is_set(USER_PRESENT) && is_set(USER_VERIFIED);
        let backup_is_sound = is_set(BACKUP_ELIGIBLE) || !is_set(BACKED_UP);
        if hash != expected.as_ref() || !verified || !backup_is_sound {
            return Err(Refused::AuthenticatorData);
        }
        let (credential, rest) = if is_set(HAS_CREDENTIAL) {
            let (credential, rest) = credential(rest)?;
            (Some(credential), rest)
        } else {
            (None, rest)
        };
        if rest.is_empty() == is_set(HAS_EXTENSIONS) {
            return Err(Refused::Form);
        }
        Ok(Self { sign_count: u32::from_be_bytes(*count), credential })
    }
}

/// Takes the attested credential data apart (§6.5.1).
fn credential(bytes: &[u8]) -> Result<(Credential, &[u8]), Refused> {
    let (_aaguid, rest) = bytes.split_at_checked(16).ok_or(Refused::Form)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Refused::Form)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (id, rest) = rest.split_at_checked(length).ok_or(Refused::Form)?;
    if id.is_empty() || id.len() > 1023 {
        return Err(Refused::Form);
    }
    let (key, rest) = PublicKey::from_cose(rest).ok_or(Refused::Algorithm)?;
    Ok((Credential { id: id.to_owned(), key }, rest))
}

/// The key of a passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// P-256, uncompressed: `04`, x, y.
    Es256(Vec<u8>),
    /// Ed25519.
    EdDsa(Vec<u8>),
}

/// `COSE_Key` of an ES256 key in CTAP2's canonical CBOR, up to x: `{1: 2, 3: -7, -1: 1, -2: h'…32 bytes`. §6.5.1.1
/// demands that form and those members and no others, so there is one way to write a key.
const ES256_HEAD: [u8; 10] = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
/// What is between x and y: `, -3: h'…32 bytes`.
const ES256_BETWEEN: [u8; 3] = [0x22, 0x58, 0x20];
/// `COSE_Key` of an Ed25519 key, up to x: `{1: 1, 3: -8, -1: 6, -2: h'…32 bytes`.
const EDDSA_HEAD: [u8; 10] = [0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20];

impl PublicKey {
    /// Reads a `COSE_Key`; returns it and what follows it.
    fn from_cose(bytes: &[u8]) -> Option<(Self, &[u8])> {
        if let Some(rest) = bytes.strip_prefix(ES256_HEAD.as_slice()) {
            let (x, rest) = rest.split_at_checked(32)?;
            let (y, rest) = rest.strip_prefix(ES256_BETWEEN.as_slice())?.split_at_checked(32)?;
            return Some((Self::Es256([&[4], x, y].concat()), rest));
        }
        let (x, rest) = bytes.strip_prefix(EDDSA_HEAD.as_slice())?.split_at_checked(32)?;
        Some((Self::EdDsa(x.to_owned()), rest))
    }

    /// Returns the key of a row.
    pub(super) fn new(algorithm: i16, bytes: Vec<u8>) -> Option<Self> {
        match algorithm {
            -7 => Some(Self::Es256(bytes)),
            -8 => Some(Self::EdDsa(bytes)),
            _ => None,
        }
    }

    /// Returns the number of the algorithm (COSE) and the key's bytes.
    pub(super) fn parts(&self) -> (i16, &[u8]) {
        match self {
            Self::Es256(bytes) => (-7, bytes),
            Self::EdDsa(bytes) => (-8, bytes),
        }
    }

    /// Verifies the signature over the authenticator's data and the hash of the browser's (§7.2, step 20).
    pub(super) fn verify(&self, data: &[u8], client: &[u8], signature: &[u8]) -> bool {
        let hash = digest::digest(&digest::SHA256, client);
        let message = [data, hash.as_ref()].concat();
        let verified = match self {
            Self::Es256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&message, signature)
            }
            Self::EdDsa(key) => UnparsedPublicKey::new(&ED25519, key).verify(&message, signature),
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party() -> RelyingParty {
        RelyingParty::of_origin("https://console.example.com")
    }

    fn data(id: &str, flags: u8, rest: &[u8]) -> Vec<u8> {
        let hash = digest::digest(&digest::SHA256, id.as_bytes());
        [hash.as_ref(), &[flags], &7_u32.to_be_bytes(), rest].concat()
    }

    fn attested(key: &[u8]) -> Vec<u8> {
        [[0; 16].as_slice(), &[0, 3], b"abc", key].concat()
    }

    fn es256() -> Vec<u8> {
        [ES256_HEAD.as_slice(), &[1; 32], &ES256_BETWEEN, &[2; 32]].concat()
    }

    #[test]
    fn a_credential_is_read_with_its_id_and_its_key() {
        let bytes = data("console.example.com", 0x45, &attested(&es256()));
        let parsed = AuthenticatorData::parse(&bytes, &party()).unwrap();
        let credential = parsed.credential.unwrap();
        assert_eq!((parsed.sign_count, credential.id.as_slice()), (7, b"abc".as_slice()));
        assert_eq!(credential.key.parts().0, -7);
        let eddsa = [EDDSA_HEAD.as_slice(), &[3; 32]].concat();
        let bytes = data("console.example.com", 0x45, &attested(&eddsa));
        let parsed = AuthenticatorData::parse(&bytes, &party()).unwrap();
        assert_eq!(parsed.credential.unwrap().key, PublicKey::EdDsa(vec![3; 32]));
    }

    #[test]
    fn another_site_an_unverified_user_and_unsound_flags_are_refused() {
        for (id, flags) in [
            ("evil.example", 0x05),
            ("example.com", 0x05),
            ("console.example.com", 0x01),
            ("console.example.com", 0x04),
            ("console.example.com", 0x15),
        ] {
            let refused = AuthenticatorData::parse(&data(id, flags, &[]), &party()).unwrap_err();
            assert_eq!(refused, Refused::AuthenticatorData, "{id} {flags:x}");
        }
        assert!(
            AuthenticatorData::parse(&data("console.example.com", 0x1d, &[]), &party()).is_ok()
        );
    }

    #[test]
    fn bytes_that_no_flag_announces_and_short_data_are_refused() {
        let id = "console.example.com";
        for bytes in [data(id, 0x05, b"x"), data(id, 0x85, &[]), data(id, 0x45, &[]), vec![0; 36]] {
            assert!(AuthenticatorData::parse(&bytes, &party()).is_err());
        }
        let whole = data(id, 0x45, &attested(&es256()));
        for length in 0..whole.len() {
            assert!(AuthenticatorData::parse(&whole[..length], &party()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_key_of_another_algorithm_is_refused() {
        let rs256 = [0xa4, 0x01, 0x03, 0x03, 0x39, 0x01, 0x00, 0x20, 0x59, 0x01, 0x00];
        let bytes = data("console.example.com", 0x45, &attested(&rs256));
        let refused = AuthenticatorData::parse(&bytes, &party()).unwrap_err();
        assert_eq!(refused, Refused::Algorithm);
    }

    #[test]
    fn client_data_of_another_page_or_question_is_refused() {
        let json = |kind: &str, origin: &str, rest: &str| {
            format!(r#"{{"type":"{kind}","challenge":"YWJj","origin":"{origin}"{rest}}}"#)
        };
        let parse = |text: &str| ClientData::parse(text.as_bytes(), Ceremony::Get, &party());
        let ours = "https://console.example.com";
        assert_eq!(parse(&json("webauthn.get", ours, "")).unwrap().challenge, b"abc");
        let more = r#","crossOrigin":false,"new":{}"#;
        assert!(parse(&json("webauthn.get", ours, more)).is_ok());
        let refused = |text: &str| parse(text).unwrap_err();
        assert_eq!(refused(&json("webauthn.create", ours, "")), Refused::Type);
        for origin in
            ["https://example.com", "http://console.example.com", "https://console.example.com:444"]
        {
            assert_eq!(refused(&json("webauthn.get", origin, "")), Refused::Origin);
        }
        assert_eq!(refused(&json("webauthn.get", ours, r#","crossOrigin":true"#)), Refused::Origin);
        let framed = r#","topOrigin":"https://evil.example""#;
        assert_eq!(refused(&json("webauthn.get", ours, framed)), Refused::Origin);
    }
}
