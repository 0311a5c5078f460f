//! Classifies Plaid's JSON.
//!
//! As lenient as for any provider: a token exists only once, so it is read from any answer that contains it completely.
//! A refusal counts only if the whole answer is an error of Plaid's (`error_type`, `error_code`, `error_message`).

use serde_json::Value;

use crate::common::lenient_json::{self, Object};
use crate::common::text;
use crate::config::ProviderConfig;
use crate::providers::received::{MAX_TEXT, Received, may_be_conclusive, token, words};
use crate::providers::{
    ExchangeAnswer, ExchangedToken, Refusal, Revoke, RevokeAnswer, Said, Unsettled, Verify,
    VerifyAnswer,
};

use super::{ITEM_MISMATCH, KeyAnswer, WebhookKey, is_certain};

/// The fields that the classification reads.
const FIELDS: [&str; 7] = [
    "access_token",
    "new_access_token",
    "item_id",
    "error_type",
    "error_code",
    "error_message",
    "request_id",
];

/// `error_code`s that blame the app's credentials: an operator's mistake, which says nothing about a code or a token.
const CREDENTIALS: [&str; 3] =
    ["INVALID_API_KEYS", "UNAUTHORIZED_ENVIRONMENT", "UNAUTHORIZED_ROUTE_ACCESS"];

/// What an error of Plaid's is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// What was sent: the code or the token.
    Input,
    /// The app's credentials.
    Credentials,
    /// Too many requests: this one was not looked at.
    Rate,
    /// Plaid itself, or the bank.
    Elsewhere,
}

/// An error of Plaid's, scrubbed of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaidError {
    /// `error_type`.
    pub error_type: String,
    /// `error_code`, an open set.
    pub code: String,
    /// `error_message`.
    pub message: String,
}

impl PlaidError {
    fn read(object: &Object<'_>, secrets: &[&str]) -> Option<Self> {
        let words = |field| words(object, field, secrets);
        Some(Self {
            code: words("error_code")?,
            error_type: words("error_type").unwrap_or_default(),
            message: words("error_message").unwrap_or_default(),
        })
    }

    fn blame(&self) -> Blame {
        match self.error_type.as_str() {
            // The codes vary, the type does not.
            "RATE_LIMIT_EXCEEDED" => Blame::Rate,
            "API_ERROR" | "INSTITUTION_ERROR" => Blame::Elsewhere,
            _ if CREDENTIALS.contains(&self.code.as_str()) => Blame::Credentials,
            _ => Blame::Input,
        }
    }
}

impl From<PlaidError> for Refusal {
    fn from(error: PlaidError) -> Self {
        Self { kind: error.code, message: error.message }
    }
}

impl std::fmt::Display for PlaidError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Reads the error of an answer, if it is one of Plaid's.
pub(super) fn error(received: &Received, secrets: &[&str]) -> Option<PlaidError> {
    let text = lenient_json::text(&received.body);
    PlaidError::read(&Object::read(&text, &FIELDS)?, secrets)
}

/// Classifies an answer to an exchange. `secrets` are what the request contained.
pub(super) fn exchange(received: &Received, secrets: &[&str]) -> ExchangeAnswer {
    issued(received, "access_token", secrets)
}

/// Classifies an answer to `/item/access_token/invalidate`, which is an exchange of one token for another.
pub(super) fn invalidated(received: &Received, secrets: &[&str]) -> ExchangeAnswer {
    issued(received, "new_access_token", secrets)
}

fn issued(received: &Received, field: &str, secrets: &[&str]) -> ExchangeAnswer {
    let unsettled = |what: &str| ExchangeAnswer::Unsettled(received.unsettled(what));
    let text = lenient_json::text(&received.body);
    let Some(object) = Object::read(&text, &FIELDS) else {
        return unsettled(received.unreadable());
    };
    if received.status.is_success() {
        let Some(access_token) = token(&object, field) else {
            return unsettled("an answer without a token");
        };
        // One without a character is none: two users would share it.
        let login_id = object.id("item_id").filter(|id| !id.is_empty());
        return ExchangeAnswer::Token(ExchangedToken {
            access_token,
            login_id: login_id.map(|id| text::tame(&id, MAX_TEXT)),
            token_id: None,
            user_id: None,
        });
    }
    let Some(error) = PlaidError::read(&object, secrets) else {
        return unsettled("no conclusive answer");
    };
    let unprocessed = |error: PlaidError| {
        ExchangeAnswer::Unsettled(Unsettled {
            what: error.to_string(),
            may_have_consumed: false,
            retry_after: received.retry_after,
        })
    };
    match error.blame() {
        Blame::Rate => unprocessed(error),
        _ if !received.may_be_conclusive() => unsettled(&error.to_string()),
        _ if !received.is_whole(&object) => unsettled("a refusal that is not Plaid's alone"),
        Blame::Credentials => unprocessed(error),
        Blame::Elsewhere => unsettled(&error.to_string()),
        Blame::Input => ExchangeAnswer::Refused(error.into()),
    }
}

