//! Keys that sign access tokens (RFC 7515), parsed once.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::common::algorithm::Algorithm;
use crate::common::secret::Sealable;

const fn for_verifying(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// A private key as PKCS #8, to be sealed.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl Sealable for PrivateKey {
    fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        Some(Self(bytes))
    }
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
    Ed(Ed25519KeyPair),
}

/// A private key, parsed, with its public half.
pub struct SigningKey {
    pair: Pair,
    jwk: Value,
    kid: String,
    verifying: VerifyingKey,
}

/// A public key and the one algorithm that it is used with (RFC 8725 §3.1).
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: jsonwebtoken::DecodingKey,
}

impl VerifyingKey {
    /// Parses a JWK (RFC 7517 §4). Returns `None` for a kind that this service does not use.
    pub(super) fn from_jwk(jwk: &Value) -> Option<Self> {
        let algorithm = Algorithm::parse(jwk.get("alg")?.as_str()?)?;
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk.clone()).ok()?;
        Some(Self { algorithm, key: jsonwebtoken::DecodingKey::from_jwk(&jwk).ok()? })
    }

    /// Returns the payload of a compact JWS (RFC 7515 §7.1) that this key signed, and `None` for
    /// anything else. The header must name this key's algorithm and no critical extension (`crit`).
    pub(super) fn payload(&self, jws: &str) -> Option<Vec<u8>> {
        let (message, signature) = jws.rsplit_once('.')?;
        let (_, payload) = message.split_once('.')?;
        let header = jsonwebtoken::decode_header(jws).ok()?;
        if header.alg != for_verifying(self.algorithm) || header.crit.is_some() {
            return None;
        }
        let signed = self.signed(message.as_bytes(), signature);
        if signed { URL_SAFE_NO_PAD.decode(payload).ok() } else { None }
    }

    /// Returns whether this key made `signature`, in base64url, over `message`.
    fn signed(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = for_verifying(self.algorithm);
        jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm().as_str(), self.kid)
    }
}

