//! The paths of each provider's API that may be called on a connection's behalf: an allow-list. Exchanges and revocations
//! are not on it, because Strongroom makes those calls itself, and neither is what makes another token for an item.

use crate::providers::Provider;

/// One path of a provider's API.
#[derive(Debug)]
pub(super) struct RelayPath {
    /// Whose path it is.
    pub(super) provider: Provider,
    /// In the provider's spelling, relative to the base URL, without a leading slash.
    pub(super) path: &'static str,
    /// Gets twice the time limit.
    pub(super) slow: bool,
    /// The body needs the app's key.
    pub(super) with_app_key: bool,
    /// May be called although the connection needs attention: the call is how the user repairs the login.
    pub(super) repairs: bool,
}

const fn at(path: &'static str) -> RelayPath {
    RelayPath { provider: Provider::Dapi, path, slow: false, with_app_key: false, repairs: false }
}

const fn slow(path: &'static str) -> RelayPath {
    RelayPath { slow: true, ..at(path) }
}

const fn plaid(path: &'static str) -> RelayPath {
    RelayPath { provider: Provider::Plaid, ..at(path) }
}

static DAPI: [RelayPath; 25] = [
    at("data/identity/get"),
    at("data/accounts/get"),
    at("data/cards/get"),
    at("data/balance/get"),
    at("data/transactions/get"),
    at("data/categorizedTransactions/get"),
    at("data/enrichedTransactions/get"),
    at("metadata/accounts/get"),
    at("payment/beneficiaries/get"),
    at("payment/beneficiaries/create"),
    at("payment/transfer/create"),
    slow("payment/transfer/autoflow"),
    at("ach/pull/create"),
    at("ach/pull/get"),
    at("wire/beneficiaries/get"),
    at("wire/beneficiaries/create"),
    at("wire/transfer/create"),
    slow("wire/transfer/autoflow"),
    at("batch/transfers/get"),
    at("batch/items/get"),
    at("batch/file/create"),
    at("batch/transfers/create"),
    at("batch/metadata/get"),
    RelayPath { with_app_key: true, ..at("operation/get") },
    at(OPERATION_STATUS),
];

static PLAID: [RelayPath; 16] = [
    plaid("accounts/get"),
    plaid("accounts/balance/get"),
    plaid("auth/get"),
    plaid("identity/get"),
    plaid("identity/match"),
    plaid("investments/auth/get"),
    plaid("investments/holdings/get"),
    plaid("investments/refresh"),
    plaid("investments/transactions/get"),
    plaid("item/get"),
    plaid("liabilities/get"),
    // With the item's token Plaid opens Link in update mode.
    RelayPath { repairs: true, ..plaid(LINK_TOKEN_CREATE) },
    plaid("transactions/get"),
    plaid("transactions/recurring/get"),
    plaid("transactions/refresh"),
    plaid("transactions/sync"),
];

/// Plaid's call that says what a link led to. Strongroom alone makes it: its answer holds codes.
pub(super) static LINK_TOKEN_GET: RelayPath = plaid("link/token/get");

/// Plaid's call that begins a link; made without a token too.
pub(super) const LINK_TOKEN_CREATE: &str = "link/token/create";

/// The one call that Dapi's SDK makes without a token.
pub(super) const OPERATION_STATUS: &str = "operation/status";

/// Finds a path, ignoring case. The call then uses the spelling of the list, never the caller's.
pub(super) fn find(provider: Provider, path: &str) -> Option<&'static RelayPath> {
    let allowed: &[RelayPath] = match provider {
        Provider::Dapi => &DAPI,
        Provider::Plaid => &PLAID,
    };
    allowed.iter().find(|allowed| allowed.path.eq_ignore_ascii_case(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_ignoring_case_and_called_by_dapis_spelling() {
        let found = find(Provider::Dapi, "DATA/enrichedtransactions/Get").map(|found| found.path);
        assert_eq!(found, Some("data/enrichedTransactions/get"));
    }

    #[test]
    fn paths_that_strongroom_calls_itself_or_the_provider_does_not_have_are_not_on_the_list() {
        for path in [
            "",
            "auth/ExchangeToken",
            "item/public_token/exchange",
            "item/remove",
            "item/access_token/invalidate",
            "processor/token/create",
            "users/DelinkUser",
            "data/DelinkUser",
            "data/accounts",
            "data/accounts/get/",
            "/data/accounts/get",
            "data//accounts/get",
            "data/accounts/../../auth/ExchangeToken",
            "data/accounts/get?x",
            "data%2Faccounts%2Fget",
        ] {
            assert!(find(Provider::Dapi, path).is_none(), "{path}");
            assert!(find(Provider::Plaid, path).is_none(), "{path}");
        }
    }
}
