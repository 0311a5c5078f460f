//! Fictional banks and their customers.
//!
//! Everything is derived from the `connectionID`: the same login has the same person, accounts and transactions
//! in every sandbox, so that a test or a demo can rely on them.
//!
//! May import: mint.

use serde_json::{Value, json};
use time::Date;
use time::macros::date;

use super::mint;

/// The user name whose login at the bank always fails.
pub const FAILING_USERNAME: &str = "denied";

/// A currency as Dapi writes it.
#[derive(Debug)]
pub(super) struct Currency {
    pub(super) code: &'static str,
    name: &'static str,
}

impl Currency {
    pub(super) fn to_json(&self) -> Value {
        json!({"code": self.code, "name": self.name})
    }
}

#[derive(Debug)]
pub(super) struct Bank {
    /// The bank's id in Connect, and the prefix of its operation ids.
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) country: &'static str,
    pub(super) country_name: &'static str,
    pub(super) currency: Currency,
    pub(super) swift: &'static str,
    /// The bank's part of an IBAN; `None` if the country has no IBANs.
    iban_prefix: Option<&'static str>,
}

/// The banks that Connect offers. Its page lists the same four.
pub(super) static BANKS: [Bank; 4] = [
    Bank {
        id: "lumen",
        name: "Lumen & Tide",
        country: "AE",
        country_name: "United Arab Emirates",
        currency: AED,
        swift: "LMTDAEAD",
        iban_prefix: Some("981"),
    },
    Bank {
        id: "orrery",
        name: "Orrery Savings",
        country: "GB",
        country_name: "United Kingdom",
        currency: GBP,
        swift: "ORRYGB2L",
        iban_prefix: Some("ORRY998877"),
    },
    Bank {
        id: "saltmarsh",
        name: "Saltmarsh Mutual",
        country: "US",
        country_name: "United States",
        currency: USD,
        swift: "SLTMUS33",
        iban_prefix: None,
    },
    Bank {
        id: "quince",
        name: "Quince Street Bank",
        country: "AE",
        country_name: "United Arab Emirates",
        currency: AED,
        swift: "QNCSAEAA",
        iban_prefix: Some("987"),
    },
];

const AED: Currency = Currency { code: "AED", name: "United Arab Emirates Dirham" };
const GBP: Currency = Currency { code: "GBP", name: "Pound Sterling" };
const USD: Currency = Currency { code: "USD", name: "United States Dollar" };

impl Bank {
    pub(super) fn named(id: &str) -> Option<&'static Self> {
        BANKS.iter().find(|bank| bank.id == id)
    }

    /// Picks the bank of a login for which none was chosen.
    pub(super) fn for_login(connection_id: &str) -> &'static Self {
        let [first, ..] = &BANKS;
        let mut dice = Dice::new(connection_id);
        pick(&mut dice, &BANKS).unwrap_or(first)
    }

    /// Returns the account's IBAN, if the country has IBANs.
    pub(super) fn iban(&self, number: &str) -> Option<String> {
        self.iban_prefix.map(|prefix| iban(self.country, &format!("{prefix}{number}")))
    }

    /// Draws an account number of the country's length.
    pub(super) fn number(&self, dice: &mut Dice) -> String {
        dice.digits(if self.country == "AE" { 16 } else { 8 })
    }
}

/// Builds an IBAN with valid check digits (ISO 13616).
fn iban(country: &str, account: &str) -> String {
    let remainder = format!("{account}{country}00").bytes().fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.saturating_sub(b'A')) + 10) % 97,
    });
    format!("{country}{:02}{account}", 98 - remainder)
}

/// Pseudo-random numbers derived from a name: splitmix64 over its digest.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(name: &str) -> Self {
        let bytes = mint::digest_of(name).into_iter().take(8);
        Self(bytes.fold(0, |seed, byte| (seed << 8) | u64::from(byte)))
    }

    /// Draws a number below `sides`.
    pub(super) fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let below = (mixed ^ (mixed >> 31)) % u64::from(sides.max(1));
        u32::try_from(below).unwrap_or(0)
    }

    /// Draws an amount between `from` and `to`, in whole cents.
    pub(super) fn money(&mut self, from: u32, to: u32) -> f64 {
        let cents = from * 100 + self.roll(to.saturating_sub(from) * 100);
        f64::from(cents) / 100.0
    }

    pub(super) fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| self.roll(10).to_string()).collect()
    }
}

