//! The data endpoints: accounts, numbers, identity and transactions.
//!
//! May import: answer, bank, body, data of Dapi's side, institution, item.

use serde_json::{Value, json};
use time::{Date, Duration};

use super::answer::{Fields, Refusal, fields, reason};
use super::body::Body;
use super::institution::Account;
use super::item::Item;
use crate::sandbox::bank::{Dice, person, pick};
use crate::sandbox::data::{MERCHANTS, Merchant, SALARY};

/// How far back the transactions of a new item reach, in days.
const HISTORY_DAYS: i64 = 90;
const MOST_PER_PAGE: usize = 500;

type Own<'a> = &'a (String, Account);

/// Returns the accounts that the call asks about: those in `options.account_ids`, all otherwise.
fn chosen<'a>(item: &'a Item, body: Body<'_>) -> Result<Vec<Own<'a>>, Refusal> {
    let options = body.object_if_given("options")?;
    let ids = match options {
        Some(options) => options.texts("account_ids")?,
        None => None,
    };
    let Some(ids) = ids else { return Ok(item.accounts.iter().collect()) };
    let find = |id: &String| {
        item.accounts.iter().find(|(own, _)| own == id).ok_or_else(|| {
            reason::INVALID_ACCOUNT_ID
                .because("failed to find requested account ID for requested item")
        })
    };
    ids.iter().map(find).collect()
}

/// Returns an account as the data endpoints show it.
pub(super) fn account((id, account): Own<'_>) -> Value {
    let credit = account.kind.class == "credit";
    json!({
        "account_id": id,
        "balances": {
            "available": (!credit).then_some(account.balance),
            "current": account.balance,
            "limit": credit.then_some(10_000),
            "iso_currency_code": "USD",
            "unofficial_currency_code": null,
        },
        "mask": account.mask,
        "name": account.kind.name,
        "official_name": account.kind.official_name,
        "type": account.kind.class,
        "subtype": account.kind.subtype,
        "holder_category": "personal",
    })
}

fn shown(accounts: &[Own<'_>]) -> Vec<Value> {
    accounts.iter().map(|own| account(own)).collect()
}

pub(super) fn accounts(item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let accounts = chosen(item, body)?;
    Ok(fields(json!({ "accounts": shown(&accounts), "item": item.to_json() })))
}

pub(super) fn auth(item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let mut accounts = chosen(item, body)?;
    accounts.retain(|(_, account)| account.kind.class == "depository");
    let numbers: Vec<_> = accounts
        .iter()
        .map(|(id, account)| {
            json!({
                "account_id": id,
                "account": account.number,
                "routing": item.institution.routing,
                "wire_routing": item.institution.routing,
            })
        })
        .collect();
    Ok(fields(json!({
        "accounts": shown(&accounts),
        "numbers": { "ach": numbers, "eft": [], "international": [], "bacs": [] },
        "item": item.to_json(),
    })))
}

pub(super) fn identity(item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let mut dice = Dice::new(&format!("{}/identity", item.seed));
    let name = person(&mut dice);
    let mailbox = name.to_lowercase().replace(' ', ".");
    let owner = json!({
        "names": [name],
        "phone_numbers": [{
            "data": format!("+1415555{}", dice.digits(4)), "primary": true, "type": "mobile",
        }],
        "emails": [{
            "data": format!("{mailbox}@example.com"), "primary": true, "type": "primary",
        }],
        "addresses": [{
            "data": {
                "street": format!("{} Sandbox Street", 1 + dice.roll(900)),
                "city": "Sandbox City",
                "region": "CA",
                "postal_code": "94105",
                "country": "US",
            },
            "primary": true,
        }],
    });
    let accounts = chosen(item, body)?.into_iter().map(|own| {
        let mut shown = fields(account(own));
        shown.insert("owners".to_owned(), json!([owner]));
        shown
    });
    let accounts: Vec<_> = accounts.collect();
    Ok(fields(json!({ "accounts": accounts, "item": item.to_json() })))
}

/// A transaction of an item.
pub(super) struct Booked<'a> {
    own: Own<'a>,
    merchant: &'static Merchant,
    date: Date,
    number: usize,
    amount: f64,
}

/// Returns all transactions of an item, oldest first. Their order never changes; those that were added later come
/// last.
pub(super) fn booked(item: &Item) -> Vec<Booked<'_>> {
    let today = item.created_at.date();
    let days = (0..HISTORY_DAYS).rev().map(|back| today - Duration::days(back));
    let mut booked = Vec::new();
    for day in days {
        for own in &item.accounts {
            let mut dice = Dice::new(&format!("{}/{}/{day}", item.seed, own.1.mask));
            if day.day() == 25 && own.1.kind.subtype == "checking" {
                booked.push(book(own, &mut dice, &SALARY, day, booked.len()));
            }
            for _ in 0..dice.roll(3) {
                if let Some(merchant) = pick(&mut dice, &MERCHANTS) {
                    booked.push(book(own, &mut dice, merchant, day, booked.len()));
                }
            }
        }
    }
    for _ in 0..item.state().added {
        let mut dice = Dice::new(&format!("{}/added/{}", item.seed, booked.len()));
        if let (Some(own), Some(merchant)) = (item.accounts.first(), pick(&mut dice, &MERCHANTS)) {
            booked.push(book(own, &mut dice, merchant, today, booked.len()));
        }
    }
    booked
}

