//! Other systems besides Dapi that a backend calls: OAuth 2.0 client-credentials servers (RFC 6749 §4.4), each with
//! a small protected API.
//!
//! - `danaconnect`, modelled on DANAConnect: HTTP Basic, `scope` required, tokens that look like JWTs and live for
//!   an hour;
//! - `kaisa`, modelled on Kaisa: id and secret in the form or in JSON, opaque tokens of 300 seconds;
//! - `plain`: HTTP Basic alone, opaque tokens, whose API requires a scope that the token need not have.
//!
//! May import: bounded, mint.

use std::sync::Mutex;

use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::bounded::{Bounded, locked};
use super::mint::{self, Digest, Mint};

/// The `client_id` at all three systems.
pub const SYSTEMS_CLIENT_ID: &str = "sandbox-client";
/// The client secret at all three systems. It guards nothing.
pub const SYSTEMS_CLIENT_SECRET: &str = "sandbox-client-secret";

/// How many tokens are remembered, over all systems.
const MOST_TOKENS: usize = 10_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct System {
    pub(super) name: &'static str,
    /// The token endpoint.
    pub(super) token_path: &'static str,
    /// The path prefix of the protected API.
    pub(super) api_path: &'static str,
    /// Whether credentials are sent by HTTP Basic; in the body otherwise.
    pub(super) basic: bool,
    /// The scope without which the API answers 403.
    pub(super) scope: &'static str,
    /// Whether a token request must name the scope.
    pub(super) scope_required: bool,
    /// The lifetime of tokens in seconds.
    pub(super) lifetime: u32,
    /// Whether tokens look like JWTs.
    jwt: bool,
}

pub(super) static SYSTEMS: [System; 3] = [
    System {
        name: "danaconnect",
        token_path: "danaconnect/oauth2/token",
        api_path: "danaconnect/api",
        basic: true,
        scope: "conversation:access2api",
        scope_required: true,
        lifetime: 3600,
        jwt: true,
    },
    System {
        name: "kaisa",
        token_path: "kaisa/oauth/token",
        api_path: "kaisa/api",
        basic: false,
        scope: "kaisa:api",
        scope_required: false,
        lifetime: 300,
        jwt: false,
    },
    System {
        name: "plain",
        token_path: "oauth/v2/token",
        api_path: "oauth/v2/api",
        basic: true,
        scope: "api:read",
        scope_required: false,
        lifetime: 1800,
        jwt: false,
    },
];

impl System {
    /// Returns the path by which calls are counted and matched with faults: a system's token endpoint, or the prefix of
    /// its API.
    pub(super) fn path_of(path: &str) -> Option<&'static str> {
        let path = path.trim_matches('/');
        let inside = |folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        SYSTEMS.iter().find_map(|system| {
            let api = inside(system.api_path).then_some(system.api_path);
            (path == system.token_path).then_some(system.token_path).or(api)
        })
    }

    /// Returns the scope that a request for `asked` grants; `Err` if no client may have it.
    pub(super) fn granted(&self, asked: Option<&str>) -> Result<String, ()> {
        match asked.filter(|scope| !scope.is_empty()) {
            None if self.scope_required => Err(()),
            // A system that does not require a scope grants its own by default.
            None => Ok(self.scope.to_owned()),
            Some(asked) if asked.split(' ').all(|word| word == self.scope || word == "other") => {
                Ok(asked.to_owned())
            }
            Some(_) => Err(()),
        }
    }
}

struct Grant {
    system: &'static str,
    scope: String,
    ends: OffsetDateTime,
}

/// What a bearer token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Valid for the API.
    Good,
    /// Valid, but lacks the scope.
    NoScope,
    /// Unknown, another system's, expired or revoked.
    Nothing,
}

pub(super) struct Grants(Mutex<Bounded<Digest, Grant>>);

impl Grants {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Bounded::new(MOST_TOKENS)))
    }

    pub(super) fn issue(
        &self,
        mint: &Mint,
        system: &'static System,
        scope: String,
        now: OffsetDateTime,
    ) -> String {
        let ends = now.saturating_add(Duration::seconds(system.lifetime.into()));
        let token = if system.jwt {
            mint.jwt(&json!({
                "iss": system.name, "sub": SYSTEMS_CLIENT_ID, "scope": scope,
                "iat": now.unix_timestamp(), "exp": ends.unix_timestamp(), "jti": mint.uuid(),
            }))
        } else {
            mint.opaque_code()
        };
        let grant = Grant { system: system.name, scope, ends };
        locked(&self.0).insert(mint::digest_of(&token), grant);
        token
    }

    pub(super) fn worth(&self, system: &System, token: &str, now: OffsetDateTime) -> Worth {
        let grants = locked(&self.0);
        match grants.get(&mint::digest_of(token)) {
            Some(grant) if grant.system == system.name && now < grant.ends => {
                let reaches = grant.scope.split(' ').any(|word| word == system.scope);
                if reaches { Worth::Good } else { Worth::NoScope }
            }
            _ => Worth::Nothing,
        }
    }

    pub(super) fn revoke_all(&self) {
        locked(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_systems_api_until_it_ends() {
        let (grants, mint, now) = (Grants::new(), Mint::new(), OffsetDateTime::UNIX_EPOCH);
        let [dana, kaisa, _] = &SYSTEMS;
        let token = grants.issue(&mint, kaisa, "kaisa:api".to_owned(), now);
        assert_eq!(grants.worth(kaisa, &token, now), Worth::Good);
        assert_eq!(grants.worth(dana, &token, now), Worth::Nothing);
        assert_eq!(grants.worth(kaisa, &token, now + Duration::seconds(300)), Worth::Nothing);
        let other = grants.issue(&mint, kaisa, "other".to_owned(), now);
        assert_eq!(grants.worth(kaisa, &other, now), Worth::NoScope);
        grants.revoke_all();
        assert_eq!(grants.worth(kaisa, &token, now), Worth::Nothing);
    }

    #[test]
    fn a_path_counts_for_its_endpoint() {
        assert_eq!(System::path_of("/kaisa/oauth/token"), Some("kaisa/oauth/token"));
        assert_eq!(System::path_of("/danaconnect/api/2.0/x"), Some("danaconnect/api"));
        for path in ["/", "/kaisa", "/kaisa/apis", "/v2/auth/ExchangeToken"] {
            assert_eq!(System::path_of(path), None, "{path}");
        }
    }
}
