//! `/v1/upstreams` and `/v1/admin/upstreams`, one use case per file.

pub mod admin;
pub mod proxy;
pub mod token;

use actix_web::HttpRequest;
use serde_json::json;

use super::UpstreamError;
use super::acquire::{AcquireOutcome, Failing};
use super::admin::AdminError;
use super::model::{Failure, is_name};
use crate::http::problem::{Problem, ProblemCode};

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Database(error) => error.into(),
            UpstreamError::Vault(error) => error.into(),
        }
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Invalid(invalid) => Self::invalid_field(invalid.field, invalid.what),
            AdminError::NameTaken(_) => {
                let detail = "Change it, or remove it before another takes its name.";
                Self::new(ProblemCode::UpstreamExists, detail)
            }
            AdminError::Unknown => unknown(),
            AdminError::Upstream(error) => error.into(),
        }
    }
}

fn unknown() -> Problem {
    Problem::new(ProblemCode::NotFound, "There is no upstream of this name.")
}

/// Returns the upstream's name in the path. An impossible one is answered as an unknown one.
fn name(req: &HttpRequest) -> Result<&str, Problem> {
    let name = req.match_info().get("name");
    name.filter(|name| is_name(name)).ok_or_else(unknown)
}

/// Converts the absence of a token to a problem.
fn no_token(outcome: AcquireOutcome) -> Problem {
    match outcome {
        AcquireOutcome::Unknown => unknown(),
        AcquireOutcome::Failing(failing) => failing_problem(&failing),
        AcquireOutcome::Token(_) | AcquireOutcome::Busy => {
            let detail = "The upstream's token is being fetched; try again in a moment.";
            Problem::new(ProblemCode::Unavailable, detail).retry_after(1)
        }
    }
}

/// Reports the upstream's OAuth error code and the time of the next token request; never text of
/// its response.
fn failing_problem(failing: &Failing) -> Problem {
    let code = match failing.kind {
        Failure::Timeout => ProblemCode::UpstreamTimeout,
        _ => ProblemCode::UpstreamFailed,
    };
    let suffix = failing.oauth_error.as_ref();
    let suffix = suffix.map(|error| format!(": {error}")).unwrap_or_default();
    let detail = format!(
        "The upstream gave no token: {}{suffix}. It is asked again in {} s at the earliest.",
        failing.detail, failing.retry_after
    );
    Problem::new(code, detail)
        .with("failure", json!(failing.kind))
        .with("oauthError", json!(failing.oauth_error))
        .retry_after(failing.retry_after.max(1))
}