/// Picks one of `items`; `None` if there are none.
pub(super) fn pick<'a, T>(dice: &mut Dice, items: &'a [T]) -> Option<&'a T> {
    let sides = u32::try_from(items.len()).unwrap_or(u32::MAX);
    items.get(usize::try_from(dice.roll(sides)).ok()?)
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) number: String,
    pub(super) iban: Option<String>,
    pub(super) balance: f64,
}

#[derive(Debug)]
pub(super) struct Card {
    pub(super) id: String,
    pub(super) number: String,
    pub(super) limit: f64,
    pub(super) owed: f64,
}

const NAMES: [&str; 8] = [
    "Amina Farouk",
    "Theo Lindqvist",
    "Priya Raman",
    "Marta Oliveira",
    "Kenji Watanabe",
    "Salma Haddad",
    "Daniel Okafor",
    "Ingrid Moreau",
];

/// Picks a person's name.
pub(super) fn person(dice: &mut Dice) -> &'static str {
    pick(dice, &NAMES).copied().unwrap_or("Sam Sandbox")
}

/// The person behind one `connectionID`.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) bank: &'static Bank,
    connection_id: String,
}

impl Holder {
    pub(super) fn new(bank: &'static Bank, connection_id: &str) -> Self {
        Self { bank, connection_id: connection_id.to_owned() }
    }

    /// Returns dice seeded by this holder and `what`.
    pub(super) fn dice(&self, what: &str) -> Dice {
        Dice::new(&format!("{}/{what}", self.connection_id))
    }

    /// Returns an id derived from this holder and `what`.
    pub(super) fn id(&self, what: &str) -> String {
        mint::id_of(&format!("{}/{what}", self.connection_id))
    }

    pub(super) fn name(&self) -> &'static str {
        person(&mut self.dice("name"))
    }

    /// Returns the two accounts: current and savings.
    pub(super) fn accounts(&self) -> [Account; 2] {
        [
            self.account("Everyday account", "current", 2_000, 12_000),
            self.account("Rainy day savings", "savings", 15_000, 60_000),
        ]
    }

    fn account(&self, name: &'static str, kind: &'static str, from: u32, to: u32) -> Account {
        let mut dice = self.dice(kind);
        let number = self.bank.number(&mut dice);
        Account {
            id: self.id(kind),
            name,
            kind,
            iban: self.bank.iban(&number),
            number,
            balance: dice.money(from, to),
        }
    }

    pub(super) fn card(&self) -> Card {
        let mut dice = self.dice("card");
        Card {
            id: self.id("card"),
            number: format!("4000XXXXXXXX{}", dice.digits(4)),
            limit: f64::from(5_000 + 1_000 * dice.roll(20)),
            owed: dice.money(100, 4_000),
        }
    }

    /// Draws a birthday of an adult.
    pub(super) fn birthday(&self) -> Date {
        let mut dice = self.dice("birthday");
        let year = 1955 + i32::try_from(dice.roll(45)).unwrap_or(0);
        let day = 1 + u16::try_from(dice.roll(365)).unwrap_or(0);
        Date::from_ordinal_date(year, day).unwrap_or(date!(1990 - 01 - 01))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iban_carries_the_check_digits_that_its_country_publishes() {
        // Examples from the IBAN registry.
        assert_eq!(iban("AE", "0331234567890123456"), "AE070331234567890123456");
        assert_eq!(iban("GB", "NWBK60161331926819"), "GB29NWBK60161331926819");
    }

    #[test]
    fn one_login_always_shows_the_same_person() {
        let holder = || Holder::new(Bank::for_login("c1"), "c1");
        assert_eq!(holder().name(), holder().name());
        assert_eq!(holder().accounts()[0].id, holder().accounts()[0].id);
        assert_eq!(holder().birthday(), holder().birthday());
        let other = Holder::new(Bank::for_login("c1"), "c2");
        assert_ne!(holder().accounts()[0].id, other.accounts()[0].id);
    }

    #[test]
    fn dice_stay_below_their_sides() {
        let mut dice = Dice::new("any");
        assert!((0..1000).all(|_| dice.roll(6) < 6));
        let money = dice.money(10, 20);
        assert!((10.0..20.0).contains(&money));
    }
}
