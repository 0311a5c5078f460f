//! The endpoints of Plaid's API, by their paths.
//!
//! Imports no other module.

/// The effect of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    LinkTokenCreate,
    LinkTokenGet,
    Exchange,
    Remove,
    Item,
    Invalidate,
    WebhookUpdate,
    Accounts,
    Auth,
    Identity,
    Transactions,
    TransactionsSync,
    Institution,
    VerificationKey,
    SandboxPublicToken,
    SandboxResetLogin,
    SandboxFireWebhook,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    /// The path with the prefix `plaid/`, without a leading slash.
    pub(super) path: &'static str,
    pub(super) deed: Deed,
}

const fn at(path: &'static str, deed: Deed) -> Endpoint {
    Endpoint { path, deed }
}

/// All endpoints of Plaid's side.
pub(super) static ENDPOINTS: [Endpoint; 18] = [
    at("plaid/link/token/create", Deed::LinkTokenCreate),
    at("plaid/link/token/get", Deed::LinkTokenGet),
    at("plaid/item/public_token/exchange", Deed::Exchange),
    at("plaid/item/remove", Deed::Remove),
    at("plaid/item/get", Deed::Item),
    at("plaid/item/access_token/invalidate", Deed::Invalidate),
    at("plaid/item/webhook/update", Deed::WebhookUpdate),
    at("plaid/accounts/get", Deed::Accounts),
    at("plaid/accounts/balance/get", Deed::Accounts),
    at("plaid/auth/get", Deed::Auth),
    at("plaid/identity/get", Deed::Identity),
    at("plaid/transactions/get", Deed::Transactions),
    at("plaid/transactions/sync", Deed::TransactionsSync),
    at("plaid/institutions/get_by_id", Deed::Institution),
    at("plaid/webhook_verification_key/get", Deed::VerificationKey),
    at("plaid/sandbox/public_token/create", Deed::SandboxPublicToken),
    at("plaid/sandbox/item/reset_login", Deed::SandboxResetLogin),
    at("plaid/sandbox/item/fire_webhook", Deed::SandboxFireWebhook),
];

impl Endpoint {
    /// Returns the endpoint of a request's path. Plaid's paths are case-sensitive.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        let path = path.trim_start_matches('/');
        ENDPOINTS.iter().find(|endpoint| endpoint.path == path)
    }
}

/// Returns the paths of all endpoints, without a leading slash.
pub(in crate::sandbox) fn paths() -> impl Iterator<Item = &'static str> {
    ENDPOINTS.iter().map(|endpoint| endpoint.path)
}

/// Returns the journal's spelling of a path, with or without the prefix `plaid/`.
pub(in crate::sandbox) fn spelling(path: &str) -> Option<&'static str> {
    let path = path.trim_matches('/');
    let own = |endpoint: &&Endpoint| {
        endpoint.path == path || endpoint.path.strip_prefix("plaid/") == Some(path)
    };
    ENDPOINTS.iter().find(own).map(|endpoint| endpoint.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_spelled_with_its_prefix() {
        for path in ["/plaid/item/remove", "plaid/item/remove/", "item/remove"] {
            assert_eq!(spelling(path), Some("plaid/item/remove"), "{path}");
        }
        for path in ["", "plaid", "plaid/", "plaid/plaid/item/remove", "auth/ExchangeToken"] {
            assert_eq!(spelling(path), None, "{path}");
        }
    }
}
