//! Dapi's API without its wire format: maps a call to an answer.
//!
//! May import: every module of the sandbox that holds rules or state.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Fields, Refusal, reason};
use super::batch;
use super::body::Body;
use super::bounded::locked;
use super::calls::Calls;
use super::common::Common;
use super::data;
use super::endpoint::{Deed, Endpoint, PULL_PATH};
use super::faults::Faults;
use super::model::{self, Links, TokenUse};
use super::operations::{Gate, Operations, Step};
use super::payment::{self, Work};
use super::plaid::{self, Plaid};
use super::settings::{Rules, Settings};
use super::systems::{Grants, System};
use strongroom_common::clock::Clock;

/// A request to Dapi's API, parsed but not checked.
pub(super) struct Call {
    pub(super) endpoint: &'static Endpoint,
    pub(super) bearer: Option<String>,
    pub(super) fields: Fields,
}

/// All state of a sandbox.
pub(super) struct State {
    pub(super) common: Arc<Common>,
    pub(super) links: Links,
    /// Access tokens of the other systems.
    pub(super) grants: Grants,
    pub(super) workers: usize,
    pub(super) plaid: Plaid,
    operations: Operations,
}

/// Returns the journal's spelling of an endpoint of any of the sandbox's APIs.
pub(super) fn spelling(path: &str) -> Option<&'static str> {
    plaid::spelling(path)
        .or_else(|| Endpoint::at(path).map(|endpoint| endpoint.path))
        .or_else(|| System::path_of(path))
}

/// A call's answer and its effect.
pub(super) struct Done {
    pub(super) answer: Answer,
    /// The `tokenID` of the code that was exchanged.
    pub(super) exchanged: Option<Uuid>,
}

