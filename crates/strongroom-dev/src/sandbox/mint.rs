//! The mint: ids, secrets, codes and tokens in Dapi's form.
//!
//! Dapi's codes and tokens are JWTs signed with HS256; a code has an `exp`, a token has none, and both contain the
//! `tokenID` that Connect's result contains too. Everything is derived from one seed: nothing in the sandbox is
//! worth guessing.
//!
//! Imports no other module.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `{"alg":"HS256","typ":"JWT"}`
const JWT_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const USER_SECRET_BYTES: usize = 512;
const OPAQUE_CODE_BYTES: usize = 48;
const CONNECTION_ID_BYTES: usize = 20;
const PLAID_ID_LENGTH: usize = 37;
const REQUEST_ID_LENGTH: usize = 15;
/// The letters and digits that cannot be confused with each other.
const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// The SHA-256 digest by which a secret is remembered.
pub(super) type Digest = [u8; 32];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    app_key: &'a str,
    salt: String,
    #[serde(rename = "tokenID")]
    token_id: Uuid,
    jti: Uuid,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

#[derive(Deserialize)]
struct TokenClaims {
    jti: Uuid,
}

/// Generates ids and secrets, signs codes and tokens.
pub(super) struct Mint {
    key: hmac::Key,
    drawn: AtomicU64,
}

impl Mint {
    /// Creates a mint with a random seed.
    pub(super) fn new() -> Self {
        let entropy = RandomState::new();
        let seed: Vec<u8> = (0_u64..4).flat_map(|n| entropy.hash_one(n).to_be_bytes()).collect();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), drawn: AtomicU64::new(0) }
    }

    /// Derives bytes that differ from every other draw.
    fn draw<const N: usize>(&self) -> [u8; N] {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = [0; N];
        for (block, chunk) in (0_u64..).zip(bytes.chunks_mut(32)) {
            let tag = hmac::sign(&self.key, &[number, block.to_be_bytes()].concat());
            for (to, from) in chunk.iter_mut().zip(tag.as_ref()) {
                *to = *from;
            }
        }
        bytes
    }

    /// Creates a UUID (version 4), the form of Dapi's `tokenID` and the end of its `operationID`.
    pub(super) fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.draw()).into_uuid()
    }

    /// Returns the UUID (version 4) that belongs to `id`: unguessable, and the same for the same id.
    pub(super) fn uuid_of(&self, id: Uuid) -> Uuid {
        let mut bytes = [0; 16];
        let tag = hmac::sign(&self.key, id.as_bytes());
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Creates 37 letters and digits: the form of Plaid's ids of items and accounts.
    pub(super) fn plaid_id(&self) -> String {
        self.letters::<PLAID_ID_LENGTH>()
    }

    /// Creates 15 letters and digits: the form of Plaid's `request_id`.
    pub(super) fn request_id(&self) -> String {
        self.letters::<REQUEST_ID_LENGTH>()
    }

    fn letters<const N: usize>(&self) -> String {
        let letters = self.draw::<N>().into_iter().map(|byte| {
            // Some letters are a little likelier than others, which matters to nobody here.
            ALPHABET
                .get(usize::from(byte) % ALPHABET.len())
                .map_or('A', |letter| char::from(*letter))
        });
        letters.collect()
    }

    /// Creates 512 bytes in base64, as Connect issues them.
    pub(super) fn user_secret(&self) -> String {
        STANDARD.encode(self.draw::<USER_SECRET_BYTES>())
    }

    /// Creates 40 hexadecimal digits.
    pub(super) fn connection_id(&self) -> String {
        hex::encode(self.draw::<CONNECTION_ID_BYTES>())
    }

    /// Creates a code that is not a JWT.
    pub(super) fn opaque_code(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.draw::<OPAQUE_CODE_BYTES>())
    }

    /// Creates a code that expires at `expires_at`.
    pub(super) fn code(
        &self,
        app_key: &str,
        token_id: Uuid,
        issued_at: i64,
        expires_at: i64,
    ) -> String {
        self.sign(app_key, token_id, issued_at, Some(expires_at))
    }

    /// Returns a token that never expires. The same arguments give the same token.
    pub(super) fn token(&self, app_key: &str, token_id: Uuid, issued_at: i64) -> String {
        self.sign(app_key, token_id, issued_at, None)
    }

    /// Returns the id in a token of this mint; `None` for any other text.
    pub(super) fn token_id(&self, token: &str) -> Option<Uuid> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let (_, payload) = signed.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: TokenClaims = serde_json::from_slice(&payload).ok()?;
        Some(claims.jti)
    }

    /// Signs claims as a JWT.
    pub(super) fn jwt(&self, claims: &impl Serialize) -> String {
        // Claims are plain text and numbers, which always serialise.
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let mut jwt = format!("{JWT_HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, jwt.as_bytes()));
        jwt.push('.');
        jwt.push_str(&signature);
        jwt
    }

    fn sign(&self, app_key: &str, token_id: Uuid, iat: i64, exp: Option<i64>) -> String {
        let claims = Claims {
            app_key,
            salt: STANDARD.encode(hmac::sign(&self.key, token_id.as_bytes())),
            token_id,
            jti: token_id,
            iat,
            exp,
        };
        self.jwt(&claims)
    }
}