fn book<'a>(
    own: Own<'a>,
    dice: &mut Dice,
    merchant: &'static Merchant,
    date: Date,
    number: usize,
) -> Booked<'a> {
    let amount = dice.money(merchant.from, merchant.to);
    // Money that moves into the account is negative.
    let amount = if merchant.category == "salary" { -amount } else { amount };
    Booked { own, merchant, date, number, amount }
}

impl Booked<'_> {
    pub(super) fn to_json(&self, item: &Item) -> Value {
        let (primary, detailed) = category(self.merchant.category);
        let mut value = json!({
            "account_id": self.own.0,
            "account_owner": null,
            "amount": self.amount,
            "iso_currency_code": "USD",
            "unofficial_currency_code": null,
            "check_number": null,
            "date": self.date.to_string(),
            "datetime": null,
            "authorized_date": self.date.to_string(),
            "authorized_datetime": null,
            "name": self.merchant.name,
            "merchant_name": self.merchant.name,
            "merchant_entity_id": null,
            "logo_url": null,
            "website": null,
            "payment_channel": "in store",
            "pending": false,
            "pending_transaction_id": null,
            "transaction_code": null,
            "transaction_id": format!("{}t{:05}", item.id, self.number),
            "transaction_type": "place",
            "counterparties": [],
            "personal_finance_category": {
                "primary": primary, "detailed": detailed, "confidence_level": "VERY_HIGH",
            },
        });
        let nothing = |names: &[&str]| names.iter().map(|name| (*name, Value::Null)).collect();
        if let Some(fields) = value.as_object_mut() {
            let location: Value = nothing(&[
                "address",
                "city",
                "region",
                "postal_code",
                "country",
                "lat",
                "lon",
                "store_number",
            ]);
            let payment: Value = nothing(&[
                "reference_number",
                "ppd_id",
                "payee",
                "by_order_of",
                "payer",
                "payment_method",
                "payment_processor",
                "reason",
            ]);
            fields.insert("location".to_owned(), location);
            fields.insert("payment_meta".to_owned(), payment);
        }
        value
    }
}

/// Returns Plaid's personal finance category of a merchant's.
fn category(name: &str) -> (&'static str, &'static str) {
    match name {
        "salary" => ("INCOME", "INCOME_WAGES"),
        "groceries" => ("FOOD_AND_DRINK", "FOOD_AND_DRINK_GROCERIES"),
        "food_and_drink" => ("FOOD_AND_DRINK", "FOOD_AND_DRINK_COFFEE"),
        "transport" => ("TRANSPORTATION", "TRANSPORTATION_PUBLIC_TRANSIT"),
        "bills" => ("RENT_AND_UTILITIES", "RENT_AND_UTILITIES_GAS_AND_ELECTRICITY"),
        "health" => ("MEDICAL", "MEDICAL_PHARMACIES_AND_SUPPLEMENTS"),
        "travel" => ("TRAVEL", "TRAVEL_FLIGHTS"),
        _ => ("GENERAL_MERCHANDISE", "GENERAL_MERCHANDISE_OTHER_GENERAL_MERCHANDISE"),
    }
}

pub(super) fn transactions(item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let (from, to) = (body.day("start_date")?, body.day("end_date")?);
    if from > to {
        let message = "start_date must be before or equal to end_date";
        return Err(reason::INVALID_FIELD.because(message));
    }
    let accounts = chosen(item, body)?;
    let (count, offset) = match body.object_if_given("options")? {
        Some(options) => (
            options.number("count", 1, MOST_PER_PAGE, 100)?,
            options.number("offset", 0, usize::MAX, 0)?,
        ),
        None => (100, 0),
    };
    let mut booked = booked(item);
    booked.retain(|one| {
        (from..=to).contains(&one.date) && accounts.iter().any(|own| own.0 == one.own.0)
    });
    let page = booked.iter().rev().skip(offset).take(count);
    let page: Vec<_> = page.map(|one| one.to_json(item)).collect();
    Ok(fields(json!({
        "accounts": shown(&accounts),
        "transactions": page,
        "total_transactions": booked.len(),
        "item": item.to_json(),
    })))
}

/// Returns all accounts of an item as the data endpoints show them.
pub(super) fn all_accounts(item: &Item) -> Vec<Value> {
    item.accounts.iter().map(account).collect()
}
