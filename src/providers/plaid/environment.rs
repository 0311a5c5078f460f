//! Whether Plaid's word that a token is gone can be believed.

use url::Url;

use super::{INVALID_ACCESS_TOKEN, ITEM_NOT_FOUND};
use crate::config::ProviderConfig;
use crate::providers::AccessToken;

/// Plaid's environments, as hosts and tokens name them.
const ENVIRONMENTS: [&str; 3] = ["sandbox", "development", "production"];

/// Returns whether an answer of this `error_code` makes it certain that the token is gone.
///
/// `ITEM_NOT_FOUND` does. Plaid answers `INVALID_ACCESS_TOKEN` to malformed tokens and to those of another environment
/// or another client too, so that counts only if the token fits the host and has worked with these credentials before
/// (`proven`).
pub fn is_certain(
    settings: &ProviderConfig,
    kind: &str,
    token: &AccessToken,
    proven: bool,
) -> bool {
    match kind {
        ITEM_NOT_FOUND => true,
        INVALID_ACCESS_TOKEN => proven && fits(&settings.base_url, token),
        _ => false,
    }
}

/// Returns whether a token's `access-<environment>-` is the host's environment. A host of another name, such as a
/// proxy's, may be any.
fn fits(base_url: &Url, token: &AccessToken) -> bool {
    let text = token.expose();
    let environment = ENVIRONMENTS.into_iter().find(|name| {
        let rest = text.strip_prefix("access-").and_then(|rest| rest.strip_prefix(name));
        rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| !rest.is_empty())
    });
    let label = base_url.host_str().and_then(|host| host.split('.').next()).unwrap_or_default();
    let of_host = ENVIRONMENTS.into_iter().find(|name| *name == label);
    environment.is_some() && (of_host.is_none() || of_host == environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits_host(token: &str, base_url: &str) -> bool {
        fits(&Url::parse(base_url).unwrap(), &AccessToken::new(token.to_owned()))
    }

    #[test]
    fn a_token_fits_the_host_of_its_environment() {
        assert!(fits_host("access-sandbox-1", "https://sandbox.plaid.com"));
        assert!(fits_host("access-production-1", "https://production.plaid.com"));
        assert!(!fits_host("access-sandbox-1", "https://production.plaid.com"));
        assert!(!fits_host("access-production-1", "https://sandbox.plaid.com"));
    }

    #[test]
    fn a_host_of_another_name_may_be_of_any_environment() {
        assert!(fits_host("access-sandbox-1", "http://127.0.0.1:9/plaid"));
        assert!(fits_host("access-production-1", "https://plaid.internal.example"));
    }

    #[test]
    fn a_malformed_token_fits_no_host() {
        for token in
            ["", "access-", "access-sandbox", "access-sandbox-", "access-other-1", "sandbox-1"]
        {
            assert!(!fits_host(token, "http://127.0.0.1:9"), "{token}");
        }
    }
}