/// Returns the digest by which `secret` is remembered.
pub(super) fn digest_of(secret: &str) -> Digest {
    let mut bytes = [0; 32];
    let digest = digest::digest(&digest::SHA256, secret.as_bytes());
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

/// Derives 64 bytes in base64 from `name`: the form of Dapi's `userID` and account ids.
pub(super) fn id_of(name: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA512, name.as_bytes()))
}

/// Derives 40 hexadecimal digits from `name`: the form of a `connectionID`.
pub(super) fn connection_id_of(name: &str) -> String {
    let digest = digest_of(name);
    hex::encode(digest.get(..CONNECTION_ID_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(jwt: &str) -> serde_json::Value {
        let payload = jwt.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[test]
    fn what_is_drawn_has_the_forms_that_dapi_uses() {
        let mint = Mint::new();
        assert_eq!(STANDARD.decode(mint.user_secret()).unwrap().len(), 512);
        assert_eq!(STANDARD.decode(id_of("anyone")).unwrap().len(), 64);
        for id in [mint.connection_id(), connection_id_of("anyone")] {
            assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(mint.uuid().get_version_num(), 4);
    }

    #[test]
    fn no_two_draws_are_alike() {
        let mint = Mint::new();
        let drawn: std::collections::HashSet<_> = (0..1000).map(|_| mint.uuid()).collect();
        assert_eq!(drawn.len(), 1000);
        assert_ne!(Mint::new().uuid(), Mint::new().uuid());
    }

    #[test]
    fn a_code_expires_and_a_token_does_not() {
        let mint = Mint::new();
        let id = mint.uuid();
        let code = claims(&mint.code("key", id, 1000, 2800));
        assert_eq!((&code["iat"], &code["exp"]), (&1000.into(), &2800.into()));
        let token = claims(&mint.token("key", id, 1000));
        assert_eq!(token.get("exp"), None);
        for claims in [code, token] {
            assert_eq!(claims["jti"], id.to_string());
            assert_eq!(claims["tokenID"], id.to_string());
            assert_eq!(claims["appKey"], "key");
        }
    }

    #[test]
    fn a_token_names_its_id_only_while_nobody_touched_it() {
        let mint = Mint::new();
        let id = mint.uuid();
        let token = mint.token("key", id, 1000);
        assert_eq!(mint.token_id(&token), Some(id));
        assert_eq!(Mint::new().token_id(&token), None);
        let touched = token.replacen("eyJ", "eyK", 2);
        for text in ["", ".", "a.b.c", &touched, &token[1..]] {
            assert_eq!(mint.token_id(text), None, "{text}");
        }
    }

    #[test]
    fn the_same_token_can_be_made_again() {
        let mint = Mint::new();
        let id = mint.uuid();
        assert_eq!(mint.token("key", id, 1000), mint.token("key", id, 1000));
    }
}
