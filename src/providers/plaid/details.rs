//! What an item is of: its institution and its accounts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::common::{lenient_json, text};
use crate::providers::received;

/// The most accounts of one item that are kept.
const MAX_ACCOUNTS: usize = 200;
/// The longest name or id that is kept, in bytes.
const MAX_TEXT: usize = 200;

/// A bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Institution {
    /// The provider's id of it.
    #[schema(example = "ins_109508")]
    pub id: String,
    /// Its name, if it is known.
    #[schema(example = "First Platypus Bank")]
    pub name: Option<String>,
}

/// An account that the user chose to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BankAccount)]
pub struct Account {
    /// The provider's id of it, which differs in every link of the same account.
    #[schema(example = "BxBXxLj1m4HMXBm9WZZmCWVbPjX16EHwv99vp")]
    pub id: String,
    /// Its name at the bank.
    #[schema(example = "Plaid Checking")]
    pub name: Option<String>,
    /// The last digits of its number.
    #[schema(example = "0000")]
    pub mask: Option<String>,
    /// The kind of account.
    #[serde(rename = "type")]
    #[schema(example = "depository")]
    pub kind: Option<String>,
}

impl Institution {
    /// Returns an institution with its texts cut to a bounded length and without control characters; `None` without
    /// an id.
    #[must_use]
    pub fn tamed(id: &str, name: Option<&str>) -> Option<Self> {
        let id = tame(id)?;
        Some(Self { id, name: name.and_then(tame) })
    }
}

impl Account {
    /// Returns an account with its texts cut to a bounded length; `None` without an id.
    #[must_use]
    pub fn tamed(
        id: &str,
        name: Option<&str>,
        mask: Option<&str>,
        kind: Option<&str>,
    ) -> Option<Self> {
        let (name, mask, kind) = (name.and_then(tame), mask.and_then(tame), kind.and_then(tame));
        Some(Self { id: tame(id)?, name, mask, kind })
    }
}

fn tame(text: &str) -> Option<String> {
    Some(text::tame(text.trim(), MAX_TEXT)).filter(|text| !text.is_empty())
}

/// An item as Plaid describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemDetails {
    /// The item's own id.
    pub item_id: Option<String>,
    /// The bank; some items have none (manually verified accounts).
    pub institution: Option<Institution>,
    /// The accounts that the user chose.
    pub accounts: Vec<Account>,
}

/// Why an item's details are not known.
#[derive(Clone, Debug)]
pub struct DetailsError {
    /// What happened, without secrets.
    pub what: String,
    /// Plaid's `error_code`, if it refused conclusively.
    pub kind: Option<String>,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Whether the refusal says that the token is dead.
    pub dead: bool,
}

impl DetailsError {
    /// Returns the call's outcome as metrics and the audit trail name it.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        if self.status.is_some() { "answered" } else { "unreachable" }
    }

    /// Returns whether another attempt may bring an answer: there was none, or one of a server in trouble.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.kind.is_none() && self.status.is_none_or(|status| !received::may_be_conclusive(status))
    }

    pub(super) const fn unanswered(what: String) -> Self {
        Self { what, kind: None, status: None, dead: false }
    }
}

#[derive(Deserialize)]
struct Answer {
    accounts: Vec<AnswerAccount>,
    item: AnswerItem,
}

#[derive(Deserialize)]
struct AnswerAccount {
    account_id: String,
    name: Option<String>,
    mask: Option<String>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct AnswerItem {
    item_id: Option<String>,
    institution_id: Option<String>,
    institution_name: Option<String>,
}

impl ItemDetails {
    /// Reads an answer to `/accounts/get`; returns `None` if it is none.
    pub(super) fn read(success: bool, body: &[u8]) -> Option<Self> {
        if !success {
            return None;
        }
        let answer: Answer = serde_json::from_str(&lenient_json::text(body)).ok()?;
        let item = &answer.item;
        let institution = item.institution_id.as_deref();
        let account = |account: &AnswerAccount| {
            let AnswerAccount { account_id, name, mask, r#type } = account;
            Account::tamed(account_id, name.as_deref(), mask.as_deref(), r#type.as_deref())
        };
        Some(Self {
            // As an exchange tames it.
            item_id: item
                .item_id
                .as_deref()
                .filter(|id| !id.is_empty())
                .map(|id| text::tame(id, received::MAX_TEXT)),
            institution: institution
                .and_then(|id| Institution::tamed(id, item.institution_name.as_deref())),
            accounts: answer.accounts.iter().filter_map(account).take(MAX_ACCOUNTS).collect(),
        })
    }
}

/// Returns what two links of the same accounts have in common: the mask and kind of each account, in one order. `None`
/// if an account has no mask, so that nothing can be concluded.
#[must_use]
pub fn fingerprint(accounts: &[Account]) -> Option<Vec<(String, String)>> {
    let of =
        |account: &Account| Some((account.mask.clone()?, account.kind.clone().unwrap_or_default()));
    let mut all = accounts.iter().map(of).collect::<Option<Vec<_>>>()?;
    all.sort();
    Some(all).filter(|all| !all.is_empty())
}
