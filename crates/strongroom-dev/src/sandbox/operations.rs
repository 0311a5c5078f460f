//! Operations: each call to Dapi is one, and a call that needs the user's one-time password is one that spans two
//! requests.
//!
//! May import: answer, body, bounded.

use std::borrow::Cow;
use std::sync::Mutex;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::answer::{Fields, RIGHT_OTP, Refusal, field, reason};
use super::body::Body;
use super::bounded::{Bounded, locked};

/// How many operations are remembered.
const MOST_OPERATIONS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Done,
    Failed,
    AwaitsInput,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::AwaitsInput => "user_input_required",
        }
    }
}

/// One call, or two if the user was asked.
#[derive(Clone, Debug)]
struct Operation {
    path: &'static str,
    /// The token of the operation; `None` for an exchange and for calls with an unknown token.
    token: Option<Uuid>,
    status: Status,
    started_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
    error_type: Option<Cow<'static, str>>,
    transfer: Option<Value>,
}

/// A call, as part of the operation that it starts or resumes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) id: &'a str,
    pub(super) path: &'static str,
    pub(super) token: Option<Uuid>,
    pub(super) now: OffsetDateTime,
}

/// Whether a call may proceed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// The user has to be asked first.
    Ask,
}

pub(super) struct Operations {
    entries: Mutex<Bounded<String, Operation>>,
}

impl Operations {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::new(Bounded::new(MOST_OPERATIONS)) }
    }

    /// Returns whether this step resumes an operation of the same token and path that waits for the user.
    pub(super) fn awaits(&self, step: Step<'_>) -> bool {
        let entries = locked(&self.entries);
        entries.get(step.id).is_some_and(|operation| {
            operation.status == Status::AwaitsInput
                && operation.path == step.path
                && operation.token == step.token
        })
    }

    /// Asks for the one-time password, or checks the one that was sent.
    pub(super) fn ask(&self, step: Step<'_>, body: Body<'_>) -> Result<Gate, Refusal> {
        let answers = body.objects("userInputs")?;
        if !self.awaits(step) || answers.is_empty() {
            self.keep(step, Status::AwaitsInput, None, None);
            return Ok(Gate::Ask);
        }
        for answer in answers {
            if answer.text_if_given("id")? == Some("otp")
                && answer.text_if_given("answer")?.map(str::trim) == Some(RIGHT_OTP)
            {
                return Ok(Gate::Open);
            }
        }
        Err(reason::INVALID_MFA.because("the code is not the one that the bank sent"))
    }

    pub(super) fn end_done(&self, step: Step<'_>, transfer: Option<Value>) {
        self.keep(step, Status::Done, None, transfer);
    }

    pub(super) fn end_failed(&self, step: Step<'_>, kind: Cow<'static, str>) {
        self.keep(step, Status::Failed, Some(kind), None);
    }

    fn keep(
        &self,
        step: Step<'_>,
        status: Status,
        error_type: Option<Cow<'static, str>>,
        transfer: Option<Value>,
    ) {
        let mut entries = locked(&self.entries);
        let id = step.id.to_owned();
        let started_at = entries.get(&id).map_or(step.now, |known| known.started_at);
        let operation = Operation {
            path: step.path,
            token: step.token,
            status,
            started_at,
            ended_at: (status != Status::AwaitsInput).then_some(step.now),
            error_type,
            transfer,
        };
        entries.insert(id, operation);
    }

    fn find(&self, id: &str, token: Option<Uuid>) -> Result<Operation, Refusal> {
        locked(&self.entries)
            .get(id)
            .filter(|operation| token.is_none() || operation.token == token)
            .cloned()
            .ok_or_else(|| reason::INVALID_OPERATION_ID.because("no such operation"))
    }

    /// `operation/status`: an operation's progress.
    pub(super) fn status(&self, id: &str) -> Result<Fields, Refusal> {
        let operation = self.find(id, None)?;
        Ok(about(id, &operation))
    }

    /// `operation/get`: all details of an operation of this token.
    pub(super) fn info(&self, id: &str, token: Uuid) -> Result<Fields, Refusal> {
        let operation = self.find(id, Some(token))?;
        let moment = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let mut fields = about(id, &operation);
        let info = json!({
            "type": format!("/{}", operation.path),
            "status": operation.status.name(),
            "errorType": operation.error_type,
            "startDate": moment(operation.started_at),
            "endDate": operation.ended_at.map(moment),
            "transferDetails": operation.transfer,
        });
        fields.insert("opInfo".to_owned(), info);
        Ok(fields)
    }

    /// `ach/pull/get`: the state of a pull of this token.
    pub(super) fn pull(&self, id: &str, path: &str, token: Uuid) -> Result<Fields, Refusal> {
        let operation = self.find(id, Some(token))?;
        let Some(Value::Object(mut transfer)) =
            operation.transfer.filter(|_| operation.path == path)
        else {
            return Err(reason::INVALID_OPERATION_ID.because("this operation is no pull"));
        };
        transfer.insert("status".to_owned(), json!(operation.status.name()));
        Ok(field("transfer", Value::Object(transfer)))
    }
}

fn about(id: &str, operation: &Operation) -> Fields {
    Fields::from_iter([
        ("operationID".to_owned(), json!(id)),
        ("status".to_owned(), json!(operation.status.name())),
    ])
}
