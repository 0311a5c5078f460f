//! The bank links between which the page's user chooses.
//!
//! Imports no other module of the demo.

use serde::Deserialize;

/// A bank link. Requests name it in their query, `?link=plaid`; Dapi's is meant if they do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Link {
    #[default]
    Dapi,
    Plaid,
}

impl Link {
    /// Returns the relay's path for a connection's accounts, below the connection.
    pub(super) fn accounts(self) -> &'static str {
        match self {
            Self::Dapi => "dapi/data/accounts/get",
            Self::Plaid => "plaid/accounts/get",
        }
    }
}