impl SigningKey {
    /// Generates a private key; RSA with 2048 bits (RFC 7518 §3.3 asks for no less). Returns `None`
    /// if the operating system provides no random numbers.
    #[must_use]
    pub fn generate(algorithm: Algorithm) -> Option<PrivateKey> {
        let random = SystemRandom::new();
        let pkcs8 = match algorithm {
            Algorithm::Es256 => {
                let document =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?;
                document.as_ref().to_vec()
            }
            Algorithm::Rs256 => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).ok()?;
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().ok()?;
                der.as_ref().to_vec()
            }
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).ok()?.as_ref().to_vec(),
        };
        Some(PrivateKey(Zeroizing::new(pkcs8)))
    }

    /// Parses a private key. Returns `None` if it is not one of this algorithm.
    #[must_use]
    pub fn from_private(algorithm: Algorithm, private: &PrivateKey) -> Option<Self> {
        let pkcs8 = private.0.as_slice();
        let pair = match algorithm {
            Algorithm::Es256 => {
                Pair::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?)
            }
            Algorithm::Rs256 => Pair::Rsa(rsa::KeyPair::from_pkcs8(pkcs8).ok()?),
            Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::from_pkcs8(pkcs8).ok()?),
        };
        let public = Public::of(&pair)?;
        let kid = public.thumbprint();
        let jwk = public.jwk(algorithm, &kid);
        let verifying = VerifyingKey { algorithm, key: public.verifying };
        Some(Self { pair, jwk, kid, verifying })
    }

    /// The key's id: its thumbprint (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK (RFC 7517 §4).
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.verifying.algorithm
    }

    pub(super) fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// Signs `claims` as a compact JWT (RFC 7515 §7.1). Returns `None` only if the library fails.
    #[must_use]
    pub fn sign<C: Serialize>(&self, typ: &str, claims: &C) -> Option<String> {
        let header = json!({ "alg": self.algorithm().as_str(), "typ": typ, "kid": self.kid });
        let part = |json: &[u8]| URL_SAFE_NO_PAD.encode(json);
        let payload = part(&serde_json::to_vec(claims).ok()?);
        let message = format!("{}.{payload}", part(header.to_string().as_bytes()));
        let signature = self.signature(message.as_bytes())?;
        Some(format!("{message}.{}", part(&signature)))
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

/// A public key as the required members of its JWK, in the order of RFC 7638 §3.2.
struct Public {
    members: Vec<(&'static str, String)>,
    verifying: jsonwebtoken::DecodingKey,
}

impl Public {
    fn of(pair: &Pair) -> Option<Self> {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match pair {
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                // SEC 1 §2.3.3: 04, then x and y of 32 bytes each.
                let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
                let (x, y) = (part(x), part(y));
                let verifying = jsonwebtoken::DecodingKey::from_ec_components(&x, &y).ok()?;
                let members =
                    vec![("crv", "P-256".to_owned()), ("kty", "EC".to_owned()), ("x", x), ("y", y)];
                Some(Self { members, verifying })
            }
            Pair::Ed(pair) => {
                let x = part(pair.public_key().as_ref());
                let verifying = jsonwebtoken::DecodingKey::from_ed_components(&x).ok()?;
                let members =
                    vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)];
                Some(Self { members, verifying })
            }
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let n = part(public.modulus().big_endian_without_leading_zero());
                let e = part(public.exponent().big_endian_without_leading_zero());
                let verifying = jsonwebtoken::DecodingKey::from_rsa_components(&n, &e).ok()?;
                Some(Self {
                    members: vec![("e", e), ("kty", "RSA".to_owned()), ("n", n)],
                    verifying,
                })
            }
        }
    }

    /// Hashes the required members, sorted and without white space, with SHA-256 (RFC 7638 §3).
    fn thumbprint(&self) -> String {
        let member = |(name, value): &(&str, String)| format!("\"{name}\":\"{value}\"");
        let members: Vec<_> = self.members.iter().map(member).collect();
        let json = format!("{{{}}}", members.join(","));
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, json.as_bytes());
        URL_SAFE_NO_PAD.encode(hash)
    }

    fn jwk(&self, algorithm: Algorithm, kid: &str) -> Value {
        let mut jwk = json!({ "use": "sig", "alg": algorithm.as_str(), "kid": kid });
        if let Some(object) = jwk.as_object_mut() {
            object.extend(self.members.iter().map(|(k, v)| ((*k).to_owned(), json!(v))));
        }
        jwk
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: Algorithm) -> SigningKey {
        SigningKey::from_private(algorithm, &SigningKey::generate(algorithm).unwrap()).unwrap()
    }

    #[test]
    fn what_a_key_signs_verifies_with_its_published_half() {
        for algorithm in Algorithm::ALL {
            let key = key(algorithm);
            let jwt = key.sign("JWT", &json!({ "sub": "x" })).unwrap();
            let verifying = VerifyingKey::from_jwk(key.jwk()).unwrap();
            assert_eq!(verifying.payload(&jwt).unwrap(), br#"{"sub":"x"}"#);
        }
    }

    #[test]
    fn a_key_has_the_same_id_whenever_it_is_read() {
        for algorithm in Algorithm::ALL {
            let private = SigningKey::generate(algorithm).unwrap();
            let read = || SigningKey::from_private(algorithm, &private).unwrap();
            assert_eq!(read().kid(), read().kid());
            assert_ne!(read().kid(), key(algorithm).kid());
        }
    }

    #[test]
    fn a_key_is_not_read_as_one_of_another_algorithm() {
        for algorithm in Algorithm::ALL {
            let private = SigningKey::generate(algorithm).unwrap();
            for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(SigningKey::from_private(other, &private).is_none());
            }
        }
    }

    #[test]
    fn the_published_half_holds_nothing_private() {
        for algorithm in Algorithm::ALL {
            let key = key(algorithm);
            let names: Vec<_> = key.jwk().as_object().unwrap().keys().cloned().collect();
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(!names.contains(&private.to_owned()), "{names:?}");
            }
        }
    }
}
