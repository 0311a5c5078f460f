//! Webhooks: the endpoints to which an app's events are sent, and their secrets. What is sent to them and when is in
//! `delivery`.
//!
//! `model` holds the rules and does no I/O, `secret` what is signed with, `store` the SQL, `admin` the use cases.

pub mod admin;
mod log;
mod model;
pub mod routes;
mod secret;
mod store;

pub use admin::WebhookError;
pub use log::{DeliveryStatus, WebhookDelivery};
pub use model::{
    Change, DisabledReason, Draft, Signature, Webhook, WebhookDescription, WebhookEventTypes,
    WebhookURL,
};
pub use secret::{SigningKey, WebhookSecret, signatures};
pub use store::{Delivery, SealedSecret, deliveries, find, list, secrets};
