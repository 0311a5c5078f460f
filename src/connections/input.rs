//! Field checks and problems that the routes about connections share.

use actix_web::http::header::{HeaderValue, LOCATION};
use serde_json::json;

use crate::common::ids::ConnectionId;
use crate::common::text;
use crate::common::text::InvalidText;
use crate::connections::ConnectionError;
use crate::connections::model::{Connection, Status};
use crate::http::problem::{Problem, ProblemCode};
use crate::providers::{AccessCode, AccessToken, Provider, UserSecret};

/// The longest id of Dapi's (`connectionID`, `userID`, `tokenID`), in bytes. Real ones have 40 to 90.
pub const MAX_NAME: usize = 1024;
/// The longest code, token or user secret, in bytes: far above what Dapi issues.
pub const MAX_SECRET: usize = 16 * 1024;
/// The longest reason, in bytes.
pub const MAX_REASON: usize = 500;

/// The checked texts in the `OpenAPI` document.
pub mod schema {
    use super::{MAX_NAME, MAX_REASON, MAX_SECRET, text};

    text::text_schemas! {
        /// Dapi's name for something, at most 1024 bytes.
        DapiName, text::TEXT, 1 to MAX_NAME, "7f1c2d5e-8a4b-4f0e-9c57-3e1d2b6a9f10";
        /// Dapi's name for a bank login, at most 1024 bytes.
        DapiConnectionID, text::SECRET, 1 to MAX_NAME, "a2b6c1d4-5e8f-4a30-b7c9-1d2e3f405162";
        /// The single-use code that Connect hands out.
        AccessCode, text::SECRET, 1 to MAX_SECRET, "eyJhbGciOiJIUzI1NiJ9.code.c2lnbmF0dXJl";
        /// A permanent access token of Dapi's.
        AccessToken, text::BEARER, 1 to MAX_SECRET, "eyJhbGciOiJIUzI1NiJ9.token.c2lnbmF0dXJl";
        /// Connect's user secret, without which a token cannot be used.
        UserSecret, text::SECRET, 1 to MAX_SECRET, "zD0kHc1qXhV3t4bY8mWn2g==";
        /// A reason, for the audit trail, at most 500 bytes.
        Reason, text::TEXT, 1 to MAX_REASON, "nightly balance run";
    }
}

impl From<ConnectionError> for Problem {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Database(error) => error.into(),
            ConnectionError::Vault(error) => error.into(),
            error @ ConnectionError::Contended => Self::unavailable(error),
        }
    }
}

/// Returns the field's value, or a problem that names the field.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::invalid_field(field, "is missing"))
}

pub fn sound(field: &str, checked: Result<(), InvalidText>) -> Result<(), Problem> {
    checked.map_err(|what| Problem::invalid_field(field, what))
}

pub fn name(field: &str, value: Option<String>) -> Result<String, Problem> {
    let value = required(field, value)?;
    sound(field, text::check(&value, MAX_NAME))?;
    Ok(value)
}

/// Checks a bank login's id as strictly as a secret, because Dapi's is sent to Dapi with the code.
pub fn login(field: &str, value: Option<String>) -> Result<String, Problem> {
    let value = required(field, value)?;
    sound(field, text::check_secret(&value, MAX_NAME))?;
    Ok(value)
}

/// Checks an optional id. An empty one counts as left out.
pub fn optional_name(field: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    let value = value.filter(|value| !value.is_empty());
    value.map(|value| name(field, Some(value))).transpose()
}

pub fn client_user_id(value: &str) -> Result<(), Problem> {
    sound("clientUserID", crate::users::check_client_user_id(value))
}

pub fn reason(value: &str) -> Result<(), Problem> {
    sound("reason", text::check(value, MAX_REASON))
}

/// A secret that callers submit.
pub trait Checked: Sized {
    fn text(&self) -> &str;

    fn checked(field: &str, value: Option<Self>) -> Result<Self, Problem> {
        let value = required(field, value)?;
        sound(field, value.can_be_sent())?;
        Ok(value)
    }

    /// Refuses on receipt what cannot be sent to Dapi: later the caller could not correct it.
    fn can_be_sent(&self) -> Result<(), InvalidText> {
        text::check_secret(self.text(), MAX_SECRET)
    }
}

impl Checked for AccessCode {
    fn text(&self) -> &str {
        self.expose()
    }
}

impl Checked for AccessToken {
    fn text(&self) -> &str {
        self.expose()
    }

    fn can_be_sent(&self) -> Result<(), InvalidText> {
        text::check_bearer(self.text(), MAX_SECRET)
    }
}

impl Checked for UserSecret {
    fn text(&self) -> &str {
        self.expose()
    }
}

pub fn location(id: ConnectionId) -> (actix_web::http::header::HeaderName, String) {
    (LOCATION, format!("/v1/connections/{id}"))
}

/// Adds to a problem which connection it is about, and how its exchange failed.
pub fn about(problem: Problem, connection: &Connection) -> Problem {
    let problem =
        problem.with("id", json!(connection.id)).with("failure", json!(connection.failure));
    match HeaderValue::from_str(&location(connection.id).1) {
        Ok(value) => problem.header(LOCATION, value),
        Err(_) => problem,
    }
}

pub fn not_active(id: ConnectionId, status: Status) -> Problem {
    let detail = format!("The connection is {}.", status.as_str());
    Problem::new(ProblemCode::ConnectionNotActive, detail)
        .with("id", json!(id))
        .with("connectionStatus", json!(status))
}

/// The app is of `provider`, and what came is another's.
pub fn of_another_provider(provider: Provider) -> Problem {
    let field = match provider {
        Provider::Dapi => "accessCode",
        Provider::Plaid => "public_token",
    };
    Problem::invalid_field(field, format_args!("is what an app at {} hands in", provider.name()))
}

pub fn login_of_another_user() -> Problem {
    let detail = "Revoke it there before it is connected here.";
    Problem::new(ProblemCode::ConnectionOfAnotherUser, detail)
}
