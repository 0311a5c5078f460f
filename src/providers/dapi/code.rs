//! Dapi's access code, which is a JWT.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use crate::providers::AccessCode;

impl AccessCode {
    /// Returns when the code expires if it is a JWT with an `exp` (RFC 7519 §4.1.4): a JOSE header that names an
    /// algorithm (RFC 7515 §4.1.1), and claims that are an object. Nothing is verified; this is a hint. A code
    /// of any other form is opaque.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        let mut parts = self.expose().split('.');
        let (header, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        object(header)?.get("alg")?.as_str()?;
        let exp = object(claims)?.get("exp")?.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "out of range is refused by the next call"
        )]
        OffsetDateTime::from_unix_timestamp(exp as i64).ok()
    }
}

/// Decodes a part of a JWT that holds a JSON object.
fn object(part: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let json = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> AccessCode {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        AccessCode::new(format!("{}.{}.c2ln", part(r#"{"alg":"HS256"}"#), part(payload)))
    }

    #[test]
    fn a_code_that_is_a_jwt_tells_when_it_ends() {
        let ends = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(jwt(r#"{"exp":1700000000,"jti":"x"}"#).expires_at(), Some(ends));
        assert_eq!(jwt(r#"{"exp":1700000000.9}"#).expires_at(), Some(ends));
    }

    #[test]
    fn a_code_of_another_form_has_no_end_of_its_own() {
        for code in ["", "opaque", "a.b.c", "a.b.c.d"] {
            assert_eq!(AccessCode::new(code.to_owned()).expires_at(), None, "{code}");
        }
        for payload in [
            "{}",
            r#"{"exp":"soon"}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":null}"#,
            r#"{"exp":[1]}"#,
            "[]",
            "[1]",
            "1",
        ] {
            assert_eq!(jwt(payload).expires_at(), None, "{payload}");
        }
        let past = URL_SAFE_NO_PAD.encode(r#"{"exp":1}"#);
        for header in ["x", "e30", &URL_SAFE_NO_PAD.encode(r#"["HS256"]"#)] {
            let code = AccessCode::new(format!("{header}.{past}.c2ln"));
            assert_eq!(code.expires_at(), None, "a header that is none: {header}");
        }
    }
}
