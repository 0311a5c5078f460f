//! Approvals: what waits for a second person, with its dry run, and where it is approved or rejected.

mod carry_out;
mod effect;
mod page;
pub mod routes;
