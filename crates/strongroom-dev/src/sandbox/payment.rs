//! Money movement: transfers on both rails and ACH pulls. A handler only prepares the work, which takes effect once
//! the user's one-time password was right.
//!
//! May import: answer, bank, body, bounded, data, model, payees.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::answer::{Fields, Refusal, field, reason};
use super::bank::Account;
use super::body::Body;
use super::bounded::locked;
use super::data;
use super::model::Login;
use super::payees::{Payee, Rail, account_of};

/// A call's prepared effect and answer.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) fields: Fields,
    /// The transfer, for `operation/get` and `ach/pull/get`.
    pub(super) transfer: Option<Value>,
    /// A beneficiary to add.
    pub(super) payee: Option<Payee>,
}

impl From<Fields> for Work {
    fn from(fields: Fields) -> Self {
        Self { fields, ..Self::default() }
    }
}

/// How a request names the recipient of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiver {
    /// `transfer/create`: by `receiverID`, or by name and account.
    Named,
    /// `transfer/autoflow`: by a `beneficiary` object.
    Described,
}

/// Returns the reference on the bank statement.
pub(super) fn reference_of(operation_id: &str) -> String {
    let tail = operation_id.rsplit('-').next().unwrap_or(operation_id);
    format!("SBX{}", tail.to_uppercase())
}

fn check_covered(account: &Account, amount: f64) -> Result<(), Refusal> {
    if amount > account.balance {
        let msg = "the account holds less than the amount";
        return Err(reason::INSUFFICIENT_BALANCE.because(msg));
    }
    Ok(())
}

fn details(login: &Login, amount: f64) -> Value {
    json!({"amount": amount, "currency": login.holder.bank.currency.to_json()})
}

/// `transfer/create` and `transfer/autoflow`.
pub(super) fn transfer(
    login: &Login,
    (rail, receiver): (Rail, Receiver),
    body: Body<'_>,
    operation_id: &str,
    now: OffsetDateTime,
) -> Result<Work, Refusal> {
    let account = data::account(&login.holder, body, "senderID")?;
    let amount = body.amount()?;
    let described = match (receiver, body.text_if_given("receiverID")?) {
        (Receiver::Described, _) => Some(body.object("beneficiary")?),
        (Receiver::Named, None) => Some(body),
        (Receiver::Named, Some(id)) => {
            locked(&login.payees).check_receiver(&login.holder, rail, id, now)?;
            None
        }
    };
    if let Some(beneficiary) = described {
        beneficiary.text("name")?;
        account_of(beneficiary)?;
    }
    check_covered(&account, amount)?;
    Ok(Work {
        fields: field("reference", json!(reference_of(operation_id))),
        transfer: Some(details(login, amount)),
        payee: None,
    })
}

/// `ach/pull/create`. Java's SDK sends the pull as a nested object, others do not.
pub(super) fn pull(login: &Login, body: Body<'_>) -> Result<Work, Refusal> {
    let wanted = body.object_if_given("transfer")?.unwrap_or(body);
    let account = data::account(&login.holder, wanted, "senderID")?;
    let amount = wanted.amount()?;
    check_covered(&account, amount)?;
    Ok(Work { transfer: Some(details(login, amount)), ..Work::default() })
}

/// `beneficiaries/create`.
pub(super) fn beneficiary(
    login: &Login,
    rail: Rail,
    body: Body<'_>,
    now: OffsetDateTime,
) -> Result<Work, Refusal> {
    let payee = locked(&login.payees).wanted(&login.holder, rail, body, now)?;
    Ok(Work { payee: Some(payee), ..Work::default() })
}

/// `beneficiaries/get`.
pub(super) fn beneficiaries(login: &Login, rail: Rail) -> Fields {
    locked(&login.payees).list(&login.holder, rail)
}
