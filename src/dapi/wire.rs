//! Dapi's JSON, sorted into answers.
//!
//! Be liberal in what is accepted: unknown fields, missing fields, any status that makes sense. But
//! a refusal counts only where Dapi itself says so; a proxy's 403 in HTML settles nothing.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{AccessToken, DelinkAnswer, ExchangeAnswer, ExchangedToken, Refusal, Unsettled};
use crate::base::text;

/// The longest text of Dapi's that is kept, in bytes.
const MAX_TEXT: usize = 500;

/// An answer as it came: status, `Retry-After`, body; or what came in its place.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Result<Vec<u8>, &'static str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAnswer {
    success: Option<bool>,
    access_token: Option<AccessToken>,
    #[serde(rename = "tokenID")]
    token_id: Option<String>,
    #[serde(rename = "userID")]
    user_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    msg: Option<Value>,
}

impl WireAnswer {
    fn refusal(&self, secrets: &[&str]) -> Refusal {
        let words = |value: &Option<Value>| match value {
            Some(Value::String(text)) => Some(text.clone()),
            None | Some(Value::Null) => None,
            Some(other) => Some(other.to_string()),
        };
        let tame = |text: String| text::tame(&scrub(&text, secrets), MAX_TEXT);
        Refusal {
            kind: words(&self.kind).map_or_else(|| "UNKNOWN".to_owned(), tame),
            message: words(&self.msg).map(tame).unwrap_or_default(),
        }
    }
}

/// Takes secrets out of a text that somebody else wrote and that might repeat what was sent.
#[must_use]
pub fn scrub(text: &str, secrets: &[&str]) -> String {
    let worth = secrets.iter().filter(|secret| secret.len() >= 4);
    worth.fold(text.to_owned(), |text, secret| text.replace(*secret, "(secret)"))
}

impl Received {
    fn json(&self) -> Result<WireAnswer, &'static str> {
        let body = self.body.as_ref().map_err(|what| *what)?;
        serde_json::from_slice(body).map_err(|_| "an answer that is not Dapi's JSON")
    }

    /// 200 or 4xx, without the two that say "not now".
    fn may_settle(&self) -> bool {
        let not_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        (self.status.is_success() || self.status.is_client_error())
            && !not_now.contains(&self.status)
    }

    fn unsettled(&self, what: &str) -> Unsettled {
        Unsettled {
            what: format!("{what} (HTTP {})", self.status.as_u16()),
            may_have_consumed: self.status != StatusCode::TOO_MANY_REQUESTS,
            retry_after: self.retry_after,
        }
    }
}

/// What an answer to an exchange says. `secrets` are what was sent.
pub(super) fn exchange(received: &Received, secrets: &[&str]) -> ExchangeAnswer {
    if !received.may_settle() {
        return ExchangeAnswer::Unsettled(received.unsettled("no answer that settles it"));
    }
    let answer = match received.json() {
        Ok(answer) => answer,
        Err(what) => return ExchangeAnswer::Unsettled(received.unsettled(what)),
    };
    match (answer.success, &answer.access_token) {
        (Some(false), _) => ExchangeAnswer::Refused(answer.refusal(secrets)),
        (_, Some(token)) if received.status.is_success() && !token.expose().is_empty() => {
            let short = |id: &Option<String>| id.as_deref().map(|id| text::tame(id, MAX_TEXT));
            ExchangeAnswer::Token(ExchangedToken {
                access_token: token.clone(),
                token_id: short(&answer.token_id),
                user_id: short(&answer.user_id),
            })
        }
        _ => ExchangeAnswer::Unsettled(received.unsettled("an answer without token or refusal")),
    }
}