impl State {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let faults = Faults::new(spelling);
        let calls = Calls::new(settings.capacity);
        let common = Arc::new(Common::new(clock, faults, calls, settings.rules));
        Self {
            links: Links::new(settings.apps, settings.capacity),
            plaid: Plaid::new(Arc::clone(&common), settings.plaid_apps, settings.capacity),
            common,
            grants: Grants::new(),
            workers: settings.workers.max(1),
            operations: Operations::new(),
        }
    }

    /// Creates an operation id in Dapi's form: the bank and a UUID.
    fn new_operation_id(&self, token_use: Option<&TokenUse>) -> String {
        let bank =
            token_use.map_or("DAPI", |token_use| token_use.token().login().holder.bank.swift);
        format!("{bank}:{}", self.links.mint.uuid())
    }

    /// Carries out a call. `token_use` is the caller's use of the token, if the token is known.
    pub(super) fn perform(&self, call: &Call, token_use: Option<&TokenUse>) -> Done {
        let (now, rules) = (self.common.clock.now(), self.common.rules());
        let new_id = self.new_operation_id(token_use);
        let body = Body::new(&call.fields);
        let mut step = Step {
            id: &new_id,
            path: call.endpoint.path,
            token: token_use.map(|token_use| token_use.token().id),
            now,
        };
        let asks = call.endpoint.asks(rules.mfa);
        if asks && let Ok(Some(id)) = body.text_if_given("operationID") {
            let resumed = Step { id, ..step };
            if !self.operations.awaits(resumed) {
                let msg = "no operation of this token and path waits under this operationID";
                let refusal = reason::INVALID_OPERATION_ID.because(msg);
                return Answer::refused(Some(&new_id), refusal).into();
            }
            step = resumed;
        }
        let done = match call.endpoint.deed {
            Deed::Exchange => self.exchange(body, step, &rules),
            Deed::OperationStatus => self.operation_status(body, step).map(Done::from),
            _ => self.with_token(call, token_use, step, &rules).map(Done::from),
        };
        done.unwrap_or_else(|refusal| {
            self.operations.end_failed(step, refusal.kind.clone());
            Answer::refused(Some(step.id), refusal).into()
        })
    }

    fn exchange(&self, body: Body<'_>, step: Step<'_>, rules: &Rules) -> Result<Done, Refusal> {
        let secret = body.text("appSecret")?;
        let code = body.text("accessCode")?;
        let connection_id = body.text("connectionID")?;
        let app = self.links.app_with_secret(secret)?;
        let given = self.links.exchange(app, code, connection_id, rules, step.now)?;
        self.operations.end_done(step, None);
        let fields = Fields::from_iter([
            ("accessToken".to_owned(), json!(given.access_token)),
            ("tokenID".to_owned(), json!(given.token.id)),
            ("userID".to_owned(), json!(given.token.login().user_id)),
        ]);
        Ok(Done {
            answer: Answer::done(step.id, fields),
            exchanged: self.links.token_id_of_code(code),
        })
    }

    /// Node's SDK calls this without a token.
    fn operation_status(&self, body: Body<'_>, step: Step<'_>) -> Result<Answer, Refusal> {
        self.links.app_with_secret(body.text("appSecret")?)?;
        let fields = self.operations.status(body.text("operationID")?)?;
        Ok(Answer::done(step.id, fields))
    }

    /// Carries out a call that needs a token.
    fn with_token(
        &self,
        call: &Call,
        token_use: Option<&TokenUse>,
        step: Step<'_>,
        rules: &Rules,
    ) -> Result<Answer, Refusal> {
        if call.bearer.is_none() {
            let msg = "Authorization: Bearer <accessToken> is missing";
            return Err(reason::UNAUTHORIZED.because(msg));
        }
        let token_use = token_use
            .ok_or_else(|| reason::INVALID_CONNECTION.because("the access token is not known"))?;
        let body = Body::new(&call.fields);
        let app = self.links.app_with_secret(body.text("appSecret")?)?;
        let user_secret = match call.endpoint.deed {
            Deed::OperationInfo => body.text_if_given("userSecret")?,
            _ => Some(body.text("userSecret")?),
        };
        model::admit(token_use, app, user_secret, rules)?;
        let work = self.prepare(call.endpoint.deed, token_use, body, step)?;
        if call.endpoint.asks(rules.mfa) && self.operations.ask(step, body)? == Gate::Ask {
            return Ok(Answer::input_required(step.id));
        }
        let token = token_use.token();
        if call.endpoint.deed == Deed::Delink {
            model::delink(token, rules.delink_cuts);
        }
        if let Some(payee) = work.payee {
            locked(&token.login().payees).add(payee);
        }
        self.operations.end_done(step, work.transfer);
        Ok(Answer::done(step.id, work.fields))
    }

    /// Prepares a call's effect and answer; nothing has happened yet when this returns.
    fn prepare(
        &self,
        deed: Deed,
        token_use: &TokenUse,
        body: Body<'_>,
        step: Step<'_>,
    ) -> Result<Work, Refusal> {
        let login = token_use.token().login();
        let holder = &login.holder;
        let (now, today) = (step.now, step.now.date());
        Ok(match deed {
            Deed::Exchange | Deed::OperationStatus | Deed::Delink => Work::default(),
            Deed::Identity => data::identity(holder).into(),
            Deed::Accounts => data::accounts(holder).into(),
            Deed::Cards => data::cards(holder).into(),
            Deed::Balance => data::balance(holder, body)?.into(),
            Deed::Transactions(detail) => data::transactions(holder, body, today, detail)?.into(),
            Deed::Metadata => data::metadata(holder).into(),
            Deed::Beneficiaries(rail) => payment::beneficiaries(login, rail).into(),
            Deed::AddBeneficiary(rail) => payment::beneficiary(login, rail, body, now)?,
            Deed::Transfer(rail, receiver) => {
                payment::transfer(login, (rail, receiver), body, step.id, now)?
            }
            Deed::Pull => payment::pull(login, body)?,
            Deed::BatchTransfers => batch::transfers(login, body, today)?.into(),
            Deed::BatchItems => batch::items(login, body)?.into(),
            Deed::BatchFile => batch::file(login, body)?,
            Deed::BatchCreate => batch::create(login, body, step.id)?,
            Deed::BatchMetadata => batch::metadata().into(),
            Deed::PullStatus | Deed::OperationInfo => {
                self.about_operation(deed, token_use, body)?.into()
            }
        })
    }

    fn about_operation(
        &self,
        deed: Deed,
        token_use: &TokenUse,
        body: Body<'_>,
    ) -> Result<Fields, Refusal> {
        let (id, token) = (body.text("operationID")?, token_use.token());
        if deed == Deed::PullStatus {
            return self.operations.pull(id, PULL_PATH, token.id);
        }
        if body.text("appKey")? != token.login().app.key {
            return Err(reason::PARAMETER_ERROR.because("appKey is not this app's"));
        }
        self.operations.info(id, token.id)
    }
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Self {
        Self { answer, exchanged: None }
    }
}

/// Parses the fields of a JSON body.
pub(super) fn read_fields(body: &[u8]) -> Result<Fields, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(reason::PARAMETER_ERROR.because("the body has to be a JSON object")),
        Err(_) => Err(reason::PARAMETER_ERROR.because("the body is not JSON")),
    }
}
