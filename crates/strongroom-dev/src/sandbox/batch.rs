//! Companies' batches of transfers: a file for the bank, or the transfers themselves.
//!
//! May import: answer, body, data, model, payees, payment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::Date;

use super::answer::{Fields, Refusal, field, reason};
use super::body::{Body, missing};
use super::data;
use super::model::Login;
use super::payees::account_of;
use super::payment::{Work, reference_of};

const MOST_ITEMS: usize = 100;
const LONGEST_FILE_NAME: u32 = 40;

/// `batch/metadata/get`.
pub(super) fn metadata() -> Fields {
    let limits = json!({
        "maxTotalTransferAmount": 1_000_000,
        "minTotalTransferAmount": 1,
        "maxBatchTransfers": MOST_ITEMS,
        "filenameMaxChars": LONGEST_FILE_NAME,
        "validators": {"same": {}, "local": {}, "intl": {}},
    });
    field("metadata", limits)
}

/// `batch/transfers/get`: one batch on the first of each month.
pub(super) fn transfers(login: &Login, body: Body<'_>, today: Date) -> Result<Fields, Refusal> {
    let (from, to) = data::date_range(body, today)?;
    let mut day = Some(to);
    let mut list = Vec::new();
    while let Some(date) = day.filter(|day| *day >= from) {
        if date.day() == 1 {
            list.push(json!({
                "stage": "done",
                "date": format!("{date}T00:00:00"),
                "reference": past_reference(login, date),
                "fileName": format!("payroll-{date}"),
            }));
        }
        day = date.previous_day();
    }
    Ok(field("transfers", json!(list)))
}

fn past_reference(login: &Login, date: Date) -> String {
    let mut dice = login.holder.dice(&format!("batch/{date}"));
    format!("SBXB{:09}", dice.roll(1_000_000_000))
}

/// `batch/items/get`: the transfers of a batch.
pub(super) fn items(login: &Login, body: Body<'_>) -> Result<Fields, Refusal> {
    let reference = body.text("reference")?;
    let currency = login.holder.bank.currency.code;
    let paid = |name: &str, amount: f64| {
        let number = login.holder.bank.number(&mut login.holder.dice(name));
        json!({
            "status": "succeeded",
            "errors": [],
            "name": name,
            "amount": amount,
            "currency": currency,
            "iban": login.holder.bank.iban(&number),
            "accountNumber": number,
            "reference": reference,
        })
    };
    let value = json!({
        "stage": "done",
        "items": [paid("Lena Hoffmann", 1250.0), paid("Omar Siddiqui", 980.5)],
        "totalAmountRequested": 2230.5,
        "totalAmountSucceeded": 2230.5,
        "currency": currency,
        "reference": reference,
        "fileName": "payroll",
    });
    Ok(field("transfers", value))
}

/// Returns the requested transfers and their sum.
fn wanted(login: &Login, body: Body<'_>, status: &str) -> Result<(Vec<Value>, f64), Refusal> {
    let items = body.objects("items")?;
    if items.is_empty() {
        return Err(missing("items"));
    }
    if items.len() > MOST_ITEMS {
        let msg = format!("a batch holds at most {MOST_ITEMS} items");
        return Err(reason::PARAMETER_ERROR.because(msg));
    }
    let mut total = 0.0;
    let mut wanted = Vec::with_capacity(items.len());
    for item in items {
        let amount = item.amount()?;
        let beneficiary = item.object("beneficiary")?;
        total += amount;
        wanted.push(json!({
            "status": status,
            "errors": [],
            "name": beneficiary.text_if_given("name")?,
            "amount": amount,
            "currency": login.holder.bank.currency.code,
            "iban": beneficiary.text_if_given("iban")?,
            "accountNumber": account_of(beneficiary)?,
        }));
    }
    Ok((wanted, total))
}

/// `batch/file/create`: a file for the user to upload at the bank.
pub(super) fn file(login: &Login, body: Body<'_>) -> Result<Work, Refusal> {
    let (items, _) = wanted(login, body, "pending")?;
    let lines = items.iter().map(|item| {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let amount = item.get("amount").and_then(Value::as_f64).unwrap_or(0.0);
        format!("{},{},{amount:.2}\n", text("accountNumber"), text("name"))
    });
    let content: String = lines.collect();
    let mut fields = field("fileContent", json!(STANDARD.encode(content)));
    fields.insert("fileExtension".to_owned(), json!("csv"));
    let details = json!({
        "numFailedItems": 0,
        "numPendingItems": items.len(),
        "numSucceededItems": 0,
        "items": items,
    });
    fields.insert("details".to_owned(), details);
    Ok(fields.into())
}

/// `batch/transfers/create`.
pub(super) fn create(login: &Login, body: Body<'_>, operation: &str) -> Result<Work, Refusal> {
    let account = data::account(&login.holder, body, "senderID")?;
    let (items, total) = wanted(login, body, "succeeded")?;
    if total > account.balance {
        let msg = "the account holds less than the batch adds up to";
        return Err(reason::INSUFFICIENT_BALANCE.because(msg));
    }
    let currency = &login.holder.bank.currency;
    let details = json!({
        "stage": "done",
        "sender": {"iban": account.iban, "accountNumber": account.number},
        "numFailedItems": 0,
        "numPendingItems": 0,
        "numSucceededItems": items.len(),
        "items": items,
        "totalAmountRequested": total,
        "totalAmountSucceeded": total,
        "currency": currency.code,
        "reference": reference_of(operation),
        "fileName": "batch",
    });
    Ok(Work {
        fields: field("details", details),
        transfer: Some(json!({"amount": total, "currency": currency.to_json()})),
        payee: None,
    })
}