/// What an answer to a delinking says. `gone` are the types that mean "nothing left to delink".
pub(super) fn delink(received: &Received, gone: &[String], secrets: &[&str]) -> DelinkAnswer {
    let failed = |what: String| DelinkAnswer::Failed { what, retry_after: received.retry_after };
    let status = received.status.as_u16();
    let answer = match received.json() {
        Ok(answer) => answer,
        Err(what) => return failed(format!("{what} (HTTP {status})")),
    };
    if received.status.is_success() && answer.success == Some(true) {
        return DelinkAnswer::Delinked;
    }
    let refusal = answer.refusal(secrets);
    if answer.success == Some(false) && received.may_settle() && gone.contains(&refusal.kind) {
        return DelinkAnswer::AlreadyGone(refusal);
    }
    failed(format!("{}: {} (HTTP {status})", refusal.kind, refusal.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(status: u16, body: &str) -> Received {
        let status = StatusCode::from_u16(status).unwrap();
        Received { status, retry_after: None, body: Ok(body.as_bytes().to_vec()) }
    }

    fn kind(status: u16, body: &str) -> &'static str {
        match exchange(&received(status, body), &["the-code"]) {
            ExchangeAnswer::Token(_) => "token",
            ExchangeAnswer::Refused(_) => "refused",
            ExchangeAnswer::Unsettled(unsettled) if unsettled.may_have_consumed => "consumed?",
            ExchangeAnswer::Unsettled(_) => "untouched",
            ExchangeAnswer::NotSent(_) => "not sent",
        }
    }

    const TOKEN: &str =
        r#"{"success":true,"status":"done","accessToken":"t","tokenID":"i","x":[1]}"#;
    const NO: &str = r#"{"success":false,"status":"failed","type":"INVALID_CODE","msg":"no"}"#;

    #[test]
    fn a_token_counts_whatever_else_comes_with_it() {
        assert_eq!(kind(200, TOKEN), "token");
        assert_eq!(kind(201, r#"{"accessToken":"t"}"#), "token");
    }

    #[test]
    fn a_refusal_counts_with_200_and_4xx() {
        for status in [200, 400, 401, 403, 404, 409, 422] {
            assert_eq!(kind(status, NO), "refused", "{status}");
        }
        assert_eq!(kind(200, r#"{"success":false}"#), "refused");
    }

    #[test]
    fn what_does_not_settle_it_leaves_the_code_in_doubt() {
        for status in [301, 302, 307, 408, 500, 502, 503, 504] {
            assert_eq!(kind(status, NO), "consumed?", "{status}");
            assert_eq!(kind(status, TOKEN), "consumed?", "{status}");
        }
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"success":true}"#,
            r#"{"success":true,"accessToken":""}"#,
            "[]",
        ] {
            assert_eq!(kind(200, body), "consumed?", "{body}");
        }
        assert_eq!(kind(403, "<html>Forbidden</html>"), "consumed?");
        assert_eq!(kind(400, TOKEN), "consumed?");
    }

    #[test]
    fn too_many_requests_says_that_nothing_was_looked_at() {
        assert_eq!(kind(429, NO), "untouched");
    }

    #[test]
    fn a_refusal_that_repeats_the_code_is_kept_without_it() {
        let body = r#"{"success":false,"type":"BAD","msg":"code the-code is unknown\u0000"}"#;
        let ExchangeAnswer::Refused(refusal) = exchange(&received(400, body), &["the-code"]) else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.message, "code (secret) is unknown\u{fffd}");
    }

    fn delinked(status: u16, body: &str) -> &'static str {
        match delink(&received(status, body), &["USER_DELINKED".to_owned()], &[]) {
            DelinkAnswer::Delinked => "delinked",
            DelinkAnswer::AlreadyGone(_) => "gone",
            DelinkAnswer::Failed { .. } => "failed",
        }
    }

    #[test]
    fn a_delinking_is_confirmed_by_success_or_by_there_being_nothing_left() {
        assert_eq!(delinked(200, r#"{"success":true,"status":"done"}"#), "delinked");
        assert_eq!(delinked(401, r#"{"success":false,"type":"USER_DELINKED"}"#), "gone");
    }

    #[test]
    fn anything_else_is_no_confirmation() {
        for (status, body) in [
            (200, "{}"),
            (200, "OK"),
            (200, r#"{"success":false,"type":"INVALID_CREDENTIALS"}"#),
            (302, r#"{"success":true}"#),
            (500, r#"{"success":true}"#),
            (503, r#"{"success":false,"type":"USER_DELINKED"}"#),
            (429, r#"{"success":false,"type":"USER_DELINKED"}"#),
        ] {
            assert_eq!(delinked(status, body), "failed", "{status} {body}");
        }
    }
}
