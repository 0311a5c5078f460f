//! `/transactions/sync`: pages through the transactions of an item.
//!
//! A cursor states the item and how many of its transactions came before; the sandbox keeps none.
//!
//! May import: answer, body, data, item.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::answer::{Fields, Refusal, fields, reason};
use super::body::Body;
use super::data::{all_accounts, booked};
use super::item::Item;

const MOST_PER_PAGE: usize = 500;

pub(super) fn sync(item: &Item, body: Body<'_>) -> Result<Fields, Refusal> {
    let count = body.number("count", 1, MOST_PER_PAGE, 100)?;
    let passed = match body.text_if_given("cursor")? {
        None | Some("") => 0,
        Some(cursor) => passed(item, cursor).ok_or_else(|| {
            reason::INVALID_FIELD.because("cursor not associated with access_token")
        })?,
    };
    let booked = booked(item);
    let page: Vec<_> =
        booked.iter().skip(passed).take(count).map(|one| one.to_json(item)).collect();
    let reached = passed + page.len();
    Ok(fields(json!({
        "accounts": all_accounts(item),
        "added": page,
        "modified": [],
        "removed": [],
        "next_cursor": STANDARD.encode(format!("{}:{reached}", item.id)),
        "has_more": reached < booked.len(),
        "transactions_update_status": "HISTORICAL_UPDATE_COMPLETE",
    })))
}

/// Returns how many transactions came before a cursor; `None` if it is not one of this item.
fn passed(item: &Item, cursor: &str) -> Option<usize> {
    let text = String::from_utf8(STANDARD.decode(cursor).ok()?).ok()?;
    let (id, passed) = text.split_once(':')?;
    passed.parse().ok().filter(|_| id == item.id)
}
