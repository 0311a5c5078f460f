//! Verifies a token by one call for the account's metadata, which asks the user for nothing.
//!
//! Writes nothing, and holds no database connection while the call runs.

use std::time::{Duration, Instant};

use crate::apps;
use crate::common::ids::AppId;
use crate::common::lenient_json::Object;
use crate::common::trace::TraceContext;
use crate::common::{lenient_json, text};
use crate::connections::attention::calls_for_attention;
use crate::connections::{ConnectionError, Context};
use crate::database::Inconsistent;
use crate::providers::{
    AccessToken, AppCredentials, Busy, CallAnswer, CallBody, CallLost, Lane, Permit, Refusal,
    UserSecret, scrub,
};

/// The call that verifies. It needs a live token and the right user secret, and reads no balances.
pub const PATH: &str = "metadata/accounts/get";
/// How long a verification waits for a permit of the gate to Dapi.
const WAIT_FOR_PERMIT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// The longest text of Dapi's that is passed on, in bytes.
const MAX_TEXT: usize = 500;

/// A token to be verified.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub app: AppId,
    pub access_token: &'a AccessToken,
    pub user_secret: &'a UserSecret,
    pub trace: &'a TraceContext,
}

/// What Dapi's answer says about a token.
#[derive(Debug)]
pub enum VerificationAnswer {
    /// The token works. Carries Dapi's `type` if the user's login at the bank does not.
    Works(Option<String>),
    Refused(Refusal),
    /// Dapi gave no conclusive answer, or none in time (`timeout`).
    NoAnswer {
        timeout: bool,
    },
    /// The gate gave no permit in time.
    Busy(Busy),
}

/// Verifies a token. Returns the answer and the HTTP status, if there was one.
pub async fn verify_token(
    context: &Context,
    candidate: &Candidate<'_>,
) -> Result<(VerificationAnswer, Option<u16>), ConnectionError> {
    let permit =
        match context.providers.gate().enter(candidate.app, Lane::Call, WAIT_FOR_PERMIT).await {
            Ok(permit) => permit,
            Err(busy) => return Ok((VerificationAnswer::Busy(busy), None)),
        };
    let mut conn = context.pool.acquire().await?;
    let found = apps::credentials(&mut conn, candidate.app).await?;
    drop(conn);
    let app = found
        .ok_or_else(|| sqlx::Error::from(Inconsistent::new("apps", candidate.app)))?
        .open(&context.vault)?;
    let started = Instant::now();
    let answer = call(context, &permit, candidate, &app).await;
    let verified = match &answer {
        Ok((status, body)) => classify(context, *status, body, candidate, &app),
        Err(lost) => {
            tracing::warn!(what = lost.what, "the verification of a token went unanswered");
            VerificationAnswer::NoAnswer { timeout: lost.timeout }
        }
    };
    context.providers.count_call(verified.outcome(), started.elapsed());
    Ok((verified, answer.ok().map(|(status, _)| status)))
}

impl VerificationAnswer {
    /// Returns the call's outcome as metrics and the audit trail name it, like that of any other call.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Works(_) | Self::Refused(_) => "answered",
            Self::NoAnswer { timeout: true } => "timeout",
            Self::NoAnswer { timeout: false } => "unusable",
            Self::Busy(_) => "not_sent",
        }
    }
}

async fn call(
    context: &Context,
    permit: &Permit,
    candidate: &Candidate<'_>,
    app: &AppCredentials,
) -> Result<(u16, Vec<u8>), CallLost> {
    let Candidate { access_token, user_secret, trace, .. } = candidate;
    let body = CallBody { fields: &[], app, user_secret: Some(user_secret), with_app_key: false };
    let limit: Duration = context.providers.settings().call_timeout;
    let calling = context.providers.call(permit, PATH, Some(access_token), &body, trace, limit);
    let mut answer = calling.await?;
    let bytes = read(&mut answer).await?;
    Ok((answer.status().as_u16(), bytes))
}

async fn read(answer: &mut CallAnswer) -> Result<Vec<u8>, CallLost> {
    let lost = |what: &str| CallLost { what: what.to_owned(), timeout: false, sent: true };
    if answer.is_unreadable() {
        return Err(lost("an answer in an unknown encoding"));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_BODY {
            return Err(lost("an answer of excessive size"));
        }
    }
    Ok(bytes)
}