/// Classifies an answer to `/item/remove`.
pub(super) fn removed(
    received: &Received,
    settings: &ProviderConfig,
    revoke: &Revoke<'_>,
) -> RevokeAnswer {
    let status = received.status.as_u16();
    let failed = |what: String| RevokeAnswer::Failed { what, retry_after: received.retry_after };
    let text = lenient_json::text(&received.body);
    let Some(object) = Object::read(&text, &FIELDS).filter(Object::is_closed) else {
        return failed(format!("{} (HTTP {status})", received.unreadable()));
    };
    let secrets = [revoke.app.app_secret.expose(), revoke.token.expose()];
    let Some(error) = PlaidError::read(&object, &secrets) else {
        // Plaid answers a removal with its `request_id` alone; what has none is not Plaid's.
        return if received.status.is_success() && object.id("request_id").is_some() {
            RevokeAnswer::Revoked
        } else {
            failed(format!("an answer without request_id or error (HTTP {status})"))
        };
    };
    let conclusive = received.status.is_client_error()
        && received.may_be_conclusive()
        && received.is_whole(&object);
    let gone = settings.gone_types.contains(&error.code);
    if conclusive && gone && is_certain(settings, &error.code, revoke.token, revoke.proven) {
        return RevokeAnswer::AlreadyGone(error.into());
    }
    if conclusive && gone {
        return failed(format!("{error} (the token has not worked with these credentials here)"));
    }
    failed(format!("{error} (HTTP {status})"))
}

/// Classifies an answer to the look-up of the webhook key `key_id`.
pub(super) fn webhook_key(received: &Received, key_id: &str, secrets: &[&str]) -> KeyAnswer {
    let text = lenient_json::text(&received.body);
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let key = answer.get("key").filter(|_| received.status.is_success());
    if let Some(key) = key.and_then(|key| WebhookKey::read(key, key_id)) {
        return KeyAnswer::Key(key);
    }
    let error = error(received, secrets);
    let what = error.as_ref().map_or_else(|| received.unreadable().to_owned(), ToString::to_string);
    let is_input = error.is_some_and(|error| error.blame() == Blame::Input);
    if is_input && received.status.is_client_error() && received.may_be_conclusive() {
        return KeyAnswer::Unknown;
    }
    KeyAnswer::Unanswered(what)
}

/// Reads an answer to a call; returns `None` if the body is not one complete JSON object.
pub fn said(status: u16, body: &[u8]) -> Option<Said> {
    let text = lenient_json::text(body);
    let object = Object::read(&text, &FIELDS).filter(Object::is_closed)?;
    let kind = object.exact("error_code");
    let succeeded = (200..300).contains(&status) && kind.is_none();
    Some(Said { succeeded, kind, asks: false })
}

