//! An authenticator with one passkey, which answers as a browser hands it on, or wrongly.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

use super::{Browser, base64};

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Public members are what a test changes to make it answer wrongly.
pub struct Authenticator {
    pair: Pair,
    pub id: Vec<u8>,
    pub count: u32,
    pub rp_id: String,
    pub origin: String,
    /// Present and verified.
    pub flags: u8,
}

impl Authenticator {
    pub fn of(browser: &Browser, algorithm: &str) -> Self {
        let ec = || {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            EcdsaKeyPair::generate(algorithm).unwrap()
        };
        let pair = match algorithm {
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            _ => Pair::Ec(ec()),
        };
        let id = uuid::Uuid::now_v7().as_bytes().to_vec();
        let origin = browser.origin.clone();
        Self { pair, id, count: 0, rp_id: "localhost".to_owned(), origin, flags: 0x05 }
    }

    pub fn new(browser: &Browser) -> Self {
        Self::of(browser, "ES256")
    }

    fn cose(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let head = [0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 0x20];
                [&head, &point[1..33], &[0x22, 0x58, 0x20], &point[33..]].concat()
            }
            Pair::Ed(pair) => {
                let head = [0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 0x20];
                [&head, pair.public_key().as_ref()].concat()
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn client_data(&self, kind: &str, challenge: &Value) -> String {
        let (origin, challenge) = (&self.origin, challenge.as_str().unwrap());
        json!({ "type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false })
            .to_string()
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        let hash = digest::digest(&digest::SHA256, self.rp_id.as_bytes());
        [hash.as_ref(), &[flags], &self.count.to_be_bytes()].concat()
    }

    /// What `navigator.credentials.create` gives.
    pub fn create(&self, challenge: &Value) -> Value {
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let head = self.data(self.flags | 0x40);
        let data = [&head[..], &[0; 16], &length, &self.id, &self.cose()].concat();
        let client = self.client_data("webauthn.create", challenge);
        json!({
            "label": "Laptop", "clientData": base64(client), "authenticatorData": base64(data),
        })
    }

    /// What `navigator.credentials.get` gives.
    pub fn get(&self, challenge: &Value) -> Value {
        let client = self.client_data("webauthn.get", challenge);
        let data = self.data(self.flags);
        let hash = digest::digest(&digest::SHA256, client.as_bytes());
        let signature = self.sign(&[&data, hash.as_ref()].concat());
        json!({
            "id": base64(&self.id), "clientData": base64(client), "authenticatorData": base64(data),
            "signature": base64(signature), "userHandle": null, "to": "/",
        })
    }

    /// Enrols this passkey in the session of a browser.
    pub async fn enrol(&self, browser: &Browser) {
        let options = browser.post_json("/passkeys/begin", &json!({})).await;
        assert_eq!(options.status, 200, "{}", options.text);
        let created = self.create(&options.json["challenge"]);
        let added = browser.post_json("/passkeys/finish", &created).await;
        assert_eq!(added.status, 204, "{}", added.text);
    }
}
