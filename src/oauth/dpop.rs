//! DPoP proofs (RFC 9449): that the sender of a request holds a key. No I/O.
//!
//! Nonces of the server (§8) are not used. They bound how long before its use a proof can have been made, which
//! matters if an attacker can sign with the key for a while and not keep it; here the key is a backend's, a proof lives
//! for two minutes at most, and each counts once.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use url::Url;

use super::jws::{Jws, NumericDate, PublicKey};

/// How old a proof may be, and how far its maker's clock may be ahead, in seconds (§11.1).
const WINDOW: i64 = 60;
/// How long a use is remembered: as long as a proof may be accepted by a replica whose clock is two minutes behind.
pub(super) const REMEMBERED: Duration = Duration::from_mins(5);
/// The longest `jti`, in bytes.
const MAX_JTI: usize = 512;
/// The media type of a proof (§4.2).
const TYP: &str = "dpop+jwt";

/// The claims of a proof (§4.2).
#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: NumericDate,
    #[serde(default)]
    ath: Option<String>,
}

/// What a proof has to be made for.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) method: &'a str,
    /// The URL by which callers know this service, without a path.
    pub(super) public_url: &'a str,
    /// The request's path as it was sent.
    pub(super) path: &'a str,
    /// The access token that the request carries.
    pub(super) token: Option<&'a str>,
    pub(super) now: i64,
}

/// A proof that holds, as far as it alone shows.
#[derive(Debug)]
pub(super) struct Proof {
    /// The thumbprint of its key (RFC 7638): the `jkt` of the tokens that are bound to it.
    pub(super) thumbprint: String,
    pub(super) jti: String,
}

/// Checks a proof by §4.3. Whether it is used for the first time is the caller's to find out.
///
/// # Errors
/// Fails with what is wrong, in printable ASCII without quotes.
pub(super) fn check(proof: &str, expected: &Expected<'_>) -> Result<Proof, &'static str> {
    let jws = Jws::parse(proof).ok_or("The proof is no JWS of an accepted algorithm")?;
    if !jws.is_of_type(TYP) {
        return Err("The typ of the proof is not dpop+jwt");
    }
    let jwk = jws.jwk().ok_or("The proof has no jwk")?;
    let key = PublicKey::from_jwk(jwk)
        .map_err(|_| "The jwk of the proof is not an accepted public key")?;
    if !key.signed(&jws) {
        return Err("The signature of the proof is not valid");
    }
    let claims: Claims = jws.claims().ok_or("The proof lacks jti, htm, htu or iat")?;
    if !(1..=MAX_JTI).contains(&claims.jti.len()) {
        return Err("The jti of the proof is empty or too long");
    }
    if claims.htm != expected.method {
        return Err("The htm of the proof is not the method of the request");
    }
    if !is_for(&claims.htu, expected) {
        return Err("The htu of the proof is not the URL of the request");
    }
    let NumericDate(iat) = claims.iat;
    if iat < expected.now - WINDOW || iat > expected.now + WINDOW {
        return Err("The iat of the proof is not within a minute of now");
    }
    if let Some(token) = expected.token {
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        if claims.ath.as_deref() != Some(&*hash) {
            return Err("The ath of the proof is not the hash of the access token");
        }
    }
    Ok(Proof { thumbprint: key.thumbprint().to_owned(), jti: claims.jti })
}

/// Returns whether `htu` is the request's URL without query and fragment, both normalized (§4.3, RFC 3986 §6.2.2 and
/// §6.2.3). The URL is the public one: what `Host` or a proxy says about it proves nothing.
fn is_for(htu: &str, expected: &Expected<'_>) -> bool {
    let wanted = normalized(&format!("{}{}", expected.public_url, expected.path));
    wanted.is_some() && wanted == normalized(htu)
}

/// Normalizes a URL: scheme and host in lower case, no default port, no dot segments, no query and no fragment, and
/// percent-encodings as RFC 3986 §6.2.2 has them.
fn normalized(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(format!("{}{}", url.origin().ascii_serialization(), decoded_path(url.path())))
}

/// Decodes the unreserved characters of a path, and writes other percent-encodings in upper case.
fn decoded_path(path: &str) -> String {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(code) = code.filter(|_| part.as_bytes().iter().take(2).all(u8::is_ascii_hexdigit))
        else {
            decoded.push('%');
            decoded.push_str(part);
            continue;
        };
        let character = char::from(code);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) {
            decoded.push(character);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(decoded, "%{code:02X}");
        }
        decoded.push_str(part.get(2..).unwrap_or_default());
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_path(htu: &str, path: &str) -> bool {
        let public_url = "https://bank.example.com";
        is_for(htu, &Expected { method: "GET", public_url, path, token: None, now: 0 })
    }

    #[test]
    fn a_url_is_compared_in_its_normal_form() {
        for htu in [
            "https://bank.example.com/v1/connections",
            "HTTPS://BANK.example.com:443/v1/connections",
            "https://bank.example.com/v1/connections?limit=1#x",
            "https://bank.example.com/v1/./x/../connections",
            "https://bank.example.com/v1/%63onnections",
        ] {
            assert!(for_path(htu, "/v1/connections"), "{htu}");
        }
        assert!(for_path("https://bank.example.com/v1/users/a%2fb", "/v1/users/a%2Fb"));
        assert!(for_path("https://bank.example.com/v1/users/ad%61", "/v1/users/ada"));
        assert!(for_path("https://bank.example.com/v1/users/a%zz", "/v1/users/a%zz"));
        assert!(for_path("https://bank.example.com", "/"));
    }

    #[test]
    fn another_url_is_another() {
        for htu in [
            "",
            "/v1/connections",
            "http://bank.example.com/v1/connections",
            "https://bank.example.com:8443/v1/connections",
            "https://other.example.com/v1/connections",
            "https://bank.example.com/v1/connections/",
            "https://bank.example.com/V1/connections",
            "https://bank.example.com/v1%2Fconnections",
            "https://u:p@bank.example.com/v1/connections",
            "https://bank.example.com/v1/connections%3Flimit=1",
            "file:///v1/connections",
        ] {
            assert!(!for_path(htu, "/v1/connections"), "{htu}");
        }
    }
}