/// Classifies an answer to `/item/get`. A token of another item than the one that it is said to be of is refused.
pub fn verified(status: u16, body: &[u8], verify: &Verify<'_>) -> VerifyAnswer {
    let text = lenient_json::text(body);
    if (200..300).contains(&status) {
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        return match answer.pointer("/item/item_id").and_then(Value::as_str) {
            None => VerifyAnswer::Inconclusive,
            Some(item) if item != verify.login_id => VerifyAnswer::Refused(Refusal {
                kind: ITEM_MISMATCH.to_owned(),
                message: "the token is of another item".to_owned(),
            }),
            Some(_) => {
                let trouble = answer.pointer("/item/error/error_code").and_then(Value::as_str);
                trouble.map_or(VerifyAnswer::Works(None), |code| {
                    VerifyAnswer::Works(Some(text::tame(code, MAX_TEXT)))
                })
            }
        };
    }
    let secrets = [verify.app.app_secret.expose(), verify.token.expose()];
    let object = Object::read(&text, &FIELDS).filter(Object::is_whole);
    let error = object.and_then(|object| PlaidError::read(&object, &secrets));
    match error {
        Some(error) if may_be_conclusive(status) && error.blame() == Blame::Input => {
            VerifyAnswer::Refused(error.into())
        }
        _ => VerifyAnswer::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use url::Url;
    use zeroize::Zeroizing;

    use super::*;
    use crate::common::secret::SecretText;
    use crate::common::trace::TraceContext;
    use crate::providers::{AccessToken, AppCredentials, Provider};

    fn received(status: u16, body: &str) -> Received {
        let status = StatusCode::from_u16(status).unwrap();
        Received {
            status,
            retry_after: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
            spoilt: None,
        }
    }

    fn error(error_type: &str, code: &str) -> String {
        format!(
            r#"{{"error_type":"{error_type}","error_code":"{code}","error_message":"no the-code","display_message":null,"request_id":"r"}}"#
        )
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

    const TOKEN: &str = r#"{"access_token":"access-sandbox-1","item_id":"i","request_id":"r"}"#;

    #[test]
    fn a_token_comes_with_the_item_that_it_is_of() {
        let ExchangeAnswer::Token(token) = exchange(&received(200, TOKEN), &[]) else { panic!() };
        assert_eq!(token.access_token.expose(), "access-sandbox-1");
        assert_eq!(token.login_id.as_deref(), Some("i"));
        assert_eq!(kind(200, r#"{"access_token":"t","x":"#), "token", "it broke off behind it");
        assert_eq!(kind(500, TOKEN), "consumed?");
        assert_eq!(kind(200, r#"{"item_id":"i"}"#), "consumed?");
    }

    #[test]
    fn an_error_about_the_code_refuses_it() {
        let body = error("INVALID_INPUT", "INVALID_PUBLIC_TOKEN");
        for status in [400, 403, 404, 422] {
            assert_eq!(kind(status, &body), "refused", "{status}");
        }
        let ExchangeAnswer::Refused(refusal) = exchange(&received(400, &body), &["the-code"])
        else {
            panic!()
        };
        assert_eq!((&*refusal.kind, &*refusal.message), ("INVALID_PUBLIC_TOKEN", "no (secret)"));
    }

    #[test]
    fn an_error_about_anything_else_does_not_refuse_the_code() {
        assert_eq!(kind(400, &error("INVALID_INPUT", "INVALID_API_KEYS")), "untouched");
        for status in [400, 429] {
            assert_eq!(kind(status, &error("RATE_LIMIT_EXCEEDED", "ANY")), "untouched", "{status}");
        }
        for error_type in ["API_ERROR", "INSTITUTION_ERROR"] {
            for status in [400, 500, 503] {
                assert_eq!(kind(status, &error(error_type, "X")), "consumed?", "{error_type}");
            }
        }
        let refusal = error("INVALID_INPUT", "INVALID_PUBLIC_TOKEN");
        for status in [200, 302, 408, 500, 502] {
            assert_eq!(kind(status, &refusal), "consumed?", "{status}");
        }
        assert_eq!(kind(400, &format!("{refusal}<html>")), "consumed?");
        for body in ["", "<html>", "{}", "[]", r#"{"error_type":"INVALID_INPUT"}"#] {
            assert_eq!(kind(400, body), "consumed?", "{body}");
        }
    }

    fn removed_as(status: u16, body: &str, token: &str, proven: bool) -> &'static str {
        let settings = ProviderConfig {
            base_url: Url::parse("https://sandbox.plaid.com").unwrap(),
            exchange_timeout: std::time::Duration::from_secs(1),
            call_timeout: std::time::Duration::from_secs(1),
            exchange_probe: true,
            gone_types: vec!["ITEM_NOT_FOUND".to_owned(), "INVALID_ACCESS_TOKEN".to_owned()],
            dead_types: Vec::new(),
            attention_types: Vec::new(),
        };
        let app = AppCredentials {
            provider: Provider::Plaid,
            app_key: "id".to_owned(),
            app_secret: SecretText::new("secret".to_owned()),
        };
        let (token, trace) = (AccessToken::new(token.to_owned()), TraceContext::fresh());
        let revoke = Revoke { app: &app, token: &token, user_secret: None, proven, trace: &trace };
        match removed(&received(status, body), &settings, &revoke) {
            RevokeAnswer::Revoked => "removed",
            RevokeAnswer::AlreadyGone(_) => "gone",
            RevokeAnswer::Failed { .. } => "failed",
        }
    }

    #[test]
    fn a_removal_is_confirmed_by_plaids_own_answer() {
        assert_eq!(removed_as(200, r#"{"request_id":"r"}"#, "access-sandbox-1", true), "removed");
        for body in ["{}", "", "OK", r#"{"success":true}"#, "[]"] {
            assert_eq!(removed_as(200, body, "access-sandbox-1", true), "failed", "{body}");
        }
        assert_eq!(removed_as(500, r#"{"request_id":"r"}"#, "access-sandbox-1", true), "failed");
    }

    #[test]
    fn an_item_that_is_not_found_is_gone_whatever_is_known_of_its_token() {
        let body = error("ITEM_ERROR", "ITEM_NOT_FOUND");
        for (token, proven) in [("access-sandbox-1", true), ("anything", false)] {
            assert_eq!(removed_as(400, &body, token, proven), "gone");
        }
        for status in [200, 429, 500] {
            assert_eq!(removed_as(status, &body, "access-sandbox-1", true), "failed", "{status}");
        }
    }

    #[test]
    fn a_token_that_plaid_does_not_know_is_gone_only_if_it_worked_here_before() {
        let body = error("INVALID_INPUT", "INVALID_ACCESS_TOKEN");
        assert_eq!(removed_as(400, &body, "access-sandbox-1", true), "gone");
        assert_eq!(removed_as(400, &body, "access-sandbox-1", false), "failed");
        assert_eq!(removed_as(400, &body, "access-production-1", true), "failed");
        assert_eq!(removed_as(400, &body, "mistyped", true), "failed");
        let keys = error("INVALID_INPUT", "INVALID_API_KEYS");
        assert_eq!(removed_as(400, &keys, "access-sandbox-1", true), "failed");
    }
}
