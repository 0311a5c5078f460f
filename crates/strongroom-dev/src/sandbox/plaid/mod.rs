//! Plaid's side of the sandbox, below the path prefix `/plaid`: its API in version 2020-09-14, Link's page, signed
//! webhooks, and a control API of its own (`/sandbox/plaid/…`).
//!
//! It speaks the wire of Plaid's OpenAPI document, with Plaid's own names and messages where its documentation has
//! them. What Plaid leaves open, such as a second exchange of one public token, follows the same rules as on Dapi's
//! side; faults and the journal are shared with it.
//!
//! Two calls with one access token at once are allowed.
//!
//! Imports nothing of Dapi's side but the fictional people and merchants.

mod answer;
mod api;
mod body;
mod control;
mod data;
mod endpoint;
mod handle;
mod institution;
mod item;
mod keys;
mod link;
mod link_page;
mod linking;
mod sandbox_calls;
mod sync;
mod vault;
mod webhooks;
mod wire;

pub use handle::{AccessTokenInfo, ItemInfo, Plaid};
pub use linking::{InvalidLink, LinkOptions, LinkResult};

pub use webhooks::{Delivery, Forgery, Webhook, WebhookOptions};

pub(super) use control::control_routes;
pub(super) use endpoint::{paths, spelling};
pub(super) use wire::routes;
