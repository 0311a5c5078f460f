//! Beneficiaries: the built-in ones of every login, and added ones.
//!
//! May import: answer, bank, body, data.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::answer::{Fields, Refusal, field, reason};
use super::bank::Holder;
use super::body::{Body, missing};
use super::data::COOL_DOWN_HOURS;

/// How many added beneficiaries a login remembers.
const MOST_ADDED: usize = 50;

/// The payment rail. Each has its own beneficiaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rail {
    /// `payment/…`
    Payment,
    /// `wire/…`
    Wire,
}

#[derive(Clone, Debug)]
pub(super) struct Payee {
    rail: Rail,
    id: String,
    name: String,
    /// The IBAN if there is one, the account number otherwise.
    account: String,
    active: bool,
    /// When it was added; `None` for built-in ones.
    added_at: Option<OffsetDateTime>,
}

impl Payee {
    fn to_json(&self) -> Value {
        let iban = self.account.starts_with(|first: char| first.is_ascii_alphabetic());
        json!({
            "id": self.id,
            "name": self.name,
            "iban": iban.then_some(&self.account),
            "accountNumber": self.account,
            "type": "local",
            "status": if self.active { "approved" } else { "waiting_for_confirmation" },
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Payees {
    added: Vec<Payee>,
}

impl Payees {
    /// Returns all beneficiaries on this rail.
    fn on(&self, holder: &Holder, rail: Rail) -> impl Iterator<Item = Payee> {
        let added = self.added.iter().filter(move |payee| payee.rail == rail);
        given(holder, rail).into_iter().chain(added.cloned())
    }

    pub(super) fn list(&self, holder: &Holder, rail: Rail) -> Fields {
        let list: Vec<_> = self.on(holder, rail).map(|payee| payee.to_json()).collect();
        field("beneficiaries", json!(list))
    }

    /// Reads the beneficiary to add.
    pub(super) fn wanted(
        &self,
        holder: &Holder,
        rail: Rail,
        body: Body<'_>,
        now: OffsetDateTime,
    ) -> Result<Payee, Refusal> {
        let account = account_of(body)?;
        if self.on(holder, rail).any(|payee| payee.account == account) {
            let msg = "this account is among the beneficiaries already";
            return Err(reason::BENEFICIARY_ALREADY_EXISTS.because(msg));
        }
        Ok(Payee {
            rail,
            id: holder.id(&format!("{rail:?}/{account}")),
            name: body.text("name")?.to_owned(),
            account: account.to_owned(),
            active: true,
            added_at: Some(now),
        })
    }

    /// Adds a beneficiary; evicts the oldest beyond the limit.
    pub(super) fn add(&mut self, payee: Payee) {
        if self.added.len() >= MOST_ADDED {
            self.added.remove(0);
        }
        self.added.push(payee);
    }

    /// Refuses a transfer to a beneficiary that is unknown or cannot be paid yet.
    pub(super) fn check_receiver(
        &self,
        holder: &Holder,
        rail: Rail,
        id: &str,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        let payee = self
            .on(holder, rail)
            .find(|payee| payee.id == id)
            .ok_or_else(|| reason::PARAMETER_ERROR.because("receiverID names no beneficiary"))?;
        if !payee.active {
            let msg = "the bank has not confirmed this beneficiary yet";
            return Err(reason::BENEFICIARY_NOT_ACTIVATED.because(msg));
        }
        let ready = payee.added_at.map(|at| at + Duration::hours(COOL_DOWN_HOURS));
        if ready.is_some_and(|ready| now < ready) {
            let msg = format!("a new beneficiary waits {COOL_DOWN_HOURS} hours");
            return Err(reason::BENEFICIARY_COOL_DOWN_PERIOD.because(msg));
        }
        Ok(())
    }
}

/// Reads a beneficiary's IBAN or account number.
pub(super) fn account_of(body: Body<'_>) -> Result<&str, Refusal> {
    match body.text_if_given("iban")? {
        Some(iban) => Ok(iban),
        None => {
            body.text_if_given("accountNumber")?.ok_or_else(|| missing("iban or accountNumber"))
        }
    }
}

/// Returns the built-in beneficiaries: one that can be paid, one that the bank has yet to confirm.
fn given(holder: &Holder, rail: Rail) -> [Payee; 2] {
    [("Lena Hoffmann", true), ("Omar Siddiqui", false)].map(|(name, active)| {
        let number = holder.bank.number(&mut holder.dice(name));
        Payee {
            rail,
            id: holder.id(&format!("{rail:?}/{name}")),
            name: name.to_owned(),
            account: holder.bank.iban(&number).unwrap_or(number),
            active,
            added_at: None,
        }
    })
}
