//! Plaid's webhooks: the signature, and what they say about an item.
//!
//! A webhook carries `Plaid-Verification`, a compact JWS (RFC 7515 §7.1) whose payload has the time of issue and the
//! SHA-256 of the body (<https://plaid.com/docs/api/webhooks/webhook-verification/>). Nothing else in it is believed: the
//! algorithm is fixed, and the key comes from Plaid by its id.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use time::{Duration, OffsetDateTime};

use crate::common::named::named;
use crate::common::text;

/// How old a webhook may be, as Plaid's documentation says.
const MAX_AGE: Duration = Duration::minutes(5);
/// How far ahead of this machine's clock Plaid's may be.
const MAX_AHEAD: Duration = Duration::seconds(60);
/// The longest header, in bytes; Plaid's have a few hundred.
const MAX_HEADER: usize = 4096;
/// The longest id of a key, in bytes; Plaid's are UUIDs.
const MAX_KEY_ID: usize = 128;
/// The longest id or code that is kept, in bytes.
const MAX_TEXT: usize = 200;

/// Why a webhook is not Plaid's, or not one to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// There is no signature in the one form that Plaid uses.
    Unsigned,
    /// It was issued too long ago, or in the future.
    Stale,
}

/// A `Plaid-Verification` of the right form and age. Its signature is not verified yet.
#[derive(Debug)]
pub struct Verification<'a> {
    /// What the signature covers.
    message: &'a str,
    signature: &'a str,
    key_id: String,
    issued_at: OffsetDateTime,
    body_sha256: [u8; 32],
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    request_body_sha256: String,
}

impl<'a> Verification<'a> {
    /// Reads the header's value. Costs no call and no query, because anybody can send one.
    ///
    /// # Errors
    /// If it has another form or algorithm, or another age than a few minutes.
    pub fn read(jws: &'a str, now: OffsetDateTime) -> Result<Self, Unverified> {
        let verification = Self::parse(jws).ok_or(Unverified::Unsigned)?;
        let age = now - verification.issued_at;
        if age > MAX_AGE || age < -MAX_AHEAD {
            return Err(Unverified::Stale);
        }
        Ok(verification)
    }

    fn parse(jws: &'a str) -> Option<Self> {
        if jws.len() > MAX_HEADER {
            return None;
        }
        let (message, signature) = jws.rsplit_once('.')?;
        let (_, payload) = message.split_once('.').filter(|(_, rest)| !rest.contains('.'))?;
        let header = jsonwebtoken::decode_header(jws).ok()?;
        // RFC 8725 §3.1: the receiver names the algorithm. RFC 7515 §4.1.11: an unknown critical extension refuses.
        if header.alg != Algorithm::ES256 || header.crit.is_some() {
            return None;
        }
        let is_plain = |id: &str| id.bytes().all(|byte| byte.is_ascii_graphic());
        let key_id =
            header.kid.filter(|id| !id.is_empty() && id.len() <= MAX_KEY_ID && is_plain(id))?;
        let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        let issued_at = OffsetDateTime::from_unix_timestamp(claims.iat).ok()?;
        let body_sha256 = sha256_of(&claims.request_body_sha256)?;
        Some(Self { message, signature, key_id, issued_at, body_sha256 })
    }

    /// Returns the id of the key that is said to have signed.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Returns the time of issue.
    #[must_use]
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued_at
    }

    /// Returns whether it is about exactly these bytes.
    #[must_use]
    pub fn is_of(&self, body: &[u8]) -> bool {
        digest(&SHA256, body).as_ref().ct_eq(&self.body_sha256).into()
    }

    /// Returns whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &WebhookKey) -> bool {
        let (message, algorithm) = (self.message.as_bytes(), Algorithm::ES256);
        jsonwebtoken::crypto::verify(self.signature, message, &key.key, algorithm).unwrap_or(false)
    }

    /// Returns the digest by which the webhook is known again: of what the signature covers. ECDSA has two valid
    /// signatures for each that was made, so a replayed webhook may differ from the first in its signature.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.message.as_bytes()).as_ref());
        bytes
    }
}

