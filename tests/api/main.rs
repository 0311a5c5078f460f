//! The service over HTTP, on a real PostgreSQL, against the sandbox.
//!
//! Tests are sentences about behaviour. Time is turned, not waited for: `TestApp::turn_clock` moves
//! the database's clock, the service's and the sandbox's together.

mod support;

mod authorization;
mod background;
mod canary;
#[cfg(feature = "failpoints")]
mod crashes;
mod drain;
mod exchange;
mod http_edges;
mod import;
mod late_tokens;
mod lists;
mod logins;
mod oauth;
mod outages;
mod revocation;
mod sealing;
mod sessions;
mod tokens;
