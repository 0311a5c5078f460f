//! The service over HTTP, on a real PostgreSQL, against the sandbox.
//!
//! Tests are sentences about behaviour. Time is turned, not waited for: `TestApp::turn_clock` moves
//! the database's clock, the service's and the sandbox's together.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::disallowed_methods,
    clippy::duration_suboptimal_units,
    clippy::format_collect,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    reason = "a test that panics says where, counts exactly, and is a client of its own"
)]

mod support;

mod admin;
mod admin_clients;
mod approvals;
#[cfg(feature = "failpoints")]
mod approvals_crashes;
mod attention;
mod audit;
mod audit_archives;
mod audit_months;
mod authorization;
mod background;
mod batches;
mod bulk;
mod bulk_counts;
mod bulk_rule;
mod callers;
mod canary;
mod client_keys;
mod console_attacks;
mod console_giving_up;
mod console_keys;
mod console_roles;
mod console_screens;
mod console_secrets;
mod console_sessions;
mod counts;
#[cfg(feature = "failpoints")]
mod crashes;
mod dapi_wire;
mod dead_tokens;
mod dpop;
mod drain;
mod emergency_stop;
mod engines;
mod erasure;
mod events;
mod exchange;
mod foreign_servers;
mod forged_tokens;
mod guessing;
mod health;
mod http_edges;
mod import;
mod intake;
mod introspection;
mod joints;
mod kept;
mod key_rotation;
#[cfg(feature = "failpoints")]
mod key_rotation_crashes;
mod keys_at_aws;
mod keys_elsewhere;
mod late_tokens;
mod linearisability;
mod lists;
mod lives;
mod logins;
mod logs;
mod migrations;
mod moves;
#[cfg(feature = "failpoints")]
mod moves_crashes;
mod moves_fence;
mod moves_proofs;
mod moves_refusals;
mod moves_tokens;
mod moving_in;
mod named_items;
mod neighbours;
mod oauth;
mod oauth_crate;
mod odd_answers;
mod oidc;
mod operators_cli;
mod outages;
mod passkeys;
mod plaid;
mod plaid_apps;
mod plaid_relay;
mod plaid_webhooks;
mod plaid_wire;
mod plans;
mod refusals;
mod relay;
mod retention;
mod reveal_budget;
mod revocation;
mod revoked_tokens;
mod rotation;
#[cfg(feature = "failpoints")]
mod rotation_crashes;
mod rotation_joints;
mod sealing;
mod server_metadata;
mod sessions;
mod shapes;
mod signing_keys;
mod tls;
mod tokens;
mod traces;
mod unfit;
mod upgrade;
mod upstreams;
#[cfg(feature = "failpoints")]
mod webhook_crashes;
mod webhooks;
mod workloads;
