//! The data and metadata endpoints: identity, accounts and transactions.
//!
//! May import: answer, bank, body.

use serde_json::{Value, json};
use time::{Date, Duration};

use super::answer::{Fields, Refusal, field, reason};
use super::bank::{Account, Dice, Holder, pick};
use super::body::{Body, missing};

/// How far back transactions reach, in days; `metadata/accounts/get` states it.
pub(super) const TRANSACTION_DAYS: i64 = 365;
/// How long a new beneficiary waits, in hours; `metadata/accounts/get` states it.
pub(super) const COOL_DOWN_HOURS: i64 = 24;

/// The level of detail of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// The bank's own description.
    Plain,
    /// With a category.
    Categorized,
    /// With the brand as well.
    Enriched,
}

pub(super) fn identity(holder: &Holder) -> Fields {
    let bank = holder.bank;
    let mut dice = holder.dice("identity");
    let name = holder.name();
    let mailbox = name.to_lowercase().replace(' ', ".");
    let value = json!({
        "name": name,
        "nationality": bank.country_name,
        "dateOfBirth": format!("{}T00:00:00", holder.birthday()),
        "emailAddress": format!("{mailbox}@example.com"),
        "numbers": [{"type": "mobile", "value": format!("+000 55 01{:05}", dice.roll(100_000))}],
        "address": {
            "flat": (1 + dice.roll(90)).to_string(),
            "building": (1 + dice.roll(40)).to_string(),
            "full": format!("Sandbox Street, {}", bank.country_name),
            "area": "Sandbox Quarter",
            "poBox": (10_000 + dice.roll(80_000)).to_string(),
            "city": "Sandbox City",
            "state": "Sandbox State",
            "country": bank.country_name,
        },
        "identification": [
            {"type": "passport", "value": format!("X{:07}", dice.roll(10_000_000))},
            {"type": "national_id", "value": format!("784-{:09}", dice.roll(1_000_000_000))},
        ],
    });
    field("identity", value)
}

pub(super) fn accounts(holder: &Holder) -> Fields {
    let currency = holder.bank.currency.to_json();
    let list = holder.accounts().map(|account| {
        json!({
            "id": account.id,
            "name": account.name,
            "type": account.kind,
            "number": account.number,
            "iban": account.iban,
            "currency": currency,
            "isFavourite": account.kind == "current",
        })
    });
    field("accounts", json!(list))
}

pub(super) fn cards(holder: &Holder) -> Fields {
    let card = holder.card();
    let value = json!([{
        "id": card.id,
        "name": "Everyday credit card",
        "cardNumber": card.number,
        "creditLimit": card.limit,
        "currency": holder.bank.currency.to_json(),
        "type": "credit",
        "expiryDate": "2031-12-31T00:00:00",
        "status": "active",
    }]);
    field("cards", value)
}

/// Returns the account that the caller's field `name` refers to.
pub(super) fn account(holder: &Holder, body: Body<'_>, name: &str) -> Result<Account, Refusal> {
    let id = body.text(name)?;
    let own = holder.accounts().into_iter().find(|one| one.id == id);
    own.ok_or_else(|| {
        reason::INVALID_ACCOUNT_ID.because(format!("{name} names none of this user's accounts"))
    })
}

/// Returns whether the caller asks about a card; otherwise about an account.
fn asks_for_card(holder: &Holder, body: Body<'_>) -> Result<bool, Refusal> {
    match body.text_if_given("cardID")? {
        None if body.text_if_given("accountID")?.is_none() => Err(missing("accountID")),
        None => Ok(false),
        Some(id) if id == holder.card().id => Ok(true),
        Some(_) => Err(reason::INVALID_CARD_ID.because("cardID names none of this user's cards")),
    }
}

pub(super) fn balance(holder: &Holder, body: Body<'_>) -> Result<Fields, Refusal> {
    let currency = holder.bank.currency.to_json();
    let value = if asks_for_card(holder, body)? {
        let card = holder.card();
        json!({
            "cardNumber": card.number,
            "availableBalance": cents(card.limit - card.owed),
            "outstandingBalance": card.owed,
            "amountDue": cents(card.owed / 20.0),
            "dueDate": null,
            "currency": currency,
        })
    } else {
        let account = account(holder, body, "accountID")?;
        json!({
            "amount": account.balance,
            "currency": currency,
            "accountNumber": account.number,
        })
    };
    Ok(field("balance", value))
}

fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

pub(super) fn date_range(body: Body<'_>, today: Date) -> Result<(Date, Date), Refusal> {
    let (from, to) = (body.day("fromDate")?, body.day("toDate")?);
    let problem = if from > to {
        "fromDate lies behind toDate"
    } else if (today - from).whole_days() > TRANSACTION_DAYS {
        "fromDate lies further back than the bank's transactionRange"
    } else if from > today {
        "fromDate lies in the future"
    } else {
        return Ok((from, to.min(today)));
    };
    Err(reason::INVALID_DATE_RANGE.because(problem))
}

