//! What is asked of a provider.

use super::{AccessCode, AccessToken, AppCredentials, UserSecret};
use crate::common::trace::TraceContext;

/// A code to exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The app's credentials.
    pub app: &'a AppCredentials,
    /// The single-use code.
    pub code: &'a AccessCode,
    /// The bank login, if it is known before the exchange.
    pub login_id: Option<&'a str>,
    /// What the call is a part of.
    pub trace: &'a TraceContext,
}

/// A token to revoke.
#[derive(Clone, Copy, Debug)]
pub struct Revoke<'a> {
    /// The app's credentials.
    pub app: &'a AppCredentials,
    /// The token.
    pub token: &'a AccessToken,
    /// Its user secret, if the provider has one.
    pub user_secret: Option<&'a UserSecret>,
    /// Whether the token and all that is sent with it have worked before, so that "already gone" is no mistake of
    /// ours.
    pub proven: bool,
    /// What the call is a part of.
    pub trace: &'a TraceContext,
}

/// A token to verify.
#[derive(Clone, Copy, Debug)]
pub struct Verify<'a> {
    /// The app's credentials.
    pub app: &'a AppCredentials,
    /// The bank login that the token is said to be of.
    pub login_id: &'a str,
    /// The token.
    pub token: &'a AccessToken,
    /// Its user secret, if the provider has one.
    pub user_secret: Option<&'a UserSecret>,
    /// What the call is a part of.
    pub trace: &'a TraceContext,
}
