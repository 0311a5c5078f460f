//! The HTTP client of a Transit engine.

use std::time::Duration;

use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::session::{Login, Session};
use crate::common::secret::SecretText;
use crate::common::{spans, tls};
use crate::vault::engine::{Down, innermost, is_protected, tame};

/// The time limit of a connection, DNS, TCP and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest answer, in bytes: a hundred ciphertexts are some 20 KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// What is wrong with `STRONGROOM_TRANSIT_ADDR` or `STRONGROOM_TRANSIT_CA`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTransitAddress {
    /// Not a URL of this kind.
    #[error("must be https://host:port, or http:// on loopback, without a path, user or query")]
    Url,
    /// No certificate in PEM.
    #[error("holds no certificates in PEM")]
    Certificates,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl InvalidTransitAddress {
    /// Returns whether it is about the certificates rather than the address.
    #[must_use]
    pub const fn is_about_certificates(&self) -> bool {
        matches!(self, Self::Certificates)
    }
}

/// A client of one Vault or OpenBao, which all its keys share.
#[derive(Debug)]
pub struct TransitClient {
    http: Client,
    base: Url,
    session: Session,
}

impl TransitClient {
    /// Returns a client. With `ca`, certificates in PEM, the server has to show a certificate of theirs; without,
    /// one of the system's roots.
    pub fn new(
        address: &str,
        login: Login,
        ca: Option<&[u8]>,
    ) -> Result<Self, InvalidTransitAddress> {
        let base = parse_address(address).ok_or(InvalidTransitAddress::Url)?;
        #[expect(clippy::disallowed_methods, reason = "this is the module of calls to Transit")]
        let mut http = Client::builder()
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(20))
            // Data keys go past no proxy of the environment.
            .no_proxy()
            .http1_only();
        if let Some(pem) = ca {
            let roots = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if roots.is_empty() {
                return Err(InvalidTransitAddress::Certificates);
            }
            http = http.tls_certs_only(roots);
        } else {
            http = tls::shared(http);
        }
        let refused = |error: reqwest::Error| InvalidTransitAddress::Tls(describe(&error));
        Ok(Self { http: http.build().map_err(refused)?, base, session: Session::new(login) })
    }

    /// Posts a body of JSON under a valid token. A token that is refused is replaced once.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &str,
    ) -> Result<T, Down> {
        let mut refused = None;
        loop {
            let token = self.session.token(self, refused.as_ref()).await?;
            let (status, answer) = self.send(path, body, Some(&token)).await?;
            if status == StatusCode::FORBIDDEN && refused.is_none() {
                refused = Some(token);
                continue;
            }
            return match serde_json::from_slice(&answer) {
                Ok(parsed) if !status.is_server_error() => Ok(parsed),
                _ => Err(failure(status, &answer)),
            };
        }
    }

    /// Logs in, without a token.
    pub(super) async fn log_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &str,
    ) -> Result<T, Down> {
        let (status, answer) = self.send(path, body, None).await?;
        let parsed = serde_json::from_slice(&answer).ok().filter(|_| status.is_success());
        parsed.ok_or_else(|| {
            let Down(what) = failure(status, &answer);
            Down(format!("the login failed: {what}"))
        })
    }

    async fn send(
        &self,
        path: &str,
        body: &str,
        token: Option<&SecretText>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), Down> {
        let down = |error: reqwest::Error| Down(describe(&error));
        let sent = |request: RequestBuilder| {
            spans::call("transit call", &Method::POST, &self.base, request.send())
        };
        let mut response = match sent(self.request(path, body, token)?).await {
            Err(error) if may_be_stale(&error) => sent(self.request(path, body, token)?).await,
            sent => sent,
        }
        .map_err(down)?;
        let mut answer = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(down)? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                return Err(Down("an answer that is too large".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((response.status(), answer))
    }

    fn request(
        &self,
        path: &str,
        body: &str,
        token: Option<&SecretText>,
    ) -> Result<RequestBuilder, Down> {
        let url = self.base.join(&format!("v1/{path}"));
        let url = url.map_err(|_| Down("an impossible path".to_owned()))?;
        let mut request = self
            .http
            .post(url)
            .header("X-Vault-Request", "true")
            .header("Content-Type", "application/json")
            .body(body.to_owned());
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(token.expose())
                .map_err(|_| Down("the token is no header value".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        Ok(request)
    }
}

/// Returns whether a call failed as it does if the other side closes an idle connection at that moment. It is made once more:
/// encrypting, decrypting and logging in may be repeated.
fn may_be_stale(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// Parses `https://host:port`, or `http` on loopback.
fn parse_address(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let plain = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    (is_protected(&url) && plain).then_some(url)
}

/// Returns the innermost cause, which names no URL.
fn describe(error: &reqwest::Error) -> String {
    let cause = innermost(error);
    if std::ptr::addr_eq(cause, error) {
        "no usable answer".to_owned()
    } else {
        tame(&cause.to_string())
    }
}

/// Describes an answer that is none of a batch: the engine's own words for it.
fn failure(status: StatusCode, answer: &[u8]) -> Down {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let errors = serde_json::from_slice::<Errors>(answer).map(|answer| answer.errors);
    let said = errors.unwrap_or_default().join("; ");
    let status = status.as_u16();
    Down(if said.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}: {}", tame(&said))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_protected_or_on_loopback() {
        for address in [
            "https://vault:8200",
            "https://vault/",
            "http://127.0.0.1:8200",
            "http://[::1]:8200",
            "http://localhost:8200",
        ] {
            assert!(parse_address(address).is_some(), "{address}");
        }
        for address in [
            "http://vault:8200",
            "http://10.0.0.1",
            "https://vault/v1",
            "https://user@vault",
            "https://vault?x",
            "ftp://localhost",
            "vault:8200",
            "",
        ] {
            assert!(parse_address(address).is_none(), "{address}");
        }
    }
}
