//! The paths of Dapi's API that may be called on a connection's behalf: an allow-list. Exchanges and delinkings are not
//! on it, because Strongroom makes those calls itself.

/// One path of Dapi's API.
#[derive(Debug)]
pub(super) struct DapiPath {
    /// In Dapi's spelling, relative to the base URL, without a leading slash.
    pub(super) path: &'static str,
    /// Gets twice the time limit.
    pub(super) slow: bool,
    /// The body needs the app's key.
    pub(super) with_app_key: bool,
}

const fn at(path: &'static str) -> DapiPath {
    DapiPath { path, slow: false, with_app_key: false }
}

const fn slow(path: &'static str) -> DapiPath {
    DapiPath { slow: true, ..at(path) }
}

static ALLOWED: [DapiPath; 25] = [
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
    DapiPath { with_app_key: true, ..at("operation/get") },
    at(OPERATION_STATUS),
];

/// The one call that Dapi's SDK makes without a token.
pub(super) const OPERATION_STATUS: &str = "operation/status";

/// Finds a path, ignoring case. The call then uses the spelling of the list, never the caller's.
pub(super) fn find(path: &str) -> Option<&'static DapiPath> {
    ALLOWED.iter().find(|allowed| allowed.path.eq_ignore_ascii_case(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_ignoring_case_and_called_by_dapis_spelling() {
        let found = find("DATA/enrichedtransactions/Get").map(|found| found.path);
        assert_eq!(found, Some("data/enrichedTransactions/get"));
    }

    #[test]
    fn paths_that_strongroom_calls_itself_or_dapi_does_not_have_are_not_on_the_list() {
        for path in [
            "",
            "auth/ExchangeToken",
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
            assert!(find(path).is_none(), "{path}");
        }
    }
}
