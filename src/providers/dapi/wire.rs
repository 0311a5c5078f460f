//! Classifies Dapi's JSON.
//!
//! Reading is lenient: unknown, missing or mistyped fields, bytes that are not text, any status that makes
//! sense. A token exists only once, so it is read from any answer that contains it completely, even from one
//! that breaks off after it. A refusal, however, counts only if the whole answer is Dapi's JSON; a proxy's 403
//! in HTML is inconclusive.

use crate::common::lenient_json::{self, Object};
use crate::common::text;
use crate::providers::received::{MAX_TEXT, Received, may_be_conclusive, token, words};
use crate::providers::{ExchangeAnswer, ExchangedToken, Refusal, RevokeAnswer, Said, VerifyAnswer};

/// The fields that the classification reads.
const FIELDS: [&str; 7] = ["success", "status", "accessToken", "tokenID", "userID", "type", "msg"];

/// Reads an answer to a call; returns `None` if the body is not one complete JSON object.
#[must_use]
pub fn said(body: &[u8]) -> Option<Said> {
    let text = lenient_json::text(body);
    let object = Object::read(&text, &FIELDS).filter(Object::is_closed)?;
    Some(Said {
        succeeded: object.yes("success") == Some(true),
        kind: object.exact("type"),
        asks: object.exact("status").as_deref() == Some("user_input_required"),
    })
}

fn refusal(object: &Object<'_>, secrets: &[&str]) -> Refusal {
    Refusal {
        kind: words(object, "type", secrets).unwrap_or_else(|| "UNKNOWN".to_owned()),
        message: words(object, "msg", secrets).unwrap_or_default(),
    }
}

/// Classifies an answer to an exchange. `secrets` are what the request contained.
pub(super) fn exchange(received: &Received, secrets: &[&str]) -> ExchangeAnswer {
    let unsettled = |what| ExchangeAnswer::Unsettled(received.unsettled(what));
    if !received.may_be_conclusive() {
        return unsettled("no conclusive answer");
    }
    let text = lenient_json::text(&received.body);
    let Some(object) = Object::read(&text, &FIELDS) else {
        return unsettled(received.unreadable());
    };
    match (object.yes("success"), token(&object, "accessToken")) {
        (Some(false), _) if received.is_whole(&object) => {
            ExchangeAnswer::Refused(refusal(&object, secrets))
        }
        (Some(false), _) => unsettled("a refusal that is not Dapi's from beginning to end"),
        (_, Some(access_token)) if received.status.is_success() => {
            let short = |name| object.id(name).map(|id| text::tame(&id, MAX_TEXT));
            let (token_id, user_id) = (short("tokenID"), short("userID"));
            let login_id = None;
            ExchangeAnswer::Token(ExchangedToken { access_token, login_id, token_id, user_id })
        }
        _ if !received.is_whole(&object) => unsettled(received.unreadable()),
        _ => unsettled("an answer without token or refusal"),
    }
}

/// Classifies an answer to a delinking. `gone` are the `type`s that mean "nothing left to delink".
///
/// If the user secret is not `proven`, they mean nothing: Dapi's answer to a wrong user secret says nothing about the
/// token. To take it as a confirmation would give up a live token because of a mistyped secret.
pub(super) fn delink(
    received: &Received,
    gone: &[String],
    proven: bool,
    secrets: &[&str],
) -> RevokeAnswer {
    let failed = |what: String| RevokeAnswer::Failed { what, retry_after: received.retry_after };
    let status = received.status.as_u16();
    let text = lenient_json::text(&received.body);
    let Some(object) = Object::read(&text, &FIELDS).filter(Object::is_closed) else {
        return failed(format!("{} (HTTP {status})", received.unreadable()));
    };
    let success = object.yes("success");
    if received.status.is_success() && success == Some(true) {
        return RevokeAnswer::Revoked;
    }
    let refusal = refusal(&object, secrets);
    let conclusive = received.may_be_conclusive() && received.is_whole(&object);
    if success == Some(false) && conclusive && gone.contains(&refusal.kind) {
        if proven {
            return RevokeAnswer::AlreadyGone(refusal);
        }
        let Refusal { kind, message } = refusal;
        return failed(format!("{kind}: {message} (the user secret is not proven)"));
    }
    failed(format!("{}: {} (HTTP {status})", refusal.kind, refusal.message))
}

