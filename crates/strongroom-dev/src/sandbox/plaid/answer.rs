//! Answers of Plaid's API, and the reasons for a refusal.
//!
//! Source of the codes and messages: <https://plaid.com/docs/errors/>.
//!
//! May import: visit.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::sandbox::visit::Reply;

/// The fields of an answer besides `request_id`.
pub(super) type Fields = Map<String, Value>;

/// Creates the fields of an answer from a JSON object.
pub(super) fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// A reason for a refusal: its `error_type` and `error_code`. The HTTP status is 400, but for
/// [`reason::NOT_FOUND`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason(&'static str, &'static str);

pub(super) mod reason {
    use super::Reason;

    pub(crate) const INVALID_BODY: Reason = Reason("INVALID_REQUEST", "INVALID_BODY");
    pub(crate) const INVALID_FIELD: Reason = Reason("INVALID_REQUEST", "INVALID_FIELD");
    pub(crate) const MISSING_FIELDS: Reason = Reason("INVALID_REQUEST", "MISSING_FIELDS");
    pub(crate) const NOT_FOUND: Reason = Reason("INVALID_REQUEST", "NOT_FOUND");
    pub(crate) const INVALID_API_KEYS: Reason = Reason("INVALID_INPUT", "INVALID_API_KEYS");
    pub(crate) const INVALID_PUBLIC_TOKEN: Reason = Reason("INVALID_INPUT", "INVALID_PUBLIC_TOKEN");
    pub(crate) const INVALID_ACCESS_TOKEN: Reason = Reason("INVALID_INPUT", "INVALID_ACCESS_TOKEN");
    pub(crate) const INVALID_LINK_TOKEN: Reason = Reason("INVALID_INPUT", "INVALID_LINK_TOKEN");
    pub(crate) const INVALID_ACCOUNT_ID: Reason = Reason("INVALID_INPUT", "INVALID_ACCOUNT_ID");
    pub(crate) const INVALID_INSTITUTION: Reason = Reason("INVALID_INPUT", "INVALID_INSTITUTION");
    pub(crate) const INVALID_WEBHOOK_VERIFICATION_KEY_ID: Reason =
        Reason("INVALID_INPUT", "INVALID_WEBHOOK_VERIFICATION_KEY_ID");
    pub(crate) const SANDBOX_WEBHOOK_INVALID: Reason =
        Reason("SANDBOX_ERROR", "SANDBOX_WEBHOOK_INVALID");
    pub(crate) const ITEM_NOT_FOUND: Reason = Reason("ITEM_ERROR", "ITEM_NOT_FOUND");
    pub(crate) const ITEM_LOGIN_REQUIRED: Reason = Reason("ITEM_ERROR", "ITEM_LOGIN_REQUIRED");
}

impl Reason {
    /// Creates a refusal; `message` explains it to developers.
    pub(super) fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            status: if self.1 == reason::NOT_FOUND.1 { 404 } else { 400 },
            kind: Cow::Borrowed(self.0),
            code: Cow::Borrowed(self.1),
            message: message.into(),
            display: None,
        }
    }
}

/// An answer with an `error_code`.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: Cow<'static, str>,
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
    /// What may be shown to the user.
    pub(super) display: Option<&'static str>,
}

impl Refusal {
    /// Creates a refusal from its name: `ERROR_TYPE/ERROR_CODE`, or the code alone if its type shall be the
    /// documented one.
    pub(super) fn named(name: &str, status: u16, message: String) -> Self {
        let (kind, code) = match name.split_once('/') {
            Some((kind, code)) => (kind.to_owned(), code.to_owned()),
            None => (type_of(name).to_owned(), name.to_owned()),
        };
        Self { status, kind: kind.into(), code: code.into(), message, display: None }
    }

    /// Returns the error without a `request_id`, as items and webhooks carry it.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "error_type": self.kind,
            "error_code": self.code,
            "error_message": self.message,
            "display_message": self.display,
        })
    }

    /// Creates the answer.
    pub(super) fn into_reply(self, request_id: &str) -> Reply {
        let mut body = self.to_json();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("request_id".to_owned(), json!(request_id));
        }
        Reply { status: self.status, outcome: self.code, body: body.to_string().into_bytes() }
    }
}

/// The refusal of a call that needs a working login.
pub(super) fn login_required() -> Refusal {
    Refusal {
        display: Some(
            "The login details of this item have changed (credentials, MFA, or required user action) and a user login is required to update this information. use Link's update mode to restore the item to a good state",
        ),
        ..reason::ITEM_LOGIN_REQUIRED.because(
            "the login details of this item have changed (credentials, MFA, or required user action) and a user login is required to update this information. use Link's update mode to restore the item to a good state",
        )
    }
}

/// Returns the `error_type` that Plaid documents for a code; `API_ERROR` for one that it does not document.
fn type_of(code: &str) -> &'static str {
    match code {
        _ if code.starts_with("ITEM_") || code == "INVALID_CREDENTIALS" => "ITEM_ERROR",
        _ if code.starts_with("INSTITUTION_") => "INSTITUTION_ERROR",
        _ if code.ends_with("_LIMIT") || code.starts_with("RATE_LIMIT") => "RATE_LIMIT_EXCEEDED",
        "INVALID_BODY"
        | "INVALID_FIELD"
        | "MISSING_FIELDS"
        | "UNKNOWN_FIELDS"
        | "NOT_FOUND"
        | "INCOMPATIBLE_API_VERSION"
        | "INVALID_HEADERS" => "INVALID_REQUEST",
        "PRODUCT_NOT_READY"
        | "PRODUCTS_NOT_SUPPORTED"
        | "NO_ACCOUNTS"
        | "USER_SETUP_REQUIRED"
        | "ACCESS_NOT_GRANTED" => "ITEM_ERROR",
        "INTERNAL_SERVER_ERROR" | "PLANNED_MAINTENANCE" => "API_ERROR",
        _ if code.starts_with("INVALID_") || code.starts_with("UNAUTHORIZED_") => "INVALID_INPUT",
        _ => "API_ERROR",
    }
}

/// Creates the answer of a call that succeeded.
pub(super) fn done(request_id: &str, mut fields: Fields) -> Reply {
    fields.insert("request_id".to_owned(), json!(request_id));
    let body = Value::Object(fields).to_string().into_bytes();
    Reply { status: 200, outcome: Cow::Borrowed("done"), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_on_demand_has_the_type_that_its_code_has_unless_it_names_one() {
        for (name, kind, code) in [
            ("INVALID_PUBLIC_TOKEN", "INVALID_INPUT", "INVALID_PUBLIC_TOKEN"),
            ("ITEM_LOGIN_REQUIRED", "ITEM_ERROR", "ITEM_LOGIN_REQUIRED"),
            ("ACCOUNTS_LIMIT", "RATE_LIMIT_EXCEEDED", "ACCOUNTS_LIMIT"),
            ("SOMETHING_NEW", "API_ERROR", "SOMETHING_NEW"),
            ("OAUTH_ERROR/SOMETHING_NEW", "OAUTH_ERROR", "SOMETHING_NEW"),
        ] {
            let refusal = Refusal::named(name, 400, String::new());
            assert_eq!((&*refusal.kind, &*refusal.code), (kind, code));
        }
    }
}
