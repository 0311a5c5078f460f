//! One thing at a time is changed about a good token, and it counts no more.
//!
//! The tokens are made with the service's own private key, so that what is refused is refused for the
//! one thing and for nothing else.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use strongroom::common::secret::Sealable;
use strongroom::vault::{AadContext, Sealed};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::support::{TestApp, with};

const PATH: &str = "/v1/connections";

struct Pkcs8(Vec<u8>);

impl Sealable for Pkcs8 {
    fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Whoever holds the service's private key, and a good token to start from.
struct Forger {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
    header: Value,
    claims: Value,
}

impl Forger {
    async fn of(app: &TestApp) -> Self {
        let row: (uuid::Uuid, Vec<u8>) = sqlx::query_as("SELECT id, private_key FROM signing_keys")
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
        let aad = AadContext {
            table: "signing_keys",
            column: "private_key",
            app: None,
            user: None,
            row: row.0,
        };
        let sealed: Sealed<Pkcs8> = sqlx::query_scalar("SELECT $1::bytea")
            .bind(row.1)
            .fetch_one(&app.database.pool)
            .await
            .unwrap();
        let pkcs8 = sealed.open(app.context.vault.service_key(), &aad).unwrap().0;
        let token = app.token().await;
        let read = |index| {
            let part = token.split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
        Self { header: read(0), claims: read(1), pair, pkcs8 }
    }

    fn signed_by(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The good token with these members of its header and claims changed; `null` takes one away.
    fn forge(&self, header: Value, claims: Value) -> String {
        Self::signed_by(&self.pair, &with(&self.header, header), &with(&self.claims, claims))
    }

    fn header(&self, changes: Value) -> String {
        self.forge(changes, json!({}))
    }

    fn claims(&self, changes: Value) -> String {
        self.forge(json!({}), changes)
    }

    fn now(&self) -> i64 {
        self.claims["iat"].as_i64().unwrap()
    }
}

async fn refused(app: &TestApp, what: &str, token: &str) {
    let answer = app.api.get(token, PATH).await;
    assert_eq!(answer.problem(), (401, "unauthorized"), "{what}");
    assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{what}");
}

async fn counts(app: &TestApp, what: &str, token: &str) {
    assert_eq!(app.api.get(token, PATH).await.status, 200, "{what}");
}

#[tokio::test]
async fn what_is_allowed_to_differ_may_differ() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    counts(&app, "unchanged", &forger.header(json!({}))).await;
    counts(&app, "typ", &forger.header(json!({ "typ": "application/AT+JWT" }))).await;
    counts(&app, "nbf", &forger.claims(json!({ "nbf": forger.now() }))).await;
    counts(&app, "unknown claim", &forger.claims(json!({ "x": 1 }))).await;
    let ahead = json!({ "iat": forger.now() + 30 });
    counts(&app, "a replica's clock may be ahead", &forger.claims(ahead)).await;
}

#[tokio::test]
async fn every_claim_that_rfc_9068_asks_for_is_held_against_what_is_expected() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    let now = forger.now();
    for changes in [
        json!({ "iss": "http://strongroom.test/" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": null }),
        json!({ "aud": "https://other.example" }),
        json!({ "aud": ["http://strongroom.test", "https://other.example"] }),
        json!({ "aud": null }),
        json!({ "exp": now - 1 }),
        json!({ "exp": null }),
        json!({ "exp": "9999999999" }),
        json!({ "nbf": now + 3600 }),
        json!({ "iat": now + 3600 }),
        json!({ "iat": null }),
        json!({ "sub": "somebody" }),
        json!({ "sub": null }),
        json!({ "client_id": "somebody" }),
        json!({ "client_id": "somebody", "sub": "somebody" }),
        json!({ "jti": null }),
        json!({ "scope": null }),
    ] {
        refused(&app, &changes.to_string(), &forger.claims(changes)).await;
    }
}

#[tokio::test]
async fn the_header_chooses_neither_algorithm_nor_key() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    for changes in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "ES384" }),
        json!({ "alg": null }),
        json!({ "typ": "JWT" }),
        json!({ "typ": null }),
        json!({ "kid": null }),
        json!({ "kid": "../../../../etc/passwd" }),
        json!({ "kid": "' OR 1=1 --" }),
        json!({ "kid": "x' UNION SELECT private_key FROM signing_keys --" }),
        json!({ "kid": "\u{0}" }),
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": ["b64"], "b64": false }),
    ] {
        refused(&app, &changes.to_string(), &forger.header(changes)).await;
    }
    let unsigned = |alg: &str| {
        let header = with(&forger.header, json!({ "alg": alg }));
        format!("{}.{}.", part(&header), part(&forger.claims))
    };
    for alg in ["none", "NONE", "ES256"] {
        refused(&app, "no signature", &unsigned(alg)).await;
    }
}

