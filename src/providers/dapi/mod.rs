//! Dapi: its wire format and its calls.

mod client;
mod code;
mod wire;

pub(super) use client::{call, delink, exchange};
pub(super) use wire::said;

use super::{UserSecret, Verify, VerifyAnswer};

/// The call that verifies a token. It needs a live token and the right user secret, and reads no balances.
pub(super) const VERIFICATION_PATH: &str = "metadata/accounts/get";

/// Classifies an answer to a verification.
pub(super) fn verified(status: u16, body: &[u8], verify: &Verify<'_>) -> VerifyAnswer {
    let user_secret = verify.user_secret.map_or("", UserSecret::expose);
    let secrets = [verify.token.expose(), user_secret, verify.app.app_secret.expose()];
    wire::verified(status, body, &secrets)
}
