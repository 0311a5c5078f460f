//! The settings of the operators' console.

use std::net::SocketAddr;

use super::Reader;
use super::http::{PublicUrl, address};
use super::oidc::OidcConfig;

/// Where the console is. It is off without this.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The origin by which browsers reach it; `None`: `http://localhost` with the listener's port.
    pub url: Option<PublicUrl>,
    /// The OpenID provider with which operators sign in, if there is one.
    pub provider: Option<OidcConfig>,
}

impl ConsoleConfig {
    /// Connections to PostgreSQL that a replica keeps for the console.
    pub const DATABASE_CONNECTIONS: u32 = 2;

    /// Returns the origin by which browsers reach the console.
    #[must_use]
    pub fn url(&self) -> PublicUrl {
        let local = || PublicUrl::of_host("localhost", self.listen.port());
        self.url.clone().unwrap_or_else(local)
    }

    /// Reads the settings about the console.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const LISTEN: &str = "STRONGROOM_CONSOLE_LISTEN";
        const URL: &str = "STRONGROOM_CONSOLE_URL";
        let listen = reader.optional(LISTEN, address);
        let url = reader.optional(URL, |text| {
            let url = PublicUrl::parse(text)?;
            // Browsers keep the session's cookie, and use passkeys, only there.
            url.is_protected().then_some(url).ok_or("must be https, or http on this machine")
        });
        if let Some(listen) = listen
            && url.is_none()
            && !reader.is_set(URL)
            && !listen.ip().is_loopback()
        {
            reader.mistake(
                URL,
                format_args!("is missing while {LISTEN} is reachable from other machines"),
            );
        }
        if listen.is_none() && url.is_some() {
            reader.mistake(LISTEN, format_args!("is missing while {URL} is set"));
        }
        let provider = OidcConfig::read(reader);
        if listen.is_none() && provider.is_some() {
            reader.mistake(LISTEN, "is missing while STRONGROOM_OIDC_ISSUER is set");
        }
        Some(Self { listen: listen?, url, provider })
    }
}
