//! Key pairs of callers, which sign assertions and proofs as a library of theirs would, or wrongly.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub struct Keypair {
    algorithm: &'static str,
    pair: Pair,
    /// The public half, without an id.
    pub jwk: Value,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(aws_lc_rs::rsa::KeyPair),
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Keypair {
    /// A key on P-256.
    pub fn new() -> Self {
        Self::of("ES256")
    }

    /// A key that signs with this algorithm.
    pub fn of(algorithm: &'static str) -> Self {
        let (pair, jwk) = match algorithm {
            "ES256" | "ES384" => elliptic(algorithm),
            "EdDSA" | "Ed25519" => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let x = base64(pair.public_key());
                (Pair::Ed(pair), json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
            }
            _ => {
                let pair =
                    aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                let n = base64(pair.public_key().modulus().big_endian_without_leading_zero());
                let e = base64(pair.public_key().exponent().big_endian_without_leading_zero());
                (Pair::Rsa(pair), json!({ "kty": "RSA", "n": n, "e": e }))
            }
        };
        Self { algorithm, pair, jwk }
    }

    /// The public half with an id.
    pub fn named(&self, kid: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(kid);
        jwk
    }

    /// A JWT with these further members of its header.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut whole = json!({ "alg": self.algorithm });
        whole.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        let message = format!("{}.{}", base64(whole.to_string()), base64(claims.to_string()));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

fn elliptic(algorithm: &str) -> (Pair, Value) {
    let (curve, length, signing) = if algorithm == "ES256" {
        ("P-256", 32, &ECDSA_P256_SHA256_FIXED_SIGNING)
    } else {
        ("P-384", 48, &ECDSA_P384_SHA384_FIXED_SIGNING)
    };
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(length);
    let jwk = json!({ "kty": "EC", "crv": curve, "x": base64(x), "y": base64(y) });
    (Pair::Ec(pair), jwk)
}
