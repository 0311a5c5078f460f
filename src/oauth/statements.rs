//! Signed statements: what this service certifies, as a JWS of a `typ` of its own under the keys of
//! its access tokens, to be verified against the published key set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::directory::Directory;
use super::signing::VerifyingKey;
use super::store;
use crate::common::signer::Signer;
use crate::database::Conn;
use crate::vault::{Vault, VaultError};

/// Why a text is not a statement of this service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAStatement {
    /// It is not a JWS.
    #[error("it is not a JWS")]
    Malformed,
    /// It is a statement of another kind, or an access token.
    #[error("it is of another kind: its `typ` is not {0}")]
    OtherKind(&'static str),
    /// The key set does not contain the key.
    #[error("the key `{0}` that signed it is not in the key set")]
    UnknownKey(String),
    /// The signature is not valid for that key.
    #[error("its signature does not verify")]
    Forged,
}

/// Returns a signer that looks up the current key at each signature.
#[must_use]
pub fn signer(public_url: &str, directory: Directory) -> Signer {
    Signer::new(public_url, move |typ, claims| directory.signing_key()?.sign(typ, claims))
}

/// Returns a signer with the key that signs now, for a command.
pub async fn signer_of_now(
    conn: &mut Conn,
    vault: &Vault,
    public_url: &str,
) -> Result<Signer, VaultError> {
    let keys = store::load_signing_keys(conn, vault).await?;
    let key = keys.into_iter().find(|(_, begins_in)| begins_in.is_none()).map(|(key, _)| key);
    Ok(Signer::new(public_url, move |typ, claims| key.as_ref()?.sign(typ, claims)))
}

/// Returns the published key set, for a command.
pub async fn key_set(conn: &mut Conn, vault: &Vault) -> Result<Vec<Value>, VaultError> {
    let keys = store::load_signing_keys(conn, vault).await?;
    Ok(keys.into_iter().map(|(key, _)| key.jwk().clone()).collect())
}

/// Verifies a statement of this kind and returns its claims. The key is chosen by `kid` and
/// determines the algorithm (RFC 8725 §3.1).
pub fn open(jws: &str, typ: &'static str, key_set: &[Value]) -> Result<Value, NotAStatement> {
    let header = jws.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Value = header
        .and_then(|header| serde_json::from_slice(&header).ok())
        .ok_or(NotAStatement::Malformed)?;
    let member = |name: &str| header.get(name).and_then(Value::as_str);
    if member("typ") != Some(typ) {
        return Err(NotAStatement::OtherKind(typ));
    }
    let kid = member("kid").ok_or(NotAStatement::Malformed)?;
    let jwk = key_set.iter().find(|jwk| jwk.get("kid").and_then(Value::as_str) == Some(kid));
    let key = jwk.and_then(VerifyingKey::from_jwk);
    let key = key.ok_or_else(|| NotAStatement::UnknownKey(kid.to_owned()))?;
    let payload = key.payload(jws).ok_or(NotAStatement::Forged)?;
    serde_json::from_slice(&payload).map_err(|_| NotAStatement::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common::algorithm::Algorithm;
    use crate::oauth::SigningKey;

    fn key(algorithm: Algorithm) -> SigningKey {
        SigningKey::from_private(algorithm, &SigningKey::generate(algorithm).unwrap()).unwrap()
    }

    #[test]
    fn a_statement_opens_with_the_published_key_and_with_no_other() {
        for algorithm in Algorithm::ALL {
            let (mine, other) = (key(algorithm), key(algorithm));
            let jws = mine.sign("x+jwt", &json!({ "seq": 7 })).unwrap();
            assert_eq!(open(&jws, "x+jwt", &[mine.jwk().clone()]), Ok(json!({ "seq": 7 })));
            let unknown = NotAStatement::UnknownKey(mine.kid().to_owned());
            assert_eq!(open(&jws, "x+jwt", &[other.jwk().clone()]), Err(unknown));
            let mut disguised = other.jwk().clone();
            disguised["kid"] = json!(mine.kid());
            assert_eq!(open(&jws, "x+jwt", &[disguised]), Err(NotAStatement::Forged));
        }
    }

    #[test]
    fn a_statement_of_another_kind_or_with_other_claims_is_refused() {
        let key = key(Algorithm::Es256);
        let set = [key.jwk().clone()];
        let jws = key.sign("x+jwt", &json!({ "seq": 7 })).unwrap();
        assert_eq!(open(&jws, "y+jwt", &set), Err(NotAStatement::OtherKind("y+jwt")));
        let payload = URL_SAFE_NO_PAD.encode(br#"{"seq":8}"#);
        let mut parts: Vec<_> = jws.split('.').collect();
        parts[1] = &payload;
        assert_eq!(open(&parts.join("."), "x+jwt", &set), Err(NotAStatement::Forged));
        for text in ["", "a.b.c", "{}"] {
            assert_eq!(open(text, "x+jwt", &set), Err(NotAStatement::Malformed), "{text}");
        }
    }
}
