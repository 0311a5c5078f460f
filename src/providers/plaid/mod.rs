//! Plaid: its wire format and its calls (Plaid's API, version 2020-09-14).

mod client;
mod details;
mod environment;
mod webhook;
mod wire;

pub use details::{Account, DetailsError, Institution, ItemDetails, fingerprint};
pub use webhook::{ItemEvent, ItemWebhook, KeyAnswer, Unverified, Verification, WebhookKey};
pub use wire::PlaidError;

pub(super) use client::{call, details, exchange, invalidate, remove, webhook_key};
pub(super) use environment::is_certain;
pub(super) use wire::{said, verified};

/// The call that verifies a token: it needs a live token, names the item and reads no balances.
pub(super) const VERIFICATION_PATH: &str = "item/get";
/// The item is gone at Plaid: an `error_code` that is certain whatever is known of the token.
pub const ITEM_NOT_FOUND: &str = "ITEM_NOT_FOUND";
/// Strongroom's own word for a token that works but is of another item than the one that it is said to be of.
pub const ITEM_MISMATCH: &str = "ITEM_MISMATCH";
/// Plaid does not know the token; it answers this to malformed tokens and to other environments' too.
pub const INVALID_ACCESS_TOKEN: &str = "INVALID_ACCESS_TOKEN";