#[tokio::test]
async fn a_public_key_is_no_hmac_secret() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    let public = forger.pair.public_key().as_ref();
    let jwks = app.api.request(reqwest::Method::GET, "/.well-known/jwks.json");
    let jwk = app.api.send(jwks).await.json["keys"][0].to_string();
    // SubjectPublicKeyInfo of a P-256 key (RFC 5480 §2), in DER and in PEM.
    let prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let rest = base64::engine::general_purpose::STANDARD.encode(&public[1..]);
    let body = format!("{prefix}{rest}");
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    for secret in [public, &public[1..], jwk.as_bytes(), pem.as_bytes(), &der] {
        let header = with(&forger.header, json!({ "alg": "HS256" }));
        let message = format!("{}.{}", part(&header), part(&forger.claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
        refused(&app, "HS256", &format!("{message}.{tag}")).await;
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_or_points_to_is_never_looked_at() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    let own = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = own.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "kid": "own" });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    for changes in [
        json!({}),
        json!({ "kid": "own" }),
        json!({ "kid": "own", "jwk": jwk }),
        json!({ "jwk": jwk }),
        json!({ "kid": "own", "jku": url }),
        json!({ "jku": url }),
        json!({ "kid": "own", "x5u": url }),
        json!({ "kid": url }),
        json!({ "kid": "own", "jku": url, "x5u": url, "jwk": jwk }),
    ] {
        let header = with(&forger.header, changes.clone());
        let forged = Forger::signed_by(&own, &header, &forger.claims);
        refused(&app, &changes.to_string(), &forged).await;
    }
    let with_url = with(&forger.claims, json!({ "iss": url }));
    refused(&app, "iss", &Forger::signed_by(&forger.pair, &forger.header, &with_url)).await;
    let called = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept());
    assert!(called.await.is_err(), "somebody called the listener");
}

#[tokio::test]
async fn a_signature_counts_in_its_one_form() {
    let app = TestApp::spawn().await;
    let forger = Forger::of(&app).await;
    let good = forger.header(json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))
    };
    let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &forger.pkcs8).unwrap();
    for (what, token) in [
        ("one bit", changed(&|bytes| bytes[0] ^= 1)),
        ("one bit of the end", changed(&|bytes| bytes[63] ^= 1)),
        ("cut", changed(&|bytes| bytes.truncate(63))),
        ("longer", changed(&|bytes| bytes.push(0))),
        ("zero", changed(&|bytes| bytes.fill(0))),
        ("empty", changed(&Vec::clear)),
        ("DER", Forger::signed_by(&asn1, &forger.header, &forger.claims)),
        ("padded", format!("{good}==")),
        ("four parts", format!("{good}.x")),
        ("two parts", message.to_owned()),
        ("standard base64", format!("{message}.{signature}").replace(['-', '_'], "+")),
        ("white space", format!("{message}. {signature}")),
        ("another payload", {
            let header = message.split('.').next().unwrap();
            let more = with(&forger.claims, json!({ "scope": "admin" }));
            format!("{header}.{}.{signature}", part(&more))
        }),
    ] {
        if token == good {
            continue;
        }
        let answer = app.api.get(&token, PATH).await;
        assert!([400, 401].contains(&answer.status), "{what}: {}", answer.status);
    }
    counts(&app, "the good one", &good).await;
}