/// Reads a SHA-256 in hexadecimal.
fn sha256_of(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// A public key of Plaid's: ECDSA over P-256.
#[derive(Clone)]
pub struct WebhookKey {
    key: DecodingKey,
    expired_at: Option<OffsetDateTime>,
}

impl std::fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookKey").field("expired_at", &self.expired_at).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Jwk {
    alg: String,
    kty: String,
    crv: String,
    kid: String,
    x: String,
    y: String,
    expired_at: Option<i64>,
}

impl WebhookKey {
    /// Reads the `key` of Plaid's answer to a look-up of `key_id`: a JWK (RFC 7517) with the time at which it expired.
    pub(super) fn read(jwk: &Value, key_id: &str) -> Option<Self> {
        let jwk = Jwk::deserialize(jwk).ok()?;
        let is_right =
            jwk.alg == "ES256" && jwk.kty == "EC" && jwk.crv == "P-256" && jwk.kid == key_id;
        let key = DecodingKey::from_ec_components(&jwk.x, &jwk.y).ok().filter(|_| is_right)?;
        let expired_at = match jwk.expired_at {
            Some(at) => Some(OffsetDateTime::from_unix_timestamp(at).ok()?),
            None => None,
        };
        Some(Self { key, expired_at })
    }

    /// Returns whether the key has expired, so that nothing that it signed counts any more, whenever it says that it did:
    /// a key may be withdrawn because others know it.
    #[must_use]
    pub fn is_expired(&self, now: OffsetDateTime) -> bool {
        self.expired_at.is_some_and(|at| at <= now)
    }
}

/// The answer to the look-up of a webhook key.
#[derive(Clone, Debug)]
pub enum KeyAnswer {
    /// Plaid's key of this id.
    Key(WebhookKey),
    /// Plaid has no key of this id.
    Unknown,
    /// No conclusive answer.
    Unanswered(String),
}

/// What a webhook says about an item, as far as it concerns a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemEvent {
    /// The user has to log in again before any call works.
    LoginRequired,
    /// The login works again.
    LoginRepaired,
    /// The login works and will stop to, unless the user acts.
    LoginExpiring,
    /// The user withdrew the permission: the item is dead for good.
    PermissionRevoked,
}

named!(ItemEvent {
    LoginRequired => "login_required",
    LoginRepaired => "login_repaired",
    LoginExpiring => "login_expiring",
    PermissionRevoked => "permission_revoked",
}, parse);

/// A webhook about an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemWebhook {
    /// The item.
    pub item_id: String,
    /// What it says.
    pub event: ItemEvent,
    /// Plaid's code for it: the `error_code` of an error, otherwise the `webhook_code`.
    pub code: String,
}

#[derive(Deserialize)]
struct Body {
    webhook_type: String,
    webhook_code: String,
    item_id: String,
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    error_code: String,
}