/// Classifies an answer, and turns refusals of `DAPI_ATTENTION_TYPES` into working tokens that need attention.
fn classify(
    context: &Context,
    status: u16,
    body: &[u8],
    candidate: &Candidate<'_>,
    app: &AppCredentials,
) -> VerificationAnswer {
    let secrets =
        [candidate.access_token.expose(), candidate.user_secret.expose(), app.app_secret.expose()];
    match verdict(status, body, &secrets) {
        Verdict::Works => VerificationAnswer::Works(None),
        Verdict::Refused(refusal) if calls_for_attention(context, &refusal.kind) => {
            VerificationAnswer::Works(Some(refusal.kind))
        }
        Verdict::Refused(refusal) => VerificationAnswer::Refused(refusal),
        Verdict::Nothing => VerificationAnswer::NoAnswer { timeout: false },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    Refused(Refusal),
    Nothing,
}

/// Reads an answer. It is a refusal only if Dapi itself says so, with a conclusive status; a proxy's 403 with an HTML
/// body is not.
fn verdict(status: u16, body: &[u8], secrets: &[&str]) -> Verdict {
    let conclusive = matches!(status, 200..=299 | 400..=499) && ![408, 429].contains(&status);
    let text = lenient_json::text(body);
    let fields = ["success", "status", "type", "msg"];
    let Some(answer) = Object::read(&text, &fields).filter(Object::is_whole) else {
        return Verdict::Nothing;
    };
    match answer.yes("success") {
        _ if !conclusive => Verdict::Nothing,
        Some(true) if status < 300 => Verdict::Works,
        // The bank needs the user's input, so Dapi has accepted the token.
        _ if answer.exact("status").as_deref() == Some("user_input_required") => Verdict::Works,
        Some(false) => {
            let text_of = |name| answer.words(name);
            let tame = |text: String| text::tame(&scrub(&text, secrets), MAX_TEXT);
            Verdict::Refused(Refusal {
                kind: text_of("type").map_or_else(|| "UNKNOWN".to_owned(), tame),
                message: text_of("msg").map(tame).unwrap_or_default(),
            })
        }
        _ => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: &str, message: &str) -> Verdict {
        Verdict::Refused(Refusal { kind: kind.to_owned(), message: message.to_owned() })
    }

    fn says(status: u16, body: &str) -> Verdict {
        verdict(status, body.as_bytes(), &["the-token"])
    }

    #[test]
    fn success_and_a_question_to_the_user_prove_a_token() {
        assert_eq!(says(200, r#"{"success":true,"accountsMetadata":{}}"#), Verdict::Works);
        assert_eq!(says(200, "\u{feff}{\"success\":true}"), Verdict::Works);
        for success in ["true", "false", "null"] {
            let asks = format!(r#"{{"success":{success},"status":"user_input_required"}}"#);
            assert_eq!(says(200, &asks), Verdict::Works);
        }
    }

    #[test]
    fn a_refusal_needs_dapis_own_body_and_a_conclusive_status() {
        let no = r#"{"success":false,"type":"INVALID_CONNECTION","msg":"not the-token"}"#;
        for status in [200, 400, 401, 403, 404, 422] {
            assert_eq!(says(status, no), refusal("INVALID_CONNECTION", "not (secret)"), "{status}");
        }
        assert_eq!(says(401, r#"{"success":false}"#), refusal("UNKNOWN", ""));
        for status in [301, 408, 429, 500, 503] {
            assert_eq!(says(status, no), Verdict::Nothing, "{status}");
        }
    }

    #[test]
    fn anything_else_is_inconclusive() {
        for body in ["", "<html>", "[]", "{}", r#"{"success":[]}"#, "true", r#"{"success":false"#] {
            assert_eq!(says(200, body), Verdict::Nothing, "{body}");
            assert_eq!(says(401, body), Verdict::Nothing, "{body}");
        }
        assert_eq!(says(401, r#"{"success":true}"#), Verdict::Nothing);
    }
}
