//! Verifies a token by one call that asks the user for nothing.
//!
//! Writes nothing, and holds no database connection while the call runs.

use std::time::{Duration, Instant};

use crate::apps;
use crate::common::ids::AppId;
use crate::common::trace::TraceContext;
use crate::connections::{ConnectionError, Context};
use crate::database::Inconsistent;
use crate::providers::{AccessToken, Busy, Lane, Refusal, UserSecret, Verify, VerifyAnswer};

/// How long a verification waits for a permit of the gate.
const WAIT_FOR_PERMIT: Duration = Duration::from_secs(5);

/// A token to be verified.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub app: AppId,
    pub login_id: &'a str,
    pub access_token: &'a AccessToken,
    pub user_secret: Option<&'a UserSecret>,
    pub trace: &'a TraceContext,
}

/// What the provider's answer says about a token.
#[derive(Debug)]
pub enum VerificationAnswer {
    /// The token works. Carries the kind of refusal if the user's login at the bank does not.
    Works(Option<String>),
    Refused(Refusal),
    /// The provider gave no conclusive answer, or none in time (`timeout`).
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
    let gate = context.providers.gate();
    let permit = match gate.enter(candidate.app, Lane::Call, WAIT_FOR_PERMIT).await {
        Ok(permit) => permit,
        Err(busy) => return Ok((VerificationAnswer::Busy(busy), None)),
    };
    let mut conn = context.pool.acquire().await?;
    let found = apps::credentials(&mut conn, candidate.app).await?;
    drop(conn);
    let app = found
        .ok_or_else(|| sqlx::Error::from(Inconsistent::new("apps", candidate.app)))?
        .open(&context.vault)
        .await?;
    let started = Instant::now();
    let Candidate { login_id, access_token: token, user_secret, trace, .. } = *candidate;
    let verify = Verify { app: &app, login_id, token, user_secret, trace };
    let answer = context.providers.verify(&permit, &verify).await;
    let status = answer.as_ref().ok().map(|(_, status)| *status);
    let verified = match answer {
        Ok((VerifyAnswer::Works(attention), _)) => VerificationAnswer::Works(attention),
        Ok((VerifyAnswer::Refused(refusal), _)) => VerificationAnswer::Refused(refusal),
        Ok((VerifyAnswer::Inconclusive, _)) => VerificationAnswer::NoAnswer { timeout: false },
        Err(lost) => {
            tracing::warn!(what = lost.what, "the verification of a token went unanswered");
            VerificationAnswer::NoAnswer { timeout: lost.timeout }
        }
    };
    context.providers.count_call(app.provider, verified.outcome(), started.elapsed());
    Ok((verified, status))
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
