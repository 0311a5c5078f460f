//! The endpoints of Dapi's API, by their paths.
//!
//! May import: data, payees, payment, settings.

use super::data::Detail;
use super::payees::Rail;
use super::payment::Receiver;
use super::settings::Mfa;

/// The effect of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Exchange,
    Delink,
    Identity,
    Accounts,
    Cards,
    Balance,
    Transactions(Detail),
    Metadata,
    Beneficiaries(Rail),
    AddBeneficiary(Rail),
    Transfer(Rail, Receiver),
    Pull,
    PullStatus,
    BatchTransfers,
    BatchItems,
    BatchFile,
    BatchCreate,
    BatchMetadata,
    OperationInfo,
    OperationStatus,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    /// The path below `/v2` in Dapi's spelling, without a leading slash.
    pub(super) path: &'static str,
    pub(super) deed: Deed,
}

const fn at(path: &'static str, deed: Deed) -> Endpoint {
    Endpoint { path, deed }
}

/// All endpoints of the sandbox.
pub(super) static ENDPOINTS: [Endpoint; 28] = [
    at("auth/ExchangeToken", Deed::Exchange),
    at("users/DelinkUser", Deed::Delink),
    at("data/DelinkUser", Deed::Delink),
    at("data/identity/get", Deed::Identity),
    at("data/accounts/get", Deed::Accounts),
    at("data/cards/get", Deed::Cards),
    at("data/balance/get", Deed::Balance),
    at("data/transactions/get", Deed::Transactions(Detail::Plain)),
    at("data/categorizedTransactions/get", Deed::Transactions(Detail::Categorized)),
    at("data/enrichedTransactions/get", Deed::Transactions(Detail::Enriched)),
    at("metadata/accounts/get", Deed::Metadata),
    at("payment/beneficiaries/get", Deed::Beneficiaries(Rail::Payment)),
    at("payment/beneficiaries/create", Deed::AddBeneficiary(Rail::Payment)),
    at("payment/transfer/create", Deed::Transfer(Rail::Payment, Receiver::Named)),
    at("payment/transfer/autoflow", Deed::Transfer(Rail::Payment, Receiver::Described)),
    at(PULL_PATH, Deed::Pull),
    at("ach/pull/get", Deed::PullStatus),
    at("wire/beneficiaries/get", Deed::Beneficiaries(Rail::Wire)),
    at("wire/beneficiaries/create", Deed::AddBeneficiary(Rail::Wire)),
    at("wire/transfer/create", Deed::Transfer(Rail::Wire, Receiver::Named)),
    at("wire/transfer/autoflow", Deed::Transfer(Rail::Wire, Receiver::Described)),
    at("batch/transfers/get", Deed::BatchTransfers),
    at("batch/items/get", Deed::BatchItems),
    at("batch/file/create", Deed::BatchFile),
    at("batch/transfers/create", Deed::BatchCreate),
    at("batch/metadata/get", Deed::BatchMetadata),
    at("operation/get", Deed::OperationInfo),
    at("operation/status", Deed::OperationStatus),
];

/// The path that starts a pull; `ach/pull/get` identifies its operations by it.
pub(super) const PULL_PATH: &str = "ach/pull/create";

impl Endpoint {
    /// Returns the endpoint of a path, with or without a leading `/v2`, case-insensitively.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        let path = path.trim_matches('/');
        let path = match path.split_once('/') {
            Some((version, rest)) if version.eq_ignore_ascii_case("v2") => rest,
            _ => path,
        };
        ENDPOINTS.iter().find(|endpoint| endpoint.path.eq_ignore_ascii_case(path))
    }

    /// Returns whether a call asks the user for a one-time password.
    pub(super) fn asks(&self, mfa: Mfa) -> bool {
        match self.deed {
            Deed::Exchange
            | Deed::Delink
            | Deed::Metadata
            | Deed::BatchMetadata
            | Deed::PullStatus
            | Deed::OperationInfo
            | Deed::OperationStatus => false,
            Deed::Transfer(..) | Deed::Pull | Deed::BatchCreate => mfa != Mfa::Never,
            _ => mfa == Mfa::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_without_regard_to_case_and_version() {
        for path in [
            "/v2/auth/ExchangeToken",
            "/V2/AUTH/EXCHANGETOKEN/",
            "auth/exchangetoken",
            "/auth/ExchangeToken",
        ] {
            let found = Endpoint::at(path).map(|endpoint| endpoint.deed);
            assert_eq!(found, Some(Deed::Exchange), "{path}");
        }
    }

    #[test]
    fn other_paths_are_nobodys() {
        for path in ["", "/", "/v2", "/v3/auth/ExchangeToken", "auth", "v2/v2/data/cards/get"] {
            assert!(Endpoint::at(path).is_none(), "{path}");
        }
    }

    #[test]
    fn calls_that_read_no_money_never_ask() {
        for path in ["auth/ExchangeToken", "metadata/accounts/get", "operation/get"] {
            assert!(!Endpoint::at(path).unwrap().asks(Mfa::Everything), "{path}");
        }
    }
}
