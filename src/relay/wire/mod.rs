//! The providers' wire formats, for SDKs that call Strongroom instead of their provider: what a path names, and errors in
//! the provider's shape.

pub(super) mod dapi;
pub(super) mod plaid;
