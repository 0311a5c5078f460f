//! The sandbox over real HTTP: its promises, and what a plain socket sees when it misbehaves.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics says where")]

mod calls;
mod control;
mod data;
mod delink;
mod exchange;
mod faults;
mod page;
mod pass_through;
mod payment;
mod plaid_exchange;
mod plaid_faults;
mod plaid_items;
mod plaid_link;
mod plaid_support;
mod plaid_webhooks;
mod support;
mod systems;
