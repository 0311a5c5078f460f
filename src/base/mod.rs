//! What every room knows and what knows no room: ids, the clock, secret text, checked text, paging,
//! scopes, who acts, signed statements, trace context.

pub mod actor;
pub mod algorithm;
pub mod clock;
pub mod foreign;
pub mod ids;
pub mod paging;
pub mod scope;
pub mod secret;
pub mod signer;
pub mod text;
pub mod trace;
