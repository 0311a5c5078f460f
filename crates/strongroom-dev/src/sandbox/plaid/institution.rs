//! The institutions of Plaid's own sandbox, with their ids, and the accounts that a user has there.
//!
//! May import: bank.

use serde_json::{Value, json};

use crate::sandbox::bank::Dice;

#[derive(Debug)]
pub(super) struct Institution {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) routing: &'static str,
}

const fn institution(id: &'static str, name: &'static str, routing: &'static str) -> Institution {
    Institution { id, name, routing }
}

/// The institutions that Link offers. Its page lists the same ones.
pub(in crate::sandbox) static INSTITUTIONS: [Institution; 5] = [
    institution("ins_109508", "First Platypus Bank", "021000021"),
    institution("ins_109509", "First Gingham Credit Union", "011401533"),
    institution("ins_109510", "Tattersall Federal Credit Union", "121122676"),
    institution("ins_109511", "Tartan Bank", "322271627"),
    institution("ins_109512", "Houndstooth Bank", "072000326"),
];

/// The products of every institution.
pub(super) const PRODUCTS: [&str; 4] = ["auth", "balance", "identity", "transactions"];

impl Institution {
    pub(super) fn named(id: &str) -> Option<&'static Self> {
        INSTITUTIONS.iter().find(|institution| institution.id == id)
    }

    /// Returns the institution of a login for which none was chosen.
    pub(super) fn default() -> &'static Self {
        let [first, ..] = &INSTITUTIONS;
        first
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "institution_id": self.id,
            "name": self.name,
            "products": PRODUCTS,
            "country_codes": ["US"],
            "url": "https://bank.example",
            "primary_color": null,
            "logo": null,
            "routing_numbers": [self.routing],
            "dtc_numbers": [],
            "oauth": false,
            "connection_availability": "SUPPORTED",
        })
    }
}

/// A kind of account.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) official_name: &'static str,
    /// Plaid's `type`.
    pub(super) class: &'static str,
    pub(super) subtype: &'static str,
    from: u32,
    to: u32,
}

static KINDS: [Kind; 3] = [
    Kind {
        name: "Sandbox Checking",
        official_name: "Sandbox Gold Standard 0% Interest Checking",
        class: "depository",
        subtype: "checking",
        from: 100,
        to: 9_000,
    },
    Kind {
        name: "Sandbox Saving",
        official_name: "Sandbox Silver Standard 0.1% Interest Saving",
        class: "depository",
        subtype: "savings",
        from: 2_000,
        to: 60_000,
    },
    Kind {
        name: "Sandbox Credit Card",
        official_name: "Sandbox Diamond 12.5% APR Interest Credit Card",
        class: "credit",
        subtype: "credit card",
        from: 50,
        to: 4_000,
    },
];

/// An account that a user has at an institution. The id is not part of it: Plaid issues another one for each item.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) kind: &'static Kind,
    pub(super) mask: String,
    pub(super) number: String,
    pub(super) balance: f64,
}

/// Returns the accounts of the user whom `seed` identifies.
pub(super) fn accounts_of(seed: &str) -> Vec<Account> {
    KINDS.iter().map(|kind| account(seed, kind, None)).collect()
}

/// Returns accounts with these masks: the user's own if they have one of that mask, another one otherwise.
pub(super) fn accounts_with(seed: &str, masks: &[String]) -> Vec<Account> {
    let own = accounts_of(seed);
    let kinds = KINDS.iter().cycle();
    let chosen = masks.iter().zip(kinds).map(|(mask, kind)| {
        let known = own.iter().find(|account| &account.mask == mask).cloned();
        known.unwrap_or_else(|| account(seed, kind, Some(mask)))
    });
    chosen.collect()
}

fn account(seed: &str, kind: &'static Kind, mask: Option<&String>) -> Account {
    let mut dice = Dice::new(&format!("{seed}/{}/{mask:?}", kind.subtype));
    let mask = mask.cloned().unwrap_or_else(|| dice.digits(4));
    let number = format!("{}{mask}", dice.digits(8));
    Account { kind, mask, number, balance: dice.money(kind.from, kind.to) }
}
