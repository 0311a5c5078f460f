//! Public keys as JWKs and JWK sets (RFC 7517).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::{Jws, algorithm};

/// The sizes of RSA keys that are accepted, in bits: RFC 7518 §3.3 asks for no less than 2048.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// How many keys of a set are looked at.
const MAX_KEYS: usize = 64;
/// Members of a JWK that hold a private or a symmetric key (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a JWK is no key that this service verifies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It has members of a private or a symmetric key.
    #[error("it is a private or a symmetric key; only the public half of a key pair belongs here")]
    Private,
    /// An RSA key below 2048 bits, above 8192, or with an exponent below 65537.
    #[error("an RSA key has 2048 to 8192 bits and an exponent of at least 65537")]
    Weak,
    /// A kind, a curve or an algorithm that is not accepted.
    #[error("a key is RSA, EC on P-256 or P-384, or Ed25519, and `alg` fits it")]
    Kind,
    /// Members are missing or malformed, or the point is not on the curve.
    #[error("its members are missing or malformed")]
    Malformed,
    /// `use` or `key_ops` is for something else than verifying signatures.
    #[error("its `use` or `key_ops` is not for signatures")]
    NotForSignatures,
}

/// Why a JWK set cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// It is not an object with a list of keys.
    #[error("must be a JWK set: an object whose `keys` holds 1 to {MAX_KEYS} JWKs")]
    Form,
    /// The key at this index is not accepted.
    #[error("the key at index {0} is not accepted: {1}")]
    Key(usize, InvalidKey),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa => algorithm.family() == jsonwebtoken::AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }
}

/// A public key that others sign with.
pub(in crate::oauth) struct PublicKey {
    kind: Kind,
    id: Option<String>,
    /// The one algorithm that the key is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
    thumbprint: String,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?} {})", self.kind, self.thumbprint)
    }
}

/// The kind of a key, the key itself, and its required members in the order of RFC 7638 §3.2.
type Read = (Kind, DecodingKey, Vec<(&'static str, String)>);

impl PublicKey {
    /// Parses a JWK (RFC 7517 §4).
    pub(in crate::oauth) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidKey> {
        if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
            return Err(InvalidKey::Private);
        }
        if !is_for_signatures(jwk) {
            return Err(InvalidKey::NotForSignatures);
        }
        let (kind, key, members) = match text(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            _ => return Err(InvalidKey::Kind),
        };
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(name) => {
                let known = name.as_str().and_then(algorithm);
                Some(known.filter(|known| kind.fits(*known)).ok_or(InvalidKey::Kind)?)
            }
        };
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().ok_or(InvalidKey::Malformed)?.to_owned()),
        };
        Ok(Self { kind, id, algorithm, key, thumbprint: thumbprint(&members) })
    }

    /// The key's thumbprint by SHA-256 (RFC 7638), in base64url.
    pub(in crate::oauth) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Returns whether the header of a JWS names this key. `kid` is a hint (RFC 7515 §4.1.4): a key without an id may
    /// be meant by any.
    fn may_be_meant_by(&self, jws: &Jws<'_>) -> bool {
        jws.key_id.is_none() || self.id.is_none() || jws.key_id == self.id
    }

    /// Returns whether this key made the signature of a JWS, with an algorithm that the key is for.
    pub(in crate::oauth) fn signed(&self, jws: &Jws<'_>) -> bool {
        let allowed = self.algorithm.is_none_or(|only| only == jws.algorithm);
        let verify = || {
            let message = jws.message.as_bytes();
            jsonwebtoken::crypto::verify(jws.signature, message, &self.key, jws.algorithm)
        };
        allowed && self.kind.fits(jws.algorithm) && verify().unwrap_or(false)
    }
}

fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let used = jwk.get("use").is_none_or(|used| used == "sig");
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    };
    used && jwk.get("key_ops").is_none_or(verifies)
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, InvalidKey> {
    jwk.get(name).and_then(Value::as_str).ok_or(InvalidKey::Malformed)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, InvalidKey> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).map_err(|_| InvalidKey::Malformed)
}