pub(super) struct Merchant {
    pub(super) name: &'static str,
    pub(super) category: &'static str,
    pub(super) from: u32,
    pub(super) to: u32,
}

const fn merchant(name: &'static str, category: &'static str, from: u32, to: u32) -> Merchant {
    Merchant { name, category, from, to }
}

pub(super) static MERCHANTS: [Merchant; 8] = [
    merchant("Fig & Fennel Grocers", "groceries", 12, 140),
    merchant("Tramline Transit", "transport", 2, 15),
    merchant("Copper Kettle Cafe", "food_and_drink", 4, 28),
    merchant("Brightwater Utilities", "bills", 60, 240),
    merchant("Paper Lantern Books", "shopping", 9, 80),
    merchant("Halcyon Pharmacy", "health", 6, 70),
    merchant("Meridian Mobile", "bills", 20, 60),
    merchant("Open Sky Travel", "travel", 80, 900),
];

pub(super) fn transactions(
    holder: &Holder,
    body: Body<'_>,
    today: Date,
    detail: Detail,
) -> Result<Fields, Refusal> {
    let source = if asks_for_card(holder, body)? {
        holder.card().id
    } else {
        account(holder, body, "accountID")?.id
    };
    let (from, to) = date_range(body, today)?;
    let days = (0..=(to - from).whole_days()).map(|days| to - Duration::days(days));
    let list: Vec<_> =
        days.flat_map(|day| transactions_of_day(holder, &source, day, detail)).collect();
    Ok(field("transactions", json!(list)))
}

pub(super) static SALARY: Merchant = merchant("Tessellate Studios Payroll", "salary", 3_000, 9_000);

/// Generates the transactions of one day: up to two purchases, and the salary on the 25th.
fn transactions_of_day(holder: &Holder, source: &str, day: Date, detail: Detail) -> Vec<Value> {
    let mut dice = holder.dice(&format!("{source}/{day}"));
    let mut booked = Vec::new();
    if day.day() == 25 {
        booked.push(transaction(holder, &mut dice, &SALARY, day, detail));
    }
    for _ in 0..dice.roll(3) {
        if let Some(merchant) = pick(&mut dice, &MERCHANTS) {
            booked.push(transaction(holder, &mut dice, merchant, day, detail));
        }
    }
    booked
}

fn transaction(
    holder: &Holder,
    dice: &mut Dice,
    merchant: &Merchant,
    day: Date,
    detail: Detail,
) -> Value {
    let credit = merchant.category == "salary";
    let mut value = json!({
        "amount": dice.money(merchant.from, merchant.to),
        "date": format!("{day}T00:00:00"),
        "type": if credit { "credit" } else { "debit" },
        "description": merchant.name,
        "details": format!("{} {day}", merchant.name.to_uppercase()),
        "currency": holder.bank.currency.to_json(),
        "beforeAmount": null,
        "afterAmount": null,
        "reference": format!("SBX{:09}", dice.roll(1_000_000_000)),
    });
    if let Some(fields) = value.as_object_mut() {
        if detail != Detail::Plain {
            fields.insert("category".to_owned(), json!(merchant.category));
        }
        if detail == Detail::Enriched {
            let brand = json!({"name": merchant.name, "logo": null});
            fields.insert("brandDetails".to_owned(), brand);
        }
    }
    value
}

/// Returns the bank's limits and requirements.
pub(super) fn metadata(holder: &Holder) -> Fields {
    let bank = holder.bank;
    let bounds =
        |kind: &str| json!({"minimum": 1, "currency": bank.currency.to_json(), "type": kind});
    let text = |length: u32, required: bool| {
        json!({
            "required": required,
            "optional": !required,
            "length": length,
            "allowedCharacters": "[a-zA-Z0-9 ]+",
            "attributes": [],
        })
    };
    let beneficiary = json!({"name": text(60, true), "nickname": text(30, false)});
    let transfer = json!({"remarks": text(80, false)});
    let value = json!({
        "bankName": bank.name,
        "swiftCode": bank.swift,
        "sortCode": "000000",
        "branchName": "Main branch",
        "branchAddress": "1 Sandbox Street",
        "address": {"line1": "1 Sandbox Street", "line2": "Sandbox City", "line3": bank.country_name},
        "country": {"code": bank.country, "name": bank.country_name},
        "transferBounds": [bounds("same"), bounds("local")],
        "beneficiaryCoolDownPeriod": {"value": COOL_DOWN_HOURS, "unit": "hrs"},
        "transactionRange": {"value": TRANSACTION_DAYS, "unit": "days"},
        "isCreateBeneficiaryEndpointRequired": false,
        "willNewlyAddedBeneficiaryExistBeforeCoolDownPeriod": true,
        "validators": {
            "createBeneficiary": {"local": beneficiary, "same": beneficiary},
            "createTransfer": {"local": transfer, "same": transfer},
        },
    });
    field("accountsMetadata", value)
}
