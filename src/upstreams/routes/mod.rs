//! `/v1/upstreams` and `/v1/admin/upstreams`: HTTP in and out, one use case a file.

pub mod admin;
pub mod proxy;
pub mod token;

use actix_web::HttpRequest;
use serde_json::json;

use super::Failed;
use super::acquire::{AcquireOutcome, Failing};
use super::admin::AdminError;
use super::model::{Failure, is_name};
use crate::http::problem::{Problem, ProblemCode};
use crate::vault::VaultError;

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Database(error) | Failed::Vault(VaultError::Database(error)) => error.into(),
            Failed::Vault(error) => Self::internal(error),
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
            AdminError::Failed(failed) => failed.into(),
        }
    }
}

fn unknown() -> Problem {
    Problem::new(ProblemCode::NotFound, "There is no upstream of this name.")
}

/// The upstream's name in the path. One that cannot be is as unknown as one that is not.
fn name(req: &HttpRequest) -> Result<&str, Problem> {
    let name = req.match_info().get("name");
    name.filter(|name| is_name(name)).ok_or_else(unknown)
}

/// Why there is no token, for the caller.
fn no_token(lending: AcquireOutcome) -> Problem {
    match lending {
        AcquireOutcome::Unknown => unknown(),
        AcquireOutcome::Failing(failing) => failing_problem(&failing),
        AcquireOutcome::Token(_) | AcquireOutcome::Busy => {
            let detail = "The upstream's token is being fetched; try again in a moment.";
            Problem::new(ProblemCode::Unavailable, detail).retry_after(1)
        }
    }
}

/// The upstream's OAuth error code and when it is asked again; never a word of its answer.
fn failing_problem(failing: &Failing) -> Problem {
    let code = match failing.kind {
        Failure::Timeout => ProblemCode::UpstreamTimeout,
        _ => ProblemCode::UpstreamFailed,
    };
    let told = failing.oauth_error.as_ref();
    let told = told.map(|error| format!(": {error}")).unwrap_or_default();
    let detail = format!(
        "The upstream gave no token: {}{told}. It is asked again in {} s at the earliest.",
        failing.detail, failing.retry_after
    );
    Problem::new(code, detail)
        .with("failure", json!(failing.kind))
        .with("oauthError", json!(failing.oauth_error))
        .retry_after(failing.retry_after.max(1))
}