impl ItemWebhook {
    /// Reads a body whose signature is verified. Returns `None` for every webhook that concerns no connection, such as
    /// those about new transactions. `needs_login` says of an `error_code` whether it means that the user has to log in.
    #[must_use]
    pub fn read(body: &[u8], needs_login: impl FnOnce(&str) -> bool) -> Option<Self> {
        let Body { webhook_type, webhook_code, item_id, error } =
            serde_json::from_slice(body).ok()?;
        if webhook_type != "ITEM" || item_id.is_empty() || item_id.len() > MAX_TEXT {
            return None;
        }
        let (event, code) = match webhook_code.as_str() {
            "ERROR" => {
                let code = error.map(|error| error.error_code).filter(|code| needs_login(code))?;
                (ItemEvent::LoginRequired, code)
            }
            "LOGIN_REPAIRED" => (ItemEvent::LoginRepaired, webhook_code),
            "PENDING_EXPIRATION" | "PENDING_DISCONNECT" => (ItemEvent::LoginExpiring, webhook_code),
            "USER_PERMISSION_REVOKED" => (ItemEvent::PermissionRevoked, webhook_code),
            _ => return None,
        };
        let (item_id, code) = (text::tame(&item_id, MAX_TEXT), text::tame(&code, MAX_TEXT));
        Some(Self { item_id, event, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jws(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part("signature"))
    }

    fn claims(iat: i64) -> String {
        format!(r#"{{"iat":{iat},"request_body_sha256":"{}"}}"#, "ab".repeat(32))
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;

    #[test]
    fn a_webhook_counts_for_five_minutes_and_hardly_before_its_time() {
        let jws = jws(HEADER, &claims(1000));
        for now in [940, 1000, 1300] {
            assert!(Verification::read(&jws, at(now)).is_ok(), "{now}");
        }
        for now in [0, 939, 1301, 100_000] {
            assert_eq!(Verification::read(&jws, at(now)).unwrap_err(), Unverified::Stale, "{now}");
        }
    }

    #[test]
    fn only_one_algorithm_counts_and_a_critical_extension_refuses() {
        for header in [
            r#"{"alg":"none","kid":"k"}"#,
            r#"{"alg":"HS256","kid":"k"}"#,
            r#"{"alg":"RS256","kid":"k"}"#,
            r#"{"alg":"ES384","kid":"k"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"ES256","kid":""}"#,
            r#"{"alg":"ES256","kid":"a b"}"#,
            r#"{"alg":"ES256","kid":"k","crit":["b64"]}"#,
            "{}",
        ] {
            let jws = jws(header, &claims(0));
            assert_eq!(
                Verification::read(&jws, at(0)).unwrap_err(),
                Unverified::Unsigned,
                "{header}"
            );
        }
        let long = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(129));
        assert!(Verification::read(&jws(&long, &claims(0)), at(0)).is_err());
    }

    #[test]
    fn what_is_no_jws_of_plaids_is_unsigned() {
        let whole = jws(HEADER, &claims(0));
        for text in ["", ".", "..", "a.b", "a.b.c.d", "x", &format!("{whole}.x"), &"a".repeat(5000)]
        {
            assert_eq!(
                Verification::read(text, at(0)).unwrap_err(),
                Unverified::Unsigned,
                "{text}"
            );
        }
        for claims in [
            "{}".to_owned(),
            r#"{"iat":0}"#.to_owned(),
            r#"{"iat":0,"request_body_sha256":"ab"}"#.to_owned(),
            format!(r#"{{"iat":0,"request_body_sha256":"{}"}}"#, "é".repeat(32)),
            format!(r#"{{"iat":0,"request_body_sha256":"{}"}}"#, "+1".repeat(32)),
            claims(i64::MAX),
        ] {
            assert!(Verification::read(&jws(HEADER, &claims), at(0)).is_err(), "{claims}");
        }
    }

    #[test]
    fn only_what_concerns_a_connection_is_read() {
        let read = |kind: &str, code: &str, error: &str| {
            let body = format!(
                r#"{{"webhook_type":"{kind}","webhook_code":"{code}","item_id":"i","error":{error},"new":[1]}}"#
            );
            ItemWebhook::read(body.as_bytes(), |code| code == "ITEM_LOGIN_REQUIRED")
        };
        let login = r#"{"error_code":"ITEM_LOGIN_REQUIRED","error_type":"ITEM_ERROR"}"#;
        let required = read("ITEM", "ERROR", login).unwrap();
        assert_eq!(
            (required.event, &*required.code),
            (ItemEvent::LoginRequired, "ITEM_LOGIN_REQUIRED")
        );
        assert_eq!(read("ITEM", "ERROR", r#"{"error_code":"INSTITUTION_DOWN"}"#), None);
        assert_eq!(read("ITEM", "ERROR", "null"), None);
        for (code, event) in [
            ("LOGIN_REPAIRED", ItemEvent::LoginRepaired),
            ("PENDING_EXPIRATION", ItemEvent::LoginExpiring),
            ("PENDING_DISCONNECT", ItemEvent::LoginExpiring),
            ("USER_PERMISSION_REVOKED", ItemEvent::PermissionRevoked),
        ] {
            assert_eq!(read("ITEM", code, "null").map(|read| read.event), Some(event), "{code}");
            assert_eq!(read("TRANSACTIONS", code, "null"), None, "{code}");
        }
        for code in ["USER_ACCOUNT_REVOKED", "NEW_ACCOUNTS_AVAILABLE", "SYNC_UPDATES_AVAILABLE"] {
            assert_eq!(read("ITEM", code, "null"), None, "{code}");
        }
        assert_eq!(ItemWebhook::read(b"[]", |_| true), None);
    }
}
