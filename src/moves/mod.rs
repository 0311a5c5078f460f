//! An app moves to another deployment: with its users, connections, clients, upstreams, webhooks and trail, and without a
//! moment in which two deployments act for it (ADR 34).
//!
//! The target makes an import key ([`keys`]). The source fences the app ([`fence`]), waits for what is in flight, and writes a
//! folder ([`export`]) whose data keys are sealed to the import key and whose manifest is signed. The target checks all of it and
//! inserts it in one transaction ([`import`]). The receipt that only the import can know ends the app at the source.
//! [`tables`] says of every table whether its rows move.
//!
//! May import: apps, audit, common, connections, database, vault.

mod before;
mod data_keys;
mod error;
pub mod export;
pub mod fence;
mod folder;
pub mod import;
mod in_flight;
pub mod keys;
mod manifest;
mod model;
mod receipt;
mod schema;
pub mod tables;

pub use error::MoveError;
pub use manifest::{Manifest, TYP};
pub use model::{InFlight, State};
