//! Answers of Dapi's API: `{success, status, operationID, …}` with an HTTP status, and all reasons for a
//! refusal.
//!
//! Imports no other module.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

/// The fields of an answer besides those that every answer has.
pub(super) type Fields = Map<String, Value>;

/// Returns an object with one field.
pub(super) fn field(name: &str, value: Value) -> Fields {
    Fields::from_iter([(name.to_owned(), value)])
}

/// The one-time password that is always right.
pub(super) const RIGHT_OTP: &str = "123456";

/// A reason for a refusal: the HTTP status and its `type`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason(u16, &'static str);

/// The reasons in Dapi's documentation or in its clients.
pub(super) mod reason {
    use super::Reason;

    pub(crate) const INVALID_MFA: Reason = Reason(401, "INVALID_MFA");
    pub(crate) const INVALID_ACCOUNT_ID: Reason = Reason(404, "INVALID_ACCOUNT_ID");
    pub(crate) const INVALID_CARD_ID: Reason = Reason(404, "INVALID_CARD_ID");
    pub(crate) const INVALID_DATE_RANGE: Reason = Reason(400, "INVALID_DATE_RANGE");
    pub(crate) const PARAMETER_ERROR: Reason = Reason(400, "PARAMETER_ERROR");
    pub(crate) const PARAMETER_MISSING: Reason = Reason(422, "PARAMETER_MISSING");
    pub(crate) const INSUFFICIENT_BALANCE: Reason = Reason(400, "INSUFFICIENT_BALANCE");
    pub(crate) const BENEFICIARY_NOT_ACTIVATED: Reason = Reason(400, "BENEFICIARY_NOT_ACTIVATED");
    pub(crate) const BENEFICIARY_COOL_DOWN_PERIOD: Reason =
        Reason(400, "BENEFICIARY_COOL_DOWN_PERIOD");
    pub(crate) const BENEFICIARY_ALREADY_EXISTS: Reason = Reason(400, "BENEFICIARY_ALREADY_EXISTS");
    // Known from Dapi's clients alone, which do not state the HTTP status.
    pub(crate) const INVALID_CONNECTION: Reason = Reason(401, "INVALID_CONNECTION");
    pub(crate) const USER_DELINKED: Reason = Reason(401, "USER_DELINKED");
    pub(crate) const SESSION_INVALIDATED: Reason = Reason(401, "SESSION_INVALIDATED");

    // The following `type`s are the sandbox's own: Dapi documents that it refuses, not how. Callers must treat
    // `type` as an open string.
    pub(crate) const INVALID_APP_SECRET: Reason = Reason(401, "INVALID_APP_SECRET");
    pub(crate) const INVALID_USER_SECRET: Reason = Reason(401, "INVALID_USER_SECRET");
    pub(crate) const UNAUTHORIZED: Reason = Reason(401, "UNAUTHORIZED");
    pub(crate) const INVALID_ACCESS_CODE: Reason = Reason(400, "INVALID_ACCESS_CODE");
    pub(crate) const ACCESS_CODE_EXPIRED: Reason = Reason(400, "ACCESS_CODE_EXPIRED");
    pub(crate) const ACCESS_CODE_USED: Reason = Reason(400, "ACCESS_CODE_USED");
    pub(crate) const INVALID_OPERATION_ID: Reason = Reason(404, "INVALID_OPERATION_ID");
    pub(crate) const BODY_TOO_LARGE: Reason = Reason(413, "BODY_TOO_LARGE");
    pub(crate) const NOT_FOUND: Reason = Reason(404, "NOT_FOUND");
    pub(crate) const METHOD_NOT_ALLOWED: Reason = Reason(405, "METHOD_NOT_ALLOWED");
}

impl Reason {
    /// Creates a refusal; `msg` explains it to people.
    pub(super) fn because(self, msg: impl Into<String>) -> Refusal {
        Refusal { status: self.0, kind: Cow::Borrowed(self.1), msg: msg.into() }
    }
}

/// An answer with `success: false`.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: Cow<'static, str>,
    pub(super) msg: String,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The outcome for the journal: `done`, `user_input_required` or the refusal's `type`.
    pub(super) outcome: Cow<'static, str>,
    body: Value,
}

impl Answer {
    /// Creates the answer of a call that succeeded.
    ///
    /// `fields` may override `status` and `operationID`: `operation/get` describes another operation than itself.
    pub(super) fn done(operation_id: &str, mut fields: Fields) -> Self {
        fields.insert("success".to_owned(), json!(true));
        fields.entry("status").or_insert_with(|| json!("done"));
        fields.entry("operationID").or_insert_with(|| json!(operation_id));
        Self { status: 200, outcome: Cow::Borrowed("done"), body: Value::Object(fields) }
    }

    /// Creates the answer of a call that waits for the user's one-time password.
    pub(super) fn input_required(operation_id: &str) -> Self {
        let query = format!("Enter the code that your bank sent you (sandbox: {RIGHT_OTP})");
        Self {
            status: 200,
            outcome: Cow::Borrowed("user_input_required"),
            body: json!({
                "success": true,
                "status": "user_input_required",
                "operationID": operation_id,
                "userInputs": [{"id": "otp", "index": 0, "query": query, "answer": ""}],
            }),
        }
    }

    /// Creates the answer of a refused call, without an operation if the call did not get that far.
    pub(super) fn refused(operation_id: Option<&str>, refusal: Refusal) -> Self {
        let mut fields = Fields::from_iter([
            ("success".to_owned(), json!(false)),
            ("status".to_owned(), json!("failed")),
            ("type".to_owned(), json!(refusal.kind)),
            ("msg".to_owned(), json!(refusal.msg)),
        ]);
        if let Some(id) = operation_id {
            fields.insert("operationID".to_owned(), json!(id));
        }
        Self { status: refusal.status, outcome: refusal.kind, body: Value::Object(fields) }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.body.to_string().into_bytes()
    }
}