/// Returns a member of a fixed length (RFC 7518 §6.2.1.2: leading zeros are not left out).
fn exactly(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, InvalidKey> {
    Some(bytes(jwk, name)?).filter(|bytes| bytes.len() == length).ok_or(InvalidKey::Malformed)
}

fn part(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa(jwk: &Map<String, Value>) -> Result<Read, InvalidKey> {
    let number = |name| -> Result<Vec<u8>, InvalidKey> {
        Ok(bytes(jwk, name)?.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    let (modulus, exponent) = (number("n")?, number("e")?);
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = modulus.len() * 8 - usize::try_from(unused).unwrap_or(0);
    let value = exponent.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    let sound = exponent.len() <= 4 && value > 1 << 16 && value % 2 == 1;
    if !RSA_BITS.contains(&bits) || !sound {
        return Err(InvalidKey::Weak);
    }
    let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
    let members = vec![("e", part(&exponent)), ("kty", "RSA".to_owned()), ("n", part(&modulus))];
    Ok((Kind::Rsa, key, members))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<Read, InvalidKey> {
    let curve = text(jwk, "crv")?;
    let (kind, length, algorithm): (_, _, &'static dyn VerificationAlgorithm) = match curve {
        "P-256" => (Kind::P256, 32, &ECDSA_P256_SHA256_FIXED),
        "P-384" => (Kind::P384, 48, &ECDSA_P384_SHA384_FIXED),
        _ => return Err(InvalidKey::Kind),
    };
    let (x, y) = (exactly(jwk, "x", length)?, exactly(jwk, "y", length)?);
    // SEC 1 §2.3.3: 04, then x and y. Parsing checks that the point is on the curve.
    ParsedPublicKey::new(algorithm, [&[4], x.as_slice(), y.as_slice()].concat())
        .map_err(|_| InvalidKey::Malformed)?;
    let (x, y) = (part(&x), part(&y));
    let key = DecodingKey::from_ec_components(&x, &y).map_err(|_| InvalidKey::Malformed)?;
    let members = vec![("crv", curve.to_owned()), ("kty", "EC".to_owned()), ("x", x), ("y", y)];
    Ok((kind, key, members))
}

fn edwards(jwk: &Map<String, Value>) -> Result<Read, InvalidKey> {
    if text(jwk, "crv")? != "Ed25519" {
        return Err(InvalidKey::Kind);
    }
    let x = exactly(jwk, "x", 32)?;
    ParsedPublicKey::new(&ED25519, &x).map_err(|_| InvalidKey::Malformed)?;
    let x = part(&x);
    let key = DecodingKey::from_ed_components(&x).map_err(|_| InvalidKey::Malformed)?;
    let members = vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)];
    Ok((Kind::Ed25519, key, members))
}

/// Hashes the required members, sorted and without white space, with SHA-256 (RFC 7638 §3).
fn thumbprint(members: &[(&'static str, String)]) -> String {
    let member = |(name, value): &(&str, String)| format!("\"{name}\":\"{value}\"");
    let members: Vec<_> = members.iter().map(member).collect();
    part(digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes()).as_ref())
}

/// What a set of keys says about a JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oauth) enum Outcome {
    /// One of the keys signed it.
    Signed,
    /// None signed it, and none has the id that its header names, if it names one: the set may have changed since.
    UnknownKey,
    /// The key that its header names did not sign it.
    Forged,
}

/// A JWK set (RFC 7517 §5), reduced to the keys that this service verifies with.
#[derive(Debug)]
pub(in crate::oauth) struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Parses a set that is to be registered: each of its keys must be one to verify with.
    pub(in crate::oauth) fn registered(set: &Value) -> Result<Self, InvalidKeySet> {
        let keys = Self::members(set).filter(|keys| (1..=MAX_KEYS).contains(&keys.len()));
        let keys = keys.ok_or(InvalidKeySet::Form)?.iter().enumerate();
        let keys = keys.map(|(index, jwk)| {
            let jwk = jwk.as_object().ok_or(InvalidKeySet::Key(index, InvalidKey::Malformed))?;
            PublicKey::from_jwk(jwk).map_err(|what| InvalidKeySet::Key(index, what))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Parses a set that another server publishes: keys that are not understood are left out (RFC 7517 §5). Returns
    /// `None` if it is no JWK set.
    pub(in crate::oauth) fn published(set: &Value) -> Option<Self> {
        let keys = Self::members(set)?.iter().filter_map(Value::as_object);
        let keys = keys.filter_map(|jwk| PublicKey::from_jwk(jwk).ok());
        Some(Self(keys.take(MAX_KEYS).collect()))
    }

    fn members(set: &Value) -> Option<&Vec<Value>> {
        set.as_object()?.get("keys")?.as_array()
    }

    /// Verifies the signature of a JWS with the keys that its header may mean.
    pub(in crate::oauth) fn verify(&self, jws: &Jws<'_>) -> Outcome {
        let mut meant = self.0.iter().filter(|key| key.may_be_meant_by(jws));
        if meant.any(|key| key.signed(jws)) {
            return Outcome::Signed;
        }
        let is_named = self.0.iter().any(|key| key.id.is_some() && key.id == jws.key_id);
        if is_named { Outcome::Forged } else { Outcome::UnknownKey }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(jwk: &Value) -> Option<InvalidKey> {
        PublicKey::from_jwk(jwk.as_object().unwrap()).err()
    }

    fn with(jwk: &Value, name: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    }

    /// The keys of RFC 7517 §A.1 and RFC 8037 §A.2.
    fn keys() -> [Value; 3] {
        [
            json!({ "kty": "EC", "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" }),
            json!({ "kty": "RSA", "e": "AQAB",
                "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
        ]
    }

    #[test]
    fn the_keys_of_the_rfcs_are_accepted_with_their_thumbprints() {
        for key in keys() {
            assert_eq!(refused(&key), None, "{key}");
        }
        let of = |key: &Value| PublicKey::from_jwk(key.as_object().unwrap()).unwrap();
        let [_, rsa, ed] = keys();
        // RFC 7638 §3.1 and RFC 8037 §A.3.
        assert_eq!(of(&rsa).thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(of(&ed).thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_private_or_symmetric_key_is_refused() {
        for key in keys() {
            for member in PRIVATE_MEMBERS {
                assert_eq!(refused(&with(&key, member, json!("AA"))), Some(InvalidKey::Private));
            }
        }
        assert_eq!(refused(&json!({ "kty": "oct", "k": "AAAA" })), Some(InvalidKey::Private));
        assert_eq!(refused(&json!({ "kty": "oct" })), Some(InvalidKey::Kind));
    }

    #[test]
    fn a_weak_rsa_key_is_refused() {
        let [_, rsa, _] = keys();
        let mut modulus = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
        modulus[0] = 0x7f;
        assert_eq!(
            refused(&with(&rsa, "n", json!(part(&modulus)))),
            Some(InvalidKey::Weak),
            "2047 bits"
        );
        let short = [vec![0; 128], modulus[..128].to_vec()].concat();
        assert_eq!(
            refused(&with(&rsa, "n", json!(part(&short)))),
            Some(InvalidKey::Weak),
            "1024 bits"
        );
        assert_eq!(refused(&with(&rsa, "n", json!(""))), Some(InvalidKey::Weak));
        for exponent in [vec![], vec![1], vec![3], vec![1, 0, 0], vec![1, 0, 0, 0, 1]] {
            let key = with(&rsa, "e", json!(part(&exponent)));
            assert_eq!(refused(&key), Some(InvalidKey::Weak), "{exponent:?}");
        }
    }

    #[test]
    fn a_key_for_something_else_is_refused() {
        let [ec, rsa, ed] = keys();
        for key in [&ec, &rsa, &ed] {
            assert_eq!(
                refused(&with(key, "use", json!("enc"))),
                Some(InvalidKey::NotForSignatures)
            );
            let operations = with(key, "key_ops", json!(["encrypt"]));
            assert_eq!(refused(&operations), Some(InvalidKey::NotForSignatures));
            assert_eq!(refused(&with(key, "key_ops", json!(["verify"]))), None);
            for alg in ["HS256", "none", "ES512", ""] {
                assert_eq!(refused(&with(key, "alg", json!(alg))), Some(InvalidKey::Kind), "{alg}");
            }
        }
        assert_eq!(refused(&with(&ec, "alg", json!("RS256"))), Some(InvalidKey::Kind));
        assert_eq!(refused(&with(&rsa, "alg", json!("ES256"))), Some(InvalidKey::Kind));
        assert_eq!(refused(&with(&ec, "crv", json!("secp256k1"))), Some(InvalidKey::Kind));
        assert_eq!(refused(&with(&ed, "crv", json!("X25519"))), Some(InvalidKey::Kind));
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        let [ec, _, ed] = keys();
        let swapped = with(&with(&ec, "x", ec["y"].clone()), "y", ec["x"].clone());
        assert_eq!(refused(&swapped), Some(InvalidKey::Malformed));
        assert_eq!(refused(&with(&ec, "x", json!("AA"))), Some(InvalidKey::Malformed));
        assert_eq!(refused(&with(&ed, "x", json!("AA"))), Some(InvalidKey::Malformed));
    }

    #[test]
    fn a_set_to_be_registered_holds_sound_keys_alone_and_a_published_one_may_hold_others() {
        let [ec, _, _] = keys();
        let weak = json!({ "kty": "oct", "k": "AAAA" });
        let mixed = json!({ "keys": [ec.clone(), weak] });
        let refused = KeySet::registered(&mixed).err();
        assert_eq!(refused, Some(InvalidKeySet::Key(1, InvalidKey::Private)));
        assert_eq!(KeySet::published(&mixed).unwrap().0.len(), 1);
        let many = vec![ec; MAX_KEYS + 1];
        for set in [
            json!([]),
            json!({}),
            json!({ "keys": {} }),
            json!({ "keys": [] }),
            json!({ "keys": many }),
        ] {
            assert_eq!(KeySet::registered(&set).err(), Some(InvalidKeySet::Form));
        }
        assert!(KeySet::published(&json!({ "keys": {} })).is_none());
    }
}