/// Classifies an answer to a verification. It is a refusal only if Dapi itself says so, with a conclusive status; a
/// proxy's 403 with an HTML body is not.
pub(super) fn verified(status: u16, body: &[u8], secrets: &[&str]) -> VerifyAnswer {
    let text = lenient_json::text(body);
    let Some(answer) = Object::read(&text, &FIELDS).filter(Object::is_whole) else {
        return VerifyAnswer::Inconclusive;
    };
    match answer.yes("success") {
        _ if !may_be_conclusive(status) => VerifyAnswer::Inconclusive,
        Some(true) if status < 300 => VerifyAnswer::Works(None),
        // The bank needs the user's input, so Dapi has accepted the token.
        _ if answer.exact("status").as_deref() == Some("user_input_required") => {
            VerifyAnswer::Works(None)
        }
        Some(false) => VerifyAnswer::Refused(refusal(&answer, secrets)),
        _ => VerifyAnswer::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use zeroize::Zeroizing;

    use super::*;

    fn received(status: u16, body: &str) -> Received {
        received_bytes(status, body.as_bytes(), None)
    }

    fn received_bytes(status: u16, body: &[u8], spoilt: Option<&'static str>) -> Received {
        let status = StatusCode::from_u16(status).unwrap();
        Received { status, retry_after: None, body: Zeroizing::new(body.to_vec()), spoilt }
    }

    fn kind(status: u16, body: &str) -> &'static str {
        kind_of(&received(status, body))
    }

    fn kind_of(received: &Received) -> &'static str {
        match exchange(received, &["the-code"]) {
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

    fn exchanged(body: &[u8]) -> ExchangedToken {
        match exchange(&received_bytes(200, body, None), &[]) {
            ExchangeAnswer::Token(token) => token,
            other => panic!("{}: {other:?}", String::from_utf8_lossy(body)),
        }
    }

    #[test]
    fn no_field_that_does_not_matter_costs_a_token() {
        for body in [
            b"\xef\xbb\xbf{\"success\":true,\"accessToken\":\"t\"}".as_slice(),
            b"{\"success\":true,\"msg\":\"caf\xe9\",\"accessToken\":\"t\"}",
            b"{\"success\":\"true\",\"accessToken\":\"t\",\"tokenID\":{},\"userID\":\"\xff\"}",
            br#"{"success":1,"accessToken":" t\n","type":[[]],"msg":{"a":1}}"#,
            br#"{"success":true,"success":true,"accessToken":"s","accessToken":"t"}"#,
            br#"{"success":true,"success":false,"accessToken":"t"}"#,
            br#"{"data":{"accessToken":"other"},"accessToken":"t"}"#,
            br#"{"success":true,"accessToken":"t"}</html>"#,
        ] {
            let token = exchanged(body);
            assert_eq!(token.access_token.expose(), "t", "{}", String::from_utf8_lossy(body));
            assert_eq!((token.token_id, token.user_id), (None, None));
        }
        let numbers =
            exchanged(br#"{"accessToken":"t","tokenID":7,"userID":12345678901234567890}"#);
        assert_eq!(numbers.token_id.as_deref(), Some("7"));
        assert_eq!(numbers.user_id.as_deref(), Some("12345678901234567890"));
    }

    #[test]
    fn a_token_that_came_whole_counts_though_the_answer_broke_off_behind_it() {
        let broken = |body: &str| {
            kind_of(&received_bytes(200, body.as_bytes(), Some("an answer that broke off")))
        };
        assert_eq!(broken(TOKEN), "token");
        assert_eq!(broken(r#"{"success":true,"accessToken":"t","x":"#), "token");
        assert_eq!(broken(r#"{"success":true,"accessToken":"t"#), "consumed?");
        assert_eq!(broken(NO), "consumed?", "a refusal counts only where nothing is missing");
        assert_eq!(kind(400, &format!("{NO}<html>")), "consumed?");
    }

    #[test]
    fn a_token_that_is_not_exact_or_cannot_travel_is_none() {
        for body in [
            b"{\"success\":true,\"accessToken\":\"t\xff\"}".as_slice(),
            br#"{"success":true,"accessToken":"t\ufffd"}"#,
            br#"{"success":true,"accessToken":"a\r\nb"}"#,
            br#"{"success":true,"accessToken":"a\u007fb"}"#,
            br#"{"success":true,"accessToken":" \t"}"#,
            br#"{"success":true,"accessToken":7}"#,
            br#"{"success":true,"data":{"accessToken":"t"}}"#,
            br#"[true,"t"]"#,
        ] {
            let kind = kind_of(&received_bytes(200, body, None));
            assert_eq!(kind, "consumed?", "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_refusal_counts_with_200_and_4xx() {
        for status in [200, 400, 401, 403, 404, 409, 422] {
            assert_eq!(kind(status, NO), "refused", "{status}");
        }
        assert_eq!(kind(200, r#"{"success":false}"#), "refused");
        let latin = b"{\"success\":false,\"type\":\"X\",\"msg\":\"caf\xe9\"}";
        assert_eq!(kind_of(&received_bytes(400, latin, None)), "refused");
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
        match delink(&received(status, body), &["USER_DELINKED".to_owned()], true, &[]) {
            RevokeAnswer::Revoked => "delinked",
            RevokeAnswer::AlreadyGone(_) => "gone",
            RevokeAnswer::Failed { .. } => "failed",
        }
    }

    #[test]
    fn a_delinking_is_confirmed_by_success_or_by_there_being_nothing_left() {
        assert_eq!(delinked(200, r#"{"success":true,"status":"done"}"#), "delinked");
        assert_eq!(delinked(200, "\u{feff}{\"success\":\"true\",\"x\":1,\"x\":2}"), "delinked");
        assert_eq!(delinked(401, r#"{"success":false,"type":"USER_DELINKED"}"#), "gone");
    }

    #[test]
    fn anything_else_is_no_confirmation() {
        for (status, body) in [
            (200, "{}"),
            (200, "OK"),
            (200, "[true]"),
            (200, r#"{"success":true,"#),
            (200, r#"{"success":true,"success":false}"#),
            (401, r#"{"success":false,"type":"USER_DELINKED"} x"#),
            (200, r#"{"success":false,"type":"INVALID_CREDENTIALS"}"#),
            (302, r#"{"success":true}"#),
            (500, r#"{"success":true}"#),
            (503, r#"{"success":false,"type":"USER_DELINKED"}"#),
            (429, r#"{"success":false,"type":"USER_DELINKED"}"#),
        ] {
            assert_eq!(delinked(status, body), "failed", "{status} {body}");
        }
    }

    fn refused(kind: &str, message: &str) -> VerifyAnswer {
        VerifyAnswer::Refused(Refusal { kind: kind.to_owned(), message: message.to_owned() })
    }

    fn proof(status: u16, body: &str) -> VerifyAnswer {
        verified(status, body.as_bytes(), &["the-token"])
    }

    #[test]
    fn success_and_a_question_to_the_user_prove_a_token() {
        assert_eq!(
            proof(200, r#"{"success":true,"accountsMetadata":{}}"#),
            VerifyAnswer::Works(None)
        );
        assert_eq!(proof(200, "\u{feff}{\"success\":true}"), VerifyAnswer::Works(None));
        for success in ["true", "false", "null"] {
            let asks = format!(r#"{{"success":{success},"status":"user_input_required"}}"#);
            assert_eq!(proof(200, &asks), VerifyAnswer::Works(None));
        }
    }

    #[test]
    fn a_refusal_needs_dapis_own_body_and_a_conclusive_status() {
        let no = r#"{"success":false,"type":"INVALID_CONNECTION","msg":"not the-token"}"#;
        for status in [200, 400, 401, 403, 404, 422] {
            assert_eq!(
                proof(status, no),
                refused("INVALID_CONNECTION", "not (secret)"),
                "{status}"
            );
        }
        assert_eq!(proof(401, r#"{"success":false}"#), refused("UNKNOWN", ""));
        for status in [301, 408, 429, 500, 503] {
            assert_eq!(proof(status, no), VerifyAnswer::Inconclusive, "{status}");
        }
    }

    #[test]
    fn anything_else_is_inconclusive() {
        for body in ["", "<html>", "[]", "{}", r#"{"success":[]}"#, "true", r#"{"success":false"#] {
            assert_eq!(proof(200, body), VerifyAnswer::Inconclusive, "{body}");
            assert_eq!(proof(401, body), VerifyAnswer::Inconclusive, "{body}");
        }
        assert_eq!(proof(401, r#"{"success":true}"#), VerifyAnswer::Inconclusive);
    }
}
